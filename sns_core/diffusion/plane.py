"""The plane of noise levels (s2, s1): paths in it, and the one loop that walks them.

s2 is the level of the previous frame x_{t-1}, s1 that of the next frame x_t. Down is a reverse step of x_t with
x_{t-1} held, left one of x_{t-1} with x_t held, the diagonal both at once. With the exact denoiser the law of the pair
at (0, 0) does not depend on the path (paper, theorem 3.1); what differs is the error of a learnt one.

Every member has levels of its own. A member that has arrived is left exactly alone and costs no network call.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from sns_core.diffusion.schedule import Levels, NoiseSchedule, per_member
from sns_core.runtime import Generators, normal, spawn


class Denoiser(Protocol):
    """Predicts the noise of both frames: the denoising oracle D of the paper, in units of noise.

    x_prev, x_next: (B, C, H, W) at levels s_prev, s_next: (B,) int64; anchor: (B, C, H, W), clean, or None.
    A trained network ignores the levels, the exact oracle needs them.
    """

    def __call__(
        self, x_prev: torch.Tensor, x_next: torch.Tensor, s_prev: Levels, s_next: Levels, anchor: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


def _as_levels(*levels: int | Sequence[int] | torch.Tensor) -> list[torch.Tensor]:
    tensors = torch.broadcast_tensors(*[torch.as_tensor(s, dtype=torch.int64).cpu().reshape(-1) for s in levels])
    if any((s < 0).any() for s in tensors):
        raise ValueError("noise levels must not be negative")
    return list(tensors)


@dataclass(frozen=True)
class Path:
    """A timetable of levels: `levels` (moves + 1, B, 2) int64 on the CPU, the pairs (s_prev, s_next) visited.

    Each constructor takes the start (s_prev, s_next), numbers or (B,) tensors, and a `stride`, the levels covered by
    one move. `renoise`: the previous frame is given clean and noised afresh to s_prev before every move.
    """

    levels: torch.Tensor
    renoise: bool = False

    @classmethod
    def left_then_down(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """Path A: denoise the previous frame first."""
        s_prev, s_next = _as_levels(s_prev, s_next)
        left = _moves(s_prev, stride)
        return cls._timetable(left + _moves(s_next, stride), s_prev, s_next, 0, left, stride)

    @classmethod
    def down_then_left(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """Path B: denoise the next frame first."""
        s_prev, s_next = _as_levels(s_prev, s_next)
        down = _moves(s_next, stride)
        return cls._timetable(down + _moves(s_prev, stride), s_prev, s_next, down, 0, stride)

    @classmethod
    def diagonal(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """Path C: down or left to the diagonal, then both at once."""
        s_prev, s_next = _as_levels(s_prev, s_next)
        common = torch.minimum(s_prev, s_next)
        to_diagonal = _moves(torch.maximum(s_prev, s_next) - common, stride)
        count = int((to_diagonal + _moves(common, stride)).max())
        index = torch.arange(count + 1)[:, None]
        along = (common - stride * (index - to_diagonal)).clamp(min=0)
        towards = index < to_diagonal

        def coordinate(start):
            return torch.where(towards, torch.maximum(start - stride * index, common), torch.minimum(common, along))

        return cls(torch.stack([coordinate(s_prev), coordinate(s_next)], -1))

    @classmethod
    def fixed_condition(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """Down only, with the previous frame held at its level."""
        s_prev, s_next = _as_levels(s_prev, s_next)
        index = torch.arange(int(_moves(s_next, stride).max()) + 1)[:, None]
        down = (s_next - stride * index).clamp(min=0)
        return cls(torch.stack([s_prev.expand_as(down), down], -1))

    @classmethod
    def clean(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """Clean conditioning: down only, from s_prev = 0. Raises ValueError for a noised previous frame."""
        if _as_levels(s_prev)[0].any():
            raise ValueError("clean conditioning starts from s_prev = 0")
        return cls.fixed_condition(s_prev, s_next, stride)

    @classmethod
    def unconditional(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """Thermalizer: down only, with the previous frame at the noisiest level, where it says nothing."""
        return cls.fixed_condition(s_prev, s_next, stride)

    @classmethod
    def acdm(cls, s_prev, s_next, stride: int = 1) -> "Path":
        """ACDM: down the diagonal, the clean previous frame noised afresh to the level of the next one each time.

        Raises ValueError unless s_prev equals s_next.
        """
        s_prev, s_next = _as_levels(s_prev, s_next)
        if not torch.equal(s_prev, s_next):
            raise ValueError("ACDM noises both frames to the same level: s_prev must equal s_next")
        return cls(cls.diagonal(s_prev, s_next, stride).levels, renoise=True)

    @classmethod
    def _timetable(cls, moves, s_prev, s_next, wait_prev, wait_next, stride) -> "Path":
        index = torch.arange(int(moves.max()) + 1)[:, None]

        def coordinate(start, wait):
            return (start - stride * (index - wait).clamp(min=0)).clamp(min=0)

        return cls(torch.stack([coordinate(s_prev, wait_prev), coordinate(s_next, wait_next)], -1))

    @property
    def start(self) -> torch.Tensor:
        """(B, 2) levels at which the pair must stand when the walk begins."""
        return self.levels[0]

    @property
    def calls(self) -> torch.Tensor:
        """(B,) moves of each member: its network calls with a sampler of order 1."""
        return (self.levels.diff(dim=0) != 0).any(-1).sum(0)


PATHS = ("left_then_down", "down_then_left", "diagonal", "fixed_condition", "clean", "acdm", "unconditional")


def _moves(distance: torch.Tensor, stride: int) -> torch.Tensor:
    if stride < 1:
        raise ValueError(f"stride {stride} must be at least 1")
    return (distance + stride - 1) // stride


@dataclass(frozen=True)
class Sampler:
    """How a reverse step is taken: `eta` 1 ancestral, 0 deterministic (DDIM); `variance` as in NoiseSchedule;
    `clip` bounds the clean estimate, in standard deviations (None: no bound); `order` 2 repeats each step that does not
    end at level 0 with the mean of the noise predicted at its two ends (Heun's rule; Karras et al. 2022)."""

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
        """(B,) network calls that each member needs along a path."""
        here, there = path.levels[:-1], path.levels[1:]
        twice = (here != there).any(-1) & predictable(here, there)
        return path.calls + twice.sum(0) * (self.order == 2)

    def table(self, schedule: NoiseSchedule, start: Levels, stop: Levels) -> torch.Tensor:
        """What steps from `start` to `stop` <= start multiply by, (..., 5) float64 on the CPU for levels (...): signal and
        noise of x, and the coefficients of x, of the predicted and of fresh noise."""
        coefficients = schedule.reverse_coefficients(start, stop, self.eta, self.variance)
        return torch.stack([schedule.signal(start), schedule.sigma(start), *coefficients], -1)

    def apply(self, table: torch.Tensor, x, noise, streams) -> torch.Tensor:
        """Members x (B, C, H, W) after a step with predicted `noise`. `table` (B, 5) with the device and type of x; `streams`
        one a member, None where there is no fresh noise, or nothing at all where no member has any."""
        signal, sigma, of_x, of_noise, fresh = (per_member(column, x) for column in table.unbind(-1))
        if self.clip is not None:
            clean = ((x - sigma * noise) / signal).clamp(-self.clip, self.clip)
            noise = torch.where(sigma > 0, (x - signal * clean) / sigma.clamp(min=1e-12), noise)
        moved = of_x * x + of_noise * noise
        return moved + fresh * normal(streams, x.shape[1:], x) if streams else moved

    def step(self, schedule: NoiseSchedule, x, noise, start: Levels, stop: Levels, streams) -> torch.Tensor:
        """Members x (B, C, H, W) from level `start` to level `stop` <= start with predicted `noise`."""
        table = self.table(schedule, start, stop)
        return self.apply(table.to(x.device, x.dtype), x, noise, _drawing(table, streams))


def predictable(here: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Whether the noise can be predicted again where a move (..., 2) ends: no frame has just become clean."""
    return ((there == here) | (there > 0)).all(-1)


def _drawing(table: torch.Tensor, streams) -> list:
    """The streams of the members whose step (B, 5) has fresh noise, None for the others; empty where no step has any."""
    fresh = (table[:, -1] > 0).tolist()
    return [stream if draws else None for stream, draws in zip(streams, fresh, strict=True)] if any(fresh) else []


class _Timetable:
    """A path with all that its moves multiply by, worked out and sent to the device once: a move then waits for nothing.

    `levels` (moves + 1, B, 2), `like`: the members. Move i is made by the members `rows[i]`.
    """

    def __init__(self, sampler: Sampler, schedule: NoiseSchedule, levels: torch.Tensor, like: torch.Tensor):
        self.sampler, self.here, self.there = sampler, levels[:-1], levels[1:]
        self.table = sampler.table(schedule, self.here, self.there)
        moving = (self.here != self.there).any(-1)
        self.rows = [row.nonzero()[:, 0] for row in moving]
        self.on_device = self.here.to(like.device), self.table.to(like.device, like.dtype)
        self.stands = (self.here == self.there).to(like.device)
        counts = [len(rows) for rows in self.rows]
        self.where = moving.nonzero()[:, 1].to(like.device).split(counts)

    def members(self, index: int) -> torch.Tensor | slice:
        """Members of a move, to index tensors on the device by."""
        everyone = len(self.rows[index]) == self.here.shape[1]
        return slice(None) if everyone else self.where[index]

    def levels(self, index: int, members) -> tuple[torch.Tensor, torch.Tensor]:
        """Levels of both frames (members,) where a move starts, on the device."""
        return self.on_device[0][index, members].unbind(-1)

    def of_x(self, index: int, members) -> tuple[torch.Tensor, torch.Tensor]:
        """Signal and noise (members,) of the previous frame where a move starts, on the device."""
        return self.on_device[1][index, members, 0, :2].unbind(-1)

    def move(self, index: int, members, rows, pair, noise, streams, hold_prev: bool) -> list[torch.Tensor]:
        """Both frames of a move's `members` (on the device; `rows` on the CPU) at its end; a frame that does not move stays
        exactly as it is."""
        ends = []
        for side, (x, predicted) in enumerate(zip(pair, noise, strict=True)):
            stands = (self.here[index, rows, side] == self.there[index, rows, side]).tolist()
            if not (all(stands) or (side == 0 and hold_prev)):
                drawing = _drawing(self.table[index, rows, side], streams)
                moved = self.sampler.apply(self.on_device[1][index, members, side], x, predicted, drawing)
                if any(stands):
                    held = self.stands[index, members, side].view(-1, *[1] * (x.ndim - 1))
                    moved = torch.where(held, x, moved)
                x = moved
            ends.append(x)
        return ends


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
    first_noise: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Walk each member of the pair along its own row of `path`.

    x_prev, x_next: (B, C, H, W), standing already at the path's start (for `acdm`, x_prev is given clean); returned
    at its end. `generator`: one for all, or a list with one a member. `first_noise`: the predicted noise of both frames
    (B, C, H, W) at the path's start, for a caller that has it already; the first move then calls no denoiser. Raises
    ValueError where the path's batch or levels do not fit, and for `first_noise` on a path that renoises.
    """
    batch, sampler = len(x_prev), sampler or Sampler()
    levels = path.levels.expand(-1, batch, -1) if path.levels.shape[1] == 1 else path.levels
    if levels.shape[1] != batch:
        raise ValueError(f"a path of {levels.shape[1]} members for a batch of {batch}")
    if path.renoise and sampler.order == 2:
        raise ValueError("a path that renoises the previous frame has no second order: its moves are not one flow")
    if path.renoise and first_noise is not None:
        raise ValueError("a path that renoises the previous frame takes no first_noise: the pair changes before the move")
    if int(levels.max()) > schedule.levels:
        raise ValueError(f"the path starts at level {int(levels.max())}, the schedule ends at {schedule.levels}")
    streams = spawn(generator, batch)
    x_prev, x_next, given = x_prev.clone(), x_next.clone(), x_prev
    plan = _Timetable(sampler, schedule, levels, x_prev)
    for index, rows in enumerate(plan.rows):
        if not len(rows):
            continue
        members, own = plan.members(index), [streams[row] for row in rows.tolist()]
        prev, nxt = x_prev[members], x_next[members]
        if path.renoise:
            signal, sigma = (per_member(column, prev) for column in plan.of_x(index, members))
            prev = signal * given[members] + sigma * normal(own, prev.shape[1:], prev)
        context, pair = None if anchor is None else anchor[members], (prev, nxt)
        if index == 0 and first_noise is not None:
            noise = tuple(half[members] for half in first_noise)
        else:
            noise = denoiser(*pair, *plan.levels(index, members), context)
        ends = plan.move(index, members, rows, pair, noise, own, path.renoise)
        again = predictable(levels[index, rows], levels[index + 1, rows]).nonzero()[:, 0] if sampler.order == 2 else ()
        if len(again):
            some, few = again.to(prev.device), [own[row] for row in again.tolist()]
            stop = levels[index + 1, rows[again]].to(prev.device).unbind(-1)
            later = denoiser(*(x[some] for x in ends), *stop, None if context is None else context[some])
            mean = [0.5 * (first[some] + second) for first, second in zip(noise, later, strict=True)]
            starts = [x[some] for x in pair]
            corrected = plan.move(index, rows[again].to(prev.device), rows[again], starts, mean, few, path.renoise)
            ends = [end.index_copy(0, some, x) for end, x in zip(ends, corrected, strict=True)]
        if not path.renoise:
            x_prev[members] = ends[0]
        x_next[members] = ends[1]
    return x_prev, x_next
