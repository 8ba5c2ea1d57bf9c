"""Files that other programs wrote, opened lazily as xarray datasets: netCDF, Zarr and the HDF5 layout of The Well.

Nothing is interpreted here but what the container itself states: packed numbers and fill values are decoded, names and
numbers stay as they are. `reader` gives them their meaning.
"""

import json
import math
import stat
import warnings
from pathlib import Path

import netCDF4
import numpy as np
import xarray as xr

from sns_core.data.classic import lacking_bytes
from sns_core.errors import UserError

OPENING = {"engine": "netcdf4", "decode_times": False, "cache": False, "mask_and_scale": False}
CHUNK_BYTES = 2**22  # of a variable that are read at once: small beside the block of frames that a stage asks for
WELL_GROUPS = ("t0_fields", "t1_fields", "t2_fields")


def open_store(path: Path) -> xr.Dataset:
    """Open a file or a Zarr store lazily.

    Raises UserError where it is missing, is neither a file nor a Zarr store, or is in none of the three formats.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: missing; name a file that exists, relative to {Path.cwd()}")
    if path.is_dir():
        return _open_zarr(path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path}: is no regular file; write the frames to a file first")
    if path.suffix in (".npy", ".npz"):
        raise UserError(
            f"{path}: NumPy arrays name no axes and have no times; write netCDF, such as xarray.DataArray(array, "
            'dims=("time", "y", "x"), coords={"time": times}, name="b").to_netcdf("b.nc")'
        )
    try:
        in_layout_of_the_well = _has_group(path, WELL_GROUPS[0])
    except AttributeError:  # netCDF4 finds the axes of a variable in the groups above it alone
        raise UserError(
            f"{path}: its axes lie in another group than its variables, as Dedalus writes them; convert it, "
            f'xarray.open_dataset("{path.name}", engine="dedalus").to_netcdf("{path.stem}.nc")'
        ) from None
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: not readable as netCDF ({error})") from None
    if lacking := lacking_bytes(path):
        raise UserError(f"{path}: lacks {lacking:,} bytes or more at its end; copy or write it again")
    try:
        if in_layout_of_the_well:
            return _open_well(path)
        return _in_chunks(_decoded(_with_default_fill_values(xr.open_dataset(path, **OPENING))))
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not readable as netCDF ({error})") from None


def _decoded(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset whose packed numbers are unpacked, whose fill values are NaN, and whose coordinates are axes.

    A fill value takes the precision of its variable first: 1e20 in double precision equals no number in single precision.
    """
    dataset = dataset.copy()
    for variable in dataset.variables.values():
        for name in ("_FillValue", "missing_value"):
            if name in variable.attrs and variable.dtype.kind == "f":
                try:
                    variable.attrs[name] = np.asarray(variable.attrs[name]).astype(variable.dtype)
                except ValueError:  # a text that is no number
                    del variable.attrs[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multiple fill values.*")
        dataset = xr.decode_cf(dataset, decode_times=False)
    # A latitude (lat, lon) places no point of the axis lat. Other fields, such as a depth, are variables, also where another
    # one names them in its attribute `coordinates`.
    dataset = dataset.drop_vars([n for n, field in dataset.coords.items() if n in dataset.dims and field.ndim > 1])
    return dataset.reset_coords([n for n in dataset.coords if n not in dataset.dims])


def _with_default_fill_values(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset of a netCDF file whose variables state the fill value that the library writes if none is named.

    Frames that a program never wrote, such as those after its end, hold this value, 9.97e36 in single precision.
    """
    for variable in dataset.data_vars.values():
        fill = netCDF4.default_fillvals.get(variable.dtype.str[1:])
        if variable.dtype.kind in "fiu" and variable.dtype.itemsize > 1 and fill is not None:
            variable.attrs.setdefault("_FillValue", fill)
    return dataset


def _in_chunks(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset whose variables are read in chunks of CHUNK_BYTES.

    A file that stores a variable in one piece would otherwise be read whole for each block of frames. Chunks of a file that are
    stored in pieces hold whole pieces.
    """
    return dataset.assign({name: (v.dims, _chunked(v.variable), v.attrs) for name, v in dataset.data_vars.items()})


def _chunked(variable: xr.Variable):
    """Return the lazy array of a variable in chunks, which are shorter than the variable along its first dimensions."""
    pieces, sizes = variable.encoding.get("preferred_chunks", {}), dict(variable.sizes)
    for dim in variable.dims:
        excess = variable.dtype.itemsize * math.prod(sizes.values()) / CHUNK_BYTES
        if excess > 1:
            piece = pieces.get(dim, 1)
            sizes[dim] = min(sizes[dim], max(1, int(sizes[dim] / excess) // piece) * piece)
    return variable.chunk(sizes, name=False).data  # False: a name at random, without a checksum of the file


def groups_of(path: Path) -> list[str]:
    """Return the names of the groups of a netCDF file that hold variables; nothing for other files."""
    try:
        with netCDF4.Dataset(path) as file:
            return [group.path for group in _all_groups(file) if group.variables]
    except OSError:
        return []


def _all_groups(parent):
    for group in parent.groups.values():
        yield group
        yield from _all_groups(group)


def _has_group(path: Path, name: str) -> bool:
    with netCDF4.Dataset(path) as file:
        return name in file.groups


# Zarr


def _open_zarr(path: Path) -> xr.Dataset:
    try:
        import zarr  # noqa: F401
    except ImportError:
        raise UserError(
            f"{path}: a folder is read as a Zarr store, which needs the package zarr; pip install zarr"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = xr.open_zarr(
                path, consolidated=_is_consolidated(path), mask_and_scale=False, decode_times=False, chunks={}
            )
    except Exception as error:  # zarr has exceptions of many kinds
        raise UserError(f"{path}: not readable as a Zarr store ({' '.join(str(error).split())})") from None
    # In format 2 the fill value is also the value of chunks that were never written. zarr's own default is 0, and a zero
    # is a number, not a missing value. In format 3 the attribute alone says which value is missing.
    for variable in () if (path / "zarr.json").exists() else dataset.variables.values():
        if variable.dtype.kind in "fiu" and np.all(np.equal(variable.attrs.get("_FillValue", np.nan), 0)):
            del variable.attrs["_FillValue"]
    return _decoded(dataset)


def _is_consolidated(path: Path) -> bool:
    """Whether the metadata of all arrays stand in one file of the store."""
    if (path / ".zmetadata").exists():
        return True
    try:
        return "consolidated_metadata" in json.loads((path / "zarr.json").read_text())
    except (OSError, ValueError):
        return False


# The Well


def _open_well(path: Path) -> xr.Dataset:
    """Open a file of The Well: fields in groups by their rank, arrays (trajectory, time, space..., components...).

    Components of vectors and tensors become variables with the names of the axes: velocity_x, stress_xy. Arrays that do not
    vary between trajectories or in time lack these dimensions.
    """
    with netCDF4.Dataset(path) as file:
        try:
            space = [str(name) for name in np.atleast_1d(file["dimensions"].getncattr("spatial_dims"))]
            trajectories, arrays = int(file.getncattr("n_trajectories")), file["dimensions"].variables
            axes = {name: _well_axis(path, name, arrays[name][:]) for name in ("time", *space) if name in arrays}
            axes["time"]  # the others may be absent
        except (AttributeError, IndexError, KeyError):
            raise UserError(
                f"{path}: has the group t0_fields, as files of The Well, but not all of their n_trajectories, dimensions/time and "
                "spatial_dims of dimensions; add them, or write netCDF"
            ) from None
        names = {group: list(file[group].variables) for group in WELL_GROUPS if group in file.groups}
    if len(space) != 2:
        raise UserError(f"{path}: has the axes {', '.join(space)}; fields on planes are read, with two axes")
    variables = {}
    for rank, group in enumerate(WELL_GROUPS):
        if names.get(group):
            opened = _in_chunks(_decoded(xr.open_dataset(path, group=group, **OPENING)))
            for name in names[group]:
                field = _well_field(path, opened[name], space, rank, trajectories, axes)
                variables |= _components(name, field, space, rank)
    return xr.Dataset(variables, {name: (name, values) for name, values in axes.items()})


def _well_axis(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Return the coordinate (n,) of an axis, in its own precision, which says how it is rounded.

    Raises UserError where it differs between trajectories, or in time.
    """
    rows = np.asarray(values).reshape(-1, values.shape[-1]) if values.ndim > 1 else np.asarray(values)[None]
    if (rows != rows[0]).any():
        raise UserError(
            f"{path}: the coordinate {name!r} differs between trajectories; write those that share it to a file"
        )
    return rows[0]


def _well_field(
    path: Path, field: xr.DataArray, space: list[str], rank: int, trajectories: int, axes: dict
) -> xr.DataArray:
    """Return a field with the names of its axes: HDF5 holds none, their order says which is which."""
    components = [f"component_{index}" for index in range(rank)]
    leading = field.ndim - len(space) - rank
    if leading not in (0, 1, 2):
        raise UserError(
            f"{path}: {field.name!r} has {field.ndim} axes, and a field of The Well of rank {rank} at most {len(space) + rank + 2}: "
            f"trajectory, time, {', '.join([*space, *components])}; correct the file"
        )
    first = [["trajectory", "time"][len(axes["time"]) == field.shape[0] and trajectories != field.shape[0]]]
    dims = {0: [], 1: first, 2: ["trajectory", "time"]}[leading]
    return xr.DataArray(field.data, dims=[*dims, *space, *components], attrs=field.attrs)


def _components(name: str, field: xr.DataArray, space: list[str], rank: int) -> dict[str, xr.DataArray]:
    """Return each component of a field of some rank under a name of its own."""
    parts = {name: field}
    for index in range(rank):
        parts = {
            f"{label}{'' if index else '_'}{axis}": part.isel({f"component_{index}": place})
            for label, part in parts.items()
            for place, axis in enumerate(space)
        }
    return parts
