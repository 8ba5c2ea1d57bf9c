"""The surrogate alone: a function maps each frame to the next one and feeds on its own output."""

from collections.abc import Callable

import torch

from sns_core.methods.base import Carry, FrameMethod, FrameSpace, Parts, StepRecord, next_frames


class Surrogate(FrameMethod):
    """x_t = predict(x_{t-1}), with `predict` any function of frames (B, C, m, m) in standard deviations."""

    needs = {"surrogate": ("pointwise", "pushforward", "dissipative")}

    def __init__(self, predict: Callable[[torch.Tensor], torch.Tensor], frames: FrameSpace | None = None):
        super().__init__(frames)
        self.predict = predict

    @classmethod
    def build(cls, parts: Parts) -> "Surrogate":
        return cls(parts.surrogate, parts.frames)

    def step(self, carry: Carry, streams) -> tuple[Carry, StepRecord]:
        frame = self.frames.admissible(next_frames(self.predict, carry["frame"]))
        return {**carry, "frame": frame}, StepRecord.nothing(len(frame))
