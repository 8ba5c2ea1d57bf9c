"""The zonal-mean flow of a rollout: its mean profile and its variance, from the stored frames."""

import numpy as np
import xarray as xr

from sns_core.metrics.bootstrap import interval, pooled

SILENT = 1e-5  # share of the root-mean-square velocity; a zonal mean below it was removed from the frames


def step_of_frames(result: xr.Dataset) -> np.ndarray:
    """Return the steps after which the frames of a method's results were stored; lags are one step apart."""
    return np.rint(result["time"].values / float(result["lag"][1] - result["lag"][0])).astype(int)


def zonal_blocks(result: xr.Dataset) -> xr.Dataset:
    """Return means over the stored frames of each block of the zonal-mean velocity and of its square.

    Both have the axes (member, block, layer, y). The initial frame is left out. A block without a stored frame holds NaN.
    """
    blocks, step = result["block"].values, step_of_frames(result)
    velocity = result["zonal_velocity"].isel(time=np.flatnonzero(step > 0)).astype(float)
    place = np.searchsorted(blocks, step[step > 0])
    velocity = velocity.drop_vars("time", errors="ignore").rename(time="block").assign_coords(block=blocks[place])
    both = xr.Dataset({"zonal_mean": velocity, "zonal_square": velocity**2})
    return both.groupby("block").mean().reindex(block=blocks).transpose("member", "block", ...)


def zonal_variance(means: xr.Dataset) -> xr.DataArray:
    """Return the variance over time and members of the zonal-mean velocity, (..., y), from its mean and mean square."""
    return (means["zonal_square"] - means["zonal_mean"] ** 2).clip(min=0)


def profile(units: xr.Dataset) -> xr.Dataset:
    """Return the mean profile with its interval of 90 %, and the standard deviation over time and members, (layer, y).

    `units`: "zonal_mean" and "zonal_square" (unit, layer, y) with the "size" of each unit, the form that `pooled` takes.
    """
    means = pooled(units[["zonal_mean", "zonal_square", "size"]])
    dimensions = ("layer", "y")
    values = means["zonal_mean"].transpose("resample", *dimensions).values
    parts = dict(zip(("mean", "low", "high"), interval(values), strict=True))
    spread = np.sqrt(zonal_variance(means.isel(resample=0))).transpose(*dimensions).values
    return xr.Dataset({name: (dimensions, part) for name, part in {**parts, "spread": spread}.items()})
