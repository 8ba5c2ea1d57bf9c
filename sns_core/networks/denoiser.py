"""A trained network as the denoiser that the walk asks, and as the judge of the levels at which a pair stands."""

import contextlib

import torch

from sns_core.networks.unet import PeriodicUNet


class NetworkDenoiser:
    """`Denoiser` around a PeriodicUNet with heads: frames are stacked as (anchor, previous, next).

    `anchor`: whether the network was trained with an anchor frame; it is then required at every call. `context` is
    the precision in which the network runs (`runtime.autocast`); what comes out is float32.
    """

    def __init__(self, network: PeriodicUNet, anchor: bool, context=None):
        self.network, self.anchor = network, anchor
        self.context = context or contextlib.nullcontext()

    def stack(self, x_prev: torch.Tensor, x_next: torch.Tensor, anchor: torch.Tensor | None) -> torch.Tensor:
        """(B, F, C, H, W); ValueError where an anchor is needed and missing."""
        if self.anchor and anchor is None:
            raise ValueError("this denoiser was trained with an anchor frame; give one")
        return torch.stack([anchor, x_prev, x_next] if self.anchor else [x_prev, x_next], 1)

    @torch.no_grad()
    def __call__(self, x_prev, x_next, s_prev, s_next, anchor=None):
        with self.context:
            noise, _ = self.network(self.stack(x_prev, x_next, anchor))
        return noise.float().unbind(1)

    @torch.no_grad()
    def level_logits(
        self, x_prev: torch.Tensor, x_next: torch.Tensor, anchor: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (B, 2, S + 1), previous frame first; one pass of the encoder serves both heads."""
        with self.context:
            _, _, logits = self.network.encode(self.stack(x_prev, x_next, anchor))
        return logits.float()
