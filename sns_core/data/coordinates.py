"""The coordinates of a file of frames as numbers in order: labels of layers, numbers of members, positions and times.

`path` is, in every function, the file that a message names. Each raises UserError for a coordinate that it cannot read.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import cftime
import numpy as np
import xarray as xr

from sns_core.data.recording import Axis
from sns_core.errors import UserError
from sns_core.units import conversion, is_time, short_name

MOST_FRAMES = 10**8  # of one file: their times alone take a gigabyte
UNIFORM = 1e-3  # steps, or spacings, of one file may differ by this share of a step, or of a spacing


def labels_of(coordinate: xr.DataArray | None) -> tuple | None:
    """Return the labels of the layers as text or numbers; None without a coordinate."""
    if coordinate is None:
        return None
    values = [v.decode() if isinstance(v, bytes) else v for v in coordinate.values.tolist()]
    return tuple(v.strip() if isinstance(v, str) else v for v in values)


def numbers_of(path: Path | str, coordinate: xr.DataArray) -> np.ndarray:
    """Return the values (n,) of a coordinate as float64. Raise UserError where one is no finite number."""
    try:
        values = coordinate.values.astype(float)
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise UserError(
            f"{path}: the coordinate {coordinate.name!r} holds {excerpt(coordinate.values)}; it needs finite numbers"
        )
    return values


def rounding_of(coordinate: xr.DataArray) -> float:
    """Return the distance between neighbouring numbers of the precision of a coordinate, near its largest.

    0 of double precision.
    """
    if coordinate.dtype.kind != "f" or coordinate.dtype.itemsize > 4:
        return 0.0
    return float(np.spacing(np.abs(coordinate.values).max(initial=0)))


def excerpt(values: np.ndarray) -> str:
    """Return the first three values as text, for a message."""
    return ", ".join(str(value) for value in np.ravel(values)[:3]) + (", …" if np.size(values) > 3 else "")


def members_of(path: Path, coordinate: xr.DataArray | None, count: int) -> tuple[int | float | str, ...]:
    """Return the numbers or the names of the members; they are counted from 0 without a coordinate."""
    if coordinate is None:
        return tuple(range(count))
    if coordinate.dtype.kind in "iuf":
        numbers = numbers_of(path, coordinate)
        twice = [n for n in numbers if (numbers == n).sum() > 1]
        if twice:
            raise UserError(
                f"{path}: the coordinate {coordinate.name!r} holds the member {twice[0]:g} twice; number the members"
            )
        whole = np.array_equal(numbers, np.rint(numbers))
        return tuple(int(n) if whole else float(n) for n in numbers)
    names = tuple(map(str, labels_of(coordinate)))
    if len(set(names)) < count:
        raise UserError(f"{path}: the coordinate {coordinate.name!r} names a member twice; number the members")
    return names


def order_of(labels: Iterable[Path | int | float | str]) -> list[int]:
    """Return the positions of labels in their order: numbers by value, texts such as r2 before r10."""
    labels = list(labels)
    if all(isinstance(label, int | float) for label in labels):
        return sorted(range(len(labels)), key=labels.__getitem__)
    words = [[int(w) if w.isdigit() else w for w in re.split(r"(\d+)", str(label))] for label in labels]
    return sorted(range(len(labels)), key=words.__getitem__)


def sorted_axis(
    path: Path | str, frames: xr.DataArray, role: str, coordinate: xr.DataArray | None
) -> tuple[xr.DataArray, Axis]:
    """Return frames with ascending positions along y or x, and the axis.

    The axis has no positions where it is a single point.
    """
    if coordinate is None or frames.sizes[role] == 1:
        return frames, Axis(None, "")
    positions, name = numbers_of(path, coordinate), coordinate.name
    order = np.argsort(positions, kind="stable")
    if not np.array_equal(order, np.arange(len(order))):
        frames, positions = frames.isel({role: order}), positions[order]
    spacings = np.diff(positions)
    uneven = np.abs(spacings - spacings.mean()) > UNIFORM * spacings.mean() + rounding_of(coordinate)
    if len(spacings) == 0 or spacings.mean() <= 0 or uneven.any():
        place = positions[int(np.argmax(uneven))] if len(spacings) else positions[0]
        raise UserError(
            f"{path}: the points of {name!r} are not evenly spaced (at {place:g}); interpolate to a regular grid"
        )
    return frames, Axis(positions, str(coordinate.attrs.get("units", "")))


def times_of(path: Path, coordinate: xr.DataArray | None, name: str) -> tuple[np.ndarray, str, str]:
    """Return the times of the frames, their units, and the calendar of dates, which count from 1 January 2000.

    The calendar is "" where the times are no dates.

    `name`: of the dimension, for a message.
    """
    if coordinate is None:
        raise UserError(
            f"{path}: has no coordinate {name!r}, which numbers the steps; add one, in the units of the time step"
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
        return (values - origin) / np.timedelta64(1, "s"), "s", "proleptic_gregorian" if dated else ""
    times, units = numbers_of(path, coordinate), str(coordinate.attrs.get("units", ""))
    if "%Y" in units:
        raise UserError(
            f"{path}: times in {units!r} are digits of dates, which do not count the days; write them as days since a date, such as "
            "with cdo -r copy"
        )
    unit, since, origin = re.fullmatch(r"(.*?)(?:\s+(since)\b\s*(.*))?", units.strip(), re.IGNORECASE).groups()
    if not since:
        return times, units, ""
    if not is_time(unit):
        raise UserError(
            f"{path}: times in {units!r} are in no known unit of a fixed length; write them in days or in seconds"
        )
    calendar = str(coordinate.attrs.get("calendar") or "standard").strip().lower()
    try:
        first = cftime.num2date(0, f"seconds since {origin}", calendar)
        shift = float(cftime.date2num(first, "seconds since 2000-01-01", calendar)) * conversion("s", unit)
    except ValueError as error:
        raise UserError(
            f"{path}: times in {units!r}, calendar {calendar!r}, are not understood ({error}); write them in days or seconds since a date"
        ) from None
    return times + shift, short_name(unit), calendar
