"""Files of frames: self-describing netCDF4 with the dimensions (member, time, layer, y, x).

There is one file per split, per group of a split's members, or per segment of a rollout. The attributes of a file say
what made it. Variables are stored with a checksum, so a flipped bit is an error on reading. This module does not import
torch, so that jobs that only draw or tabulate start quickly.
"""

import itertools
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from sns_core.data.attributes import CONVENTIONS, attributes_of, shown_units
from sns_core.errors import DamagedFile, UserError
from sns_core.files import missing
from sns_core.grids import Grid, grid_shape

if TYPE_CHECKING:
    from sns_core.systems import System

FORMAT = "sns-frames-1"
FRAMES_PER_CHUNK, CHUNK_BYTES = 50, 2**23  # of one member in a chunk of a file, at most
BLOCK_FRAMES, BLOCK_BYTES = 128, 2**24  # of one member that a stage measures at a time, at most


def steps_per_frame(step: float, dt: float) -> int:
    """Return the number of solver steps `dt` in an emulator step. Raise UserError where it is not a whole number."""
    ratio = step / dt
    if ratio < 0.5 or abs(ratio - round(ratio)) > 1e-9 * ratio:
        raise UserError(
            f"emulator.step {step:g} is not a multiple of solver.dt {dt:g}; nearest: {max(1, round(ratio)) * dt:g}"
        )
    return round(ratio)


