"""A recording: trajectories of some members on one grid, read lazily from the files that hold them."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import cftime
import dask
import numpy as np
import xarray as xr

from sns_core.errors import UserError
from sns_core.units import conversion

BLOCK_BYTES = 2**25  # of frames that are read at a time


@dataclass(frozen=True)
class Axis:
    """An axis y or x: `positions` (n,), ascending and evenly spaced, None where the files hold none, and `units`."""

    positions: np.ndarray | None
    units: str

    @property
    def spacing(self) -> float:
        """Distance between neighbouring points; 1 where the files hold no positions."""
        return (
            1.0 if self.positions is None else float(self.positions[-1] - self.positions[0]) / (len(self.positions) - 1)
        )

    def agrees_with(self, expected: "Axis") -> bool:
        """Return whether this axis has the positions of another one with as many points, or both have none."""
        if self.positions is None or expected.positions is None:
            return self.positions is expected.positions
        return bool(np.abs(self.positions - expected.positions).max() <= 0.01 * expected.spacing)

    def __str__(self) -> str:
        if self.positions is None:
            return "no positions"
        return f"{self.positions[0]:g} to {self.positions[-1]:g} {self.units}".strip()


@dataclass(frozen=True)
class Recording:
    """Trajectories of some members on one grid.

    `frames`: lazy array (member, time, layer, y, x). `members`: their numbers, or their names until files are joined.
    `times` (time,): in `time_units`, "" where the files state none; `calendar`: of dates, "" of other times;
    `rounding`: by how much the files round them.
    `numbers` (time,): of the frames, counted over all files of a member. `layers`: label of each channel, None where
    the files hold none; `units`: of each channel. `y`, `x`: axes. `files`: for each member, the files that hold it,
    each with the frame after its last.
    `origins`: of members that are pieces of longer ones, for each the number of the longer one, and the frames and the
    time from the first piece to this one; () otherwise.
    """

    frames: xr.DataArray
    members: tuple[int | float | str, ...]
    times: np.ndarray
    numbers: np.ndarray
    time_units: str
    layers: tuple | None
    units: tuple[str, ...]
    y: Axis
    x: Axis
    files: tuple[tuple[tuple[Path, int], ...], ...]
    calendar: str = ""
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
    def dated(self) -> bool:
        """Whether times are dates, as numbers since 1 January 2000."""
        return bool(self.calendar)

    def clock(self, time: float) -> str:
        """Return a time as text, for a message: a date of the calendar of the files, or a number."""
        if not self.dated:
            return f"{time:g}"
        seconds = float(time) * conversion(self.time_units, "s")
        return str(cftime.num2date(seconds, "seconds since 2000-01-01", self.calendar))

    @property
    def block(self) -> int:
        """The number of frames of one member that fit into BLOCK_BYTES."""
        return max(1, BLOCK_BYTES // (self.frames.dtype.itemsize * int(np.prod(self.frames.shape[2:]))))

    def file_of(self, member: int, time: int) -> Path:
        """Return the file that holds the frame at these positions."""
        return next((path for path, stop in self.files[member] if time < stop), self.path)

    def read(self, member: int, times: slice) -> np.ndarray:
        """Return frames (time, layer, y, x) of the member at a position. Raise UserError where one is not finite."""
        values = self.values(member, times)
        if not np.isfinite(values).all():
            first = self._first_missing(member)
            number, frames, time = self.origins[member] if self.origins else (self.members[member], 0, 0.0)
            frame = self.numbers[first] + frames
            remedy = "keep the frames before" if frame else "fill them, such as with 0 on land"
            raise UserError(
                f"{self.file_of(member, first)}: member {number} has missing or infinite values from time "
                f"{self.clock(self.times[first] + time)} (frame {frame}) on; leave the member out, or {remedy}"
            )
        return values

    def values(self, member: int, times: slice) -> np.ndarray:
        """Return frames as `read` does, whether they are finite or not. Raise UserError where one is not readable."""
        try:
            with dask.config.set(scheduler=dask.get):
                return self.frames.isel(member=member, time=times).values
        except (OSError, RuntimeError, ValueError) as error:
            positions = range(len(self.times))[times]
            if len(positions) > 1:  # a block may lie in several files: its frames tell which one is damaged
                return np.stack([self.values(member, slice(place, place + 1))[0] for place in positions])
            raise UserError(
                f"{self.file_of(member, positions[0])}: frames from time {self.clock(self.times[positions[0]])} on are not readable "
                f"({' '.join(str(error).split())}); copy or write it again"
            ) from None

    def _first_missing(self, member: int) -> int:
        """Return the position of the first frame of a member, one of whose frames is not finite, that is not finite."""
        blocks = (slice(first, first + self.block) for first in range(0, len(self.times), self.block))
        finite = (np.isfinite(self.values(member, block)).all((1, 2, 3)) for block in blocks)
        return next(index for index, good in enumerate(itertools.chain.from_iterable(finite)) if not good)

    def in_time_units(self, units: str) -> "Recording":
        """Return the recording with times in other units, or as it is where they cannot be converted.

        xarray writes hours for frames that are hours apart, and days for a single frame.
        """
        factor = conversion(self.time_units, units)
        if factor is None or not self.time_units or not units:
            return self
        return replace(self, times=self.times * factor, rounding=self.rounding * factor, time_units=units)

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
        """Return the recording with a graph of its own frames.

        Where dask's graph holds many others, each reading is slow.
        """
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


def check_alike(first: Recording, part: Recording) -> None:
    """Raise UserError where a file has another grid, other channels or other units than the first."""
    path, reference = part.path, first.path

    def refuse(what: str, has, expected):
        raise UserError(f"{path}: has {what} {has}, {reference} has {expected}; name files of one data set")

    if part.frames.shape[2:] != first.frames.shape[2:]:
        refuse("frames (layer, y, x) of", part.frames.shape[2:], first.frames.shape[2:])
    same = {
        "layers": part.layers == first.layers,
        "units": all(map(_are_same_units, part.units, first.units)),
        "time_units": _are_same_units(part.time_units, first.time_units),
    }
    for name, agrees in same.items():
        if not agrees:
            refuse(name.replace("_", " "), *(_in_words(getattr(recording, name)) for recording in (part, first)))
    for name in ("y", "x"):
        axis, expected = getattr(part, name), getattr(first, name)
        if not _are_same_units(axis.units, expected.units) or not axis.agrees_with(expected):
            refuse(f"{name} of", axis, expected)


def _are_same_units(text: str, expected: str) -> bool:
    """Whether two texts are one unit, such as m/s and m s-1. A text without units is the same only where both are."""
    return text == expected or bool(text and expected and conversion(text, expected) == 1)


def _in_words(labels: tuple | str | None) -> str:
    """Return labels or units in words, each once."""
    words = [labels] if isinstance(labels, str) else labels or []
    return ", ".join(dict.fromkeys(str(word) for word in words if word != "")) or "none"
