"""Recordings and states of other programs on the grid of a periodic system: its units, its layers, its first point."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.data.coordinates import UNIFORM, labels_of, sorted_axis
from sns_core.data.recording import Axis, Recording
from sns_core.errors import UserError
from sns_core.units import conversion


def fitted(
    recording: Recording, *, units: str, layers: tuple[str, ...], points: tuple[int, int], lengths: tuple[float, float],
    length_units: str, time_units: str, variable: str,
) -> Recording:  # fmt: skip
    """Return a recording in the units, in the order of the layers and on the grid of a periodic system.

    `points`, `lengths`: along y and x; grid points lie at 0, length / points, … Axes that count from another point of
    this grid are turned. Raises UserError where units, layers or points do not fit.
    """
    path = recording.path
    frames = recording.frames
    shape, expected = frames.shape[2:], (len(layers), *points)
    if shape != expected:
        raise UserError(
            f"{path}: frames (layer, y, x) of {shape} where the emulator's are {expected}; give frames on its grid"
        )
    order = _layer_order(path, recording.layers, layers)
    if order != sorted(order):
        frames = frames.isel(layer=order)
    factors = [_factor(path, repr(variable), recording.units[index], units) for index in order]
    if set(factors) != {1.0}:
        frames = frames * xr.DataArray(np.asarray(factors), dims="layer")
    for name, axis, count, length in zip(("y", "x"), (recording.y, recording.x), points, lengths, strict=True):
        turn = _turn(path, name, axis, count, length, length_units)
        if turn:
            frames = frames.roll({name: turn}, roll_coords=False)
    factor = _factor(path, "time", recording.time_units, time_units)
    return replace(
        recording,
        frames=frames,
        times=recording.times * factor,
        rounding=recording.rounding * factor,
        time_units=time_units,
        layers=layers,
        units=(units,) * len(layers),
    )


def placed(name: str, states: xr.DataArray, layers: tuple[str, ...], length: float, length_units: str) -> xr.DataArray:
    """Return states (member, layer, y, x) whose layers and points stand where their coordinates say.

    `name`: of the states in messages; `layers`: of the system, in its order; `length`: of the longer side, in
    `length_units`. Raises UserError, as `fitted` does, where the coordinates are those of other layers or points.
    """
    states, points = (
        states.isel(layer=_layer_order(name, labels_of(states.coords.get("layer")), layers)),
        states.shape[2:],
    )
    for role, count in zip(("y", "x"), points, strict=True):
        states, axis = sorted_axis(name, states, role, states.coords.get(role))
        turn = _turn(name, role, axis, count, length * count / max(points), length_units)
        states = states.roll({role: turn}, roll_coords=False)
    return states


def _factor(path: Path | str, what: str, source: str, target: str) -> float:
    """Return the factor from units of a file to a system's.

    Files that state no units are taken to have the system's.
    """
    if not source:
        return 1.0
    factor = conversion(source, target)
    if factor is None:
        raise UserError(
            f"{path}: {what} is in {source!r}, the system's unit is {target!r}; convert it, or correct the attribute units"
        )
    return factor


def _layer_order(path: Path | str, labels: tuple | None, layers: tuple[str, ...]) -> list[int]:
    """Return the position in the file of each layer of the system, by its label or its number."""
    if labels is None or len(layers) == 1:
        return list(range(len(layers)))
    if set(labels) == set(layers):
        return [labels.index(layer) for layer in layers]
    for first in (0, 1):
        if all(isinstance(label, int | float) for label in labels) and set(labels) == set(
            range(first, first + len(layers))
        ):
            return [labels.index(first + index) for index in range(len(layers))]
    raise UserError(
        f"{path}: its layers are called {', '.join(map(str, labels))}, the system's are {', '.join(layers)}; rename them"
    )


def _turn(path: Path | str, name: str, axis: Axis, count: int, length: float, length_units: str) -> int:
    """Return by how many points frames must be rolled so that their first point lies at 0."""
    if axis.positions is None:
        return 0
    spacing = length / count
    factor = _factor(path, name, axis.units, length_units)
    if abs(axis.spacing * factor - spacing) > UNIFORM * spacing:
        if np.array_equal(axis.positions, np.arange(count)):
            return 0  # numbers of the points, not positions
        raise UserError(
            f"{path}: the points of {name!r} are {axis.spacing * factor:g} apart, those of the emulator's grid {spacing:g} {length_units}; "
            f"scale the coordinate, or leave it out if the grid is 0, {spacing:g}, …"
        )
    shift = axis.positions[0] * factor / spacing
    if abs(shift - round(shift)) > 0.01:
        raise UserError(
            f"{path}: the points of {name!r} begin at {axis.positions[0] * factor:g}, between 0, {spacing:g}, … of the emulator's grid; "
            "interpolate to these points"
        )
    return round(shift) % count
