"""Which members of a rollout are lost or out of range: one rule for statistics, tables and figures.

A member is lost at the first step at which a value of its frame is NaN or lies more than LOST_BEYOND standard
deviations from zero. The solver never reaches 7 of them, so a lost member is numerically gone. Files keep that step as
`lost_step`, and NOT_LOST where there is none. A lost member keeps its place in the files; scores and figures use the
steps before.

A member is out of range at every step at which it is somewhere the solver never is: its kinetic energy, in some layer,
lies outside the range of all frames of the reference, or its largest absolute value is larger than all of theirs.
"""

import numpy as np
import xarray as xr

LOST_BEYOND = 12.0  # standard deviations of the training data
NOT_LOST = -1


def first_lost_step(max_abs: np.ndarray, first_step: int) -> np.ndarray:
    """Return the step at which each member is lost, (member,), NOT_LOST where it is not.

    max_abs: the largest absolute value of each frame (member, step), in standard deviations; the first column is that
    of the step `first_step`.
    """
    lost = ~(max_abs <= LOST_BEYOND)  # so that NaN counts as lost
    return np.where(lost.any(1), first_step + lost.argmax(1), NOT_LOST)


def is_lost(lost_step):
    """Return True (member,) for each member that is lost at some step; numpy or xarray."""
    return lost_step >= 0


def is_alive(lost_step, step):
    """Return True where a member is not lost yet at `step`; numpy or xarray, broadcast against each other.

    A block of steps is labelled by its last step, so a member is alive in a block if it is alive at all of its steps.
    """
    return (lost_step < 0) | (step < lost_step)


def count_lost(lost_step: np.ndarray, step: float = np.inf) -> int:
    """Return how many members are lost at or before `step`, by default at any step; `lost_step` (member,)."""
    return int((is_lost(lost_step) & (lost_step <= step)).sum())


def steps_alive(lost_step: np.ndarray, steps: int) -> np.ndarray:
    """Return how many of the `steps` of a rollout each member is alive, (member,)."""
    return np.where(is_lost(lost_step), lost_step - 1, steps)


def is_out_of_range(result: xr.Dataset, ensemble: xr.Dataset) -> xr.DataArray | None:
    """Return True at each step (member, step) at which a member is out of the solver's range.

    NaN counts as out of range.

    result: series of a rollout; ensemble: result of `compute_reference`. Returns None for an ensemble that an older
    version measured without its range.
    """
    if "max_abs" not in ensemble:
        return None
    energy = result["kinetic_energy"]
    low, high = ensemble["kinetic_energy_min"].min("member"), ensemble["kinetic_energy_max"].max("member")
    inside = ((energy >= low) & (energy <= high)).all("layer") & (
        result["max_abs"] <= ensemble["max_abs"].max("member")
    )
    return ~inside.transpose("member", "step")
