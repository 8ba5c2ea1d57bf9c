"""Statistics of every step of a rollout, in memory that does not grow with its length.

Steps are gathered into blocks of fixed size, aligned to the step count, and each block is reduced at once: series per
step, the mean spectrum of the block, and C(tau) against a ring of the last `lags` frames, which travels in the restart
file. Cutting a rollout at block boundaries therefore changes nothing.
"""

import numpy as np
import torch

from sns_core.metrics.spectra import kinetic_energy_spectrum
from sns_core.metrics.temporal import centred, lagged_correlation
from sns_core.rollout.steppers import StepRecord
from sns_core.systems import System

LOST_BEYOND = 12.0  # standard deviations: a member further out than this is lost


class StreamingStatistics:
    """Collects frames (B, C, m, m), in units of `scale`, and records, and reduces them block by block.

    `lags`: frames that C(tau) looks back; `carry()` and `restore()` move the ring to the next segment.
    """

    def __init__(self, system: System, scale: torch.Tensor, step_size: float, block: int, lags: int):
        self.system, self.scale, self.step_size, self.block, self.lags = system, scale, step_size, block, lags
        self.series: dict[str, list[np.ndarray]] = {}
        self.blocks: dict[str, list[np.ndarray]] = {"energy_spectrum": [], "correlation": []}
        self._frames: list[torch.Tensor] = []
        self._records: list[StepRecord] = []

    def begin(self, frame: torch.Tensor) -> None:
        """Start from the initial frame; before it the ring holds NaN, which C(tau) leaves out."""
        empty = torch.full((len(frame), self.lags, *frame.shape[1:]), float("nan"), device=frame.device)
        self.ring = torch.cat([empty, frame[:, None]], 1)[:, 1:]
        self.lost_step = torch.full((len(frame),), -1, dtype=torch.int64)

    def carry(self) -> dict[str, torch.Tensor]:
        return {"ring": self.ring, "lost_step": self.lost_step}

    def restore(self, tensors: dict[str, torch.Tensor], device) -> None:
        self.ring, self.lost_step = tensors["ring"].to(device), tensors["lost_step"]

    def add(self, frame: torch.Tensor, record: StepRecord, step: int) -> None:
        self._frames.append(frame)
        self._records.append(record)
        if len(self._frames) == self.block:
            self._reduce(step - self.block + 1)

    def _reduce(self, first_step: int) -> None:
        frames = torch.stack(self._frames, 1)
        members, count, channels = frames.shape[:3]
        known = torch.cat([self.ring, frames], 1)

        field = (frames * self.scale).flatten(0, 1)
        u, v = self.system.frame_velocity(field)
        energy = 0.5 * (u.square() + v.square()).mean((-2, -1))
        enstrophy = 0.5 * field.square().mean((-2, -1))
        spectra = [kinetic_energy_spectrum(u[:, [c]], v[:, [c]], self.system.length)[1] for c in range(channels)]
        spectrum = torch.stack(spectra, 1).unflatten(0, (members, count)).mean(1)

        change = frames - known[:, -count - 1 : -1]
        before = known[:, -count - 1 : -1]
        furthest = frames.abs().amax((2, 3, 4))
        series = {
            "kinetic_energy": energy.unflatten(0, (members, count)),
            "enstrophy": enstrophy.unflatten(0, (members, count)),
            "rate_of_change": change.abs().mean((2, 3, 4)) / self.step_size,
            "relative_change": (change.square().mean((2, 3, 4)) / before.square().mean((2, 3, 4))).sqrt(),
            "max_abs": furthest,
        }
        for name, values in series.items():
            self.series.setdefault(name, []).append(values.cpu().numpy())
        self.series.setdefault("levels", []).append(torch.stack([r.levels for r in self._records], 1).numpy())
        self.series.setdefault("calls", []).append(torch.stack([r.calls for r in self._records], 1).numpy())

        unit = centred(known)
        correlation = lagged_correlation(unit[:, : self.lags], unit[:, self.lags :])
        self.blocks["correlation"].append(correlation.nanmean(1).cpu().numpy())
        self.blocks["energy_spectrum"].append(spectrum.cpu().numpy())

        lost = (~(furthest <= LOST_BEYOND)).cpu()
        first = torch.where(lost.any(1), first_step + lost.int().argmax(1), -1)
        self.lost_step = torch.where(self.lost_step < 0, first, self.lost_step)
        self.ring = known[:, -self.lags :]
        self._frames, self._records = [], []

    def collected(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Series (member, step, ...) and block means (member, block, ...) since the start of the segment."""
        series = {name: np.concatenate(parts, 1) for name, parts in self.series.items()}
        return series, {name: np.stack(parts, 1) for name, parts in self.blocks.items()}
