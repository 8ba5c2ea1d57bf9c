"""The anchor: one more clean frame that a denoiser may see, far from the pair in training."""

from dataclasses import dataclass

import torch

from sns_core.methods.base import Carry, Streams


class InitialAnchor:
    """The initial frame of the rollout, at every step. It travels in the carry, in the coordinates of the diffusion."""

    def start(self, z: torch.Tensor) -> Carry:
        """Entries of the carry for initial frames z (B, C, m, m)."""
        return {"anchor": z.clone()}

    def of_step(self, carry: Carry, streams: Streams) -> torch.Tensor:
        """Anchors (B, C, m, m) of a step."""
        return carry["anchor"]


@dataclass(frozen=True)
class ResampledAnchor:
    """A true frame drawn at each step from `bank` (n, C, m, m), in the coordinates of the diffusion."""

    bank: torch.Tensor

    def start(self, z: torch.Tensor) -> Carry:
        """Return no entry of the carry: the anchors (B, C, m, m) of each step are drawn anew."""
        return {}

    def of_step(self, carry: Carry, streams: Streams) -> torch.Tensor:
        """Anchors (B, C, m, m) of a step, one draw per member."""
        draws = [torch.randint(len(self.bank), (1,), generator=g, device=g.device) for g in streams]
        return self.bank[torch.cat(draws).to(self.bank.device)]
