"""Files of frames as self-describing netCDF4: dims (member, time, layer, y, x), one file a split, a group of its members, or
a segment of a rollout.

A file says in its attributes what made it. Variables are stored with a checksum, so a flipped bit is an error on
reading. Without torch, which whoever draws or tabulates has no need of.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import netCDF4
import numpy as np
import xarray as xr

from sns_core.data.attributes import CONVENTIONS, attributes_of
from sns_core.errors import DamagedFile, UserError
from sns_core.files import missing

if TYPE_CHECKING:
    from sns_core.systems import System

FORMAT = "sns-frames-1"
FRAMES_A_CHUNK = 50


def steps_per_frame(step: float, dt: float) -> int:
    """Solver steps in an emulator step; UserError where it is not a whole number."""
    ratio = step / dt
    if ratio < 0.5 or abs(ratio - round(ratio)) > 1e-9 * ratio:
        raise UserError(
            f"emulator.step {step:g} is not a multiple of solver.dt {dt:g}; nearest: {max(1, round(ratio)) * dt:g}"
        )
    return round(ratio)


class FrameWriter:
    """Appends frames to a netCDF4 file; `attributes` go into it as given, dicts as JSON. Closed by a `with` block."""

    def __enter__(self) -> "FrameWriter":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()

    def __init__(self, path: Path, system: "System", members, resolution: int, attributes: dict, time_step: float):
        self.file = netCDF4.Dataset(path, "w", format="NETCDF4")
        self.system, self.time_step, self.count = system, time_step, 0
        sizes = {"member": len(members), "time": None, "layer": system.channels, "y": resolution, "x": resolution}
        for name, size in sizes.items():
            self.file.createDimension(name, size)
        positions = np.arange(resolution) * system.length / resolution
        for name, values in {"member": np.asarray(members), "time": None, "y": positions, "x": positions}.items():
            coordinate = self.file.createVariable(name, "i4" if name == "member" else "f8", (name,))
            coordinate.setncatts(attributes_of(name, system))
            if values is not None:
                coordinate[:] = values
        # Characters, not variable-length strings: HDF5 crashes on those when a file is open twice (hdf5 issue 3649).
        labels = np.array(system.layers, dtype="S")
        self.file.createDimension("label", labels.dtype.itemsize)
        layer = self.file.createVariable("layer", "S1", ("layer", "label"))
        layer[:] = netCDF4.stringtochar(labels)
        layer.setncatts({"_Encoding": "utf-8", **attributes_of("layer", system)})
        # One member a chunk: blocks of any number of members are read without touching the others.
        chunks = (1, FRAMES_A_CHUNK, system.channels, resolution, resolution)
        self.frames = self.variable(system.variable, tuple(sizes), system.units, chunks)
        self.annotate(format=FORMAT, Conventions=CONVENTIONS, **attributes)

    def annotate(self, **attributes) -> None:
        """Set attributes of the file, dicts as JSON."""
        self.file.setncatts(
            {name: json.dumps(v, sort_keys=True) if isinstance(v, dict) else v for name, v in attributes.items()}
        )

    def variable(self, name, dimensions, units="1", chunks=None, kind="f4"):
        members = len(self.file.dimensions["member"])
        if chunks is None and "member" in dimensions:
            chunks = tuple(1 if d == "member" else len(self.file.dimensions[d]) for d in dimensions)
        variable = self.file.createVariable(name, kind, dimensions, fletcher32=True, chunksizes=chunks)
        variable.setncatts({"units": units, **attributes_of(name, self.system)})
        if chunks:
            # HDF5 keeps up to 16 MiB of each variable, which would look like memory that grows with the file.
            variable.set_var_chunk_cache(2 * members * variable.dtype.itemsize * math.prod(chunks))
        return variable

    def append(self, frames: np.ndarray, first_index: int) -> None:
        """Add frames (member, time, layer, y, x); `first_index` counts in units of `time_step`."""
        stop = self.count + frames.shape[1]
        self.frames[:, self.count : stop] = frames
        self.file["time"][self.count : stop] = (first_index + np.arange(frames.shape[1])) * self.time_step
        self.count = stop


def open_frames(path: Path, variable: str | None = None, **chunks) -> xr.Dataset:
    """Open a file of frames, lazily where `chunks` are given.

    Raises UserError where it is missing, DamagedFile where it is truncated, foreign or lacks `variable`.
    """
    path = Path(path)
    if not path.exists():
        raise missing(path)
    try:
        dataset = xr.open_dataset(path, engine="netcdf4", chunks=chunks or None)
    except PermissionError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise DamagedFile(path, f"truncated, or not netCDF4 ({error})") from None
    if dataset.attrs.get("format") != FORMAT:
        raise DamagedFile(path, f"a foreign netCDF file (its attribute format is not {FORMAT!r})")
    if variable is not None and variable not in dataset:
        raise DamagedFile(path, f"holds no {variable!r}")
    return dataset


def open_members(paths: list[Path], variable: str | None = None, **chunks) -> xr.Dataset:
    """Open the files of one split, each with a group of its members, as one, in the order of their members.

    Raises what `open_frames` does, and DamagedFile for a file that was made with other settings than the first.
    """
    if len(paths) == 1:
        return open_frames(paths[0], variable, **chunks)
    opened = [open_frames(path, variable, **(chunks or {"member": 1})) for path in paths]
    made_by = [made_with(dataset) for dataset in opened]
    for path, other in zip(paths, made_by, strict=True):
        if other != made_by[0]:
            raise DamagedFile(path, f"made with another configuration than {paths[0]}")
    opened.sort(key=lambda dataset: int(dataset["member"][0]))
    shared = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "exact"}
    return xr.concat(opened, "member", combine_attrs="override", **shared)


def made_with(dataset: xr.Dataset) -> dict:
    """The settings that the files of a split share, whichever members they hold."""
    record = json.loads(dataset.attrs["provenance"])
    settings = {
        name: value for name, value in record["configuration"].items() if name not in ("members", "first_member")
    }
    return {**settings, "seed": record["seed"]}
