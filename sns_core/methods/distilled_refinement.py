"""SNS in one call: a student makes what surrogate and denoiser make in a refined step (`methods.refinement_student`)."""

import torch

from sns_core.diffusion import Denoiser, NoiseSchedule
from sns_core.methods.balanced import BalancedMethod
from sns_core.methods.base import Carry, Parts, StepRecord, Streams
from sns_core.methods.calibration import Calibration
from sns_core.options import AnchorFrame
from sns_core.streams import normal


class DistilledRefinement(BalancedMethod):
    """SNS in one call: a student makes what its teacher, a calibrated refinement, makes with surrogate and denoiser.

    The student is a denoiser that leads noise to the next frame in one move, beside the clean previous frame. The noise is
    that with which its teacher completes a candidate. Its balance is found in a loop of its own, with the teacher's R as bound.
    """

    needs = {"denoiser": ("distilled_refinement",)}

    def __init__(self, denoiser: Denoiser, schedule: NoiseSchedule, **diffusion):
        super().__init__(denoiser, schedule, **diffusion)
        top = torch.tensor(schedule.levels)
        self.signal, self.sigma = float(schedule.signal(top)), float(schedule.sigma(top))

    @classmethod
    def build(cls, parts: Parts, *, anchor_frame: AnchorFrame = "initial") -> "DistilledRefinement":
        method = cls(**cls.diffusion_parts(parts, anchor_frame))
        taught = Calibration.from_dict(parts.models["denoiser"].note["teacher"])
        method.calibration = parts.calibration or taught.without_balance()
        return method

    def step(self, carry: Carry, streams: Streams) -> tuple[Carry, StepRecord]:
        z_prev = self.whiten(carry["frame"])
        z = self.draw(z_prev, normal(streams, z_prev.shape[1:], z_prev), self.anchors.of_step(carry, streams))
        frame = self.frames.admissible(self.unwhiten(self.balanced(z, streams)))
        levels = torch.tensor([[0, self.schedule.levels]]).expand(len(z), -1)
        return {**carry, "frame": frame}, StepRecord(levels, torch.ones(len(z), dtype=torch.int64))

    def draw(self, z_prev: torch.Tensor, noise: torch.Tensor, anchor: torch.Tensor | None) -> torch.Tensor:
        """The next frames before their balance (B, C, m, m), from previous frames and noise, all in the coordinates of the diffusion."""
        clean, top = (torch.full((len(z_prev),), level) for level in (0, self.schedule.levels))
        _, predicted = self.denoiser(z_prev, noise, clean, top, anchor)
        return (noise - self.sigma * predicted) / self.signal
