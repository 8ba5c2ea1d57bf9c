"""Trajectories that somebody else simulated, as one lazy array (member, time, layer, y, x) with coordinates that are checked.

Names of dimensions come from the configuration, from CF (`axis`, `standard_name`), or from convention, in this order.
Coordinates count: y that descends, times out of order and layers are sorted; a step that stands twice with the same frame is
left out once; units, dates and durations become numbers; what a file of this project lacks, as its attribute `subtracted`
says, is added again. A UserError refuses the rest, and names the file, the place and the way out. Nothing is read but
coordinates until `Recording.read` asks for frames.
"""

import itertools
import re
from dataclasses import dataclass, replace
from pathlib import Path

import cftime
import dask
import numpy as np
import xarray as xr

from sns_core.data.stores import groups_of, open_store
from sns_core.errors import UserError
from sns_core.units import conversion, is_time

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
BLOCK_BYTES = 2**25  # of frames that are read at a time
MOST_FRAMES = 10**8  # of one file: their times alone take a gigabyte
UNIFORM = 1e-3  # steps, or spacings, of one file may differ by this share of a step, or of a spacing


@dataclass(frozen=True)
class Axis:
    """Positions along y or x, ascending and evenly spaced: `positions` (n,), None where the files hold none, and `units`."""

    positions: np.ndarray | None
    units: str

    @property
    def spacing(self) -> float:
        """Distance between neighbouring points; 1 where the files hold no positions."""
        return (
            1.0 if self.positions is None else float(self.positions[-1] - self.positions[0]) / (len(self.positions) - 1)
        )


