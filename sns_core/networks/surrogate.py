"""A trained network as a surrogate: the mean of p(x_t | x_{t-1}), as an increment."""

import contextlib

import torch

from sns_core.networks.unet import PeriodicUNet


class NetworkSurrogate:
    """x_t = x_{t-1} + increment_std * network(x_{t-1}), a function of frames (B, C, m, m) in standard deviations.

    `increment_std` (C, 1, 1): standard deviation of the increments; `context`: the precision in which the network runs.
    The result is float32.
    """

    def __init__(self, network: PeriodicUNet, increment_std: torch.Tensor, context=None):
        self.network, self.increment_std = network, increment_std
        self.context = context or contextlib.nullcontext()

    @torch.no_grad()
    def __call__(self, frame: torch.Tensor) -> torch.Tensor:
        with self.context:
            residual, _ = self.network(frame[:, None])
        return frame + self.increment_std * residual[:, 0].float()
