"""Measures of the user's own: functions `module.name` of frames, named in `metrics.user`.

A measure is given frames (B, C, m, m) in the system's units and the system, and returns a number a frame and layer, (B, C).
It is taken of every stored frame of every rollout and of the solver's reference; its means stand in the tables.
"""

import numpy as np
import torch
import xarray as xr

from sns_core.plugins import load
from sns_core.runtime import UserError
from sns_core.systems import System

FRAMES = 128  # of one member that are measured at a time


def measured(names: list[str], frames: xr.DataArray, system: System) -> dict[str, xr.DataArray]:
    """Series (member, time, layer) of each measure, by its name without the module, of frames (member, time, layer, y, x)."""
    return {name.rpartition(".")[2]: _series(name, frames, system) for name in names}


def _series(name: str, frames: xr.DataArray, system: System) -> xr.DataArray:
    measure, rows = load(name), []
    for member in range(frames.sizes["member"]):
        parts = []
        for start in range(0, frames.sizes["time"], FRAMES):
            chosen = torch.from_numpy(frames.isel(member=member, time=slice(start, start + FRAMES)).values)
            values = measure(chosen, system)
            if tuple(values.shape) != tuple(chosen.shape[:2]):
                raise UserError(
                    f"metrics.user: {name} gives shape {tuple(values.shape)} for frames {tuple(chosen.shape)}; it must "
                    f"give a number a frame and layer, {tuple(chosen.shape[:2])}"
                )
            parts.append(np.asarray(values))
        rows.append(np.concatenate(parts))
    return xr.DataArray(np.stack(rows), dims=("member", "time", "layer"), coords={"time": frames["time"]})


def window_means(result: xr.Dataset, names: list[str], first: float, last: float) -> xr.Dataset:
    """Means (layer) of the measures over all members and the stored frames at times first < time <= last."""
    inside = ((result["time"] > first) & (result["time"] <= last)).values
    short = [name.rpartition(".")[2] for name in names]
    return xr.Dataset({name: result[name].isel(time=inside).mean(("member", "time")) for name in short})
