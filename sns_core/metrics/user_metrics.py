"""Metrics of the user's own: functions `module.name` of frames, named in `metrics.user`.

A metric takes frames (B, C, m, m) in the system's units and the system. It returns one number per frame and layer, (B, C). It
is computed for every stored frame of every rollout and for every frame of the test split, and its means stand in the tables.
"""

from collections.abc import Iterable

import numpy as np
import torch
import xarray as xr

from sns_core.errors import UserError
from sns_core.plugins import load, short_name
from sns_core.systems import System

FRAMES = 128  # frames of one member that a metric is given at a time


def measured_by_user(names: list[str], members: Iterable[xr.DataArray], system: System) -> dict[str, xr.DataArray]:
    """Return the series (member, time, layer) of each metric, by its short name, of lazy frames (time, layer, y, x) per member."""
    return {short_name(name): _series(name, list(members), system) for name in names}


def _series(name: str, members: list[xr.DataArray], system: System) -> xr.DataArray:
    metric, rows = load(name), []
    for frames in members:
        parts = []
        for start in range(0, frames.sizes["time"], FRAMES):
            chosen = torch.from_numpy(frames.isel(time=slice(start, start + FRAMES)).values)
            values = metric(chosen, system)
            if tuple(values.shape) != tuple(chosen.shape[:2]):
                raise UserError(
                    f"metrics.user: {name} returns shape {tuple(values.shape)} for frames {tuple(chosen.shape)}; it must "
                    f"return one number per frame and layer, {tuple(chosen.shape[:2])}"
                )
            parts.append(np.asarray(values))
        rows.append(np.concatenate(parts))
    return xr.DataArray(np.stack(rows), dims=("member", "time", "layer"), coords={"time": members[0]["time"]})


def window_means(result: xr.Dataset, names: list[str], first: float, last: float) -> xr.Dataset:
    """Return the means (layer) of the metrics over all members and the stored frames at times first < time <= last."""
    inside = ((result["time"] > first) & (result["time"] <= last)).values
    return xr.Dataset({n: result[n].isel(time=inside).mean(("member", "time")) for n in map(short_name, names)})
