"""SNS refinement (paper, algorithm 2): predict, estimate the noise levels of the pair, walk it back.

One step from x_{t-1}:

    1. candidate x_t = surrogate(x_{t-1})
    2. levels (s2, s1) of the pair (x_{t-1}, x_t), from the denoiser's heads         -> `levels`
    3. each frame noised to its own level (or, in place, taken to stand there)       -> `Refinement.place`
    4. the walk from (s2, s1) to (0, 0) in the plane of noise levels                 -> `walk`
    5. x_t is kept; x_{t-1} is the condition only
"""

import functools
import math
from collections.abc import Callable

import torch

from sns_core.diffusion import Denoiser, LevelReadout, NoiseSchedule, Path, Sampler
from sns_core.diffusion.schedule import per_member
from sns_core.methods.base import Carry, Parts, StepRecord, Streams, next_frames
from sns_core.methods.denoising import DenoisingMethod, WalkBack
from sns_core.methods.levels import BlindLevels, EstimatedLevels, IndexedLevels, LevelRule
from sns_core.options import AnchorFrame, Blind, Bookkeeping, Count, Gain, Level, PathName, Readout, SamplerOptions
from sns_core.shells import filtered, shell_index


class Refinement(DenoisingMethod):
    """SNS around a surrogate.

    `surrogate`: function of frames (B, C, m, m) in standard deviations that gives the next frames; `denoiser`,
    `schedule` and the keyword arguments of `DenoisingMethod`; `levels`: where pairs stand and where their walk begins.
    `renoise`: False takes the estimate at its word. A frame that seems noised to level s is treated as standing there,
    no noise is added, and one pass of the encoder serves both the levels and the first move. `gain` (a, b): the change
    that the walk makes at wavenumber K counts a + b / K times. One level stands for all scales, while a surrogate
    drifts in the large ones, where noise of a low level is small beside the flow.
    `refine_every`: refine every n-th step only; in between the surrogate goes on by itself. Raises ValueError for
    `renoise` false with `IndexedLevels`, which noise each frame.
    """

    needs = {"surrogate": ("pointwise", "pushforward", "dissipative", "crps"), "denoiser": ("denoiser",)}

    def __init__(
        self,
        surrogate: Callable[[torch.Tensor], torch.Tensor],
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        *,
        levels: LevelRule | None = None,
        renoise: bool = True,
        gain: tuple[float, float] | None = None,
        refine_every: int = 1,
        **diffusion,
    ):
        super().__init__(denoiser, schedule, **diffusion)
        self.surrogate, self.level_rule = surrogate, levels or EstimatedLevels()
        self.renoise, self.gain, self.refine_every = renoise, gain, refine_every
        if not renoise and isinstance(self.level_rule, IndexedLevels):
            raise ValueError("bookkeeping 'indices' noises each frame; set renoise to true")

    @classmethod
    def build(
        cls,
        parts: Parts,
        *,
        path: PathName = "left_then_down",
        readout: Readout = {"kind": "argmax"},
        sampler: SamplerOptions = {},
        stride: Count = 1,
        shared_level: bool = False,
        max_level: Count | None = None,
        condition_level: Level | None = None,
        blind: Blind | None = None,
        bookkeeping: Bookkeeping = "levels",
        renoise: bool = True,
        gain: Gain | None = None,
        refine_every: Count = 1,
        anchor_frame: AnchorFrame = "initial",
    ) -> "Refinement":
        rule = {"shared": shared_level, "max_level": max_level, "condition_level": condition_level}
        estimated = {"levels": EstimatedLevels, "indices": IndexedLevels}[bookkeeping]
        return cls(
            parts.surrogate,
            levels=BlindLevels(**rule, **blind) if blind else estimated(**rule, readout=build_readout(parts, readout)),
            walk=WalkBack(path, stride, Sampler(**sampler)),
            renoise=renoise,
            gain=gain,
            refine_every=refine_every,
            **cls.diffusion_parts(parts, anchor_frame),
        )

    @property
    def period(self) -> int:
        """The number of steps after which refined steps and plain steps come in the same order again."""
        return math.lcm(self.refine_every, self.level_rule.period)

    def start(self, states: torch.Tensor) -> Carry:
        return {**super().start(states), "step": torch.zeros(len(states), dtype=torch.int64)}

    def step(self, carry: Carry, streams: Streams) -> tuple[Carry, StepRecord]:
        step, frame = carry["step"] + 1, next_frames(self.surrogate, carry["frame"])
        if self.refine_every > 1 and int(step[0]) % self.refine_every:  # all members are at the same step
            record = StepRecord.nothing(len(frame))
        else:
            anchor = self.anchors.of_step(carry, streams)
            frame, record = self.refine(carry["frame"], frame, anchor, streams, step)
        return {**carry, "step": step, "frame": self.frames.admissible(frame)}, record

    def refine(self, previous, candidate, anchor, streams: Streams, step=None) -> tuple[torch.Tensor, StepRecord]:
        """Walk a pair back; return the refined candidate and the record.

        `previous`, `candidate`: frames (B, C, m, m); `anchor`: in the coordinates of the diffusion, or None; `step`
        (B,): step of the rollout (None: 0). Members that need no walk keep the candidate's exact bits.
        """
        step = torch.zeros(len(candidate), dtype=torch.int64) if step is None else step
        z_prev, z_next = self.whiten(torch.stack([previous, candidate])).unbind(0)
        encode = functools.cache(lambda: self.encode(z_prev, z_next, anchor, streams))
        levels = self.level_rule.of_pair(lambda: self.denoiser.logits(encode()), streams, step)
        start = self.walk_start(levels)
        s_prev, s_next = start.unbind(1)
        counted_prev, counted_next = self.level_rule.counted_from(start, self.walk.path).unbind(1)
        # Only x_t is kept, and a path does not touch it where s1 = 0: such members need no walk.
        path = self.walk.route(torch.where(counted_next > 0, counted_prev, 0), counted_next)
        record = StepRecord(levels, self.walk.sampler.calls(path) * (s_next > 0))
        rows = s_next.nonzero()[:, 0]
        if not len(rows):
            return candidate, record
        walking = [streams[row] for row in rows.tolist()]
        where = slice(None) if len(rows) == len(candidate) else rows.to(candidate.device)
        # In place the pair was encoded where it stands, so the noise of the first move is known.
        first = None if self.renoise else self.denoiser.decode_pair(encode().at(where), s_prev[rows], s_next[rows])
        start = (
            self.place_condition(z_prev[where], s_prev[rows], walking),
            self.place(z_next[where], s_next[rows], walking),
        )
        refined = self.walk_back(
            Path(path.levels[:, rows], path.renoise), *start, None if anchor is None else anchor[where], walking, first
        )
        if self.gain is not None:
            factor = _gain_factor(tuple(self.gain), tuple(refined.shape[-2:]), refined.device)
            refined = candidate[where] + filtered(refined - candidate[where], factor)
        return (refined if len(rows) == len(candidate) else candidate.index_copy(0, where, refined)), record

    def encode(self, z_prev, z_next, anchor, streams: Streams):
        """The pair as the denoiser's encoder sees it."""
        return self.denoiser.encode_pair(z_prev, z_next, anchor)

    def walk_start(self, levels: torch.Tensor) -> torch.Tensor:
        """The points (B, 2) of the plane where the walk of pairs at `levels` (B, 2) begins."""
        return self.level_rule.walk_start(levels)

    def place(self, z: torch.Tensor, level: torch.Tensor, streams: Streams) -> torch.Tensor:
        """Return frames (B, C, m, m) at the start of their walk, for frames z (B, C, m, m) at the levels (B,).

        They are noised to their level. With `renoise` false no noise is added: z is scaled by the signal of the level,
        as if its faults were the noise of that level. The noise of the first move is what the denoiser predicts for z
        itself, so a single move to level 0 ends at z - (sigma / signal) noise.
        """
        return self.diffuse(z, level, streams) if self.renoise else per_member(self.schedule.signal(level), z) * z

    def place_condition(self, z_prev: torch.Tensor, level: torch.Tensor, streams: Streams) -> torch.Tensor:
        """Return the previous frames (B, C, m, m) at the start of the walk.

        A subclass may put others in their place.
        """
        return self.place(z_prev, level, streams)


@functools.cache
def _gain_factor(gain: tuple[float, float], resolution: tuple[int, int], device: torch.device) -> torch.Tensor:
    """a + b / K for each mode of a half spectrum (N, N // 2 + 1); K = 0 counts as K = 1."""
    shells = torch.from_numpy(shell_index(resolution)).clamp(min=1)
    return (gain[0] + gain[1] / shells).float().to(device)


def build_readout(parts: Parts, options: dict) -> LevelReadout:
    """The read-out of a configuration, calibrated by the note of the denoiser where it has been."""
    probability = parts.models["denoiser"].note.get("clean_probability")  # a network that is told the levels has none
    quantile = options.get("quantile", options.get("refine_share", 0.1))
    # In double precision: in single, a probability above 1 - 3e-8 is 1, which no frame reaches, and all would be refined.
    of_true_pairs = None if probability is None else torch.tensor(probability, dtype=torch.float64).expand(2, -1)
    return LevelReadout(options["kind"], quantile, of_true_pairs)
