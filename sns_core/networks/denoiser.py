"""A trained network as the denoiser that the walk asks, and as the judge of the levels at which a pair stands."""

import contextlib
from dataclasses import dataclass

import torch

from sns_core.diffusion.prediction import Prediction
from sns_core.networks.unet import PeriodicUNet


class NetworkDenoiser:
    """`Denoiser` around a PeriodicUNet: frames are stacked as (anchor, previous, next), or the next one stands alone.

    `anchor`: whether the network was trained with an anchor frame; it is then required at every call. `prediction` is
    what the network gives (None: the noise); it becomes noise at the levels where the walk stands, of which a network with
    heads is told nothing. `context` is the precision in which the network runs (`runtime.autocast`); what comes out is
    float32.
    """

    def __init__(self, network: PeriodicUNet, anchor: bool, context=None, prediction: Prediction | None = None):
        self.network, self.anchor, self.prediction = network, anchor, prediction
        self.alone = network.frames_out == 1
        self.context = context or contextlib.nullcontext()

    def stack(self, x_prev: torch.Tensor, x_next: torch.Tensor, anchor: torch.Tensor | None) -> torch.Tensor:
        """(B, F, C, H, W); ValueError where an anchor is needed and missing."""
        if self.anchor and anchor is None:
            raise ValueError("this denoiser was trained with an anchor frame; give one")
        frames = [x_next] if self.alone else [x_prev, x_next]
        return torch.stack([anchor, *frames] if self.anchor else frames, 1)

    @torch.no_grad()
    def encode_pair(
        self, x_prev: torch.Tensor, x_next: torch.Tensor, anchor: torch.Tensor | None = None
    ) -> "EncodedPair":
        """What the encoder sees in a pair."""
        with self.context:
            skips, bottom, logits = self.network.encode(self.stack(x_prev, x_next, anchor))
        return EncodedPair(x_prev, x_next, skips, bottom, logits)

    @torch.no_grad()
    def decode_pair(
        self, pair: "EncodedPair", s_prev: torch.Tensor, s_next: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The noise (B, C, H, W) of both frames that were looked at, at the levels (B,)."""
        levels = torch.stack([s_next] if self.alone else [s_prev, s_next], 1)
        probabilities = None if pair.logits is None else pair.logits.softmax(-1)
        if self.network.level_conditioned:
            probabilities = self.network.certain(levels, pair.bottom)
        with self.context:
            output = self.network.decode(pair.skips, pair.bottom, probabilities).float()
        if self.prediction is not None:
            noised = torch.stack([pair.x_next] if self.alone else [pair.x_prev, pair.x_next], 1)
            output = self.prediction.noise(output, noised, levels)
        # Of a network of the next frame alone: the previous one stands at pure noise and is never moved.
        return (torch.zeros_like(pair.x_prev), output[:, 0]) if self.alone else output.unbind(1)

    def __call__(self, x_prev, x_next, s_prev, s_next, anchor=None):
        return self.decode_pair(self.encode_pair(x_prev, x_next, anchor), s_prev, s_next)

    def level_logits(self, x_prev, x_next, anchor=None) -> torch.Tensor:
        """Logits (B, 2, S + 1), previous frame first; one pass of the encoder serves all heads.

        A network of the next frame alone gives the same logits for both. ValueError for a network without heads.
        """
        return self.logits(self.encode_pair(x_prev, x_next, anchor))

    def logits(self, pair: "EncodedPair") -> torch.Tensor:
        """`level_logits` of a pair that was looked at."""
        if pair.logits is None:
            raise ValueError("this denoiser is told the noise levels and cannot estimate them")
        return pair.logits.float().expand(-1, 2, -1)


@dataclass
class EncodedPair:
    """A pair as the encoder sees it: the frames (B, C, H, W), features and logits."""

    x_prev: torch.Tensor
    x_next: torch.Tensor
    skips: list[torch.Tensor]
    bottom: torch.Tensor
    logits: torch.Tensor | None

    def at(self, rows: torch.Tensor | slice) -> "EncodedPair":
        """The same for some members of the batch."""
        logits = None if self.logits is None else self.logits[rows]
        return EncodedPair(
            self.x_prev[rows], self.x_next[rows], [skip[rows] for skip in self.skips], self.bottom[rows], logits
        )
