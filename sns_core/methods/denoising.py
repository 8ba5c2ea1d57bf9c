"""The base of the denoising methods: coordinates, forward diffusion, the walk back, the anchor.

Frames enter in standard deviations, x. Diffusion works in the coordinates z of the noise colour (`diffusion.colour`); with
white noise the two are the same. In z a frame at level s is sqrt(a(s)) z + sqrt(1 - a(s)) noise.
"""

from dataclasses import dataclass

import torch

from sns_core.diffusion import PATHS, Denoiser, NoiseColour, NoiseSchedule, Path, Sampler, walk
from sns_core.errors import UserError
from sns_core.methods.anchors import InitialAnchor, ResampledAnchor
from sns_core.methods.base import Carry, FrameMethod, FrameSpace, Parts, Streams
from sns_core.streams import normal


@dataclass(frozen=True)
class WalkBack:
    """The walk of a pair to (0, 0): the constructor of `diffusion.Path`, the levels per move, and the sampler."""

    path: str = "left_then_down"
    stride: int = 1
    sampler: Sampler = Sampler()

    def __post_init__(self):
        if self.path not in PATHS:
            raise ValueError(f"unknown path {self.path!r}; known: {', '.join(PATHS)}")

    def route(self, s_prev: torch.Tensor, s_next: torch.Tensor) -> Path:
        """The path of each member from its start (s_prev, s_next), both (B,)."""
        return getattr(Path, self.path)(s_prev, s_next, self.stride)


@dataclass(frozen=True)
class BarePair:
    """A pair of frames and its anchor, for denoisers that encode nothing ahead."""

    x_prev: torch.Tensor
    x_next: torch.Tensor
    anchor: torch.Tensor | None

    def at(self, rows) -> "BarePair":
        """The same for some members of the batch."""
        return BarePair(self.x_prev[rows], self.x_next[rows], None if self.anchor is None else self.anchor[rows])


class StagedDenoiser:
    """Any `Denoiser` with the two stages of a network: encode a pair once, then read its levels and decode its noise.

    A `NetworkDenoiser` has these stages by itself; a function of frames and levels gets them from here. Its levels can be
    read where it has a method `level_logits(x_prev, x_next, anchor)` -> (B, 2, S + 1), as `GaussianOracle` does.
    """

    def __init__(self, denoiser: Denoiser):
        self.denoiser = denoiser

    @classmethod
    def around(cls, denoiser: Denoiser) -> Denoiser:
        """The denoiser itself where it has the stages, else this class around it."""
        return denoiser if hasattr(denoiser, "encode_pair") else cls(denoiser)

    def __call__(self, x_prev, x_next, s_prev, s_next, anchor=None):
        return self.denoiser(x_prev, x_next, s_prev, s_next, anchor)

    def encode_pair(self, x_prev, x_next, anchor=None) -> BarePair:
        """The pair as it is."""
        return BarePair(x_prev, x_next, anchor)

    def logits(self, pair: BarePair) -> torch.Tensor:
        """Logits (B, 2, S + 1) of the levels of a pair. Raises UserError where the denoiser estimates none."""
        if not hasattr(self.denoiser, "level_logits"):
            raise UserError(
                f"the denoiser {type(self.denoiser).__name__} has no level_logits(x_prev, x_next, anchor), so no level can be "
                "estimated; use BlindLevels"
            )
        return self.denoiser.level_logits(pair.x_prev, pair.x_next, pair.anchor)

    def decode_pair(self, pair: BarePair, s_prev, s_next) -> tuple[torch.Tensor, torch.Tensor]:
        """The noise (B, C, m, m) of both frames at the levels (B,)."""
        return self.denoiser(pair.x_prev, pair.x_next, s_prev, s_next, pair.anchor)


class DenoisingMethod(FrameMethod):
    """Base of the methods that denoise pairs.

    `denoiser`: predicts the noise of both frames; `schedule`: its noise levels; `coordinates`: its noise colour (None:
    white); `walk`: how pairs are walked back; `anchors`: which anchor the denoiser sees; `frames`: which frames are
    possible.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        *,
        coordinates: NoiseColour | None = None,
        walk: WalkBack | None = None,
        anchors: InitialAnchor | ResampledAnchor | None = None,
        frames: FrameSpace | None = None,
    ):
        super().__init__(frames)
        self.denoiser, self.schedule = StagedDenoiser.around(denoiser), schedule
        self.coordinates = None if coordinates is None or coordinates.white else coordinates
        self.walk, self.anchors = walk or WalkBack(), anchors or InitialAnchor()

    @staticmethod
    def diffusion_parts(parts: Parts, anchor_frame: str = "initial") -> dict:
        """Arguments of the constructor, all but the walk, from the model of the role "denoiser".

        Raises UserError where anchors are resampled and the parts hold no training frames.
        """
        model = parts.models["denoiser"]
        coordinates = model.diffusion.colour
        anchors = InitialAnchor()
        if anchor_frame == "resampled":
            if parts.training_frames is None:
                raise UserError(
                    "anchor_frame: resampled draws from training frames, and there are none; give training_frames, or set "
                    "it to initial"
                )
            anchors = ResampledAnchor(coordinates.whiten(parts.training_frames().to(parts.hardware.device)))
        return {
            "denoiser": model.denoiser(parts.hardware.precision),
            "schedule": model.diffusion.schedule,
            "coordinates": coordinates,
            "anchors": anchors,
            "frames": parts.frames,
        }

    def start(self, states: torch.Tensor) -> Carry:
        carry = super().start(states)
        return {**carry, **self.anchors.start(self.whiten(carry["frame"]))}

    def whiten(self, x: torch.Tensor) -> torch.Tensor:
        """Frames (..., C, m, m) -> coordinates of the diffusion."""
        return x if self.coordinates is None else self.coordinates.whiten(x)

    def unwhiten(self, z: torch.Tensor) -> torch.Tensor:
        """Coordinates of the diffusion -> frames (..., C, m, m)."""
        return z if self.coordinates is None else self.coordinates.unwhiten(z)

    def diffuse(self, z: torch.Tensor, level: torch.Tensor, streams: Streams) -> torch.Tensor:
        """Forward-diffuse each member of z (B, ...) to its own level (B,). A member at level 0 draws nothing and stays."""
        rows = level.nonzero()[:, 0]
        if not len(rows):
            return z
        noise = normal([streams[row] for row in rows.tolist()], z.shape[1:], z)
        if len(rows) == len(z):
            return self.schedule.add_noise(z, level, noise)
        where = rows.to(z.device)
        return z.index_copy(0, where, self.schedule.add_noise(z[where], level[rows], noise))

    def walk_back(self, path: Path, z_prev, z_next, anchor, streams: Streams, first_noise=None) -> torch.Tensor:
        """The next frame (B, C, m, m) at the end of `path`, walked from a pair that stands at its start.

        `first_noise`: predicted noise of the first move, where it is known already.
        """
        _, z = walk(
            self.denoiser,
            path,
            z_prev,
            z_next,
            schedule=self.schedule,
            generator=streams,
            anchor=anchor,
            sampler=self.walk.sampler,
            first_noise=first_noise,
        )
        return self.unwhiten(z)
