"""The plane of noise levels (s2, s1): paths in it, and the one loop that walks them.

s2 is the level of the previous frame x_{t-1}, s1 that of the next frame x_t. Down is a reverse step of x_t with
x_{t-1} held, left one of x_{t-1} with x_t held, the diagonal both at once. With the exact denoiser the law of the pair
at (0, 0) does not depend on the path (paper, theorem 3.1); what differs is the error of a learnt one.

Every member has levels of its own. A member that has arrived is left exactly alone and costs no network call.
"""

import itertools
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

    def step(self, schedule: NoiseSchedule, x, noise, start: Levels, stop: Levels, streams) -> torch.Tensor:
        """Members x (B, C, H, W) from level `start` to level `stop` <= start with predicted `noise`."""
        if self.clip is not None:
            signal, sigma = per_member(schedule.signal(start), x), per_member(schedule.sigma(start), x)
            clean = ((x - sigma * noise) / signal).clamp(-self.clip, self.clip)
            noise = torch.where(sigma > 0, (x - signal * clean) / sigma.clamp(min=1e-12), noise)
        of_x, of_noise, fresh = schedule.reverse_coefficients(start, stop, self.eta, self.variance)
        moved = per_member(of_x, x) * x + per_member(of_noise, x) * noise
        rows = fresh.nonzero()[:, 0]
        if len(rows):
            draws = normal([streams[row] for row in rows.tolist()], x.shape[1:], x)
            rows = rows.to(x.device)
            moved = moved.index_add(0, rows, per_member(fresh[fresh > 0], x) * draws)
        return moved


def predictable(here: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Whether the noise can be predicted again where a move (..., 2) ends: no frame has just become clean."""
    return ((there == here) | (there > 0)).all(-1)


def _ask(denoiser: Denoiser, pair, levels: torch.Tensor, anchor) -> tuple[torch.Tensor, torch.Tensor]:
    s_prev, s_next = levels.to(pair[0].device).unbind(-1)
    return denoiser(*pair, s_prev, s_next, anchor)


def _move(sampler, schedule, pair, noise, here, there, streams, hold_prev: bool) -> list[torch.Tensor]:
    """Both frames after one move (B, 2) -> (B, 2); a frame that does not move stays exactly as it is."""
    ends = []
    for side, (x, predicted) in enumerate(zip(pair, noise, strict=True)):
        moves = there[:, side] < here[:, side]
        if moves.any() and not (side == 0 and hold_prev):
            moved = sampler.step(schedule, x, predicted, here[:, side], there[:, side], streams)
            x = torch.where(per_member(moves, moved).bool(), moved, x)
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
) -> tuple[torch.Tensor, torch.Tensor]:
    """Walk each member of the pair along its own row of `path`.

    x_prev, x_next: (B, C, H, W), standing already at the path's start (for `acdm`, x_prev is given clean); returned
    at its end. `generator`: one for all, or a list with one a member. Raises ValueError where the path's batch or
    levels do not fit.
    """
    batch, sampler = len(x_prev), sampler or Sampler()
    levels = path.levels.expand(-1, batch, -1) if path.levels.shape[1] == 1 else path.levels
    if levels.shape[1] != batch:
        raise ValueError(f"a path of {levels.shape[1]} members for a batch of {batch}")
    if path.renoise and sampler.order == 2:
        raise ValueError("a path that renoises the previous frame has no second order: its moves are not one flow")
    if int(levels.max()) > schedule.levels:
        raise ValueError(f"the path starts at level {int(levels.max())}, the schedule ends at {schedule.levels}")
    streams = spawn(generator, batch)
    x_prev, x_next, given = x_prev.clone(), x_next.clone(), x_prev
    for here, there in itertools.pairwise(levels):
        rows = (here != there).any(-1).nonzero()[:, 0]
        if not len(rows):
            continue
        on_device, own = rows.to(x_prev.device), [streams[row] for row in rows.tolist()]
        prev, nxt = x_prev[on_device], x_next[on_device]
        if path.renoise:
            prev = schedule.add_noise(given[on_device], here[rows, 0], normal(own, prev.shape[1:], prev))
        context, pair = None if anchor is None else anchor[on_device], (prev, nxt)
        noise = _ask(denoiser, pair, here[rows], context)
        ends = _move(sampler, schedule, pair, noise, here[rows], there[rows], own, path.renoise)
        again = predictable(here[rows], there[rows]).nonzero()[:, 0] if sampler.order == 2 else ()
        if len(again):
            some, few = again.to(prev.device), [own[row] for row in again.tolist()]
            start, stop = here[rows][again], there[rows][again]
            later = _ask(denoiser, [x[some] for x in ends], stop, None if context is None else context[some])
            mean = [0.5 * (first[some] + second) for first, second in zip(noise, later, strict=True)]
            corrected = _move(sampler, schedule, [x[some] for x in pair], mean, start, stop, few, path.renoise)
            ends = [end.index_copy(0, some, x) for end, x in zip(ends, corrected, strict=True)]
        x_prev[on_device] = x_prev[on_device] if path.renoise else ends[0]
        x_next[on_device] = ends[1]
    return x_prev, x_next
