"""SNS whose noise levels and noise follow from measurements on held-out data: nothing is set by hand.

A surrogate trained on the mean square gives the conditional mean f of the next frame: x_t = f + e, where the error e is
orthogonal to f and has the power spectrum R(K). So f is no noisy x_t. It lacks the power R, and it looks cleaner than
any true frame. One step from x_{t-1}:

    1. candidate f = surrogate(x_{t-1}), without what no frame of the system has
    2. completion: f times the signal of level s1, plus noise of the variance sigma^2 + signal^2 R(K). In its first two
       moments the result is a true next frame at level s1. s1 is the least level whose noise is as strong as R in every shell.
    3. level s2 of x_{t-1}: the median of the denoiser's head
    4. one call of the denoiser gives the clean estimate of x_t, a conditional mean again
    5. departure: where, on true pairs, the estimate departs from f by more than R, its departure is scaled down to R
    6. balance: each shell gets back the power that the estimate lacks, up to R as noise and the rest by a factor

R, s1, the factor of the departure and the balance are measured by `evaluation.calibration`; a `Calibration` holds them.
All of this takes place in the coordinates of the diffusion, per channel and wavenumber shell.
"""

from dataclasses import replace

import torch

from sns_core.diffusion import Denoiser, LevelReadout, NoiseSchedule
from sns_core.methods.balanced import BalancedMethod, scale_shells
from sns_core.methods.base import Carry, Parts, StepRecord, Streams, next_frames
from sns_core.methods.calibration import Calibration
from sns_core.methods.levels import EstimatedLevels
from sns_core.options import AnchorFrame, Count, Level
from sns_core.streams import normal


def least_level(schedule: NoiseSchedule, residual: torch.Tensor) -> int:
    """Return the least level whose noise variance is at least the power `residual` (C, K) in every shell; at most S."""
    variance = 1 - schedule.alpha_bar
    enough = variance >= float(residual.max())
    return int(enough.nonzero()[0]) if enough.any() else schedule.levels