def frames_per_chunk(frame_bytes: int) -> int:
    """Return the number of frames of one member in a chunk of a file."""
    return max(1, min(FRAMES_PER_CHUNK, CHUNK_BYTES // frame_bytes))


def frames_per_block(frame_bytes: int) -> int:
    """Return the number of frames of one member, two or more, that a stage measures at a time."""
    return max(2, min(BLOCK_FRAMES, BLOCK_BYTES // frame_bytes))


class FrameWriter:
    """A netCDF4 file that frames are appended to. A `with` block closes it.

    `path`: the file. `system`: gives the names and units of the field, the layers and the coordinates. `members`: the
    numbers of the members. `resolution`: points per side of a frame, or (H, W). `attributes`: attributes of the file, dicts as
    JSON. `time_step`: time between two frames whose indices differ by one.
    """

    def __enter__(self) -> "FrameWriter":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()

    def __init__(self, path: Path, system: "System", members, resolution: Grid, attributes: dict, time_step: float):
        import netCDF4  # only writers need it: training and rollouts in memory run where it is missing

        self.file = netCDF4.Dataset(path, "w", format="NETCDF4")
        self.system, self.time_step, self.count = system, time_step, 0
        height, width = grid_shape(resolution)
        sizes = {"member": len(members), "time": None, "layer": system.channels, "y": height, "x": width}
        for name, size in sizes.items():
            self.file.createDimension(name, size)
        y, x = (np.arange(points) * system.length / max(height, width) for points in (height, width))
        for name, values in {"member": np.asarray(members), "time": None, "y": y, "x": x}.items():
            coordinate = self.file.createVariable(name, "i4" if name == "member" else "f8", (name,))
            coordinate.setncatts(attributes_of(name, system))
            if values is not None:
                coordinate[:] = values
        # Layer names are stored as characters. HDF5 crashes on variable-length strings when a file is open twice (hdf5
        # issue 3649).
        labels = np.array(system.layers, dtype="S")
        self.file.createDimension("label", labels.dtype.itemsize)
        layer = self.file.createVariable("layer", "S1", ("layer", "label"))
        layer[:] = netCDF4.stringtochar(labels)
        layer.setncatts({"_Encoding": "utf-8", **attributes_of("layer", system)})
        # A chunk holds one member, so that any members can be read without reading the others.
        frame = system.channels, height, width
        chunks = (1, frames_per_chunk(4 * math.prod(frame)), *frame)
        self.frames = self.variable(system.variable, tuple(sizes), system.units, chunks)
        if system.offset:
            self.frames.subtracted = np.asarray(system.offset, dtype=float)
        self.annotate(format=FORMAT, Conventions=CONVENTIONS, **shown_units(system), **attributes)

    def annotate(self, **attributes) -> None:
        """Set attributes of the file. A dict is stored as JSON."""
        self.file.setncatts(
            {name: json.dumps(v, sort_keys=True) if isinstance(v, dict) else v for name, v in attributes.items()}
        )

    def variable(self, name, dimensions, units="1", chunks=None, kind="f4"):
        """Create a variable with a checksum, in chunks of one member, and return it.

        `chunks`: the chunk sizes (None: whole dimensions of one member). `kind`: the netCDF type.
        """
        members = len(self.file.dimensions["member"])
        if chunks is None and "member" in dimensions:
            chunks = tuple(1 if d == "member" else len(self.file.dimensions[d]) for d in dimensions)
        variable = self.file.createVariable(name, kind, dimensions, fletcher32=True, chunksizes=chunks)
        variable.setncatts({"units": units, **attributes_of(name, self.system)})
        if chunks:
            # By default HDF5 caches up to 16 MiB of each variable, and memory would seem to grow with the file.
            variable.set_var_chunk_cache(2 * members * variable.dtype.itemsize * math.prod(chunks))
        return variable

    def write_member(self, row: int, first: int, frames: np.ndarray) -> None:
        """Write frames (time, layer, y, x) of the member in a row, the first one at the index `first`, times too."""
        stop = first + len(frames)
        self.frames[row, first:stop] = frames
        if stop > self.count:
            self.file["time"][self.count : stop] = np.arange(self.count, stop) * self.time_step
            self.count = stop

    def append(self, frames: np.ndarray, first_index: int) -> None:
        """Append frames (member, time, layer, y, x). The first one is at the time `first_index` x `time_step`."""
        stop = self.count + frames.shape[1]
        self.frames[:, self.count : stop] = frames
        self.file["time"][self.count : stop] = (first_index + np.arange(frames.shape[1])) * self.time_step
        self.count = stop


def open_frames(path: Path, variable: str | None = None, **chunks) -> xr.Dataset:
    """Open a file of frames, lazily where `chunks` are passed.

    Raises UserError where the file is missing, and DamagedFile where it is truncated, not a file of this project, or
    lacks `variable`.
    """
    path = Path(path)
    if not path.exists():
        raise missing(path)
    try:
        with warnings.catch_warnings():
            # Blocks of one member bound memory, also where a chunk of the file holds more; xarray warns that this is slow.
            warnings.filterwarnings("ignore", "The specified chunks separate", UserWarning)
            dataset = xr.open_dataset(path, engine="netcdf4", chunks=chunks or None)
    except PermissionError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise DamagedFile(path, f"truncated, or not netCDF4 ({error})") from None
    if dataset.attrs.get("format") != FORMAT:
        raise DamagedFile(path, f"a netCDF file of another origin (its attribute format is not {FORMAT!r})")
    if variable is not None and variable not in dataset:
        raise DamagedFile(path, f"holds no {variable!r}")
    return dataset


def field_of(dataset: xr.Dataset) -> str:
    """Return the name of the field in an open file of frames: the variable with a value per member, time and place."""
    return next(name for name, values in dataset.data_vars.items() if {"time", "y", "x"} <= set(values.dims))


def open_members(paths: list[Path], variable: str | None = None, **chunks) -> xr.Dataset:
    """Open the files of one split as one dataset, in the order of their members. Each file holds a group of members.

    Raises the errors of `open_frames`, and DamagedFile for a file that was made with other settings than the first.
    """
    if len(paths) == 1:
        return open_frames(paths[0], variable, **chunks)
    datasets = [open_frames(path, variable, **(chunks or {"member": 1})) for path in paths]
    settings = [made_with(dataset) for dataset in datasets]
    for path, setting in zip(paths, settings, strict=True):
        if setting != settings[0]:
            raise DamagedFile(path, f"made with another configuration than {paths[0]}")
    datasets.sort(key=lambda dataset: int(dataset["member"][0]))
    rules = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "exact"}
    return xr.concat(datasets, "member", combine_attrs="override", **rules)


def open_each_member(paths: list[Path], variable: str) -> list[xr.DataArray]:
    """Return the lazy frames (time, layer, y, x) of each member of a split, in the order of the members.

    They are read where they are sliced, without dask, whose graph of a long trajectory makes each slice slow.
    """
    datasets = sorted((open_frames(path, variable) for path in paths), key=lambda dataset: int(dataset["member"][0]))
    return [member.transpose("time", "layer", "y", "x") for dataset in datasets for member in dataset[variable]]


def blocks_of(frames: xr.DataArray) -> Iterator[np.ndarray]:
    """Yield the lazy frames (time, layer, y, x) of a member, block after block, so that few of them are in memory.

    All blocks but that of a single frame hold several, because the FFT of one field may differ in the last bit from the same
    field's in a batch.
    """
    count = max(1, len(frames) // frames_per_block(frames.nbytes // len(frames)))
    bounds = np.linspace(0, len(frames), count + 1).astype(int)
    for first, stop in itertools.pairwise(bounds.tolist()):
        yield frames[first:stop].values


def made_with(dataset: xr.Dataset) -> dict:
    """Return the settings that made a file, without its members: all files of a split share these settings."""
    record = json.loads(dataset.attrs["provenance"])
    settings = {
        name: value for name, value in record["configuration"].items() if name not in ("members", "first_member")
    }
    return {**settings, "seed": record["seed"]}
