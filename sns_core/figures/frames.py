"""Read the stored frames of a rollout from its segments, one frame at a time.

A frame in one space dimension, a single row of points, is shown with the frames before it: a square picture of x and
time.
"""

import math
from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.errors import DamagedFile, UserError
from sns_core.figures.inputs import in_shown_units
from sns_core.files import missing

FRAME = ("member", "time", "layer", "y", "x")
# Bytes of a member's frames that are read at a time, because who shows one frame mostly shows the next ones, too.
BLOCK_BYTES = 2**20


class Rollout:
    """The frames of one method, from all segments and groups of members of its rollout; closed by a `with` block.

    `paths`: the segments; `size`: time between emulator steps, in the figures' units. Raises UserError for a missing
    segment, DamagedFile for one that cannot be read or holds no frames.
    """

    def __init__(self, paths: list[Path], size: float):
        self._parts, self.time_units, self.variable = [], "1", ""
        self._block, self._place_of_block = np.empty(0), None
        for path in paths:
            try:
                part = in_shown_units(xr.open_dataset(path, engine="netcdf4", cache=False))
            except FileNotFoundError:
                raise missing(path) from None
            except (OSError, ValueError, RuntimeError) as error:
                raise DamagedFile(path, f"not readable as netCDF ({error})") from None
            self.variable = next((name for name, values in part.data_vars.items() if values.dims == FRAME), "")
            if not self.variable:
                raise DamagedFile(path, "holds no frames")
            self.time_units = part["time"].attrs.get("units", "1")
            self._parts.append((part, np.rint(part["time"].values / size).astype(int), part["member"].values.tolist()))

    def __enter__(self) -> "Rollout":
        return self

    def __exit__(self, *_) -> None:
        for part, _, _ in self._parts:
            part.close()

    @property
    def points(self) -> tuple[int, int]:
        """Points (H, W) of a frame as it is shown."""
        part = self._parts[0][0]
        return self.shown(np.empty((part.sizes["y"], part.sizes["x"]))).shape

    @property
    def grid(self) -> tuple[int, int]:
        """Points (H, W) of a picture: those of a frame, or as many frames as points for a single row of points."""
        height, width = self.points
        return (width if height == 1 else height, width)

    def shown(self, frame: np.ndarray) -> np.ndarray:
        """Return a frame (..., H, W) without its mirror image along axes that are not periodic."""
        mirrored = self._parts[0][0].attrs.get("mirrored", "")
        height, width = (n // (2 if name in mirrored else 1) for name, n in zip("yx", frame.shape[-2:], strict=True))
        return frame[..., :height, :width]

    @property
    def members(self) -> list[int]:
        """Numbers of the members, ascending."""
        return sorted({member for _, _, members in self._parts for member in members})

    @property
    def last_step(self) -> int:
        """The last step of the rollout, whether its frame was stored or not."""
        return max(int(part.attrs["first_step"]) + int(part.attrs["steps"]) for part, _, _ in self._parts)

    @property
    def steps(self) -> np.ndarray:
        """Steps (frame,) at which frames were stored, ascending."""
        return np.unique(np.concatenate([steps for _, steps, _ in self._parts]))

    def require(self, member: int) -> None:
        """Raise UserError if the rollout has no such member."""
        if member not in self.members:
            members = ", ".join(map(str, self.members))
            raise UserError(f"figures: {member} is no member of the rollouts; known: {members}")

    def picture(self, member: int, step: int) -> tuple[int, np.ndarray] | None:
        """Return (step, values (C, H, W) on the `grid`) of the last frame stored at or before `step`, as `shown`.

        A single row of points is shown above the stored frames before it; there are NaN below the first one. None
        beyond the last step.
        """
        last = self.frame(member, step)
        if last is None or last[1].shape[-2] > 1:
            return last and (last[0], self.shown(last[1]))
        height = self.grid[0]
        parts = [
            (part, int((steps <= step).sum()), members) for part, steps, members in self._parts if member in members
        ]
        frames = [
            part[self.variable][members.index(member), max(0, count - height) : count].values
            for part, count, members in parts
        ]
        rows = np.concatenate(frames)[-height:, :, 0].swapaxes(0, 1)
        return last[0], np.pad(rows, ((0, 0), (height - rows.shape[1], 0), (0, 0)), constant_values=np.nan)

    def frame(self, member: int, step: int) -> tuple[int, np.ndarray] | None:
        """Return (its step, values (C, H, W)) of the last frame stored at or before `step`; None beyond the last step.

        Raises UserError for an unknown member.
        """
        self.require(member)
        before = [n for n, (_, steps, members) in enumerate(self._parts) if member in members and steps[0] <= step]
        if not before or step > self.last_step:
            return None
        steps = self._parts[before[-1]][1]
        index = int(np.searchsorted(steps, step, side="right")) - 1
        return int(steps[index]), self._values(before[-1], member, index)

    def _values(self, number: int, member: int, index: int) -> np.ndarray:
        """Return the frame (C, H, W) of a member at an index of the part with this number.

        Its neighbours are read with it.
        """
        part, _, members = self._parts[number]
        frames = part[self.variable]
        length = max(1, BLOCK_BYTES // (frames.dtype.itemsize * math.prod(frames.shape[2:])))
        place = number, member, index // length
        if place != self._place_of_block:
            first = index // length * length
            self._block, self._place_of_block = frames[members.index(member), first : first + length].values, place
        return self._block[index % length]
