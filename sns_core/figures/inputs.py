"""What the figures read, and the one rule for lost members that all of them share.

A member that was lost (NaN, or further out than a frame can be) keeps its place in the files. Figures show it up to
the step before it was lost and count it; its later values would hide every other line.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.errors import DamagedFile, UserError
from sns_core.files import missing
from sns_core.metrics.lost import count_lost, is_alive

# Units of the files -> those of the figures, and what one is worth in the other; "1/(s)" stands in files of older versions.
SHOWN_UNITS = {
    "s": ("d", 1 / 86400), "s-1": ("1/d", 86400.0), "1/(s)": ("1/d", 86400.0),
    "m": ("km", 1e-3), "m-1": ("1/km", 1e3), "1/(m)": ("1/km", 1e3),
}  # fmt: skip
# Variables that figures show in these units; fields and energies stay in the units of the system.
CONVERTED = ("time", "clock", "lag", "map_lag", "y", "x", "distance", "wavenumber", "rate_of_change")


def read(path: Path) -> xr.Dataset:
    """A result file, in memory and in the figures' units; UserError where it is missing or no netCDF."""
    try:
        with xr.open_dataset(path) as dataset:
            return in_shown_units(dataset.load())
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise DamagedFile(path, f"not readable as netCDF ({error})") from None


def in_shown_units(dataset: xr.Dataset) -> xr.Dataset:
    """Days for seconds and kilometres for metres; numbers without units stay as they are."""
    for name, variable in dataset.variables.items():
        if name in CONVERTED and variable.attrs.get("units") in SHOWN_UNITS:
            units, factor = SHOWN_UNITS[variable.attrs["units"]]
            dataset[name] = (variable.dims, variable.values * factor, {**variable.attrs, "units": units})
    return dataset


def read_each(paths: dict[str, Path], names: Iterable[str]) -> dict[str, xr.Dataset]:
    """The result file of each of `names`, in that order; UserError for one without a file."""
    missing = [name for name in names if name not in paths]
    if missing:
        raise UserError(f"figures: no file for the method {missing[0]!r}; known: {', '.join(paths)}")
    return {name: read(paths[name]) for name in names}


def step_size(result: xr.Dataset) -> float:
    """Time between emulator steps, from the lags of C(tau)."""
    return float(result["lag"][1] - result["lag"][0])


def alive(result: xr.Dataset, axis: str) -> xr.DataArray:
    """True where a member was not lost yet; (member, axis); `axis`: "step" or "block", which its last step labels."""
    return is_alive(result["lost_step"], result[axis])


def living(result: xr.Dataset, name: str) -> xr.DataArray:
    """A stored series with NaN from the step or block in which a member was lost."""
    values = result[name]
    axis = "step" if "step" in values.dims else "block"
    return values.where(alive(result, axis) & np.isfinite(values))


def lost_by(result: xr.Dataset, step: int | None = None) -> int:
    """Members lost at or before `step` (None: by the end)."""
    return count_lost(result["lost_step"].values, np.inf if step is None else step)


def lost_note(result: xr.Dataset, step: int | None = None) -> str:
    """ "3 of 8 lost", or nothing where no member was."""
    count = lost_by(result, step)
    return f"{count} of {result.sizes['member']} lost" if count else ""


def shown_shells(truth: np.ndarray) -> slice:
    """Shells of a spectrum (K,) from 1 to the last that holds more than rounding, which is what truncation leaves."""
    return slice(1, int(np.flatnonzero(truth > 1e-9 * truth[1:].max())[-1]) + 1)


def thirds(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """The first and the last third of a rollout's blocks, at least one block each, with the steps that lie in them."""
    block = result["block"].values
    count = max(1, len(block) // 3)
    length = int(block[0])
    cuts = {"early": slice(0, count), "late": slice(len(block) - count, None)}
    parts = {}
    for name, cut in cuts.items():
        chosen = block[cut]
        steps = (result["step"] > chosen[0] - length) & (result["step"] <= chosen[-1])
        parts[name] = result.isel(block=cut, step=np.flatnonzero(steps.values))
    return parts
