"""Rollouts that were made elsewhere, as netCDF: read a stretch of steps at a time, and refused where they do not fit."""

from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.files import missing
from sns_core.runtime import UserError

READ_AHEAD = 50  # steps that are read together


class ExternalRollout:
    """The frames of a netCDF file, one an emulator step.

    The file holds `variable` with the dimensions (member, time, layer, y, x), `layer` left out where there is one, in the
    system's units, on the emulator's grid; `member` numbers the members of the test split that the rollout starts from
    (without that coordinate: 0, 1, …); `time` counts in the system's units from the initial frame at 0, which may be left
    out, at steps of `step`.

    Raises UserError where the file is missing, is no netCDF, or does not fit.
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
        wanted = ("member", "time", "layer", "y", "x")
        if "layer" not in field.dims and layers == 1:
            field = field.expand_dims("layer")
        if set(field.dims) != set(wanted):
            raise UserError(f"{self.path}: {variable} has the dimensions {field.dims}; name them {wanted}")
        self.field = field.transpose(*wanted)
        if self.field.shape[2:] != (layers, resolution, resolution):
            found, needed = self.field.shape[2:], (layers, resolution, resolution)
            raise UserError(f"{self.path}: frames (layer, y, x) of {found} where the emulator's are {needed}")
        if "time" not in field.coords:
            raise UserError(f"{self.path}: has no coordinate 'time'; steps are told by it")
        steps = field["time"].values.astype(float) / step
        self.first = round(float(steps[0])) if len(steps) and np.isfinite(steps[0]) else -1
        if self.first not in (0, 1) or np.abs(steps - self.first - np.arange(len(steps))).max() > 0.01:
            raise UserError(
                f"{self.path}: its times must be the multiples of the emulator's step {step:g}, from 0 or {step:g} on, not "
                f"{', '.join(f'{t:g}' for t in field['time'].values[:3])}, …"
            )
        self.members = [int(m) for m in field["member"].values] if "member" in field.coords else list(range(len(field)))
        self._start, self._held = -READ_AHEAD, None

    @property
    def last(self) -> int:
        """The last step that the file holds."""
        return self.first + self.field.sizes["time"] - 1

    def rows(self, members) -> list[int]:
        """Where in the file such members stand; UserError for one that it does not hold."""
        for member in members:
            if member not in self.members:
                raise UserError(
                    f"{self.path}: holds no member {member}, only {', '.join(map(str, self.members))}; rollout.members says "
                    "how many are asked for"
                )
        return [self.members.index(member) for member in members]

    def frames(self, step: int, members) -> np.ndarray:
        """Frames (len(members), layer, y, x), float32, after so many steps; UserError where the file has ended."""
        index = step - self.first
        if not 0 <= index < self.field.sizes["time"]:
            raise UserError(
                f"{self.path}: ends with step {self.last}, step {step} is asked for; set the method's steps to at most {self.last}"
            )
        if not self._start <= index < self._start + READ_AHEAD:
            self._start = index
            self._held = self.field.isel(time=slice(index, index + READ_AHEAD)).values.astype(np.float32)
        return self._held[self.rows(members), index - self._start]
