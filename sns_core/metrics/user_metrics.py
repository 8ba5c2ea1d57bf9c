"""Metrics of the user's own: functions `module.name` of frames, named in `metrics.user`.

A metric takes frames (B, C, m, m) in the system's units and the system. It returns one number per frame and layer, (B, C). It
is computed for every stored frame of every rollout and for every frame of the test split, and its means stand in the tables.
"""

import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

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
            # A copy, because a metric may change its frames, which the next one gets, too.
            chosen = torch.from_numpy(frames.isel(time=slice(start, start + FRAMES)).values.copy())
            parts.append(_measured(name, metric, chosen, system))
        rows.append(np.concatenate(parts))
    return xr.DataArray(np.stack(rows), dims=("member", "time", "layer"), coords={"time": members[0]["time"]})


def _measured(name: str, metric: Callable, frames: torch.Tensor, system: System) -> np.ndarray:
    """Return one number (B, C) of a metric per frame and layer. Raise UserError where it fails or returns anything else."""
    shape = tuple(frames.shape)
    try:
        values = metric(frames, system)
        values = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    except UserError:
        raise
    except Exception as error:  # of any kind, because the function is the user's own
        places = [
            place for place in traceback.extract_tb(error.__traceback__) if Path(place.filename).parent == Path.cwd()
        ]
        line = f", in line {places[-1].lineno} of {Path(places[-1].filename).name}" if places else ""
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"metrics.user: {name} fails for frames {shape}{line}: {reason}") from None
    expected = shape[:2]
    if values.shape != expected:
        raise UserError(
            f"metrics.user: {name} returns shape {values.shape} for frames {shape}; it must return one number per frame and "
            f"layer, {expected}"
        )
    if values.dtype.kind not in "fiub":
        raise UserError(f"metrics.user: {name} returns values of the type {values.dtype}; it must return real numbers")
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def window_means(result: xr.Dataset, names: list[str], first: float, last: float) -> xr.Dataset:
    """Return the means (layer) of the metrics over all members and the stored frames at times first < time <= last."""
    inside = ((result["time"] > first) & (result["time"] <= last)).values
    return xr.Dataset({n: result[n].isel(time=inside).mean(("member", "time")) for n in map(short_name, names)})
