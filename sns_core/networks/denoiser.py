"""A trained network as a denoiser: it predicts the noise of a pair of frames, and estimates the levels of the pair."""

import contextlib
from dataclasses import dataclass

import torch

from sns_core.diffusion.prediction import Prediction
from sns_core.networks.unet import PeriodicUNet


@dataclass
class EncodedPair:
    """A pair of frames with the encoder's output for it.

    `x_prev`, `x_next` (B, C, H, W): the frames. `skips`, `bottom`: the features of the encoder's stages and of the
    bottleneck. `logits` (B, F, S + 1) of the level heads, or None for a network without heads.
    """

    x_prev: torch.Tensor
    x_next: torch.Tensor
    skips: list[torch.Tensor]
    bottom: torch.Tensor
    logits: torch.Tensor | None

    def at(self, rows: torch.Tensor | slice) -> "EncodedPair":
        """Return the encoded pairs of some members; `rows`: their numbers (n,) in the batch, or a slice."""
        logits = None if self.logits is None else self.logits[rows]
        return EncodedPair(
            self.x_prev[rows], self.x_next[rows], [skip[rows] for skip in self.skips], self.bottom[rows], logits
        )


class NetworkDenoiser:
    """A `Denoiser` around a PeriodicUNet.

    The network's input frames are (anchor, previous, next), or (anchor, next) for a network of the next frame alone;
    the anchor is left out where the network was trained without one.

    `anchor`: whether the network was trained with an anchor frame; every call then needs one. `context`: the context
    manager in which the network runs (`device.autocast`); the result is float32 in any context. `prediction`: the
    quantity that the network predicts (None: the noise). It is converted to noise at the levels where the walk stands;
    a network with level heads does not see these levels.
    """

    def __init__(self, network: PeriodicUNet, anchor: bool, context=None, prediction: Prediction | None = None):
        self.network, self.anchor, self.prediction = network, anchor, prediction
        self.next_frame_alone = network.frames_out == 1
        self.context = context or contextlib.nullcontext()

    def stack(self, x_prev: torch.Tensor, x_next: torch.Tensor, anchor: torch.Tensor | None) -> torch.Tensor:
        """Return the network's input (B, F, C, H, W). Raise ValueError where an anchor is needed and missing."""
        if self.anchor and anchor is None:
            raise ValueError("this denoiser was trained with an anchor frame; give one")
        frames = [x_next] if self.next_frame_alone else [x_prev, x_next]
        return torch.stack([anchor, *frames] if self.anchor else frames, 1)

    @torch.no_grad()
    def encode_pair(
        self, x_prev: torch.Tensor, x_next: torch.Tensor, anchor: torch.Tensor | None = None
    ) -> EncodedPair:
        """Run the encoder on a pair of frames (B, C, H, W), beside the clean `anchor` frames (B, C, H, W)."""
        with self.context:
            skips, bottom, logits = self.network.encode(self.stack(x_prev, x_next, anchor))
        return EncodedPair(x_prev, x_next, skips, bottom, logits)

    @torch.no_grad()
    def decode_pair(
        self, pair: EncodedPair, s_prev: torch.Tensor, s_next: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predicted noise (B, C, H, W) of both frames of an encoded pair at the levels (B,)."""
        levels = torch.stack([s_next] if self.next_frame_alone else [s_prev, s_next], 1)
        probabilities = None if pair.logits is None else pair.logits.softmax(-1)
        if self.network.level_conditioned:
            probabilities = self.network.one_hot(levels, pair.bottom)
        with self.context:
            output = self.network.decode(pair.skips, pair.bottom, probabilities).float()
        if self.prediction is not None:
            noised = torch.stack([pair.x_next] if self.next_frame_alone else [pair.x_prev, pair.x_next], 1)
            output = self.prediction.noise(output, noised, levels)
        if self.next_frame_alone:
            # The previous frame stands at pure noise and never moves, so its predicted noise is not used.
            return torch.zeros_like(pair.x_prev), output[:, 0]
        return output.unbind(1)

    def __call__(self, x_prev, x_next, s_prev, s_next, anchor=None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predicted noise (B, C, H, W) of both frames, as a `Denoiser` does."""
        return self.decode_pair(self.encode_pair(x_prev, x_next, anchor), s_prev, s_next)

    def logits(self, pair: EncodedPair) -> torch.Tensor:
        """Return the logits (B, 2, S + 1) of the levels of an encoded pair, the previous frame first.

        A network of the next frame alone returns the same logits for both frames. Raises ValueError for a network
        without level heads.
        """
        if pair.logits is None:
            raise ValueError("this network takes the noise levels as an input, so it cannot estimate them")
        return pair.logits.float().expand(-1, 2, -1)

    def level_logits(self, x_prev, x_next, anchor=None) -> torch.Tensor:
        """Return `logits` of a pair of frames (B, C, H, W) that has not been encoded yet."""
        return self.logits(self.encode_pair(x_prev, x_next, anchor))
