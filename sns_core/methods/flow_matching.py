"""Flow matching of the next frame given the last one: noise is moved to an increment in a few calls of a network."""

from collections.abc import Callable
from typing import Literal

import torch

from sns_core.diffusion.increments import move_times, transport, transport_calls
from sns_core.methods.base import Carry, FrameMethod, FrameSpace, Parts, StepRecord, Streams
from sns_core.options import Count, Positive
from sns_core.streams import normal


class FlowMatching(FrameMethod):
    """x_t = x_{t-1} + increment_std * y, where y is moved from noise (`diffusion.increments`).

    `velocity(previous, y, time)`: of increments y (B, C, m, m) at a time between 0 and 1. `moves`: number of moves, by
    Euler's method (`order` 1) or Heun's (2). `bend`: above 1 the last moves are the shorter ones.
    """

    needs = {"velocity": ("flow_matching",)}

    def __init__(
        self,
        velocity: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor],
        increment_std: torch.Tensor,
        *,
        moves: int = 4,
        order: int = 1,
        bend: float = 1.0,
        frames: FrameSpace | None = None,
    ):
        super().__init__(frames)
        self.velocity, self.increment_std = velocity, increment_std
        self.times, self.order = move_times(moves, bend), order

    @classmethod
    def build(cls, parts: Parts, *, moves: Count = 4, order: Literal[1, 2] = 1, bend: Positive = 1.0) -> "FlowMatching":
        network = parts.models["velocity"].increments(parts.hardware.precision)
        return cls(network.velocity, network.increment_std, moves=moves, order=order, bend=bend, frames=parts.frames)

    def step(self, carry: Carry, streams: Streams) -> tuple[Carry, StepRecord]:
        previous = carry["frame"]
        noise = normal(streams, previous.shape[1:], previous)
        y = transport(lambda y, time: self.velocity(previous, y, time), noise, self.times, self.order)
        frame = self.frames.admissible(previous + self.increment_std * y)
        return {**carry, "frame": frame}, StepRecord.of_calls(
            len(frame), transport_calls(len(self.times) - 1, self.order)
        )
