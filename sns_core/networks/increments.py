"""A trained network of increments as a function that `diffusion.increments` can call."""

import contextlib

import torch

from sns_core.diffusion.increments import time_features
from sns_core.networks.unet import PeriodicUNet


class IncrementNetwork:
    """network(x_{t-1}, y, condition), a function of fields (B, C, m, m) and one condition (n,) for all members.

    `increment_std` (C, 1, 1): the unit of y, in standard deviations of the data; `context`: the precision in which the
    network runs. The result is float32.
    """

    def __init__(self, network: PeriodicUNet, increment_std: torch.Tensor, context=None):
        self.network, self.increment_std = network, increment_std
        self.context = context or contextlib.nullcontext()

    @torch.no_grad()
    def __call__(self, previous: torch.Tensor, y: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the network's output (B, C, m, m) for previous frames and increments y, both (B, C, m, m)."""
        condition = condition.to(y).expand(len(y), -1)
        with self.context:
            output, _ = self.network(torch.stack([previous, y], 1), condition=condition)
        return output[:, 0].float()

    def velocity(self, previous: torch.Tensor, y: torch.Tensor, time: float) -> torch.Tensor:
        """Return the velocity (B, C, m, m) of y (B, C, m, m) at a time between 0 and 1.

        The network is one whose condition is the time.
        """
        return self(previous, y, time_features(torch.tensor([time])))

    def refinement(self, previous: torch.Tensor, y: torch.Tensor, k: int) -> torch.Tensor:
        """Return the increment (k = 0) or the noise in y (k = 1 .. K), (B, C, m, m), of a PDE-Refiner's network."""
        return self(previous, y, torch.eye(self.network.condition_features)[k])

    @torch.no_grad()
    def velocities(self, previous: torch.Tensor, y: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Return the velocities of a window y (B, W, C, m, m) at the times (W,), for a network of such windows."""
        condition = time_features(times).flatten().expand(len(y), -1)
        with self.context:
            output, _ = self.network(torch.cat([previous[:, None], y], 1), condition=condition)
        return output.float()
