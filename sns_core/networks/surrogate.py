"""A trained network as a surrogate: the mean of p(x_t | x_{t-1}) or, with noise as an input, a draw from it."""

import contextlib

import torch

from sns_core.networks.unet import PeriodicUNet


class NetworkSurrogate:
    """x_t = x_{t-1} + increment_std * network(x_{t-1}), a function of frames (B, C, m, m) in standard deviations.

    `increment_std` (C, 1, 1): standard deviation of the increments; `context`: the precision in which the network runs.
    The result is float32. A network that is conditioned on noise also takes `noise` (B, `noise_features`), standard
    normal numbers. Without them it gets zeros, and the result is the centre of its ensemble.
    """

    def __init__(self, network: PeriodicUNet, increment_std: torch.Tensor, context=None):
        self.network, self.increment_std = network, increment_std
        self.context = context or contextlib.nullcontext()

    @property
    def noise_features(self) -> int:
        """The number of normal numbers that the network takes for each frame; 0 for a network of the mean."""
        return self.network.condition_features

    @torch.no_grad()
    def __call__(self, frame: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        if self.noise_features and noise is None:
            noise = frame.new_zeros(len(frame), self.noise_features)
        with self.context:
            residual, _ = self.network(frame[:, None], condition=noise)
        return frame + self.increment_std * residual[:, 0].float()