class CalibratedRefinement(BalancedMethod):
    """SNS around a surrogate, at one denoiser call per step.

    `surrogate`: function of frames (B, C, m, m) in standard deviations that gives the mean of the next frames;
    `denoiser`, `schedule` and the keyword arguments of `DenoisingMethod`; `calibration`: a `Calibration` of the two,
    without which no step can be made. The other options leave out a part, for controls: `condition_level` holds the
    previous frame at this level, `level` replaces the least level, `completion` false noises the candidate to its level
    and no further, `match_departure` false keeps the estimate as it is, `balance` false gives no power back.
    """

    needs = {"surrogate": ("pointwise", "pushforward", "dissipative", "crps"), "denoiser": ("denoiser",)}

    def __init__(
        self,
        surrogate,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        *,
        calibration: Calibration | None = None,
        condition_level: int | None = None,
        level: int | None = None,
        completion: bool = True,
        balance: bool = True,
        match_departure: bool = True,
        **diffusion,
    ):
        super().__init__(denoiser, schedule, **diffusion)
        self.surrogate, self.condition_level = surrogate, condition_level
        self.level, self.completes, self.balances = level, completion, balance
        self.matches_departure = match_departure
        if calibration is not None:
            self.calibration = calibration
        self.level_rule = EstimatedLevels(readout=LevelReadout("quantile", 0.5))

    @classmethod
    def build(
        cls,
        parts: Parts,
        *,
        condition_level: Level | None = None,
        level: Count | None = None,
        completion: bool = True,
        balance: bool = True,
        match_departure: bool = True,
        anchor_frame: AnchorFrame = "initial",
    ) -> "CalibratedRefinement":
        return cls(
            parts.surrogate,
            calibration=parts.calibration,
            condition_level=condition_level,
            level=level,
            completion=completion,
            balance=balance,
            match_departure=match_departure,
            **cls.diffusion_parts(parts, anchor_frame),
        )

    def calibrate(self, residual: torch.Tensor, power: torch.Tensor) -> None:
        """Follow the spectra (C, K) of the surrogate's error and of the data; no power is given back yet."""
        level = least_level(self.schedule, residual) if self.level is None else self.level
        self.calibration = Calibration(level, residual, power, torch.zeros_like(residual))

    def in_use(self, calibration: Calibration) -> Calibration:
        level = calibration.level if self.level is None else self.level
        departure = calibration.departure if self.matches_departure else None
        return replace(super().in_use(calibration), level=level, departure=departure)

    def follow(self, calibration: Calibration) -> None:
        super().follow(calibration)
        level = torch.tensor(calibration.level)
        self.signal, self.sigma = float(self.schedule.signal(level)), float(self.schedule.sigma(level))
        completed = calibration.residual if self.completes else torch.zeros_like(calibration.balance)
        self.completion = self.signal**2 * completed

    def step(self, carry: Carry, streams: Streams) -> tuple[Carry, StepRecord]:
        previous = carry["frame"]
        frame, record = self.refine(previous, self.propose(previous), self.anchors.of_step(carry, streams), streams)
        return {**carry, "frame": self.frames.admissible(frame)}, record

    def propose(self, previous: torch.Tensor) -> torch.Tensor:
        """The candidates: what the surrogate makes of frames (B, C, m, m), without what no frame of the system has.

        An error in a mean that all frames lack is no error of theirs: it counts neither in R nor in the level that R sets.
        """
        return self.frames.admissible(next_frames(self.surrogate, previous))

    def refine(self, previous, candidate, anchor, streams: Streams, step=None) -> tuple[torch.Tensor, StepRecord]:
        """Complete a candidate, estimate the clean frame and give power back; return that frame and the record.

        `previous`, `candidate`: frames (B, C, m, m); `anchor` (B, C, m, m): in the coordinates of the diffusion, or
        None. `step`, which `Refinement.refine` takes for rules by the clock, is not used.
        """
        z_prev, z_next = self.whiten(torch.stack([previous, candidate])).unbind(0)
        z, levels = self.before_balance(z_prev, z_next, normal(streams, z_next.shape[1:], z_next), anchor, streams)
        return self.unwhiten(self.balanced(z, streams)), StepRecord(levels, torch.ones(len(z), dtype=torch.int64))

    def before_balance(self, z_prev, z_next, noise, anchor, streams: Streams) -> tuple[torch.Tensor, torch.Tensor]:
        """The next frames before their balance (B, C, m, m), from candidates `z_next` and white noise of unit variance,
        both (B, C, m, m) in the coordinates of the diffusion, and the levels (B, 2) at which the pairs stood.
        """
        departure = self.calibration.departure
        noised = self.signal * z_next + self.shell_noise(self.completion, noise, self.sigma)
        z, levels = self.clean_estimate(z_prev, noised, anchor, streams)
        if departure is not None:
            z = z_next + scale_shells(z - z_next, departure)
        return z, levels

    def clean_estimate(self, z_prev, z_next, anchor, streams: Streams) -> tuple[torch.Tensor, torch.Tensor]:
        """The clean estimate of the next frames (B, C, m, m), and the levels (B, 2) at which the pairs stand."""
        pair = self.denoiser.encode_pair(z_prev, z_next, anchor)
        s_next = torch.full((len(z_next),), self.calibration.level)
        levels = torch.stack([self.condition_levels(pair, streams), s_next], 1)
        _, noise = self.denoiser.decode_pair(pair, *levels.unbind(1))
        return (z_next - self.sigma * noise) / self.signal, levels

    def condition_levels(self, pair, streams: Streams) -> torch.Tensor:
        """The levels (B,) of the previous frames of an encoded pair."""
        if self.condition_level is not None:
            return torch.full((len(pair.x_prev),), self.condition_level)
        return self.level_rule.of_pair(lambda: self.denoiser.logits(pair), streams, None)[:, 0]
