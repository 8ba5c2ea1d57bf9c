"""A surrogate that draws: one call maps a frame and a vector of noise to a member of the ensemble of next frames."""

from collections.abc import Callable

import torch

from sns_core.methods.base import Carry, FrameMethod, FrameSpace, Parts, StepRecord, Streams
from sns_core.streams import normal


class StochasticSurrogate(FrameMethod):
    """x_t = predict(x_{t-1}, noise), with frames (B, C, m, m) in standard deviations and noise (B, noise_features).

    A refinement asks the same surrogate for the centre of its ensemble (noise 0), because it takes a mean as its candidate.
    """

    needs = {"surrogate": ("crps",)}

    def __init__(
        self,
        predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        noise_features: int,
        frames: FrameSpace | None = None,
    ):
        super().__init__(frames)
        self.predict, self.noise_features = predict, noise_features

    @classmethod
    def build(cls, parts: Parts) -> "StochasticSurrogate":
        surrogate = parts.surrogate
        return cls(surrogate, surrogate.noise_features, parts.frames)

    def step(self, carry: Carry, streams: Streams) -> tuple[Carry, StepRecord]:
        noise = normal(streams, (self.noise_features,), carry["frame"])
        frame = self.frames.admissible(self.predict(carry["frame"], noise))
        return {**carry, "frame": frame}, StepRecord.nothing(len(frame))
