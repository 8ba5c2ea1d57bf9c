"""At which noise levels a pair stands, and where in the plane its walk begins.

The published method estimates the levels of every pair with the denoiser's heads (`EstimatedLevels`). `IndexedLevels`
counts them as the authors' code does. `BlindLevels` is the control that estimates nothing: it refines from one fixed level,
by the clock or at random.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sns_core.diffusion import LevelReadout


@dataclass(frozen=True)
class LevelRule:
    """From the levels of a pair to the start of its walk.

    `shared`: both frames start at the higher of their two levels. A drift is common to the two frames of a fed-back
    pair, while the heads learnt from independent noise: they blame one frame or the other, and either may be wrong.
    `max_level`: bound of the levels that are acted upon, and so of the cost of a step (None: no bound).
    `condition_level`: hold the previous frame at this level instead of its own (None: its own).
    """

    shared: bool = False
    max_level: int | None = None
    condition_level: int | None = None

    def of_pair(self, logits: Callable[[], torch.Tensor], streams, step: torch.Tensor) -> torch.Tensor:
        """Levels (B, 2) of pairs, on the CPU, where paths are made. A subclass defines this.

        `logits`: function that gives the heads' logits (B, 2, S + 1); `streams`: one generator per member; `step` (B,): the
        step of the rollout.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no of_pair; use EstimatedLevels or BlindLevels")

    @property
    def period(self) -> int:
        """The number of steps after which the rule repeats itself; 1 where it does not look at the step."""
        return 1

    def walk_start(self, levels: torch.Tensor) -> torch.Tensor:
        """Start (B, 2) of the walk for pairs at `levels` (B, 2), previous frame first."""
        bounded = levels if self.max_level is None else levels.clamp(max=self.max_level)
        s_prev, s_next = bounded.unbind(1)
        if self.shared:
            s_prev = s_next = torch.maximum(s_prev, s_next)
        if self.condition_level is not None:
            s_prev = torch.full_like(s_prev, self.condition_level)
        return torch.stack([s_prev, s_next], 1)

    def counted_from(self, start: torch.Tensor, path: str) -> torch.Tensor:
        """Points (B, 2) from which the moves of the `path` are counted: `start` (B, 2), where the frames stand."""
        return start


@dataclass(frozen=True)
class EstimatedLevels(LevelRule):
    """The levels that the denoiser's heads give, read by `readout`."""

    readout: LevelReadout = LevelReadout()

    def of_pair(self, logits: Callable[[], torch.Tensor], streams, step: torch.Tensor) -> torch.Tensor:
        """Levels (B, 2) of pairs. A member that has become NaN gets level 0: it cannot be refined, and must not cost the others
        a full walk."""
        values = logits().cpu()
        uniform = None
        if self.readout.kind == "sample":
            uniform = torch.stack([torch.rand(2, generator=g, device=g.device) for g in streams]).cpu()
        return torch.where(torch.isfinite(values).all(-1), self.readout(values, uniform), 0)


@dataclass(frozen=True)
class IndexedLevels(EstimatedLevels):
    """Estimated levels with the bookkeeping of the authors' code, whose levels are indices i = 0 .. S - 1.

    Index i is level i + 1, so there is no clean level: each frame is noised at each step, at the lowest index too. The moves
    begin one level below the largest index of the batch:

        index i of a member     below the largest    the largest
        frame noised to         level i + 1          level i + 1
        moves counted from      level i + 1          level i

    So a frame at the largest index keeps a little noise, and where all members have index 0 no move is made. The frame
    of a member depends on the other members of its batch. On the path "diagonal" the largest index is that of both
    frames, on the other paths each frame has its own.

    Raises ValueError for a `condition_level` and for a calibrated read-out, which need a clean level.
    """

    PATHS = ("left_then_down", "down_then_left", "diagonal")

    def __post_init__(self):
        if self.condition_level is not None or self.readout.kind == "calibrated":
            raise ValueError(
                "bookkeeping 'indices' has no clean level: leave condition_level and a calibrated read-out out"
            )

    def of_pair(self, logits: Callable[[], torch.Tensor], streams, step: torch.Tensor) -> torch.Tensor:
        """Levels (B, 2) of pairs, at least 1. A member that has become NaN gets level 1."""
        return super().of_pair(lambda: logits()[..., 1:], streams, step) + 1

    def counted_from(self, start: torch.Tensor, path: str) -> torch.Tensor:
        """Points (B, 2) from which the moves are counted: `start` (B, 2), but at most the largest index of the batch.

        Raises ValueError for a path that does not walk both frames.
        """
        if path not in self.PATHS:
            raise ValueError(
                f"bookkeeping 'indices' walks both frames, and {path!r} does not; use {', '.join(self.PATHS)}"
            )
        largest = (start - 1).amax(0)
        return torch.minimum(start, largest.amax() if path == "diagonal" else largest)


@dataclass(frozen=True)
class BlindLevels(LevelRule):
    """`level` for both frames at every `every`-th step, or with `random` at each step with probability 1 / `every`."""

    level: int = 1
    every: int = 1
    random: bool = False

    @property
    def period(self) -> int:
        return 1 if self.random else self.every

    def of_pair(self, logits, streams, step: torch.Tensor) -> torch.Tensor:
        """Levels (B, 2) of the control; `logits` is never called."""
        if self.random:
            draws = torch.cat([torch.rand(1, generator=g, device=g.device) for g in streams]).cpu()
            due = draws * self.every < 1
        else:
            due = step.cpu() % self.every == 0
        return (self.level * due)[:, None].expand(-1, 2)
