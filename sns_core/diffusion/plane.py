"""The plane of noise levels (s2, s1): paths through the plane, and the one loop that walks along a path.

A pair of frames (x_{t-1}, x_t) stands at the point (s2, s1): s2 is the noise level of the previous frame x_{t-1}, and
s1 is the noise level of the next frame x_t. Three moves lead towards the clean pair at (0, 0):

    down        a reverse step of x_t, while x_{t-1} is held
    left        a reverse step of x_{t-1}, while x_t is held
    diagonal    a reverse step of both frames at once

With the exact denoiser, the law of the pair at (0, 0) does not depend on the path (paper, theorem 3.1). With a trained
denoiser, the error depends on the path.

Every member of a batch has its own levels. A member that has reached the end of its path keeps its exact bits and
takes part in no further call of the denoiser.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from sns_core.diffusion.increments import move_times
from sns_core.diffusion.schedule import Levels, NoiseSchedule, per_member
from sns_core.streams import Generators, normal, spawn

Pair = tuple[torch.Tensor, torch.Tensor]  # the previous and the next frame, or a value for each of them


class Denoiser(Protocol):
    """A function that predicts the noise of both frames of a pair: the paper's denoising oracle D, in units of noise.

    Arguments: `x_prev`, `x_next` (B, C, H, W), the noised frames; `s_prev`, `s_next` (B,) int64, the levels of the
    frames; `anchor` (B, C, H, W), a clean frame, or None. Returns the predicted noise of both frames, (B, C, H, W)
    each. The exact oracle needs the levels. A network with level heads ignores the levels and estimates them itself.
    """

    def __call__(
        self, x_prev: torch.Tensor, x_next: torch.Tensor, s_prev: Levels, s_next: Levels, anchor: torch.Tensor | None
    ) -> Pair: ...


def _as_levels(*levels: int | Sequence[int] | torch.Tensor) -> list[torch.Tensor]:
    """Broadcast levels to tensors (B,) int64 on the CPU. Raise ValueError for a negative level."""
    tensors = torch.broadcast_tensors(*[torch.as_tensor(s, dtype=torch.int64).cpu().reshape(-1) for s in levels])
    if any((s < 0).any() for s in tensors):
        raise ValueError("noise levels must not be negative")
    return list(tensors)


def _count_moves(distance: torch.Tensor, stride: int) -> torch.Tensor:
    """Return the number of moves that cover `distance` levels. Raise ValueError for a stride below 1."""
    if stride < 1:
        raise ValueError(f"stride {stride} must be at least 1")
    return (distance + stride - 1) // stride


@dataclass(frozen=True)
class Path:
    """A path through the plane for each member of a batch.

    `levels` (moves + 1, B, 2) int64 on the CPU holds the points (s_prev, s_next) in the order of the visits.
    `renoise` true means that the previous frame is passed clean, and is noised afresh to s_prev before every move.

    Each constructor takes the start of the path, `s_prev` and `s_next` (integers or tensors (B,)), and `stride`, the
    number of levels that one move covers. The constructors raise ValueError for negative levels and a stride below 1.
    """

    levels: torch.Tensor
    renoise: bool = False

    @classmethod
    def left_then_down(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """Path A: denoise the previous frame first, then the next frame."""
        s_prev, s_next = _as_levels(s_prev, s_next)
        left = _count_moves(s_prev, stride)
        return cls._one_after_another(left + _count_moves(s_next, stride), s_prev, s_next, 0, left, stride)

    @classmethod
    def down_then_left(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """Path B: denoise the next frame first, then the previous frame."""
        s_prev, s_next = _as_levels(s_prev, s_next)
        down = _count_moves(s_next, stride)
        return cls._one_after_another(down + _count_moves(s_prev, stride), s_prev, s_next, down, 0, stride)

    @classmethod
    def diagonal(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """Path C: denoise the noisier frame down to the level of the cleaner frame, then both frames together."""
        s_prev, s_next = _as_levels(s_prev, s_next)
        common = torch.minimum(s_prev, s_next)
        to_diagonal = _count_moves(torch.maximum(s_prev, s_next) - common, stride)
        count = int((to_diagonal + _count_moves(common, stride)).max())
        index = torch.arange(count + 1)[:, None]
        on_diagonal = (common - stride * (index - to_diagonal)).clamp(min=0)
        before_diagonal = index < to_diagonal

        def levels_from(start):
            approach = torch.maximum(start - stride * index, common)
            return torch.where(before_diagonal, approach, torch.minimum(common, on_diagonal))

        return cls(torch.stack([levels_from(s_prev), levels_from(s_next)], -1))

    @classmethod
    def fixed_condition(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """Denoise the next frame alone, and hold the previous frame at its level."""
        s_prev, s_next = _as_levels(s_prev, s_next)
        index = torch.arange(int(_count_moves(s_next, stride).max()) + 1)[:, None]
        down = (s_next - stride * index).clamp(min=0)
        return cls(torch.stack([s_prev.expand_as(down), down], -1))

    @classmethod
    def bent(cls, s_prev: int, s_next: int, moves: int, bend: float = 1.0) -> "Path":
        """Denoise the next frame alone in a number of moves; with `bend` above 1 the last ones are the shorter ones.

        A move covers at least one level. The path is of one member, as `walk` takes it for all of a batch. Raise ValueError
        for more moves than levels.
        """
        if moves > s_next:
            raise ValueError(f"{moves} moves are more than the {s_next} levels")
        down = [s_next]
        for left, time in zip(reversed(range(moves)), move_times(moves, bend)[1:], strict=True):
            down.append(min(down[-1] - 1, max(left, round(s_next * (1 - time)))))
        return cls(torch.tensor([[[s_prev, level]] for level in down]))

    @classmethod
    def clean(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """Denoise the next frame alone, under a clean previous frame. Raise ValueError unless s_prev is 0."""
        if _as_levels(s_prev)[0].any():
            raise ValueError("clean conditioning starts from s_prev = 0")
        return cls.fixed_condition(s_prev, s_next, stride)

    @classmethod
    def unconditional(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """Thermalizer: denoise the next frame alone, beside a previous frame of pure noise at the noisiest level."""
        return cls.fixed_condition(s_prev, s_next, stride)

    @classmethod
    def acdm(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """ACDM: move down the diagonal; before each move, noise the clean previous frame to the level of the next one.

        Raise ValueError unless s_prev equals s_next.
        """
        s_prev, s_next = _as_levels(s_prev, s_next)
        if not torch.equal(s_prev, s_next):
            raise ValueError("ACDM noises both frames to the same level: s_prev must equal s_next")
        return cls(cls.diagonal(s_prev, s_next, stride).levels, renoise=True)

    @classmethod
    def _one_after_another(cls, moves, s_prev, s_next, wait_prev, wait_next, stride) -> "Path":
        """Return the path on which each frame waits for a number of moves and then goes to level 0."""
        index = torch.arange(int(moves.max()) + 1)[:, None]

        def levels_from(start, wait):
            return (start - stride * (index - wait).clamp(min=0)).clamp(min=0)

        return cls(torch.stack([levels_from(s_prev, wait_prev), levels_from(s_next, wait_next)], -1))

    @property
    def start(self) -> torch.Tensor:
        """The levels (B, 2) at which the pair must stand when the walk begins."""
        return self.levels[0]

    @property
    def calls(self) -> torch.Tensor:
        """The number of moves (B,) of each member: its network calls with a sampler of order 1."""
        return (self.levels.diff(dim=0) != 0).any(-1).sum(0)


PATHS = ("left_then_down", "down_then_left", "diagonal", "fixed_condition", "clean", "acdm", "unconditional")


@dataclass(frozen=True)
class Sampler:
    """The rule of a reverse step from one level to a lower one.

    `eta`: 1 for an ancestral step, 0 for a deterministic step (DDIM). `variance`: as in
    `NoiseSchedule.reverse_coefficients`. `clip`: bound of the clean estimate, in standard deviations; None for no
    bound. `order`: 1, or 2 for Heun's rule (Karras et al. 2022), which repeats each step with the mean of the noise
    predicted at both ends of the step, except steps that end at level 0. Raises ValueError for another order, and for
    order 2 with a nonzero `eta`.
    """

    eta: float = 1.0
    variance: str = "posterior"
    clip: float | None = None
    order: int = 1

    def __post_init__(self):
        if self.order not in (1, 2):
            raise ValueError(f"order {self.order} of the sampler is neither 1 nor 2")
        if self.order == 2 and self.eta:
            raise ValueError("a sampler of order 2 is deterministic: it needs eta 0")

    def calls(self, path: "Path") -> torch.Tensor:
        """Return the number of network calls (B,) that each member needs along a path."""
        starts, stops = path.levels[:-1], path.levels[1:]
        twice = (starts != stops).any(-1) & predictable(starts, stops)
        return path.calls + twice.sum(0) * (self.order == 2)

    def coefficients(self, schedule: NoiseSchedule, start: Levels, stop: Levels) -> torch.Tensor:
        """Return the coefficients of reverse steps from the levels `start` (...) down to the levels `stop` (...).

        The result (..., 5) is float64 on the CPU. Its columns are the signal and the sigma of `start`, and the factors
        of x, of the predicted noise and of the fresh noise.
        """
        factors = schedule.reverse_coefficients(start, stop, self.eta, self.variance)
        return torch.stack([schedule.signal(start), schedule.sigma(start), *factors], -1)

    def apply(self, coefficients: torch.Tensor, x: torch.Tensor, noise: torch.Tensor, streams: list) -> torch.Tensor:
        """Return the frames x (B, C, H, W) after one reverse step with the predicted `noise` (B, C, H, W).

        `coefficients` (B, 5) as the method `coefficients` returns them, with the device and type of x. `streams`: one
        random stream per member, None for a member without fresh noise; an empty list where no member has fresh noise.
        """
        signal, sigma, of_x, of_noise, fresh = (per_member(column, x) for column in coefficients.unbind(-1))
        if self.clip is not None:
            clean = ((x - sigma * noise) / signal).clamp(-self.clip, self.clip)
            noise = torch.where(sigma > 0, (x - signal * clean) / sigma.clamp(min=1e-12), noise)
        moved = of_x * x + of_noise * noise
        return moved + fresh * normal(streams, x.shape[1:], x) if streams else moved

    def step(self, schedule: NoiseSchedule, x, noise, start: Levels, stop: Levels, streams) -> torch.Tensor:
        """Return the frames x (B, C, H, W) after one step from the levels `start` to `stop` with the predicted `noise`.

        `streams`: one random stream per member.
        """
        coefficients = self.coefficients(schedule, start, stop)
        return self.apply(coefficients.to(x.device, x.dtype), x, noise, _streams_with_noise(coefficients, streams))


def predictable(start: torch.Tensor, stop: torch.Tensor) -> torch.Tensor:
    """Return whether a denoiser can predict the noise at the end of each move, (...) for levels (..., 2).

    It cannot where a move has just made a frame clean: a clean frame has no noise left to predict.
    """
    return ((stop == start) | (stop > 0)).all(-1)


def _streams_with_noise(coefficients: torch.Tensor, streams) -> list:
    """Replace the stream of each member whose step has no fresh noise by None; return [] where no step has any."""
    draws = (coefficients[:, -1] > 0).tolist()
    return [stream if draw else None for stream, draw in zip(streams, draws, strict=True)] if any(draws) else []


@dataclass(frozen=True)
class _Move:
    """One move of a walk: its number, and the members that make it.

    `rows` holds the members on the CPU. `members` selects the same members in tensors on the device. `streams` holds
    the random streams of these members.
    """

    index: int
    rows: torch.Tensor
    members: torch.Tensor | slice
    streams: list[torch.Generator]


class _MoveTable:
    """The coefficients of all moves of a walk, computed and sent to the device once, so that no move waits for a copy.

    Parameters: `levels` (moves + 1, B, 2), the points of the path; `like`, a tensor whose device and type the
    coefficients get.
    """

    def __init__(self, sampler: Sampler, schedule: NoiseSchedule, levels: torch.Tensor, like: torch.Tensor):
        self.sampler, self.start, self.stop = sampler, levels[:-1], levels[1:]
        self.coefficients = sampler.coefficients(schedule, self.start, self.stop)
        self.moving = (self.start != self.stop).any(-1)
        self.start_on_device = self.start.to(like.device)
        self.stop_on_device = self.stop.to(like.device)
        self.coefficients_on_device = self.coefficients.to(like.device, like.dtype)
        self.held_on_device = self.start_on_device == self.stop_on_device

    def moves(self, streams: Sequence[torch.Generator]) -> Iterator[_Move]:
        """Yield the moves that at least one member makes, in order."""
        members = self.moving.nonzero()[:, 1]
        counts = self.moving.sum(1).tolist()
        on_device = members.to(self.start_on_device.device).split(counts)
        for index, rows in enumerate(members.split(counts)):
            if len(rows):
                # A slice of the whole batch is a view: it saves one copy of the frames for each move.
                everyone = len(rows) == self.moving.shape[1]
                selection = slice(None) if everyone else on_device[index]
                yield _Move(index, rows, selection, [streams[row] for row in rows.tolist()])

    def levels(self, move: _Move) -> Pair:
        """Return the levels of both frames, (members,) each, at the start of a move, on the device."""
        return self.start_on_device[move.index, move.members].unbind(-1)

    def noised_condition(self, move: _Move, clean: torch.Tensor) -> torch.Tensor:
        """Return the clean previous frames of a move's members, noised to the level at the start of the move."""
        columns = self.coefficients_on_device[move.index, move.members, 0, :2].unbind(-1)
        signal, sigma = (per_member(column, clean) for column in columns)
        return signal * clean + sigma * normal(move.streams, clean.shape[1:], clean)

    def apply(self, move: _Move, pair: Pair, noise: Pair, hold_prev: bool) -> list[torch.Tensor]:
        """Return both frames of a move's members at the end of the move.

        A frame whose level does not change keeps its exact bits. So does every previous frame with `hold_prev`.
        """
        start, stop = self.start[move.index, move.rows], self.stop[move.index, move.rows]
        ends = []
        for side, (x, predicted) in enumerate(zip(pair, noise, strict=True)):
            held = (start[:, side] == stop[:, side]).tolist()
            if not (all(held) or (side == 0 and hold_prev)):
                streams = _streams_with_noise(self.coefficients[move.index, move.rows, side], move.streams)
                coefficients = self.coefficients_on_device[move.index, move.members, side]
                moved = self.sampler.apply(coefficients, x, predicted, streams)
                if any(held):
                    on_device = self.held_on_device[move.index, move.members, side]
                    moved = torch.where(on_device.view(-1, *[1] * (x.ndim - 1)), x, moved)
                x = moved
            ends.append(x)
        return ends

    def apply_again(self, move: _Move, pair: Pair, noise: Pair, ends: Pair, denoiser, anchor) -> Pair:
        """Return the ends of a move after Heun's correction of the members whose noise can be predicted at the end.

        `noise` is the noise predicted at the start, where the pair is `pair`; `ends` is the pair after the uncorrected
        move. The step is repeated from the start with the mean of the noise predicted at both ends.
        """
        start, stop = self.start[move.index, move.rows], self.stop[move.index, move.rows]
        corrected = predictable(start, stop).nonzero()[:, 0]
        if not len(corrected):
            return ends
        on_device = corrected.to(pair[0].device)
        rows = move.rows[corrected]
        streams = [move.streams[row] for row in corrected.tolist()]
        repeated = _Move(move.index, rows, rows.to(pair[0].device), streams)
        levels = self.stop_on_device[move.index, repeated.members].unbind(-1)
        context = None if anchor is None else anchor[on_device]
        noise_at_end = denoiser(*(x[on_device] for x in ends), *levels, context)
        mean_noise = [0.5 * (first[on_device] + second) for first, second in zip(noise, noise_at_end, strict=True)]
        moved = self.apply(repeated, [x[on_device] for x in pair], mean_noise, hold_prev=False)
        return [end.index_copy(0, on_device, x) for end, x in zip(ends, moved, strict=True)]


