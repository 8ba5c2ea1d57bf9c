"""Statistics of every step of a rollout, in memory that does not grow with its length.

Steps are gathered into blocks of fixed size, aligned to the step count. Each block is measured when it is full. The
result holds one value per step for series, and one value per block for the mean spectrum, the mean zonal flow, the
histograms and C(tau). C(tau) needs a ring of the last `lags` frames, which travels in the restart file. A rollout that
is cut at a block boundary therefore gives the same numbers as one that is not cut.
"""

import numpy as np
import torch

from sns_core.grids import Grid
from sns_core.methods.base import StepRecord
from sns_core.metrics.distances import BINS
from sns_core.metrics.lost import NOT_LOST, first_lost_step, is_lost
from sns_core.metrics.measures import COUNTED, measure
from sns_core.metrics.spectra import shell_wavenumbers
from sns_core.systems import System

# Dimensions of each statistic beside `member`: one value per step, or one value per block.
SERIES = {
    "kinetic_energy": ("step", "layer"), "enstrophy": ("step", "layer"), "rate_of_change": ("step",),
    "relative_change": ("step",), "max_abs": ("step",), "levels": ("step", "frame"), "calls": ("step",),
    "energy_spectrum": ("block", "layer", "wavenumber"), "correlation": ("block", "lag"),
    "zonal_profile": ("block", "layer", "y"), "zonal_square": ("block", "layer", "y"), "zonal_direction": ("block", "layer", "y"),
    "vorticity_counts": ("block", "layer", "bin"), "velocity_counts": ("block", "layer", "bin"),
    "gradient_counts": ("block", "layer", "bin"),
}  # fmt: skip


class StreamingStatistics:
    """Statistics of a rollout, one block of steps after the other.

    scale: (C, 1, 1), the unit of the frames; component_scales: units of the histograms of vectors, from the function of
    that name; step_size: time between frames; block: steps per block; lags: how many frames C(tau) looks back.
    `carry()` and `restore()` hand the ring and the lost steps to the next segment.
    """

    def __init__(
        self, system: System, scale: torch.Tensor, component_scales: dict, step_size: float, block: int, lags: int
    ):
        self.system, self.scale, self.step_size, self.block, self.lags = system, scale, step_size, block, lags
        self.component_scales = {name: unit.to(scale) for name, unit in component_scales.items()}
        self._frames: list[torch.Tensor] = []
        self._records: list[StepRecord] = []

    def sizes(self, resolution: Grid) -> dict[str, int]:
        """Return the lengths of the dimensions in SERIES that do not grow with the rollout."""
        return {"wavenumber": len(shell_wavenumbers(resolution)), "lag": self.lags + 1, "frame": 2, "bin": BINS}

    def begin(self, frame: torch.Tensor) -> None:
        """Start from the initial frame (B, C, m, m). The ring holds NaN before it, and C(tau) leaves NaN out."""
        empty = torch.full((len(frame), self.lags, *frame.shape[1:]), float("nan"), device=frame.device)
        self.ring = torch.cat([empty, frame[:, None]], 1)[:, 1:]
        self.lost_step = torch.full((len(frame),), NOT_LOST, dtype=torch.int64)

    def carry(self) -> dict[str, torch.Tensor]:
        """Return what the next segment needs: "ring" (B, lags, C, m, m), the last frames, and "lost_step" (B,)."""
        return {"ring": self.ring, "lost_step": self.lost_step}

    def restore(self, tensors: dict[str, torch.Tensor], device) -> None:
        """Go on from what `carry` returned at the end of the segment before."""
        self.ring, self.lost_step = tensors["ring"].to(device), tensors["lost_step"]

    def add(self, frame: torch.Tensor, record: StepRecord, step: int) -> dict[str, np.ndarray] | None:
        """Add the frame (B, C, m, m) of a step. Return the statistics of the block that it ends, else None.

        The statistics are arrays (member, *SERIES[name]).
        """
        self._frames.append(frame)
        self._records.append(record)
        if len(self._frames) < self.block:
            return None
        reduced = self._reduce(step - self.block + 1)
        self._frames, self._records = [], []
        return reduced

    def _reduce(self, first_step: int) -> dict[str, np.ndarray]:
        """Return the statistics of the block that begins at `first_step`, and keep its last frames in the ring."""
        frames = torch.stack(self._frames, 1)
        measured = measure(
            frames,
            self.ring,
            system=self.system,
            scale=self.scale,
            component_scales=self.component_scales,
            step_size=self.step_size,
        )
        # Series keep a value per step; everything else is reduced to one value per block below.
        reduced = {name: measured[name] for name, axes in SERIES.items() if axes[0] == "step" and name in measured}
        reduced["levels"] = torch.stack([r.levels for r in self._records], 1)
        reduced["calls"] = torch.stack([r.calls for r in self._records], 1)
        reduced["energy_spectrum"] = measured["energy_spectrum"].mean(1)[:, None]
        reduced["correlation"] = measured["correlation"].nanmean(1)[:, None]
        reduced["zonal_profile"] = measured["zonal_velocity"].mean(1)[:, None]
        reduced["zonal_square"] = measured["zonal_velocity"].square().mean(1)[:, None]
        reduced["zonal_direction"] = measured["zonal_direction"].mean(1)[:, None]
        for name in COUNTED:
            reduced[f"{name}_counts"] = measured[f"{name}_counts"][:, None]
        first = torch.from_numpy(first_lost_step(measured["max_abs"].cpu().numpy(), first_step))
        self.lost_step = torch.where(is_lost(self.lost_step), self.lost_step, first)
        self.ring = torch.cat([self.ring, frames], 1)[:, -self.lags :]
        return {name: values.cpu().numpy() for name, values in reduced.items()}
