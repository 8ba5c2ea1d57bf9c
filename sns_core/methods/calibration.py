"""The measurements that a calibrated refinement follows.

They stand apart from the method, because `methods.build` reads them for every method, and an edit of calibrated refinement
reruns no other.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from sns_core.errors import DamagedFile
from sns_core.files import of_other_data, read_json

CALIBRATION = "calibration"  # role of the file that `calibrate_refinement` makes
CALIBRATION_FORMAT = "sns-calibration-2"
LEAST_SHARE = 0.5  # of a shell's power that a step leaves in place at least


@dataclass(frozen=True)
class Calibration:
    """Measurements of a surrogate and a denoiser, in the coordinates of the diffusion; spectra are (C, K) float64.

    `level`: s1, at which the denoiser sees the candidate. `residual`: power R of the surrogate's one-step error.
    `power`: P of the data. `balance`: power that each step gives back to the modes of a shell, negative where it takes some.
    `departure`: factor of the difference between the clean estimate and the candidate (None: 1 in every shell).

    An exact estimate lacks at most the power R. So up to R is given back as noise. What a shell lacks beyond R, or has too
    much, is no missing variance but a bias of the mean, and a factor mends it.
    """

    level: int
    residual: torch.Tensor
    power: torch.Tensor
    balance: torch.Tensor
    departure: torch.Tensor | None = None

    @property
    def returned(self) -> torch.Tensor:
        """Power (C, K) that is given back as noise."""
        return torch.minimum(self.balance.clamp(min=0), self._most_noise)

    @property
    def factor(self) -> torch.Tensor:
        """Factor (C, K) of the modes: it gives a shell with the power of the data the rest of the balance."""
        return (1 + torch.where(self.power > 0, (self.balance - self.returned) / self.power, 0.0)).sqrt()

    @property
    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The least and the largest balance (C, K): neither its noise nor its factor changes a shell by more than the power R.

        The factor s changes a shell by the power (1 - s)^2 P. Without the bounds, the balance of a shell whose power hardly
        follows it would wander with the noise of the measured power.
        """
        strength = torch.where(self.power > 0, (self.residual / self.power).sqrt(), 0.0)
        strength = strength.clamp(max=1 - math.sqrt(LEAST_SHARE))
        least, most = (self.power * ((1 + sign * strength).square() - 1) for sign in (-1, 1))
        return least, most + self._most_noise

    @property
    def _most_noise(self) -> torch.Tensor:
        return torch.minimum(self.residual, self.power)

    def without_balance(self) -> "Calibration":
        """R and P alone, as the measurements with which a loop begins."""
        return Calibration(self.level, self.residual, self.power, torch.zeros_like(self.balance))

    def to_dict(self) -> dict:
        """The calibration as JSON can hold it."""
        measured = {name: value for name, value in vars(self).items() if value is not None}
        return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in measured.items()}

    @classmethod
    def from_dict(cls, content: dict) -> "Calibration":
        """The calibration that `to_dict` gave; further keys are ignored."""
        names = ("residual", "power", "balance", *(["departure"] if "departure" in content else []))
        spectra = {name: torch.tensor(content[name], dtype=torch.float64) for name in names}
        return cls(level=content["level"], **spectra)


def read_calibration(path: Path, identity: str) -> Calibration:
    """Read the file that `calibrate_refinement` made on the data of this `identity`.

    Raises DamagedFile for none or a part of one, and UserError for other data.
    """
    content = read_json(path)
    if content.get("format") != CALIBRATION_FORMAT:
        raise DamagedFile(path, f"not a calibration of this project (its format is not {CALIBRATION_FORMAT!r})")
    if content.get("data") != identity:
        raise of_other_data(path, "measured", content.get("data"))
    try:
        return Calibration.from_dict(content)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(path, f"no whole calibration ({error!r})") from None
