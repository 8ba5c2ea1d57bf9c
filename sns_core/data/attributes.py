"""Units and long names of all variables in the project's netCDF files, and what a file says of itself, by CF-1.10.

Units follow UDUNITS. They are built from the units of a system: of its field, of length and of time. A number without
units has "1", also where it counts steps or standard deviations; the long name then says what it counts.

Time is the time since the initial frame. CF keeps the standard name "time" and the axis T for times since a date, and a
flow in a box has none, so the coordinate has neither, and readers leave it a number. See docs/files.md.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sns_core.files import whole_file
from sns_core.version import __version__

if TYPE_CHECKING:
    from sns_core.systems import System

CONVENTIONS = "CF-1.10"
REFERENCES = "arXiv:2603.17750"  # the paper whose methods the files show

# Name in a file -> (kind of units, long name). {field} is the name of the system's field.
VARIABLES = {
    # coordinates
    "member": ("1", "number of the member"),
    "time": ("time", "time since the initial frame"),
    "clock": ("time", "time since the initial state, spin-up included"),
    "y": ("length", "position along y"),
    "x": ("length", "position along x"),
    "layer": (None, "name of the layer"),
    "step": ("1", "number of the emulator step"),
    "block": ("1", "last emulator step of the block"),
    "wavenumber": ("1/length", "angular wavenumber of the shell"),
    "lag": ("time", "time between two frames"),
    "map_lag": ("time", "time between two stored frames"),
    "distance": ("length", "distance along x"),
    "bin": ("1", "centre of the histogram bin, in standard deviations or root mean squares"),
    "lead": ("1", "emulator steps since the start of the forecast"),
    "grid": ("1", "points along the longer side of the solver's grid"),
    # frames and states
    "static": ("1", "fields that never change, as the networks see them: mean 0, variance 1"),
    "final_state": ("field", "solver state at the last frame, in the solver's own axes"),
    "forecast": ("1", "forecast of {field}, in standard deviations of the training split"),
    "truth": ("1", "{field} of the solver, in standard deviations of the training split"),
    # measures
    "kinetic_energy": ("velocity2", "mean kinetic energy of the layer per unit mass"),
    "kinetic_energy_square": ("velocity4", "time mean of the square of the mean kinetic energy"),
    "kinetic_energy_min": ("velocity2", "smallest mean kinetic energy of all frames"),
    "kinetic_energy_max": ("velocity2", "largest mean kinetic energy of all frames"),
    "kinetic_energy_drift": ("velocity2", "mean kinetic energy of the last third of the frames minus that of the first third"),
    "enstrophy_drift": ("field2", "mean enstrophy of the last third of the frames minus that of the first third"),
    "spectrum_drift": ("1", "mean of log10 E over whole shells, last third of the frames minus first third, in decades"),
    "enstrophy": ("field2", "mean of half the squared {field}"),
    "enstrophy_square": ("field4", "time mean of the square of half the mean squared {field}"),
    "energy_spectrum": ("spectrum", "kinetic energy density over wavenumber shells; shells from half the grid on are incomplete"),
    "rate_of_change": ("1/time", "mean absolute change of {field} over time step, in standard deviations"),
    "relative_change": ("1", "root-mean-square change of {field} in a step, as a share of its root mean square"),
    "correlation": ("1", "correlation of frames a lag apart, C(tau)"),
    "map": ("1", "correlation of points a distance and a lag apart, C(r, tau)"),
    "map_early": ("1", "correlation C(r, tau) at the start of the rollout"),
    "map_late": ("1", "correlation C(r, tau) at the end of the rollout"),
    "max_abs": ("1", "largest absolute value of {field}, in standard deviations"),
    "zonal_velocity": ("velocity", "mean over x of the velocity along x"),
    "zonal_velocity_square": ("velocity2", "time mean of the squared mean over x of the velocity along x"),
    "zonal_profile": ("velocity", "mean over x and the block of the velocity along x"),
    "zonal_square": ("velocity2", "mean over the block of the squared mean over x of the velocity along x"),
    "zonal_direction": ("1", "mean over x of the centred frame of unit norm, times the root of the points along x"),
    "vorticity_counts": ("1", "number of values of {field} in the bin"),
    "velocity_counts": ("1", "number of values of the velocity components in the bin"),
    "gradient_counts": ("1", "number of values of the components of the gradient of {field} in the bin"),
    "velocity_scale": ("velocity", "root mean square of a velocity component of the solver, the unit of its histogram"),
    "gradient_scale": ("gradient", "root mean square of a component of the gradient of {field} of the solver, the unit of its histogram"),
    "mse": ("1", "mean squared difference from the solver's rollout, in squared standard deviations"),
    "levels": ("1", "estimated noise level; negative where none was estimated"),
    "calls": ("1", "network calls in the step, besides the surrogate's own"),
    "lost_step": ("1", "step at which the member was lost; -1 for none"),
    # cost
    "substeps": ("1", "solver steps per emulator step"),
    "stable_steps": ("1", "emulator steps that were run"),
    # diagnosis of denoisers
    "level": ("1", "noise level"),
    "drift": ("1", "factor on the large scales"),
    "side": (None, "whether the pair looks cleaner or noisier than true pairs"),
    "when": (None, "the surrogate's step or the refined step"),
    "condition_error": ("1", "root-mean-square error of the clean estimate, in standard deviations"),
    "example_level": ("1", "noise level of the frame before, of the example"),
    "example_condition": ("1", "noised frame before, in standard deviations"),
    "example_estimate": ("1", "clean estimate of the next frame, in standard deviations"),
    "example_truth": ("1", "true next frame, in standard deviations"),
    "estimated_level": ("1", "level estimated for pairs noised to a level"),
    "level_of_true_pair": ("1", "level estimated for true pairs"),
    "level_of_surrogate": ("1", "level estimated for the surrogate's step from a true frame"),
    "drift_detected": ("1", "share of drifted pairs that look cleaner or noisier than 97 % of true pairs"),
    "surrogate_detected": ("1", "share of the surrogate's steps that look cleaner or noisier than 97 % of true pairs"),
    "restored": ("1", "share of a drift that one refinement takes back"),
    "one_step_error": ("1", "root-mean-square error of a step by shell, orthonormal transform, in standard deviations"),
    "rollout_step": ("1", "step of the stored frame"),
    "rollout_level": ("1", "level estimated along a rollout of the surrogate alone"),
    "true_level": ("1", "level estimated along trajectories of the solver"),
    "sign": (None, "whether the large scales are found too weak or too strong"),
    "octave": ("1", "first shell of the octave"),
    "amplitude_mean": ("1", "mean on true pairs of the signed amplitude of the octave, from the score"),
    "amplitude_deviation": ("1", "standard deviation on true pairs of the signed amplitude of the octave"),
    "amplitude_of_drift": ("1", "mean signed amplitude of drifted pairs less that of true pairs, in standard deviations on true pairs"),
    "amplitude_detected": ("1", "share of drifted pairs whose signed amplitude of the large scales lies beyond that of 97 % of true pairs"),
    "rollout_amplitude": ("1", "signed amplitude of the large scales along a rollout of the surrogate alone"),
    "true_amplitude": ("1", "signed amplitude of the large scales along trajectories of the solver"),
    "amplitude_alarm": ("1", "first step at which the signed amplitude leaves the solver's range; -1 for none"),
    "energy_alarm": ("1", "first step at which the energy leaves the solver's range; -1 for none"),
}  # fmt: skip


def attributes_of(name: str, system: "System | type[System]", table: dict = VARIABLES) -> dict[str, str]:
    """Return the attributes `units` and `long_name` of a variable of that name.

    A long name alone where it is not listed.
    """
    field = system.variable.replace("_", " ")
    if name == system.variable:
        return {"units": system.units, "long_name": f"{field} of the frames"}
    kind, long_name = table.get(name, (None, name.replace("_", " ")))
    if not system.has_velocity:
        long_name = long_name.replace("mean kinetic energy", "half the mean square").replace(
            "kinetic energy", "half square"
        )
        long_name = long_name.replace("velocity along x", "{field}").replace(" per unit mass", "")
    attributes = {"long_name": long_name.format(field=field)}
    return attributes if kind is None else {"units": _units(kind, system), **attributes}


def _units(kind: str, system) -> str:
    length, time, field = system.length_units, system.time_units, system.units
    velocity = [(length, 1), (time, -1)] if system.has_velocity else [(field, 1)]
    factors = {
        "1": [], "field": [(field, 1)], "field2": [(field, 2)], "field4": [(field, 4)],
        "length": [(length, 1)], "time": [(time, 1)], "1/length": [(length, -1)], "1/time": [(time, -1)],
        "velocity": velocity, "velocity2": [(u, 2 * p) for u, p in velocity],
        "velocity4": [(u, 4 * p) for u, p in velocity],
        "spectrum": [*((u, 2 * p) for u, p in velocity), (length, 1)], "gradient": [(field, 1), (length, -1)],
    }  # fmt: skip
    return product(factors[kind])


def product(factors: list[tuple[str, int]]) -> str:
    """Return the product of units to integer powers as UDUNITS writes it: ("m", 2), ("s-1", 2) -> "m2 s-2"."""
    powers: dict[str, int] = {}
    for units, power in factors:
        for word in units.split():
            part = re.fullmatch(r"([A-Za-z_%]+)(-?\d+)?", word)
            base, exponent = (part[1], int(part[2] or 1)) if part else (f"({word})", 1)
            if word != "1":
                powers[base] = powers.get(base, 0) + exponent * power
    return " ".join(f"{base}{power if power != 1 else ''}" for base, power in powers.items() if power) or "1"


def file_attributes(title: str, stage: str, history: str = "") -> dict[str, str]:
    """Return the attributes with which a file says what it is and what made it.

    `title`: what the file holds. `stage`: the stage that writes the file. `history`: that of the file which its content
    comes from; the stage is added as a line. The line has no date, since equal inputs give equal files. Where a file
    has the attribute `provenance`, that holds the configuration, the commit and the machine.
    """
    line = f"sns-core {__version__}: {stage}"
    history = "\n".join([*filter(None, [history]), line])
    return {"title": title, "history": history, "source": f"sns-core {__version__}", "references": REFERENCES}


def shown_units(system: "System | type[System]") -> dict[str, str]:
    """Return the attributes of a file that figures follow: that they keep its units, and that they show the half of its
    frames before the mirror image, along the axes in `mirrored`. Nothing for other systems.
    """
    axes = "".join(name for name, mirror in zip("yx", system.mirrored, strict=True) if mirror)
    return ({"shown_units": "own"} if system.shows_own_units else {}) | ({"mirrored": axes} if axes else {})


def described(
    dataset: xr.Dataset, system: "System | type[System]", *, title: str, stage: str, table: dict = VARIABLES
) -> xr.Dataset:
    """Return the dataset with the units and long names of its variables, and with the attributes of a whole file.

    `title`, `stage`: those of `file_attributes`; a history that the dataset has goes on. The table replaces attributes
    that a variable has already; variables that it does not list keep theirs. Coordinates are written without a fill
    value, which CF forbids them.
    """
    dataset = dataset.copy()
    for name in dataset.variables:
        listed, attributes = attributes_of(name, system, table), dataset[name].attrs
        in_table = name in table or name == system.variable
        dataset[name].attrs = {**attributes, **listed} if in_table else {**listed, **attributes}
    for name, coordinate in dataset.coords.items():
        if np.issubdtype(coordinate.dtype, np.floating):
            dataset[name].encoding["_FillValue"] = None
    about = file_attributes(title, stage, dataset.attrs.get("history", ""))
    dataset.attrs = {"Conventions": CONVENTIONS, **dataset.attrs, **about, **shown_units(system)}
    return dataset


def write_described(
    dataset: xr.Dataset, system: "System | type[System]", path: Path, *, title: str, stage: str, table: dict = VARIABLES
) -> None:
    """Write a dataset as a whole netCDF file with the attributes of `described`, or not at all."""
    # Characters instead of variable-length strings, on which HDF5 fails where a file is open more than once.
    encoding = {"layer": {"dtype": "S1"}} if "layer" in dataset.coords else {}
    with whole_file(path) as temporary:
        content = described(dataset, system, title=title, stage=stage, table=table)
        content.to_netcdf(temporary, engine="netcdf4", encoding=encoding)
