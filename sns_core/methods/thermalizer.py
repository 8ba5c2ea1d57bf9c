"""The Thermalizer (Pedersen et al. 2025): the level of x_t alone, and a walk down without any condition."""

import torch

from sns_core.diffusion import Sampler
from sns_core.methods.base import Parts, Streams
from sns_core.methods.denoising import WalkBack
from sns_core.methods.levels import EstimatedLevels
from sns_core.methods.refinement import Refinement, build_readout
from sns_core.options import AnchorFrame, Count, Readout, SamplerOptions
from sns_core.streams import normal


class Thermalizer(Refinement):
    """Refinement of x_t by itself, around a surrogate.

    The denoiser is one of single frames as published, or one of pairs that is shown pure noise as previous frame.
    `min_level`: lower levels are left alone. The other arguments are those of `Refinement`.
    """

    needs = {
        "surrogate": ("pointwise", "pushforward", "dissipative", "crps"),
        "denoiser": ("unconditional", "denoiser"),
    }

    def __init__(self, surrogate, denoiser, schedule, *, min_level: int = 1, walk: WalkBack | None = None, **options):
        super().__init__(surrogate, denoiser, schedule, walk=walk or WalkBack("unconditional"), **options)
        self.min_level = min_level

    @classmethod
    def build(
        cls,
        parts: Parts,
        *,
        readout: Readout = {"kind": "argmax"},
        sampler: SamplerOptions = {},
        stride: Count = 1,
        max_level: Count | None = None,
        min_level: Count = 1,
        refine_every: Count = 1,
        anchor_frame: AnchorFrame = "initial",
    ) -> "Thermalizer":
        return cls(
            parts.surrogate,
            levels=EstimatedLevels(max_level=max_level, readout=build_readout(parts, readout)),
            walk=WalkBack("unconditional", stride, Sampler(**sampler)),
            min_level=min_level,
            refine_every=refine_every,
            **cls.diffusion_parts(parts, anchor_frame),
        )

    def encode(self, z_prev, z_next, anchor, streams: Streams):
        return super().encode(normal(streams, z_prev.shape[1:], z_prev), z_next, anchor, streams)

    def walk_start(self, levels: torch.Tensor) -> torch.Tensor:
        s_next = super().walk_start(levels)[:, 1]
        s_next = torch.where(s_next >= self.min_level, s_next, 0)
        return torch.stack([torch.full_like(s_next, self.schedule.levels), s_next], 1)

    def place_condition(self, z_prev, level, streams: Streams) -> torch.Tensor:
        return normal(streams, z_prev.shape[1:], z_prev)
