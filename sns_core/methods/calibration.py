"""The measurements that a calibrated refinement follows.

They stand apart from the method, because `methods.build` reads them for every method, and an edit of calibrated refinement
reruns no other.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Calibration:
    """Measurements of a surrogate and a denoiser, in the coordinates of the diffusion; spectra are (C, K) float64.

    `level`: s1, at which the denoiser sees the candidate. `residual`: power R of the surrogate's one-step error.
    `power`: of the data. `balance`: power that each step gives back to the modes of a shell; where it is negative, the
    modes are damped so that a shell with the power of the data loses as much. `departure`: factor of the difference between
    the clean estimate and the candidate (None: 1 in every shell).
    """

    level: int
    residual: torch.Tensor
    power: torch.Tensor
    balance: torch.Tensor
    departure: torch.Tensor | None = None

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
