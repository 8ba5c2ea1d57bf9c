"""Statistics of every step of a rollout, in memory that does not grow with its length.

Steps are gathered into blocks of fixed size, aligned to the step count, and each block is reduced at once and handed on:
series per step, and the block's mean spectrum, mean zonal flow, histograms and C(tau) against a ring of the last `lags` frames, which
travels in the restart file. Cutting a rollout at block boundaries therefore changes nothing.
"""

import numpy as np
import torch

from sns_core.methods.base import StepRecord
from sns_core.metrics.distributions import components, histogram
from sns_core.metrics.spectra import kinetic_energy_spectrum, shell_wavenumbers
from sns_core.metrics.summaries import BINS
from sns_core.metrics.temporal import centred, lagged_correlation
from sns_core.systems import System

LOST_BEYOND = 12.0  # standard deviations: a member further out than this is lost

# Dimensions of what a block tells, beside its members: a value a step, or one for the whole block.
SERIES = {
    "kinetic_energy": ("step", "layer"), "enstrophy": ("step", "layer"), "rate_of_change": ("step",),
    "relative_change": ("step",), "max_abs": ("step",), "levels": ("step", "frame"), "calls": ("step",),
    "energy_spectrum": ("block", "layer", "wavenumber"), "correlation": ("block", "lag"),
    "zonal_profile": ("block", "layer", "y"), "vorticity_counts": ("block", "layer", "bin"),
    "velocity_counts": ("block", "layer", "bin"), "gradient_counts": ("block", "layer", "bin"),
}  # fmt: skip


class StreamingStatistics:
    """Takes frames (B, C, m, m), in units of `scale` (C, 1, 1), and gives the statistics of each whole block.

    `component_scales`: units of the histograms of vectors, as the function of that name gives them; `lags`: frames that
    C(tau) looks back; `carry()` and `restore()` move what is remembered to the next segment.
    """

    def __init__(
        self, system: System, scale: torch.Tensor, component_scales: dict, step_size: float, block: int, lags: int
    ):  # fmt: skip
        self.system, self.scale, self.step_size, self.block, self.lags = system, scale, step_size, block, lags
        self.component_scales = {name: unit.to(scale) for name, unit in component_scales.items()}
        self._frames: list[torch.Tensor] = []
        self._records: list[StepRecord] = []

    def sizes(self, resolution: int) -> dict[str, int]:
        """Lengths of the dimensions in SERIES that do not grow."""
        return {"wavenumber": len(shell_wavenumbers(resolution)), "lag": self.lags + 1, "frame": 2, "bin": BINS}

    def begin(self, frame: torch.Tensor) -> None:
        """Start from the initial frame; before it the ring holds NaN, which C(tau) leaves out."""
        empty = torch.full((len(frame), self.lags, *frame.shape[1:]), float("nan"), device=frame.device)
        self.ring = torch.cat([empty, frame[:, None]], 1)[:, 1:]
        self.lost_step = torch.full((len(frame),), -1, dtype=torch.int64)

    def carry(self) -> dict[str, torch.Tensor]:
        return {"ring": self.ring, "lost_step": self.lost_step}

    def restore(self, tensors: dict[str, torch.Tensor], device) -> None:
        self.ring, self.lost_step = tensors["ring"].to(device), tensors["lost_step"]

    def add(self, frame: torch.Tensor, record: StepRecord, step: int) -> dict[str, np.ndarray] | None:
        """Take a frame; where it ends a block, the block's statistics: arrays (member, *SERIES[name])."""
        self._frames.append(frame)
        self._records.append(record)
        if len(self._frames) < self.block:
            return None
        reduced = self._reduce(step - self.block + 1)
        self._frames, self._records = [], []
        return reduced

    def _reduce(self, first_step: int) -> dict[str, np.ndarray]:
        frames = torch.stack(self._frames, 1)
        members, count, channels = frames.shape[:3]
        known = torch.cat([self.ring, frames], 1)

        field = (frames * self.scale).flatten(0, 1)
        vectors = components(self.system, field)
        u, v = vectors["velocity"].unbind(2)
        spectra = [kinetic_energy_spectrum(u[:, [c]], v[:, [c]], self.system.length)[1] for c in range(channels)]
        energy = 0.5 * (u.square() + v.square()).mean((-2, -1))
        enstrophy = 0.5 * field.square().mean((-2, -1))
        before = known[:, -count - 1 : -1]
        change = frames - before
        furthest = frames.abs().amax((2, 3, 4))
        unit = centred(known)
        correlation = lagged_correlation(unit[:, : self.lags], unit[:, self.lags :])
        reduced = {
            "kinetic_energy": energy.unflatten(0, (members, count)),
            "enstrophy": enstrophy.unflatten(0, (members, count)),
            "rate_of_change": change.abs().mean((2, 3, 4)) / self.step_size,
            "relative_change": (change.square().mean((2, 3, 4)) / before.square().mean((2, 3, 4))).sqrt(),
            "max_abs": furthest,
            "levels": torch.stack([r.levels for r in self._records], 1),
            "calls": torch.stack([r.calls for r in self._records], 1),
            "energy_spectrum": torch.stack(spectra, 1).unflatten(0, (members, count)).mean(1)[:, None],
            "correlation": correlation.nanmean(1)[:, None],
            "zonal_profile": u.mean(-1).unflatten(0, (members, count)).mean(1)[:, None],
            "vorticity_counts": histogram(frames.transpose(1, 2))[:, None],
        }
        for name, values in vectors.items():
            scaled = (values / self.component_scales[name]).unflatten(0, (members, count))
            reduced[f"{name}_counts"] = histogram(scaled.transpose(1, 2))[:, None]
        lost = (~(furthest <= LOST_BEYOND)).cpu()
        first = torch.where(lost.any(1), first_step + lost.int().argmax(1), -1)
        self.lost_step = torch.where(self.lost_step < 0, first, self.lost_step)
        self.ring = known[:, -self.lags :]
        return {name: values.cpu().numpy() for name, values in reduced.items()}
