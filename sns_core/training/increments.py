"""The losses of networks that draw increments, given the previous frame: flow matching and PDE-Refiner.

The methods are those of `diffusion.increments`. The networks see the previous frame and the increment on its way, and a
condition that modulates every block: features of the time, or which refinement it is.
"""

import torch
import torch.nn.functional as F

from sns_core.diffusion.increments import TIME_FEATURES, between, refinement_noise, time_features
from sns_core.options import Count, Share
from sns_core.training.objectives import ALL_ROWS, Objective, TrainingData


class IncrementObjective(Objective):
    """Base of the two: pairs of frames become increments in units of `increment_std` (C, 1, 1)."""

    def __init__(self, increment_std: torch.Tensor):
        self.increment_std = increment_std

    @classmethod
    def build(cls, spec: dict, data: TrainingData) -> "IncrementObjective":
        return cls(data.increment_std)

    def increments(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the increments (B, C, H, W) of pairs (B, 2, C, H, W)."""
        return (batch[:, 1] - batch[:, 0]) / self.increment_std


class FlowMatchingObjective(IncrementObjective):
    """The squared error of the velocity, at a time that is uniform on [0, 1)."""

    @staticmethod
    def network_arguments(spec: dict) -> dict:
        return {"frames_in": 2, "frames_out": 1, "condition_features": TIME_FEATURES}

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL_ROWS
    ) -> dict[str, torch.Tensor]:
        """Return {"loss"} for a batch (B, 2, C, H, W)."""
        time = torch.rand(len(batch), generator=generator)[rows].to(batch)
        noise = torch.randn(batch[:, 0].shape, generator=generator)[rows].to(batch)
        increment = self.increments(batch[rows])
        stack = torch.stack([batch[rows, 0], between(noise, increment, time)], 1)
        output, _ = network(stack, condition=time_features(time))
        return {"loss": F.mse_loss(output[:, 0].float(), increment - noise)}


class PDERefinerObjective(IncrementObjective):
    """The squared error of the increment (k = 0) or of the noise (k = 1 .. K), with k uniform on 0 .. K.

    `deviations`: those of the noise, one for each refinement.
    """

    def __init__(self, increment_std: torch.Tensor, deviations: list[float]):
        super().__init__(increment_std)
        self.deviations = torch.tensor([0.0, *deviations], device=increment_std.device)

    @staticmethod
    def network_arguments(spec: dict) -> dict:
        return {"frames_in": 2, "frames_out": 1, "condition_features": spec["refinements"] + 1}

    @classmethod
    def build(
        cls, spec: dict, data: TrainingData, *, refinements: Count = 3, least_noise: Share
    ) -> "PDERefinerObjective":
        return cls(data.increment_std, refinement_noise(refinements, least_noise))

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL_ROWS
    ) -> dict[str, torch.Tensor]:
        """Return {"loss"} for a batch (B, 2, C, H, W)."""
        k = torch.randint(len(self.deviations), (len(batch),), generator=generator)[rows].to(batch.device)
        noise = torch.randn(batch[:, 0].shape, generator=generator)[rows].to(batch)
        increment, first = self.increments(batch[rows]), (k == 0)[:, None, None, None]
        noised = torch.where(first, 0.0, increment + self.deviations[k][:, None, None, None] * noise)
        condition = F.one_hot(k, len(self.deviations)).to(batch)
        output, _ = network(torch.stack([batch[rows, 0], noised], 1), condition=condition)
        return {"loss": F.mse_loss(output[:, 0].float(), torch.where(first, increment, noise))}
