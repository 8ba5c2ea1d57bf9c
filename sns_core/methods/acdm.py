"""ACDM (Kohl et al. 2023): both frames stand at one level all along, and the previous one is noised afresh at each."""

import torch

from sns_core.diffusion import Denoiser, NoiseSchedule, Sampler
from sns_core.errors import UserError
from sns_core.methods.base import Carry, Parts, StepRecord, Streams
from sns_core.methods.denoising import DenoisingMethod, WalkBack
from sns_core.options import AnchorFrame, Count, SamplerOptions, StartFrom
from sns_core.streams import normal


class ACDM(DenoisingMethod):
    """Every frame is made from noise, beside a previous frame that is noised as much as the new one.

    The denoiser is one trained for it, which is told the level, or one of pairs. `start_from`: "noise", or "previous" for
    the authors' variant that starts from the previous frame noised to the highest level. The other arguments are those of
    `DenoisingMethod`. Raises UserError for another `start_from`.
    """

    needs = {"denoiser": ("acdm", "denoiser")}

    def __init__(
        self, denoiser: Denoiser, schedule: NoiseSchedule, *, start_from: str = "noise", walk: WalkBack | None = None, **diffusion
    ):  # fmt: skip
        super().__init__(denoiser, schedule, walk=walk or WalkBack("acdm"), **diffusion)
        if start_from not in ("noise", "previous"):
            raise UserError(f"start_from: {start_from!r} is neither noise nor previous")
        self.start_from = start_from

    @classmethod
    def build(
        cls,
        parts: Parts,
        *,
        sampler: SamplerOptions = {},
        stride: Count = 1,
        start_from: StartFrom = "noise",
        anchor_frame: AnchorFrame = "initial",
    ) -> "ACDM":
        walk = WalkBack("acdm", stride, Sampler(**sampler))
        return cls(start_from=start_from, walk=walk, **cls.diffusion_parts(parts, anchor_frame))

    def step(self, carry: Carry, streams: Streams) -> tuple[Carry, StepRecord]:
        anchor = self.anchors.of_step(carry, streams)
        z_prev = self.whiten(carry["frame"])
        top = torch.full((len(z_prev),), self.schedule.levels)
        z_next = normal(streams, z_prev.shape[1:], z_prev)
        if self.start_from == "previous":
            z_next = self.schedule.add_noise(z_prev, top, z_next)
        path = self.walk.route(top, top)
        frame = self.walk_back(path, z_prev, z_next, anchor, streams)
        record = StepRecord(torch.stack([top, top], 1), self.walk.sampler.calls(path))
        return {**carry, "frame": self.frames.admissible(frame)}, record