@torch.no_grad()
def walk(
    denoiser: Denoiser,
    path: Path,
    x_prev: torch.Tensor,
    x_next: torch.Tensor,
    *,
    schedule: NoiseSchedule,
    generator: Generators,
    anchor: torch.Tensor | None = None,
    sampler: Sampler | None = None,
    first_noise: Pair | None = None,
) -> Pair:
    """Walk each member of a pair along its own row of `path`, and return the pair at the end of the path.

    `x_prev`, `x_next`: the frames (B, C, H, W) at the levels where the path starts; with a path that renoises, `x_prev`
    is the clean previous frame and is returned as it is. `generator`: one random generator for all members, or a list
    with one per member. `anchor`: clean frames (B, C, H, W) that are passed to the denoiser. `sampler`: the rule of a
    step (default: ancestral). `first_noise`: the predicted noise of both frames, (B, C, H, W) each, at the start of the
    path, for a caller that has computed it already; the first move then makes no call of the denoiser.

    Raises ValueError where the path's batch or levels do not fit, for a path that renoises with a sampler of order 2,
    and for a path that renoises with `first_noise`.
    """
    batch, sampler = len(x_prev), sampler or Sampler()
    levels = path.levels.expand(-1, batch, -1) if path.levels.shape[1] == 1 else path.levels
    if levels.shape[1] != batch:
        raise ValueError(f"a path of {levels.shape[1]} members for a batch of {batch}")
    if path.renoise and sampler.order == 2:
        raise ValueError("a path that renoises the previous frame has no second order: its moves are not one flow")
    if path.renoise and first_noise is not None:
        raise ValueError("a path that renoises the previous frame takes no first_noise")
    if int(levels.max()) > schedule.levels:
        raise ValueError(f"the path starts at level {int(levels.max())}, the schedule ends at {schedule.levels}")
    streams = spawn(generator, batch)
    x_prev, x_next = x_prev.clone(), x_next.clone()
    table = _MoveTable(sampler, schedule, levels, x_prev)
    for move in table.moves(streams):
        pair = x_prev[move.members], x_next[move.members]
        if path.renoise:
            pair = table.noised_condition(move, pair[0]), pair[1]
        move_anchor = None if anchor is None else anchor[move.members]
        if move.index == 0 and first_noise is not None:
            noise = tuple(half[move.members] for half in first_noise)
        else:
            noise = denoiser(*pair, *table.levels(move), move_anchor)
        ends = table.apply(move, pair, noise, hold_prev=path.renoise)
        if sampler.order == 2:
            ends = table.apply_again(move, pair, noise, ends, denoiser, move_anchor)
        if not path.renoise:
            x_prev[move.members] = ends[0]
        x_next[move.members] = ends[1]
    return x_prev, x_next
