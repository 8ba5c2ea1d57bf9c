"""The balance of shells: what a method that feeds on its own estimates gives back to each of them."""

import torch

from sns_core.errors import UserError
from sns_core.methods.base import Streams
from sns_core.methods.calibration import Calibration
from sns_core.methods.denoising import DenoisingMethod
from sns_core.shells import filtered, shell_index
from sns_core.streams import normal


class BalancedMethod(DenoisingMethod):
    """Base of the methods whose shells get back the power that a rollout of theirs lacks.

    `calibration` holds this power, the balance (`evaluation.calibration` finds it).
    """

    calibrated = True
    balances = True
    _calibration: Calibration | None = None

    @property
    def measured(self) -> bool:
        """Whether there is a calibration."""
        return self._calibration is not None

    @property
    def calibration(self) -> Calibration:
        """The measurements that the steps follow; a new value replaces all of them. UserError where there are none yet."""
        if self._calibration is None:
            raise UserError(
                f"{type(self).__name__}: has no calibration, which its steps follow; give calibration=, or call calibrate first"
            )
        return self._calibration

    @calibration.setter
    def calibration(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self.follow(calibration)

    def follow(self, calibration: Calibration) -> None:
        """Take from a calibration what the steps use."""
        self.factor = calibration.factor if (calibration.factor != 1).any() else None
        self.returned = calibration.returned.sqrt() if (calibration.balance > 0).any() else None

    def balanced(self, z: torch.Tensor, streams: Streams) -> torch.Tensor:
        """Fields z (B, C, m, m), in the coordinates of the diffusion, with the balance of each shell."""
        if self.factor is not None:
            z = scale_shells(z, self.factor)
        return z if self.returned is None else z + shell_noise(self.returned, z, streams)


def scale_shells(fields: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Fields (B, C, H, W) whose modes of each shell are multiplied by `factor` (C, K)."""
    shells = torch.from_numpy(shell_index(fields.shape[-2:]))
    return filtered(fields, factor[:, shells].to(fields.device, fields.dtype))


def shell_noise(amplitude: torch.Tensor, like: torch.Tensor, streams: Streams) -> torch.Tensor:
    """Gaussian noise with the shape of `like` (B, C, H, W) and the standard deviation `amplitude` (C, K) per mode."""
    return scale_shells(normal(streams, like.shape[1:], like), amplitude)
