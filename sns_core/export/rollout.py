"""The frames of a rollout as a Zarr store, or as a file in the HDF5 layout of The Well.

Frames are written a block at a time, in physical units: a mean that this project keeps apart is added again.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sns_core.data.attributes import described
from sns_core.data.emulation import Emulation
from sns_core.data.segments import CHUNK, open_segments
from sns_core.errors import UserError
from sns_core.files import hold, whole_file, whole_folder
from sns_core.record import check_current, read_run, records_below


def write_rollout(run: Path, method: str, system: str | None, output: Path) -> str:
    """Write the frames of a rollout, and return a line about them. The arguments and errors are those of `export`."""
    rollout = open_rollout(run, method, system)
    (name,), mirrored = rollout.data_vars, rollout.attrs.pop("mirrored", "")
    if output.suffix == ".zarr":
        _write_zarr(rollout, output)
    else:
        _write_well(rollout[name], mirrored, output)
    return f"{name} ({', '.join(f'{dimension} {size}' for dimension, size in rollout[name].sizes.items())})"


def open_rollout(run: Path, method: str, system: str | None = None) -> xr.Dataset:
    """Return the frames of a rollout of a finished run, lazily: one variable (member, time, layer, y, x) in physical units.

    Raises UserError for a folder without a finished run, or without this system or rollout, for a rollout that lacks
    steps or members, and for one of earlier models or data, and DamagedFile for a segment that is not what its record says.
    """
    run = Path(run)
    record = read_run(run)
    systems = list(record["systems"])
    check_one_system(run, record, system)
    if system not in (None, *systems):
        raise UserError(f"{run}: no system {system!r}; it has {', '.join(systems)}")
    folder = run / (systems[0] if system is None else system)
    segments = sorted((folder / "rollouts" / method).glob("*/segment_*.nc"))
    if not segments:
        names = ", ".join(sorted(path.name for path in (folder / "rollouts").glob("*"))) or "none"
        raise UserError(f"{folder}: holds no rollout of {method!r}; it has {names}")
    flow = Emulation.read(folder / "shards" / "manifest.json").build_system()
    hold(segments)
    check_current(run, record["configuration"], records_below(run), [str(path.relative_to(run)) for path in segments])
    frames, statistics = open_segments(segments, flow.variable)
    _check_whole(folder / "rollouts" / method, statistics, *size_of(folder, record, method))
    frames = frames[flow.variable].drop_attrs()
    for axis, mirror in zip("yx", flow.mirrored, strict=True):
        if mirror:  # the second half is the mirror image of the first
            frames = frames.isel({axis: slice(frames.sizes[axis] // 2)})
    if flow.offset:
        frames = frames + xr.DataArray(np.asarray(flow.offset, np.float32), dims="layer")
    dataset = frames.to_dataset(name=flow.variable).assign_attrs(method=method, system=folder.name)
    return described(dataset, flow, title=f"{folder.name}: rollout of {method}", stage="export")


def check_one_system(run: Path, record: dict, system: str | None) -> None:
    """Raise UserError where a run holds several systems and none is named, with the option that names one."""
    if system is None and len(record["systems"]) > 1:
        raise UserError(f"{run}: holds several systems; give --system, one of {', '.join(record['systems'])}")


def size_of(folder: Path, record: dict, method: str | None = None) -> tuple[int, int]:
    """Return how many members and steps the rollout of a method has in a finished run (None: the longest rollout).

    `folder`: of a system; `record`: of the run. The table of members says what was run: a system may override the run's
    lengths, and files of a source may hold fewer members than the configuration asks for. The configuration answers for a
    method that is not in the table, and for a run without one.
    """
    if (folder / "metrics.csv").exists():
        hold([folder / "metrics.csv"])
        table = pd.read_csv(folder / "metrics.csv", dtype={"layer": str}, keep_default_na=False)
        rows = table if method is None else table[table["method"] == method]
        if len(rows):
            return rows["member"].nunique(), int(rows["steps"].max())
    configuration = record["configuration"]
    block = configuration["systems"][folder.name].get("override", {}).get("rollout", {})
    rollout = {**configuration["rollout"], **block}
    options = record["systems"][folder.name].get("methods", {}).get(method, {})
    return rollout["members"], options.get("steps", rollout["steps"])


def _check_whole(folder: Path, statistics: xr.Dataset, members: int, steps: int) -> None:
    """Raise UserError for a rollout without some of the first `steps` steps, or with fewer than `members` members."""
    numbers, count = statistics["step"].values, statistics.sizes["member"]
    if len(numbers) < steps or not np.array_equal(numbers, np.arange(1, len(numbers) + 1)):
        lacks = np.setdiff1d(np.arange(1, steps + 1), numbers)
        what = f"step {lacks[0]}" if len(lacks) else "a segment"
    elif count < members:
        what = f"{members - count} of its {members} members"
    else:
        return
    raise UserError(f"{folder}: lacks {what}; the same `snakemake` call again makes what is missing")


def _blocks(frames: xr.DataArray):
    """Yield (member, first time, frames (time, layer, y, x)) for each block of a rollout."""
    for member in range(frames.sizes["member"]):
        for first in range(0, frames.sizes["time"], CHUNK):
            block = frames.isel(member=member, time=slice(first, first + CHUNK))
            yield member, first, block.transpose("time", "layer", "y", "x").values


def _write_zarr(rollout: xr.Dataset, output: Path) -> None:
    import zarr  # noqa: F401

    with whole_folder(output) as temporary:
        # Format 2: names of layers are texts, which format 3 has no settled form for.
        store = rollout.drop_encoding().chunk({"member": 1, "time": CHUNK})
        store.to_zarr(temporary, zarr_format=2, consolidated=True)


def _write_well(frames: xr.DataArray, mirrored: str, output: Path) -> None:
    import h5py

    members, times, layers, height, width = frames.shape
    text = h5py.string_dtype()
    names = [str(layer) for layer in frames["layer"].values] if layers > 1 else [frames.name]
    with whole_file(output) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"dataset_name": frames.name, "grid_type": "cartesian", "n_spatial_dims": 2})
        file.attrs.update({"n_trajectories": members, "simulation_parameters": np.array([], text)})
        axes = file.create_group("dimensions")
        axes.attrs["spatial_dims"] = np.array(["x", "y"], dtype=text)
        for name in ("time", "x", "y"):
            axes[name] = frames[name].values.astype(np.float32)
            axes[name].attrs.update({"sample_varying": False, "time_varying": name == "time"})
        for name, points in (("x", width), ("y", height)):
            kind = "wall" if name in mirrored else "periodic"
            ends = file.create_group(f"boundary_conditions/{name}_{kind}")
            ends.attrs.update({"bc_type": kind.upper(), "sample_varying": False, "time_varying": False})
            ends.attrs["associated_dims"] = np.array([name], dtype=text)
            ends.attrs["associated_fields"] = np.array([], dtype=text)
            ends["mask"] = np.isin(np.arange(points), [0, points - 1])
        for group, of_group in (("scalars", []), ("t0_fields", names), ("t1_fields", []), ("t2_fields", [])):
            file.create_group(group).attrs["field_names"] = np.array(of_group, dtype=text)
        fields = [
            file["t0_fields"].create_dataset(name, (members, times, width, height), "f4", chunks=(1, 1, width, height))
            for name in names
        ]
        for field in fields:
            field.attrs.update({"dim_varying": [True, True], "sample_varying": True, "time_varying": True})
        for member, first, block in _blocks(frames):
            for layer, field in enumerate(fields):
                field[member, first : first + len(block)] = block[:, layer].swapaxes(1, 2)
