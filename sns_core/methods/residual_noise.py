"""A control that a refinement must beat: the surrogate's frame plus noise with the spectrum of the surrogate's error."""

import torch

from sns_core.methods.base import Parts, StepRecord, Streams
from sns_core.methods.calibrated import CalibratedRefinement


class ResidualNoise(CalibratedRefinement):
    """The surrogate's frame plus noise N(0, R): a calibrated refinement whose candidate is completed at level 0 and kept.

    Each step has the power that the surrogate lacks, and draws from the law of the next frame if that law is Gaussian and
    the previous frame is true. The denoiser gives its coordinates and the calibration; it is never called.
    """

    @classmethod
    def build(cls, parts: Parts) -> "ResidualNoise":
        calibration, diffusion = parts.calibration, cls.diffusion_parts(parts)
        return cls(parts.surrogate, calibration=calibration, level=0, match_departure=False, balance=False, **diffusion)

    def refine(self, previous, candidate, anchor, streams: Streams, step=None) -> tuple[torch.Tensor, StepRecord]:
        frame, _ = super().refine(previous, candidate, anchor, streams, step)
        return frame, StepRecord.nothing(len(frame))

    def clean_estimate(self, z_prev, z_next, anchor, streams: Streams) -> tuple[torch.Tensor, torch.Tensor]:
        """The completed candidates (B, C, m, m) as they are, at level 0."""
        return z_next, torch.zeros(len(z_next), 2, dtype=torch.int64)
