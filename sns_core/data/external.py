"""Rollouts that were made outside this project, as netCDF files.

Frames are read for some steps at a time. A file that does not fit the emulator's grid or step is refused.
"""

from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.errors import UserError
from sns_core.files import missing

STEPS_PER_READ = 50


class ExternalRollout:
    """The frames of a netCDF file, one per emulator step.

    The file holds `variable` with the dimensions (member, time, layer, y, x), in the system's units, on the emulator's
    grid. The dimension `layer` may be left out where there is one layer. The coordinate `member` holds the numbers of
    the members of the test split from which the rollout starts; without it, they are 0, 1, and so on. The coordinate
    `time` is in the system's units; it starts with 0 (the initial frame) or with the first step, and rises by `step`.

    Parameters: `path` of the file; `variable`, the name of the field; `layers`, `resolution` and `step` of the
    emulator. Raises UserError where the file is missing, is not netCDF, or does not fit.
    """

    def __init__(self, path: Path, variable: str, layers: int, resolution: int, step: float):
        self.path = Path(path)
        if not self.path.exists():
            raise missing(self.path)
        try:
            dataset = xr.open_dataset(self.path, engine="netcdf4", decode_times=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.path}: not readable as netCDF ({error})") from None
        if variable not in dataset:
            raise UserError(f"{self.path}: holds no {variable!r}, only {', '.join(map(repr, dataset.data_vars))}")
        field = dataset[variable]
        dimensions = ("member", "time", "layer", "y", "x")
        if "layer" not in field.dims and layers == 1:
            field = field.expand_dims("layer")
        if set(field.dims) != set(dimensions):
            raise UserError(f"{self.path}: {variable} has the dimensions {field.dims}; name them {dimensions}")
        self.field = field.transpose(*dimensions)
        shape, expected = self.field.shape[2:], (layers, resolution, resolution)
        if shape != expected:
            raise UserError(f"{self.path}: frames (layer, y, x) of {shape} where the emulator's are {expected}")
        if "time" not in field.coords:
            raise UserError(f"{self.path}: has no coordinate 'time', which numbers the steps")
        steps = field["time"].values.astype(float) / step
        self.first = round(float(steps[0])) if len(steps) and np.isfinite(steps[0]) else -1
        if self.first not in (0, 1) or np.abs(steps - self.first - np.arange(len(steps))).max() > 0.01:
            times = ", ".join(f"{t:g}" for t in field["time"].values[:3])
            raise UserError(
                f"{self.path}: its times must be the multiples of the emulator's step {step:g}, from 0 or {step:g} on, "
                f"not {times}, …"
            )
        self.members = [int(m) for m in field["member"].values] if "member" in field.coords else list(range(len(field)))
        self._start, self._frames = -STEPS_PER_READ, None

    @property
    def last(self) -> int:
        """The number of the last step in the file."""
        return self.first + self.field.sizes["time"] - 1

    def rows(self, members) -> list[int]:
        """Return the row of each member in the file. Raise UserError for a member that the file does not hold."""
        for member in members:
            if member not in self.members:
                raise UserError(
                    f"{self.path}: holds no member {member}, only {', '.join(map(str, self.members))}; rollout.members "
                    "sets how many members are needed"
                )
        return [self.members.index(member) for member in members]

    def frames(self, step: int, members) -> np.ndarray:
        """Return the frames (len(members), layer, y, x), float32, after `step` emulator steps.

        Raises UserError where the file ends before this step.
        """
        index = step - self.first
        if not 0 <= index < self.field.sizes["time"]:
            raise UserError(
                f"{self.path}: ends with step {self.last}, step {step} is asked for; set the method's steps to at most "
                f"{self.last}"
            )
        if not self._start <= index < self._start + STEPS_PER_READ:
            self._start = index
            self._frames = self.field.isel(time=slice(index, index + STEPS_PER_READ)).values.astype(np.float32)
        return self._frames[self.rows(members), index - self._start]