@dataclass(frozen=True)
class Recording:
    """Trajectories of some members on one grid.

    `frames`: lazy array (member, time, layer, y, x). `members`: their numbers. `times` (time,): in `time_units`, "" where the
    files state none; `dated`: whether they count from a date; `rounding`: by how much the files round them. `numbers` (time,): of
    the frames, counted over all files of a member. `layers`: label of each channel, None where the files hold none; `units`: of
    each channel. `y`, `x`: axes. `files`: for each member, the files that hold it, each with the frame after its last.
    `origins`: of members that are pieces of longer ones, for each the number of the longer one, and the frames and the time
    from the first piece to this one; () otherwise.
    """

    frames: xr.DataArray
    members: tuple[int, ...]
    times: np.ndarray
    numbers: np.ndarray
    time_units: str
    layers: tuple | None
    units: tuple[str, ...]
    y: Axis
    x: Axis
    files: tuple[tuple[tuple[Path, int], ...], ...]
    dated: bool = False
    rounding: float = 0.0
    origins: tuple[tuple[int, int, float], ...] = ()

    @property
    def path(self) -> Path:
        """The first file."""
        return self.files[0][0][0]

    @property
    def step(self) -> float:
        """Time between frames, in `time_units`; NaN for a single frame."""
        return float(self.times[-1] - self.times[0]) / (len(self.times) - 1) if len(self.times) > 1 else float("nan")

    @property
    def block(self) -> int:
        """The number of frames of one member that fit into BLOCK_BYTES."""
        return max(1, BLOCK_BYTES // (self.frames.dtype.itemsize * int(np.prod(self.frames.shape[2:]))))

    def file_of(self, member: int, time: int) -> Path:
        """Return the file that holds the frame at these positions."""
        return next((path for path, stop in self.files[member] if time < stop), self.path)

    def read(self, member: int, times: slice) -> np.ndarray:
        """Return frames (time, layer, y, x) of the member at a position. Raise UserError where one is not finite."""
        values = self._values(member, times)
        if not np.isfinite(values).all():
            first = self._first_missing(member)
            number, frames, time = self.origins[member] if self.origins else (self.members[member], 0, 0.0)
            raise UserError(
                f"{self.file_of(member, first)}: member {number} has missing or infinite values from time "
                f"{self.times[first] + time:g} (frame {self.numbers[first] + frames}) on; leave the member out, or keep the frames before"
            )
        return values

    def _values(self, member: int, times: slice) -> np.ndarray:
        with dask.config.set(scheduler=dask.get):
            return self.frames.isel(member=member, time=times).values

    def _first_missing(self, member: int) -> int:
        """Return the position of the first frame of a member, one of whose frames is not finite, that is not finite."""
        blocks = (slice(first, first + self.block) for first in range(0, len(self.times), self.block))
        finite = (np.isfinite(self._values(member, block)).all((1, 2, 3)) for block in blocks)
        return next(index for index, good in enumerate(itertools.chain.from_iterable(finite)) if not good)

    def part(self, members: slice = slice(None), times: slice = slice(None)) -> "Recording":
        """Return some members and some times, by their positions; `times` may leave out frames."""
        positions = np.arange(len(self.times))[times]
        files = tuple(
            tuple((path, int(np.searchsorted(positions, stop))) for path, stop in ends) for ends in self.files[members]
        )
        return replace(
            self,
            frames=self.frames.isel(member=members, time=times),
            members=self.members[members],
            times=self.times[times],
            numbers=self.numbers[times],
            files=files,
            origins=self.origins[members],
        )

    def alone(self) -> "Recording":
        """Return the recording with a graph of its own frames. Where dask's graph holds many others, each reading is slow."""
        (frames,) = dask.optimize(self.frames)
        return replace(self, frames=frames)

    def cut(self, pieces: int) -> "Recording":
        """Return stretches of equal length, each a member of its own; frames that fill no whole stretch are left out.

        Raises UserError where there are fewer frames than pieces.
        """
        if pieces == 1:
            return self
        length = len(self.times) // pieces
        if length == 0:
            raise UserError(
                f"{self.path}: {len(self.times)} frames cannot be cut into {pieces} pieces; set source.pieces to {len(self.times)} or less"
            )
        firsts = range(0, pieces * length, length)
        parts = [self.part(times=slice(first, first + length)) for first in firsts]
        return replace(
            parts[0],
            frames=xr.concat([part.frames for part in parts], "member"),
            members=tuple(range(pieces * len(self.members))),
            files=tuple(ends for part in parts for ends in part.files),
            origins=tuple(
                (member, int(self.numbers[first] - self.numbers[0]), float(self.times[first] - self.times[0]))
                for first in firsts
                for member in self.members
            ),
        )


def open_recording(
    paths: list[Path], variables: list[str], dims: dict[str, str | None] | None = None, join: str | None = None
) -> Recording:
    """Open files or Zarr stores as one recording.

    `variables`: names in the files, in the order of the channels; a variable with a dimension for layers gives a channel for
    each of them. `dims`: role (member, time, layer, y, x) -> name of the dimension in the files; what is left out is found by CF
    or by convention. `join`: whether files follow each other in "time" or hold each "member" of their own; None: their times
    tell. Raises UserError where files are missing, unreadable, or do not fit together.
    """
    if not paths:
        raise UserError("source.files: no file fits the pattern; name files that exist")
    parts = [_open_part(Path(path), variables, dims or {}) for path in paths]
    for part in parts[1:]:
        check_alike(parts[0], part)
    recording = _joined(parts, join)
    return replace(recording, numbers=np.arange(len(recording.times)))


def open_static(path: Path, variables: list[str], dims: dict[str, str | None], like: Recording) -> np.ndarray:
    """Return fields (len(variables), y, x) that do not change in time, on the grid of a recording.

    `dims`: as in `open_recording`. Raises UserError where a variable is missing, varies along another axis than y and x, lies on
    other points than the recording, or has missing values.
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
            field, axis = _sorted_axis(path, field, role, coordinate)
            if field.sizes[role] != points or not _same_points(axis, getattr(like, role)):
                raise UserError(
                    f"{path}: {name!r} has {field.sizes[role]} points along {role} ({_described(axis)}), the frames of {like.path} have "
                    f"{points} ({_described(getattr(like, role))}); interpolate it to the points of the frames"
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
    for role, dim in dims.items():
        if dim is not None and dim in field.dims:
            roles[role] = dim
        elif dim is not None and role in (*needed, "y"):
            raise UserError(f"{path}: {field.name!r} has no dimension {dim!r} (dims.{role}), only {field.dims}")
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
    """Raise UserError where a variable without points along y may be a plane whose axes have other names, or lies along y."""
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
    """Return one variable of a file, sorted by its own coordinates; `several`: whether labels of layers begin with its name."""
    field, roles = _in_roles(path, _variable(path, dataset, name), dims)
    if field.dtype.kind not in "fiu":
        raise UserError(f"{path}: {name!r} holds {field.dtype}, not numbers")
    axes = {role: dataset[dim] for role, dim in roles.items() if dim in dataset.coords}
    frames = field.expand_dims([role for role in ("member", "layer") if role not in field.dims]).transpose(*ROLES)
    layers = _labels(axes.get("layer"))
    if several:
        labels = range(frames.sizes["layer"]) if layers is None else layers
        layers = tuple(f"{name}_{label}" for label in labels) if "layer" in field.dims else (name,)
    frames, x = _sorted_axis(path, frames, "x", axes.get("x"))
    frames, y = _sorted_axis(path, frames, "y", axes.get("y"))
    times, time_units, dated = _times(path, axes.get("time"))
    order = np.argsort(times, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        frames, times = frames.isel(time=order), times[order]
    members = _members(path, axes.get("member"), frames.sizes["member"])
    units = (str(field.attrs.get("units", "")),) * frames.sizes["layer"]
    files = (((path, len(times)),),) * len(members)
    if "subtracted" in field.attrs:
        frames = frames + _subtracted(path, field, frames.sizes["layer"])
    numbers, rounding = np.arange(len(times)), _rounding(axes.get("time"))
    return Recording(frames, members, times, numbers, time_units, layers, units, y, x, files, dated, rounding)


def _subtracted(path: Path, field: xr.DataArray, layers: int) -> xr.DataArray:
    """Return the number for each layer that a file of this project lacks, as its attribute `subtracted` says."""
    numbers = np.atleast_1d(field.attrs["subtracted"])
    if numbers.dtype.kind not in "fiu" or numbers.shape != (layers,):
        raise UserError(
            f"{path}: the attribute 'subtracted' of {field.name!r} holds {_excerpt(numbers)}; it needs a number for each of "
            f"{layers} layers, or leave it out"
        )
    return xr.DataArray(numbers, dims="layer")


def _stacked(parts: list[Recording], variables: list[str]) -> Recording:
    """Return the channels of all variables of one file. A variable with a single member belongs to each member of the others."""
    if len(parts) == 1:
        return parts[0]
    fullest = max(range(len(parts)), key=lambda index: len(parts[index].members))
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
    """Raise UserError where a variable lies on other points than another one of its file, or has other times or members."""

    def refuse(what: str, has, wanted):
        raise UserError(
            f"{part.path}: {name!r} has {what} {has}, {expected_name!r} has {wanted}; interpolate them to the same points, or leave one out"
        )

    sizes = [{role: frames.sizes[role] for role in ("time", "y", "x")} for frames in (part.frames, expected.frames)]
    if sizes[0] != sizes[1]:
        refuse("the shape", *(", ".join(f"{role} {size}" for role, size in shape.items()) for shape in sizes))
    for role in ("y", "x"):
        axis, wanted = getattr(part, role), getattr(expected, role)
        if not _same_points(axis, wanted):
            refuse(f"{role} of", _described(axis), _described(wanted))
    times = [Axis(recording.times, recording.time_units) for recording in (part, expected)]
    apart = np.abs(part.times - expected.times).max()
    if part.time_units != expected.time_units or apart > 0.01 * np.nan_to_num(expected.step):
        refuse("times of", *map(_described, times))
    if len(part.members) > 1 and part.members != expected.members:
        refuse("the members", *(", ".join(map(str, recording.members)) for recording in (part, expected)))


def _labels(coordinate: xr.DataArray | None) -> tuple | None:
    if coordinate is None:
        return None
    values = [v.decode() if isinstance(v, bytes) else v for v in coordinate.values.tolist()]
    return tuple(v.strip() if isinstance(v, str) else v for v in values)


def _numbers(path: Path | str, coordinate: xr.DataArray) -> np.ndarray:
    try:
        values = coordinate.values.astype(float)
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise UserError(
            f"{path}: the coordinate {coordinate.name!r} holds {_excerpt(coordinate.values)}; it needs finite numbers"
        )
    return values


def _rounding(coordinate: xr.DataArray) -> float:
    """Return the distance between neighbouring numbers of the precision of a coordinate, near its largest; 0 of double precision."""
    if coordinate.dtype.kind != "f" or coordinate.dtype.itemsize > 4:
        return 0.0
    return float(np.spacing(np.abs(coordinate.values).max(initial=0)))


def _excerpt(values: np.ndarray) -> str:
    return ", ".join(str(value) for value in np.ravel(values)[:3]) + (", …" if np.size(values) > 3 else "")


def _members(path: Path, coordinate: xr.DataArray | None, count: int) -> tuple[int, ...]:
    """Return the numbers of the members; those whose labels are no whole numbers are counted from 0."""
    if coordinate is None:
        return tuple(range(count))
    if coordinate.dtype.kind in "iuf":
        numbers = _numbers(path, coordinate)
        twice = [n for n in numbers if (numbers == n).sum() > 1]
        if twice:
            raise UserError(
                f"{path}: the coordinate {coordinate.name!r} holds the member {twice[0]:g} twice; number the members"
            )
        if np.array_equal(numbers, np.rint(numbers)):
            return tuple(int(n) for n in numbers)
    elif len(set(coordinate.values.tolist())) < count:
        raise UserError(f"{path}: the coordinate {coordinate.name!r} names a member twice; number the members")
    return tuple(range(count))


def _sorted_axis(
    path: Path | str, frames: xr.DataArray, role: str, coordinate: xr.DataArray | None
) -> tuple[xr.DataArray, Axis]:
    """Return frames with ascending positions along y or x, and the axis, which has no positions where it is a single point."""
    if coordinate is None or frames.sizes[role] == 1:
        return frames, Axis(None, "")
    positions, name = _numbers(path, coordinate), coordinate.name
    order = np.argsort(positions, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        frames, positions = frames.isel({role: order}), positions[order]
    spacings = np.diff(positions)
    uneven = np.abs(spacings - spacings.mean()) > UNIFORM * spacings.mean() + _rounding(coordinate)
    if len(spacings) == 0 or spacings.mean() <= 0 or uneven.any():
        place = positions[int(np.argmax(uneven))] if len(spacings) else positions[0]
        raise UserError(
            f"{path}: the points of {name!r} are not evenly spaced (at {place:g}); interpolate to a regular grid"
        )
    return frames, Axis(positions, str(coordinate.attrs.get("units", "")))


def _times(path: Path, coordinate: xr.DataArray | None) -> tuple[np.ndarray, str, bool]:
    """Return the times of the frames, their units, and whether they are dates, which then count from 1 January 2000."""
    if coordinate is None:
        raise UserError(
            f"{path}: has no coordinate 'time', which numbers the steps; add one, in the units of the time step"
        )
    if coordinate.size > MOST_FRAMES:
        raise UserError(f"{path}: claims {coordinate.size:,} times, and at most {MOST_FRAMES:,} are read; cut the file")
    values = coordinate.values
    if values.dtype.kind in "mM":
        if np.isnat(values).any():
            raise UserError(
                f"{path}: the coordinate {coordinate.name!r} holds a missing date; give every frame its time"
            )
        dated = values.dtype.kind == "M"
        origin = np.datetime64("2000-01-01") if dated else np.timedelta64(0, "s")
        return (values - origin) / np.timedelta64(1, "s"), "s", dated
    times, units = _numbers(path, coordinate), str(coordinate.attrs.get("units", ""))
    unit, since, origin = units.partition(" since ")
    if not since:
        return times, units, False
    if not is_time(unit):
        raise UserError(f"{path}: times in {units!r} have no fixed length; write them in days or in seconds")
    calendar = coordinate.attrs.get("calendar", "standard")
    try:
        first = cftime.num2date(0, f"{unit} since {origin}", calendar)
        shift = float(cftime.date2num(first, f"{unit} since 2000-01-01", calendar))
    except ValueError as error:
        raise UserError(f"{path}: times in {units!r}, calendar {calendar!r}, are not understood ({error})") from None
    return times + shift, unit, True


# Several files


def check_alike(first: Recording, part: Recording) -> None:
    """Raise UserError where a file has another grid, other channels or other units than the first."""
    path, reference = part.path, first.path

    def refuse(what: str, has, expected):
        raise UserError(f"{path}: has {what} {has}, {reference} has {expected}; name files of one data set")

    if part.frames.shape[2:] != first.frames.shape[2:]:
        refuse("frames (layer, y, x) of", part.frames.shape[2:], first.frames.shape[2:])
    for name in ("layers", "units", "time_units"):
        if getattr(part, name) != getattr(first, name):
            refuse(name.replace("_", " "), *(_listed(getattr(recording, name)) for recording in (part, first)))
    for name in ("y", "x"):
        axis, expected = getattr(part, name), getattr(first, name)
        if axis.units != expected.units or not _same_points(axis, expected):
            refuse(f"{name} of", _described(axis), _described(expected))


def _listed(labels: tuple | str | None) -> str:
    """Return labels or units in words, each once."""
    words = [labels] if isinstance(labels, str) else labels or []
    return ", ".join(dict.fromkeys(str(word) for word in words if word != "")) or "none"


def _same_points(axis: Axis, expected: Axis) -> bool:
    """Return whether two axes with as many points have the same positions, or both have none."""
    if axis.positions is None or expected.positions is None:
        return axis.positions is expected.positions
    return bool(np.abs(axis.positions - expected.positions).max() <= 0.01 * expected.spacing)


def _described(axis: Axis) -> str:
    if axis.positions is None:
        return "no positions"
    return f"{axis.positions[0]:g} to {axis.positions[-1]:g} {axis.units}".strip()


def _joined(parts: list[Recording], join: str | None) -> Recording:
    if len(parts) == 1:
        return _with_even_steps(parts[0])
    parts = sorted(parts, key=lambda part: _natural(part.path))
    groups: list[list[Recording]] = []
    how = join or _how_joined(parts)
    if how == "time":
        by_members: dict[tuple, list[Recording]] = {}
        for part in parts:
            by_members.setdefault(part.members, []).append(part)
        groups = [sorted(group, key=lambda part: part.times[0]) for group in by_members.values()]
    else:
        groups = [[part] for part in parts]
    return _side_by_side([_with_even_steps(_in_a_row(group)) for group in groups])


def _natural(path: Path) -> list:
    """Return a key that sorts file_2 before file_10."""
    return [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", str(path))]


def _how_joined(parts: list[Recording]) -> str:
    """Return "member" where files cover the same times, and "time" where each goes on where another ends."""
    starts = [part.times[0] for part in parts]
    if len({part.members for part in parts}) == 1 and len(parts[0].members) < 2:
        step = next((part.step for part in parts if len(part.times) > 1), np.nan)
        if np.isnan(step) and len(set(starts)) == len(starts):
            return "time"  # a file for each frame
        ordered = sorted(parts, key=lambda part: part.times[0])
        gaps = [right.times[0] - left.times[-1] for left, right in itertools.pairwise(ordered)]
        slack = UNIFORM * abs(step) + max(part.rounding for part in parts)
        if all(-slack <= gap <= step + slack for gap in gaps):
            return "time"
        if np.ptp(starts) <= slack or np.isnan(step):
            return "member"
        raise UserError(
            f"{ordered[1].path}: begins at time {ordered[1].times[0]:g}, where {ordered[0].path} covers {ordered[0].times[0]:g} to "
            f"{ordered[0].times[-1]:g}: neither the same times nor the next ones; say source.join: member or time"
        )
    # Members of several files may have the same numbers, because each file counts its own from the start.
    alike = len({part.members for part in parts}) == len(parts) or np.ptp([part.times[-1] for part in parts]) == 0
    return "member" if alike and np.ptp(starts) == 0 else "time"


def _in_a_row(parts: list[Recording]) -> Recording:
    """Join files that follow each other in time."""
    if len(parts) == 1:
        return parts[0]
    frames, times = xr.concat([part.frames for part in parts], "time"), np.concatenate([part.times for part in parts])
    owner = np.repeat(np.arange(len(parts)), [len(part.times) for part in parts])
    order = np.argsort(times, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):  # files overlap
        frames, times, owner = frames.isel(time=order), times[order], owner[order]
    stops = [*(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(owner)]
    files = (tuple((parts[owner[stop - 1]].path, stop) for stop in stops),) * len(parts[0].members)
    return replace(parts[0], frames=frames, times=times, files=files, rounding=max(part.rounding for part in parts))


def _with_even_steps(part: Recording) -> Recording:
    """Leave out frames that stand twice, and refuse a step that is missing."""
    steps = np.diff(part.times)
    if len(steps) == 0:
        return part
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if part.rounding > 0.25 * part.step and (np.abs(steps - step) > 0.01 * step).any():
        raise UserError(
            f"{part.file_of(0, len(steps))}: single precision rounds its times to multiples of {part.rounding:g}, and frames are about "
            f"{part.step:.3g} apart; write the times in double precision"
        )
    doubled = np.flatnonzero(steps <= UNIFORM * step)
    for index in doubled:
        pair = part.frames.isel(time=[index, index + 1]).values
        if step == 0 or not np.array_equal(pair[:, 0], pair[:, 1], equal_nan=True):
            raise _two_frames(part, int(index), part.times[doubled])
    if len(doubled):
        keep = np.setdiff1d(np.arange(len(part.times)), doubled + 1)
        files = tuple(tuple((path, int(np.searchsorted(keep, stop))) for path, stop in ends) for ends in part.files)
        part = replace(part, frames=part.frames.isel(time=keep), times=part.times[keep], files=files)
        steps = np.diff(part.times)
    uneven = np.flatnonzero(np.abs(steps - step) > 0.01 * step + 2 * part.rounding)
    if 2 * len(uneven) > len(steps) > 1:
        raise UserError(
            f"{part.path}: its frames are {steps.min():.3g} to {steps.max():.3g} apart in time; interpolate them to even times, or "
            "write them at a fixed time step"
        )
    if len(uneven):
        index = int(uneven[0])
        raise UserError(
            f"{part.file_of(0, index + 1)}: time goes from {part.times[index]:g} to {part.times[index + 1]:g} in a step, and elsewhere by "
            f"{step:g}; fill the gap, or name the files before or after it"
        )
    return part


def _two_frames(part: Recording, index: int, doubled: np.ndarray) -> UserError:
    """Return the error about a frame and the next one, which differ and have one time; `doubled`: all times that stand twice."""
    path, earlier, time = part.file_of(0, index + 1), part.file_of(0, index), part.times[index]
    if path == earlier:
        return UserError(f"{path}: holds two different frames at time {time:g}; keep one of them")
    return UserError(
        f"{path}: holds another frame at time {time:g} than {earlier}, and both cover {doubled[0]:g} to {doubled[-1]:g}; leave out one of "
        "them there, or say source.join: member if they hold different members"
    )


def _side_by_side(parts: list[Recording]) -> Recording:
    """Join members that lie in files of their own."""
    if len(parts) == 1:
        return parts[0]
    first, (shortest, longest) = parts[0], (pick(parts, key=lambda part: len(part.times)) for pick in (min, max))
    if len(longest.times) > len(shortest.times):
        raise UserError(
            f"{shortest.path}: holds {len(shortest.times)} frames, {longest.path} {len(longest.times)}; members of one split are of one "
            "length: leave the short ones out, or cut the long ones"
        )
    for part in parts[1:]:
        if len(part.times) > 1 and abs(part.step - first.step) > 0.01 * first.step:
            raise UserError(
                f"{part.path}: has a frame every {part.step:g}, {first.path} every {first.step:g}; name files of one time step"
            )
    numbers = [number for part in parts for number in part.members]
    frames, files = (
        xr.concat([part.frames for part in parts], "member"),
        [ends for part in parts for ends in part.files],
    )
    if len(set(numbers)) < len(numbers):
        numbers = list(range(len(numbers)))  # each file counts its own members from the start
    order = np.argsort(numbers, kind="stable").tolist()
    if order != sorted(order):
        frames, numbers, files = frames.isel(member=order), [numbers[i] for i in order], [files[i] for i in order]
    return replace(first, frames=frames, members=tuple(numbers), files=tuple(files))


# Fitted to a system


def fitted(
    recording: Recording, *, units: str, layers: tuple[str, ...], points: tuple[int, int], lengths: tuple[float, float],
    length_units: str, time_units: str, variable: str,
) -> Recording:  # fmt: skip
    """Return a recording in the units, in the order of the layers and on the grid of a periodic system.

    `points`, `lengths`: along y and x; grid points lie at 0, length / points, … Axes that count from another point of this
    grid are turned. Raises UserError where units, layers or points do not fit.
    """
    path = recording.path
    frames = recording.frames
    shape, expected = frames.shape[2:], (len(layers), *points)
    if shape != expected:
        raise UserError(f"{path}: frames (layer, y, x) of {shape} where the emulator's are {expected}")
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

    `name`: of the states in messages; `layers`: of the system, in its order; `length`: of the longer side, in `length_units`.
    Raises UserError, as `fitted` does, where the coordinates are those of other layers or points.
    """
    states, points = (
        states.isel(layer=_layer_order(name, _labels(states.coords.get("layer")), layers)),
        states.shape[2:],
    )
    for role, count in zip(("y", "x"), points, strict=True):
        states, axis = _sorted_axis(name, states, role, states.coords.get(role))
        turn = _turn(name, role, axis, count, length * count / max(points), length_units)
        states = states.roll({role: turn}, roll_coords=False)
    return states


def _factor(path: Path | str, what: str, source: str, target: str) -> float:
    """Return the factor from units of a file to a system's; files that state no units are taken to have the system's."""
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
