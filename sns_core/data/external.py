"""Rollouts that were made outside this project, read by `reader` and fitted to the system's units, layers and grid.

Frames are read for some steps at a time. A file that does not fit, and cannot be converted, is refused.
"""

from pathlib import Path

import dask
import numpy as np
import xarray as xr

from sns_core.data.fitting import fitted
from sns_core.data.reader import open_recording
from sns_core.data.recording import Recording
from sns_core.errors import UserError
from sns_core.grids import Grid, grid_shape
from sns_core.systems import System

STEPS_PER_READ, BYTES_PER_READ = 50, 2**26  # at most, of all members together


class ExternalRollout:
    """The frames of a file or a Zarr store, one per emulator step.

    The file holds the system's `variable`, or a variable for each of its layers, on the emulator's grid. A coordinate
    `member` holds the numbers of the members of the test split from which the rollout starts; without it, they are 0,
    1, and so on. Times start with 0 (the initial frame) or with the first step, and rise by `step`; dates count from
    the initial frame.

    Parameters: `path` of the file; `system`, whose frames they are; `resolution` and `step` of the emulator. Raises
    UserError where the file is missing, not readable, or does not fit.
    """

    def __init__(self, path: Path, system: System, resolution: Grid, step: float):
        self.path, points = Path(path), grid_shape(resolution)
        recording = fitted(
            self._opened(system),
            variable=system.variable,
            units=system.units,
            layers=tuple(system.layers),
            points=points,
            lengths=tuple(system.length * count / max(points) for count in points),
            length_units=system.length_units,
            time_units=system.time_units,
        )
        steps = (recording.times - recording.dated * recording.times[0]) / step
        slack = 0.01 + recording.rounding / step
        self.first = round(float(steps[0])) if len(steps) and abs(steps[0]) < 2 else -1
        if self.first not in (0, 1) or np.abs(steps - self.first - np.arange(len(steps))).max() > slack:
            times = ", ".join(f"{time * step:g}" for time in steps[:3])
            raise UserError(
                f"{self.path}: its times must be the multiples of the emulator's step {step:g}, from 0 or {step:g} on, "
                f"not {times}, …"
            )
        self.field, self.members = recording.frames, list(recording.members)
        if system.offset:
            self.field = self.field - xr.DataArray(np.asarray(system.offset), dims="layer")
        step_bytes = self.field.dtype.itemsize * self.field.isel(time=0).size
        self._steps_per_read = max(1, min(STEPS_PER_READ, BYTES_PER_READ // step_bytes))
        self._start, self._frames = -STEPS_PER_READ, None

    def _opened(self, system: System) -> Recording:
        """Return the recording of the system's variable, or of one variable for each layer."""
        try:
            return open_recording([self.path], [system.variable])
        except UserError as error:
            if "holds no" not in str(error):
                raise
            try:
                return open_recording([self.path], list(system.layers))
            except UserError:
                raise error from None

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
        if not self._start <= index < self._start + self._steps_per_read:
            self._start = index
            try:
                with dask.config.set(scheduler=dask.get):
                    block = self.field.isel(time=slice(index, index + self._steps_per_read)).values
            except (OSError, RuntimeError, ValueError) as error:
                raise UserError(
                    f"{self.path}: frames from step {step} on are not readable ({' '.join(str(error).split())}); copy or write it again"
                ) from None
            self._frames = block.astype(np.float32)
        return self._frames[self.rows(members), index - self._start]
