"""PDE-Refiner (Lippe et al. 2023): one call predicts the next frame, and a few more refine it at falling amplitudes."""

from collections.abc import Callable

import torch

from sns_core.diffusion.increments import refine, refinement_noise
from sns_core.methods.base import Carry, FrameMethod, FrameSpace, Parts, StepRecord, Streams
from sns_core.streams import normal


class PDERefiner(FrameMethod):
    """x_t = x_{t-1} + increment_std * y, where y is predicted and then refined (`diffusion.increments`).

    `network(previous, y, k)`: the increment (k = 0) or the noise in y (k = 1 .. K), (B, C, m, m). `deviations`: those of the
    noise, one for each refinement.
    """

    needs = {"refiner": ("pde_refiner",)}

    def __init__(
        self,
        network: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor],
        increment_std: torch.Tensor,
        deviations: list[float],
        frames: FrameSpace | None = None,
    ):
        super().__init__(frames)
        self.network, self.increment_std, self.deviations = network, increment_std, deviations

    @classmethod
    def build(cls, parts: Parts) -> "PDERefiner":
        model = parts.models["refiner"]
        network = model.increments(parts.hardware.precision)
        deviations = refinement_noise(model.spec["refinements"], model.spec["least_noise"])
        return cls(network.refinement, network.increment_std, deviations, parts.frames)

    def step(self, carry: Carry, streams: Streams) -> tuple[Carry, StepRecord]:
        previous = carry["frame"]
        noises = [normal(streams, previous.shape[1:], previous) for _ in self.deviations]
        y = refine(lambda y, k: self.network(previous, y, k), noises, self.deviations)
        frame = self.frames.admissible(previous + self.increment_std * y)
        return {**carry, "frame": frame}, StepRecord.of_calls(len(frame), 1 + len(self.deviations))
