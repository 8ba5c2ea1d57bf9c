"""Helpers of the tests in every folder: compare two results, and start processes that can be killed."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sns_core.data.emulation import Emulation
from sns_core.files import read_tensors


def build_once(tmp_path_factory, name: str, build: Callable[[Path], None]) -> Path:
    """Return a folder that `build` fills once for all workers of a test session. The other workers wait for it.

    Tests must leave the folder as it is, or work in a copy.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # pytest gives each worker a folder below the folder of the session
    folder, complete = base / f"shared-{name}", base / f"shared-{name}.complete"
    with (base / f"shared-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)  # an unfinished folder of a worker that failed
            folder.mkdir()
            build(folder)
            complete.touch()
    return folder


@contextlib.contextmanager
def process_group(words: list[str], **options) -> Iterator[subprocess.Popen]:
    """Start a process in its own process group. Kill it and its children if it still runs at the end of the block."""
    process = subprocess.Popen(words, start_new_session=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def equal(left: Path, right: Path) -> bool:
    """Return whether two results hold the same bits. Dates, hosts and times in their notes may differ."""
    if left.suffix == ".nc":
        with xr.open_dataset(left) as a, xr.open_dataset(right) as b:
            numbers = [name for name in a.variables if a[name].dtype.kind != "O"]
            return a.equals(b) and all(a[name].values.tobytes() == b[name].values.tobytes() for name in numbers)
    if left.suffix == ".safetensors":
        (tensors, note), (others, other_note) = read_tensors(left), read_tensors(right)
        same = all(np.array_equal(tensors[name], others[name], equal_nan=True) for name in tensors | others)
        return note == other_note and same
    return left.read_bytes() == right.read_bytes()


def write_rollout_of_the_solver(system: Path, target: Path, steps: int = 40) -> None:
    """Write the solver's frames from the end of a smoke run's test trajectories on, as another program would make them.

    `system`: folder of a system's results.
    """
    solver = Emulation.read(system / "shards/manifest.json").build_system()
    with xr.open_dataset(system / "data/test.nc") as test:
        state, frames = torch.from_numpy(test["final_state"].values), [test["vorticity"].isel(time=-1).values]
        axes = {name: test[name].values for name in ("member", "y", "x")}
    for _ in range(steps):
        state = solver.advance(state, 5)
        frames.append(solver.observe(state, 16).numpy())
    time = np.arange(steps + 1) * 0.1
    field = xr.DataArray(np.stack(frames, 1)[:, :, 0], {**axes, "time": time}, ("member", "time", "y", "x"))
    field.rename("vorticity").to_netcdf(target)


def write_shallow_water(folder: Path) -> None:
    """Write files with the names and sizes that config/shallow-water.yaml needs, with noise in them."""
    axes = {"member": range(4), "time": 0.2 * np.arange(160), "y": range(8), "x": range(16)}
    values, data = np.random.default_rng(0).normal(size=(4, 160, 8, 16)), folder / "data" / "shallow_water"
    data.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        fields = {name: (tuple(axes), values) for name in ("depth", "u", "v")}
        xr.Dataset(fields, axes).to_netcdf(data / f"{split}.nc")
