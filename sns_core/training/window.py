"""The loss of a network that sees a window of the next frames, each at a time of its own: flow matching for a rolling window.

The increments y_w = (x_{t+w} - x_{t-1}) / increment_std of the next frames stand at independent times, y_w(tau_w) =
(1 - tau_w) noise_w + tau_w y_w, and the network predicts the velocities y_w - noise_w of all of them, given x_{t-1}. So one
network serves every order in which a window can be cleaned, as in diffusion forcing (Chen et al. 2024, arXiv:2407.01392).
"""

import torch
import torch.nn.functional as F

from sns_core.diffusion.increments import TIME_FEATURES, between, time_features
from sns_core.options import Count
from sns_core.training.objectives import ALL_ROWS, Objective, TrainingData


class WindowObjective(Objective):
    """The squared error of the velocities of `window` frames, at times that are uniform on [0, 1).

    `increment_std` (C, 1, 1): the unit of the increments.
    """

    def __init__(self, increment_std: torch.Tensor, window: int = 3):
        self.increment_std, self.window, self.frames = increment_std, window, window + 1

    @staticmethod
    def network_arguments(spec: dict) -> dict:
        window = spec["window"]
        return {"frames_in": window + 1, "frames_out": window, "condition_features": window * TIME_FEATURES}

    @classmethod
    def build(cls, spec: dict, data: TrainingData, *, window: Count = 3) -> "WindowObjective":
        return cls(data.increment_std, window)

    def __call__(
        self, network, batch: torch.Tensor, generator: torch.Generator, rows: slice = ALL_ROWS
    ) -> dict[str, torch.Tensor]:
        """Return {"loss"} for a batch (B, window + 1, C, H, W)."""
        times = torch.rand(len(batch), self.window, generator=generator)[rows].to(batch)
        noise = torch.randn(batch[:, 1:].shape, generator=generator)[rows].to(batch)
        increments = (batch[rows, 1:] - batch[rows, :1]) / self.increment_std
        points = between(noise.flatten(0, 1), increments.flatten(0, 1), times.flatten()).view_as(noise)
        condition = time_features(times.flatten()).view(len(times), -1)
        output, _ = network(torch.cat([batch[rows, :1], points], 1), condition=condition)
        return {"loss": F.mse_loss(output.float(), increments - noise)}
