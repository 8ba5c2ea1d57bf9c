"""The inputs of figures, and the rule for lost members that all figures share.

A member that was lost (not finite, or further out than a frame can be) keeps its place in the files. Figures show such
a member up to the step before its loss and count it. Its later values would hide all other lines.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.errors import DamagedFile, UserError
from sns_core.files import missing
from sns_core.metrics.lost import count_lost, is_alive

# Units of the files -> (units of the figures, value of one file unit in them). Files of older versions have "1/(s)".
SHOWN_UNITS = {
    "s": ("d", 1 / 86400), "s-1": ("1/d", 86400.0), "1/(s)": ("1/d", 86400.0),
    "m": ("km", 1e-3), "m-1": ("1/km", 1e3), "1/(m)": ("1/km", 1e3),
}  # fmt: skip
# Variables that figures show in these units; fields and energies stay in the units of the system.
CONVERTED = ("time", "clock", "lag", "map_lag", "y", "x", "distance", "wavenumber", "rate_of_change")


def read(path: Path) -> xr.Dataset:
    """Return a result file, loaded and in the figures' units; UserError if it is missing or no netCDF file."""
    try:
        with xr.open_dataset(path) as dataset:
            return in_shown_units(dataset.load())
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise DamagedFile(path, f"not readable as netCDF ({error})") from None


def in_shown_units(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset with days for seconds and kilometres for metres; numbers without units stay as they are.

    So do those of files that ask for it by their attribute `shown_units`.
    """
    if dataset.attrs.get("shown_units") == "own":
        return dataset
    for name, variable in dataset.variables.items():
        if name in CONVERTED and variable.attrs.get("units") in SHOWN_UNITS:
            units, factor = SHOWN_UNITS[variable.attrs["units"]]
            dataset[name] = (variable.dims, variable.values * factor, {**variable.attrs, "units": units})
    return dataset


def read_each(paths: dict[str, Path], names: Iterable[str]) -> dict[str, xr.Dataset]:
    """Return the result file of each of `names`, in their order; UserError if one of them has no file."""
    without_file = [name for name in names if name not in paths]
    if without_file:
        raise UserError(f"figures: no file for the method {without_file[0]!r}; known: {', '.join(paths)}")
    return {name: read(paths[name]) for name in names}


def step_size(result: xr.Dataset) -> float:
    """Return the time between emulator steps: the difference of two lags of C(tau)."""
    return float(result["lag"][1] - result["lag"][0])


def alive(result: xr.Dataset, axis: str) -> xr.DataArray:
    """Return a mask (member, axis): True before a member was lost.

    `axis`: "step" or "block"; the label of a block is its last step.
    """
    return is_alive(result["lost_step"], result[axis])


def living(result: xr.Dataset, name: str) -> xr.DataArray:
    """Return a stored series with NaN from the step or block on in which a member was lost."""
    values = result[name]
    axis = "step" if "step" in values.dims else "block"
    return values.where(alive(result, axis) & np.isfinite(values))


def lost_by(result: xr.Dataset, step: int | None = None) -> int:
    """Return the number of members lost at or before `step`; None: by the end of the rollout."""
    return count_lost(result["lost_step"].values, np.inf if step is None else step)


def lost_note(result: xr.Dataset, step: int | None = None) -> str:
    """Return "3 of 8 lost", or an empty text if no member was lost by `step`."""
    count = lost_by(result, step)
    return f"{count} of {result.sizes['member']} lost" if count else ""


def layer_names(dataset: xr.Dataset) -> list[str]:
    """Return the labels of the layers, in order."""
    return [str(layer) for layer in dataset["layer"].values]


def layer_suffix(layers: list[str], index: int) -> str:
    """Return ", upper" for a title of a layer's panel, or an empty text if there is one layer only."""
    return "" if len(layers) == 1 else f", {layers[index]}"


def time_units(results: dict[str, xr.Dataset]) -> str:
    """Return the units of time of the results, the same for all of them."""
    return next(iter(results.values()))["lag"].attrs.get("units", "1")


def field_scale(reference: xr.Dataset) -> np.ndarray:
    """Return one standard deviation (layer,) of the solver's ensemble.

    The mean enstrophy is half the mean square of the field, whose mean is zero.
    """
    return np.sqrt(2 * reference["enstrophy"].mean("member").values)


def shown_shells(spectrum: np.ndarray) -> slice:
    """Return the shells of a spectrum (K,) from 1 to the last that is not empty.

    A shell that truncation has emptied holds rounding errors: less than 1e-9 of the largest.
    """
    return slice(1, int(np.flatnonzero(spectrum > 1e-9 * spectrum[1:].max())[-1]) + 1)


def thirds(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return the first ("early") and the last ("late") third of a rollout's blocks with the steps inside them.

    Each part has at least one block.
    """
    block = result["block"].values
    count = max(1, len(block) // 3)
    length = int(block[0])
    parts = {}
    for name, part in (("early", slice(0, count)), ("late", slice(len(block) - count, None))):
        ends = block[part]
        steps = (result["step"] > ends[0] - length) & (result["step"] <= ends[-1])
        parts[name] = result.isel(block=part, step=np.flatnonzero(steps.values))
    return parts


def step_of_frames(result: xr.Dataset) -> np.ndarray:
    """Return the steps after which the frames of a method's results were stored; lags are one step apart."""
    return np.rint(result["time"].values / float(result["lag"][1] - result["lag"][0])).astype(int)
