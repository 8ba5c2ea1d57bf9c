"""SNS alone (paper, algorithm 3): every frame is made from pure noise, without a surrogate.

x_t begins at level S as pure noise. The previous frame's level s2 is estimated beside it, the previous frame is noised to
s2, and the pair is walked from (s2, S) to (0, 0).
"""

import torch

from sns_core.diffusion import Denoiser, NoiseSchedule, Sampler
from sns_core.methods.base import Carry, Parts, StepRecord, Streams
from sns_core.methods.denoising import DenoisingMethod, WalkBack
from sns_core.methods.levels import EstimatedLevels
from sns_core.methods.refinement import build_readout
from sns_core.options import AnchorFrame, Count, Level, PathName, Readout, SamplerOptions
from sns_core.streams import normal


class Generation(DenoisingMethod):
    """`levels`: how the previous frame's level is estimated; with `levels.condition_level` it is held at that level
    instead, and 0 is clean conditioning. The other arguments are those of `DenoisingMethod`."""

    needs = {"denoiser": ("denoiser",)}

    def __init__(
        self, denoiser: Denoiser, schedule: NoiseSchedule, *, levels: EstimatedLevels | None = None, **diffusion
    ):
        super().__init__(denoiser, schedule, **diffusion)
        self.level_rule = levels or EstimatedLevels()
        if self.level_rule.shared or self.level_rule.max_level:
            raise ValueError(
                "generation starts at level S: of a level rule it takes the read-out and condition_level alone"
            )

    @classmethod
    def build(
        cls,
        parts: Parts,
        *,
        path: PathName = "left_then_down",
        readout: Readout = {"kind": "argmax"},
        sampler: SamplerOptions = {},
        stride: Count = 1,
        condition_level: Level | None = None,
        anchor_frame: AnchorFrame = "initial",
    ) -> "Generation":
        return cls(
            levels=EstimatedLevels(condition_level=condition_level, readout=build_readout(parts, readout)),
            walk=WalkBack(path, stride, Sampler(**sampler)),
            **cls.diffusion_parts(parts, anchor_frame),
        )

    def step(self, carry: Carry, streams: Streams) -> tuple[Carry, StepRecord]:
        anchor = self.anchors.of_step(carry, streams)
        z_prev = self.whiten(carry["frame"])
        top = torch.full((len(z_prev),), self.schedule.levels)
        z_next = normal(streams, z_prev.shape[1:], z_prev)
        s_prev = self.condition_levels(z_prev, z_next, anchor, streams)
        path = self.walk.route(s_prev, top)
        frame = self.walk_back(path, self.diffuse(z_prev, s_prev, streams), z_next, anchor, streams)
        record = StepRecord(torch.stack([s_prev, top], 1), self.walk.sampler.calls(path))
        return {**carry, "frame": self.frames.admissible(frame)}, record

    def condition_levels(self, z_prev, z_next, anchor, streams: Streams) -> torch.Tensor:
        """Levels (B,) of the previous frames."""
        if self.level_rule.condition_level is not None:
            return torch.full((len(z_prev),), self.level_rule.condition_level)
        logits = lambda: self.denoiser.logits(self.denoiser.encode_pair(z_prev, z_next, anchor))  # noqa: E731
        return self.level_rule.of_pair(logits, streams, None)[:, 0]
