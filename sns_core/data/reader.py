"""Trajectories that somebody else simulated, as one lazy array (member, time, layer, y, x).

Names of dimensions come from the configuration, from CF (`axis`, `standard_name`), or from convention, in this order.
Coordinates count: y that descends, members and times out of order are sorted; a step that stands twice with the same
frame is left out once; units, dates and durations become numbers; what a file of this project lacks, as its attribute
`subtracted` says, is added again. A UserError refuses the rest, and names the file, the place and the way out. Nothing
is read but coordinates until `Recording.read` asks for frames.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.data.coordinates import excerpt, labels_of, members_of, order_of, rounding_of, sorted_axis, times_of
from sns_core.data.joining import join_recordings
from sns_core.data.recording import Axis, Recording, check_alike
from sns_core.data.stores import groups_of, open_store
from sns_core.errors import UserError

ROLES = ("member", "time", "layer", "y", "x")
CONVENTION = {
    "member": {"member", "members", "ensemble", "realization", "number", "trajectory", "trajectories", "sample", "batch", "run"},
    "time": {"time", "times", "t"},
    "layer": {"layer", "layers", "lev", "level", "levels", "z", "depth", "height", "channel"},
    "y": {"y", "lat", "latitude", "yc", "nlat", "j"},
    "x": {"x", "lon", "longitude", "xc", "nlon", "i"},
}  # fmt: skip
AXES = {"T": "time", "Z": "layer", "Y": "y", "X": "x", "E": "member"}
STANDARD_NAMES = {
    "time": "time", "realization": "member", "projection_y_coordinate": "y", "projection_x_coordinate": "x", "latitude": "y",
    "longitude": "x", "model_level_number": "layer", "height": "layer", "depth": "layer", "altitude": "layer", "air_pressure": "layer",
}  # fmt: skip


def open_recording(
    paths: list[Path], variables: list[str], dims: dict[str, str | None] | None = None, join: str | None = None
) -> Recording:
    """Open files or Zarr stores as one recording.

    `variables`: names in the files, in the order of the channels; a variable with a dimension for layers gives a
    channel for each of them. `dims`: role (member, time, layer, y, x) -> name of the dimension in the files; what is
    left out is found by CF or by convention. `join`: whether files follow each other in "time" or hold each "member" of
    their own; None: their times tell. Raises UserError where files are missing, unreadable, or do not fit together.
    """
    if not paths:
        raise UserError("source.files: no file fits the pattern; name files that exist")
    parts = [_open_part(Path(path), variables, dims or {}) for path in paths]
    parts = [part.in_time_units(parts[0].time_units) for part in parts]
    for part in parts[1:]:
        check_alike(parts[0], part)
    recording = join_recordings(parts, join)
    numbered = all(isinstance(member, int) for member in recording.members)
    members = recording.members if numbered else tuple(range(len(recording.members)))
    return replace(recording, members=members, numbers=np.arange(len(recording.times)))


def open_static(path: Path, variables: list[str], dims: dict[str, str | None], like: Recording) -> np.ndarray:
    """Return fields (len(variables), y, x) that do not change in time, on the grid of a recording.

    `dims`: as in `open_recording`. Raises UserError where a variable is missing, varies along another axis than y and
    x, lies on other points than the recording, or has missing values.
    """
    dataset, fields = open_store(path), []
    for name in variables:
        field, roles = _in_roles(path, _variable(path, dataset, name), dims, needed=("x",))
        further = [role for role in field.dims if role not in ("y", "x")]
        if any(field.sizes[role] > 1 for role in further):
            raise UserError(
                f"{path}: {name!r} varies along {', '.join(further)}; a static field has the axes y and x alone"
            )
        field = field.isel(dict.fromkeys(further, 0)).transpose("y", "x")
        for role, points in (("y", like.frames.shape[-2]), ("x", like.frames.shape[-1])):
            coordinate = dataset[roles[role]] if roles.get(role) in dataset.coords else None
            field, axis = sorted_axis(path, field, role, coordinate)
            if field.sizes[role] != points or not axis.agrees_with(getattr(like, role)):
                raise UserError(
                    f"{path}: {name!r} has {field.sizes[role]} points along {role} ({axis}), the frames of {like.path} have "
                    f"{points} ({getattr(like, role)}); interpolate it to the points of the frames"
                )
        values = field.values.astype(float)
        if not np.isfinite(values).all():
            raise UserError(f"{path}: {name!r} has missing or infinite values; fill them, such as with 0 on land")
        fields.append(values)
    return np.stack(fields)


# One file


def _variable(path: Path, dataset: xr.Dataset, name: str) -> xr.DataArray:
    if name not in dataset.data_vars:
        raise UserError(f"{path}: holds no {name!r}{_alternatives(path, dataset)}")
    return dataset[name]


def _open_part(path: Path, variables: list[str], dims: dict) -> Recording:
    """Return the variables of one file as the channels of a recording."""
    dataset, several = open_store(path), len(variables) > 1
    return _stacked([_open_variable(path, dataset, name, dims, several) for name in variables], variables)


def _alternatives(path: Path, dataset: xr.Dataset) -> str:
    names = ", ".join(map(repr, dataset.data_vars))
    if names:
        return f", only {names}"
    groups = groups_of(path)
    inside = f"; its variables lie in the groups {', '.join(groups)}, write one of them to a file of its own"
    return f", and no other variable{inside if groups else ''}"


def _in_roles(
    path: Path, field: xr.DataArray, dims: dict, needed: tuple[str, ...] = ("time", "x")
) -> tuple[xr.DataArray, dict[str, str]]:
    """Return a variable with the names of roles for its dimensions, and role -> name in the file.

    `needed`: roles that the variable has beside y. Without y, it is a single row of points.
    """
    roles: dict[str, str] = {}
    for dim, size in field.sizes.items():
        if size == 0:
            raise UserError(
                f"{path}: {field.name!r} has no values, its dimension {dim!r} has the length 0; leave the file out"
            )
    for role, dim in dims.items():
        if dim is not None and dim in field.dims:
            roles[role] = dim
        elif dim is not None and role in (*needed, "y"):
            raise UserError(
                f"{path}: {field.name!r} has no dimension {dim!r} (dims.{role}), only {field.dims}; correct the name"
            )
    for dim in field.dims:
        if dim in roles.values():
            continue
        role = _role_of(field, dim)
        if role in roles:
            raise UserError(
                f"{path}: {field.name!r} has two dimensions that may be {role}, {roles[role]!r} and {dim!r}; name one under dims.{role}"
            )
        if role is not None and not (role in dims and dims[role] is None):
            roles[role] = dim
        elif field.sizes[dim] > 1:
            raise UserError(
                f"{path}: {field.name!r} has the dimension {dim!r}, which is neither time, y, x, member nor layer; say which under dims, "
                f"such as dims: {{member: {dim}}}"
            )
    for role in needed:
        if role not in roles:
            raise UserError(
                f"{path}: {field.name!r} has the dimensions {field.dims}, and none is known as {role}; name it under dims.{role}"
            )
    _check_row(path, field, roles, dims)
    field = field.squeeze([dim for dim in field.dims if dim not in roles.values()], drop=True)
    # Coordinates are looked up in the dataset: here they would meet the names of the roles.
    field = field.drop_vars(list(field.coords)).rename({dim: role for role, dim in roles.items()})
    return (field if "y" in roles else field.expand_dims("y")), roles


def _check_row(path: Path, field: xr.DataArray, roles: dict[str, str], dims: dict) -> None:
    """Refuse a variable that has no axis y by oversight: its axis has another name, or is the only one."""
    layer = roles.get("layer")
    if "y" not in roles and layer and "layer" not in dims and layer not in ("layer", "layers", "channel"):
        raise UserError(
            f"{path}: {field.name!r} has x and {layer!r}, and no y; say dims: {{y: {layer}}} for planes, or dims: {{layer: {layer}}} for "
            "rows of points"
        )
    if field.sizes[roles["x"]] == 1:
        raise UserError(
            f"{path}: {field.name!r} has one point along x; a single row lies along x, so name its axis under dims.x"
        )


def _role_of(field: xr.DataArray, dim: str) -> str | None:
    attributes = field[dim].attrs if dim in field.coords else {}
    if attributes.get("axis") in AXES:
        return AXES[attributes["axis"]]
    if attributes.get("standard_name") in STANDARD_NAMES:
        return STANDARD_NAMES[attributes["standard_name"]]
    return next((role for role, names in CONVENTION.items() if dim.lower() in names), None)


def _open_variable(path: Path, dataset: xr.Dataset, name: str, dims: dict, several: bool) -> Recording:
    """Return one variable of a file, sorted by its own coordinates.

    `several`: whether labels of layers begin with its name.
    """
    field, roles = _in_roles(path, _variable(path, dataset, name), dims)
    if field.dtype.kind not in "fiu":
        raise UserError(f"{path}: {name!r} holds {field.dtype}, not numbers; name a variable of numbers")
    axes = {role: dataset[dim] for role, dim in roles.items() if dim in dataset.coords}
    frames = field.expand_dims([role for role in ("member", "layer") if role not in field.dims]).transpose(*ROLES)
    layers = labels_of(axes.get("layer"))
    if several:
        labels = range(frames.sizes["layer"]) if layers is None else layers
        layers = tuple(f"{name}_{label}" for label in labels) if "layer" in field.dims else (name,)
    frames, x = sorted_axis(path, frames, "x", axes.get("x"))
    frames, y = sorted_axis(path, frames, "y", axes.get("y"))
    times, time_units, calendar = times_of(path, axes.get("time"), roles["time"])
    order = np.argsort(times, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        frames, times = frames.isel(time=order), times[order]
    members = members_of(path, axes.get("member"), frames.sizes["member"])
    order = order_of(members)
    if order != sorted(order):
        frames, members = frames.isel(member=order), tuple(members[index] for index in order)
    units = (str(field.attrs.get("units", "")),) * frames.sizes["layer"]
    files = (((path, len(times)),),) * len(members)
    if "subtracted" in field.attrs:
        frames = frames + _subtracted(path, field, frames.sizes["layer"])
    numbers, rounding = np.arange(len(times)), rounding_of(axes.get("time"))
    return Recording(frames, members, times, numbers, time_units, layers, units, y, x, files, calendar, rounding)


def _subtracted(path: Path, field: xr.DataArray, layers: int) -> xr.DataArray:
    """Return the number for each layer that a file of this project lacks, as its attribute `subtracted` says."""
    numbers = np.atleast_1d(field.attrs["subtracted"])
    if numbers.dtype.kind not in "fiu" or numbers.shape != (layers,):
        raise UserError(
            f"{path}: the attribute 'subtracted' of {field.name!r} holds {excerpt(numbers)}; it needs a number for each of "
            f"{layers} layers, or leave it out"
        )
    return xr.DataArray(numbers, dims="layer")


def _stacked(parts: list[Recording], variables: list[str]) -> Recording:
    """Return the channels of all variables of one file.

    A variable with a single member belongs to each member of the others.
    """
    if len(parts) == 1:
        return parts[0]
    fullest = max(range(len(parts)), key=lambda index: len(parts[index].members))
    parts = [part.in_time_units(parts[fullest].time_units) for part in parts]
    first = parts[fullest]
    for name, part in zip(variables, parts, strict=True):
        _check_same_points(name, part, variables[fullest], first)
    frames = [
        part.frames.isel(member=[0] * len(first.members)) if len(part.members) < len(first.members) else part.frames
        for part in parts
    ]
    return replace(
        first,
        frames=xr.concat(frames, "layer"),
        layers=tuple(layer for part in parts for layer in part.layers),
        units=tuple(unit for part in parts for unit in part.units),
    )


def _check_same_points(name: str, part: Recording, expected_name: str, expected: Recording) -> None:
    """Raise UserError where two variables of one file lie on different points, or have different times or members."""

    def refuse(what: str, has, wanted):
        raise UserError(
            f"{part.path}: {name!r} has {what} {has}, {expected_name!r} has {wanted}; interpolate them to the same points, or leave one out"
        )

    sizes = [{role: frames.sizes[role] for role in ("time", "y", "x")} for frames in (part.frames, expected.frames)]
    if sizes[0] != sizes[1]:
        refuse("the shape", *(", ".join(f"{role} {size}" for role, size in shape.items()) for shape in sizes))
    for role in ("y", "x"):
        axis, wanted = getattr(part, role), getattr(expected, role)
        if not axis.agrees_with(wanted):
            refuse(f"{role} of", axis, wanted)
    times = [Axis(recording.times, recording.time_units) for recording in (part, expected)]
    apart = np.abs(part.times - expected.times).max()
    if part.time_units != expected.time_units or apart > 0.01 * np.nan_to_num(expected.step):
        refuse("times of", *map(str, times))
    if len(part.members) > 1 and part.members != expected.members:
        refuse("the members", *(", ".join(map(str, recording.members)) for recording in (part, expected)))
