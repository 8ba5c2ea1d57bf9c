"""A rolling window: the next frames are cleaned together, the nearest one first, a share of the way in each step."""

import itertools
from collections.abc import Callable

import torch

from sns_core.methods.base import Carry, FrameMethod, FrameSpace, Parts, StepRecord, Streams
from sns_core.options import Count, Positive
from sns_core.streams import normal


class RollingWindow(FrameMethod):
    """Flow matching of `window` frames x_t, x_{t+1}, ... at once, whose times fall from the nearest to the farthest.

    At the phase q the frame w stands at the time 1 - (1 - share)^bend, share = (q - w) / window between 0 and 1. A step goes
    from the phase window - 1 to window in `moves` moves of Euler. Then frame 0 is clean and leaves the window, all others
    move up, and noise takes the last place (Ruhe et al. 2024, arXiv:2402.09470). The first step begins at the phase 0, where
    all frames are noise.

    `velocities(previous, y, times)`: of increments y (B, window, C, m, m), given the previous frame (B, C, m, m), at the times
    (window,); y_w = (x_{t+w} - x_{t-1}) / increment_std.
    """

    needs = {"velocities": ("rolling_window",)}

    def __init__(
        self,
        velocities: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        increment_std: torch.Tensor,
        *,
        window: int = 3,
        moves: int = 2,
        bend: float = 1.0,
        frames: FrameSpace | None = None,
    ):
        super().__init__(frames)
        self.velocities, self.increment_std = velocities, increment_std
        self.window, self.moves, self.bend = window, moves, bend

    @classmethod
    def build(cls, parts: Parts, *, moves: Count = 2, bend: Positive = 1.0) -> "RollingWindow":
        model = parts.models["velocities"]
        network, window = model.increments(parts.hardware.precision), model.spec["window"]
        return cls(
            network.velocities, network.increment_std, window=window, moves=moves, bend=bend, frames=parts.frames
        )

    def times(self, phase: float, like: torch.Tensor) -> torch.Tensor:
        """Return the times (window,) of the frames at a phase."""
        share = ((phase - torch.arange(self.window)) / self.window).clamp(0, 1)
        return (1 - (1 - share) ** self.bend).to(like)

    def step(self, carry: Carry, streams: Streams) -> tuple[Carry, StepRecord]:
        previous, begins = carry["frame"], "window" not in carry
        fresh = normal(streams, (self.window if begins else 1, *previous.shape[1:]), previous)
        y = fresh if begins else torch.cat([carry["window"], fresh], 1)
        first = 0 if begins else self.window - 1
        count = self.moves * (self.window - first)
        phases = [first + move / self.moves for move in range(count + 1)]
        for start, stop in itertools.pairwise(self.times(phase, y) for phase in phases):
            y = y + (stop - start)[:, None, None, None] * self.velocities(previous, y, start)
        frame = self.frames.admissible(previous + self.increment_std * y[:, 0])
        moved = (frame - previous) / self.increment_std
        rest = self.times(self.window, y)[1:, None, None, None]
        record = StepRecord.of_calls(len(frame), count)
        return {**carry, "frame": frame, "window": y[:, 1:] - rest * moved[:, None]}, record
