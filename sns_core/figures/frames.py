"""The stored frames of a rollout, read lazily from its segments, one frame at a time."""

from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.errors import DamagedFile, UserError
from sns_core.figures.inputs import in_shown_units
from sns_core.files import missing

FRAME = ("member", "time", "layer", "y", "x")


class Rollout:
    """The frames of one method, whatever the segments and groups of members that they lie in; closed by a `with` block.

    `paths`: its segments; `size`: time between emulator steps, in the figures' units.
    """

    def __init__(self, paths: list[Path], size: float):
        self._parts, self.time_units, self.variable = [], "1", ""
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
    def members(self) -> list[int]:
        return sorted({member for _, _, members in self._parts for member in members})

    @property
    def reached(self) -> int:
        """The step that the rollout has come to."""
        return max(int(part.attrs["first_step"]) + int(part.attrs["steps"]) for part, _, _ in self._parts)

    @property
    def steps(self) -> np.ndarray:
        """Steps at which frames were stored, ascending."""
        return np.unique(np.concatenate([steps for _, steps, _ in self._parts]))

    def require(self, member: int) -> None:
        """UserError where there is no such member."""
        if member not in self.members:
            known = ", ".join(map(str, self.members))
            raise UserError(f"figures: {member} is no member of the rollouts; known: {known}")

    def frame(self, member: int, step: int) -> tuple[int, np.ndarray] | None:
        """The stored frame (C, H, W) at or last before `step`, after the step that it is of; None: not run so far.

        Raises UserError for an unknown member.
        """
        self.require(member)
        before = [entry for entry in self._parts if member in entry[2] and entry[1][0] <= step]
        if not before or step > self.reached:
            return None
        part, steps, members = before[-1]
        index = int(np.searchsorted(steps, step, side="right")) - 1
        return int(steps[index]), part[self.variable][members.index(member), index].values


def between_points(n: int, size: int) -> np.ndarray:
    """Matrix M (size, n) to values at `size` evenly spaced points of a periodic line from those at n, by the trigonometric
    polynomial through them; M @ field @ M.T does so in the plane.

    For fields that are truncated Fourier series, as Kolmogorov frames are, this is the field itself between its points.
    """
    angle = 2 * np.pi * (np.arange(size)[:, None] / size - np.arange(n) / n)
    wave = np.arange(1, (n + 1) // 2)[:, None, None]
    highest = np.cos(n / 2 * angle) if n % 2 == 0 else 0.0
    return ((1 + 2 * np.cos(wave * angle).sum(0) + highest) / n).astype(np.float32)
