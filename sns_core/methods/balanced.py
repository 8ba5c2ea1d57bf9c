"""The balance of shells: what a method that feeds on its own estimates gives back to each of them."""

from dataclasses import replace

import torch

from sns_core.diffusion import Denoiser, NoiseSchedule
from sns_core.errors import UserError
from sns_core.methods.base import Parts, Streams
from sns_core.methods.calibration import Calibration
from sns_core.methods.denoising import DenoisingMethod
from sns_core.shells import filtered, mode_weight, shell_index
from sns_core.streams import normal


class BalancedMethod(DenoisingMethod):
    """Base of the methods whose shells get back the power that a rollout of theirs lacks.

    `calibration` holds this power, the balance (`evaluation.calibration` finds it). `mirrored`: the axes (y, x) along which
    the second half of a frame is the mirror image of the first, as in `System`; a step ends with the mean of the two halves.
    The other arguments are those of `DenoisingMethod`.
    """

    calibrated = True
    balances = True
    _calibration: Calibration | None = None

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        *,
        mirrored: tuple[bool, bool] = (False, False),
        **diffusion,
    ):
        super().__init__(denoiser, schedule, **diffusion)
        self.mirrored = tuple(map(bool, mirrored))

    @classmethod
    def diffusion_parts(cls, parts: Parts, anchor_frame: str = "initial") -> dict:
        """Arguments of the constructor that follow from the model of the role "denoiser" and from the system."""
        return {**DenoisingMethod.diffusion_parts(parts, anchor_frame), "mirrored": parts.system.mirrored}

    @property
    def measured(self) -> bool:
        """Whether there is a calibration."""
        return self._calibration is not None

    @property
    def calibration(self) -> Calibration:
        """The measurements that the steps follow, without those that an option leaves out.

        A new value replaces all of them. Raises UserError where there are none yet.
        """
        if self._calibration is None:
            raise UserError(
                f"{type(self).__name__}: has no calibration, which its steps follow; give calibration=, or call calibrate first"
            )
        return self._calibration

    @calibration.setter
    def calibration(self, calibration: Calibration) -> None:
        self._calibration = self.in_use(calibration)
        self.follow(self._calibration)

    def in_use(self, calibration: Calibration) -> Calibration:
        """Return a calibration without the parts that the method's options leave out."""
        return calibration if self.balances else replace(calibration, balance=torch.zeros_like(calibration.balance))

    def follow(self, calibration: Calibration) -> None:
        """Take from a calibration what the steps use."""
        self.factor = calibration.factor if (calibration.factor != 1).any() else None
        self.returned = calibration.returned if (calibration.balance > 0).any() else None

    def balanced(self, z: torch.Tensor, streams: Streams) -> torch.Tensor:
        """Fields z (B, C, m, m), in the coordinates of the diffusion, with the balance of each shell."""
        if self.factor is not None:
            z = scale_shells(z, self.factor)
        if self.returned is None:
            return z
        return z + self.shell_noise(self.returned, normal(streams, z.shape[1:], z))

    def shell_noise(self, power: torch.Tensor, noise: torch.Tensor, sigma: float = 0.0) -> torch.Tensor:
        """Gaussian noise (B, C, H, W) with the `power` (C, K) per mode, and white noise of the standard deviation `sigma` beside it.

        Both are made of `noise` (B, C, H, W), white and of unit variance. The mean of two halves would take half of its power
        from white noise. So the noise of the `power` has equal halves along mirrored axes.
        """
        if not any(self.mirrored):
            return scale_shells(noise, (sigma**2 + power).sqrt())
        equal = mean_of_halves(noise, self.mirrored)
        share = kept_share(tuple(noise.shape[-2:]), self.mirrored)
        power = torch.where(share > 0, power / share, 0.0)
        return sigma * (noise - equal) + scale_shells(equal, (sigma**2 + power).sqrt())


def scale_shells(fields: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Fields (B, C, H, W) whose modes of each shell are multiplied by `factor` (C, K)."""
    shells = torch.from_numpy(shell_index(fields.shape[-2:]))
    return filtered(fields, factor[:, shells].to(fields.device, fields.dtype))


def mean_of_halves(fields: torch.Tensor, mirrored: tuple[bool, bool]) -> torch.Tensor:
    """Fields (B, C, H, W) whose halves along the mirrored axes (y, x) are the mean of both, the second one mirrored."""
    for axis, mirror in zip((-2, -1), mirrored, strict=True):
        if mirror:
            fields = 0.5 * (fields + fields.flip(axis))
    return fields


def kept_share(resolution: tuple[int, int], mirrored: tuple[bool, bool]) -> torch.Tensor:
    """Share (K,), float64, of the power of white noise in each shell that `mean_of_halves` keeps.

    Along a mirrored axis it keeps all of a mode without waves there, nothing of the Nyquist mode, and half of any other.
    """
    (height, width), shells = resolution, torch.from_numpy(shell_index(resolution))
    weight = torch.from_numpy(mode_weight(resolution))
    remaining = weight.clone()
    for axis, (points, mirror) in enumerate(zip((height, width), mirrored, strict=True)):
        if mirror:
            share = torch.full((remaining.shape[axis],), 0.5, dtype=weight.dtype)
            share[0], share[points // 2] = 1.0, 0.0
            remaining = remaining * (share[:, None] if axis == 0 else share)
    count = torch.zeros(int(shells.max()) + 1, dtype=weight.dtype)
    total, present = (count.index_add(0, shells.flatten(), part.flatten()) for part in (remaining, weight))
    return total / present
