"""A control that a refinement must beat: the surrogate's frame, whose shells relax to the power of the data."""

import torch

from sns_core.methods.base import Carry, FrameSpace, Parts, StepRecord, Streams
from sns_core.methods.surrogate import Surrogate
from sns_core.options import Rate
from sns_core.shells import filtered, mode_weight, shell_index


class RelaxedSpectrum(Surrogate):
    """The surrogate's frame, in which the power of each shell moves by a share of its distance to the power of the data.

    `power` (C, K): power of the modes of each shell of the data, in squared standard deviations. `rate`: the share per
    step; with 1 each frame has the spectrum of the data. The phases are the surrogate's.
    """

    def __init__(self, predict, power: torch.Tensor, rate: float, frames: FrameSpace | None = None):
        super().__init__(predict, frames)
        self.power, self.rate = power, rate

    @classmethod
    def build(cls, parts: Parts, *, rate: Rate) -> "RelaxedSpectrum":
        amplitude = torch.tensor(parts.emulation.statistics["shell_amplitude"], dtype=torch.float64)
        return cls(parts.surrogate, amplitude.square(), rate, parts.frames)

    def step(self, carry: Carry, streams: Streams) -> tuple[Carry, StepRecord]:
        carry, record = super().step(carry, streams)
        return {**carry, "frame": self.frames.admissible(self.relax(carry["frame"]))}, record

    def relax(self, frames: torch.Tensor) -> torch.Tensor:
        """Return frames (B, C, H, W) in which each shell of the power P has P + rate (power - P); P = 0 stays."""
        shells = torch.from_numpy(shell_index(frames.shape[-2:])).to(frames.device)
        present, data = _shell_power(frames, shells), self.power.to(frames.device)
        factor = torch.where(present > 0, 1 + self.rate * (data / present - 1), 1.0).sqrt()
        return filtered(frames, factor[..., shells].to(frames.dtype))


def _shell_power(frames: torch.Tensor, shells: torch.Tensor) -> torch.Tensor:
    """Mean power (B, C, K), float64, of the modes of each shell of fields (B, C, H, W), one row per member."""
    weight = torch.from_numpy(mode_weight(frames.shape[-2:])).to(frames.device)
    energy = weight * torch.fft.rfft2(frames.double(), norm="ortho").abs().square()
    count = torch.zeros(int(shells.max()) + 1, dtype=torch.float64, device=frames.device)
    total = count.expand(*frames.shape[:2], -1).clone().index_add(-1, shells.flatten(), energy.flatten(-2))
    return total / count.index_add(0, shells.flatten(), weight.flatten())
