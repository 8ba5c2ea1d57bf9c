"""Metrics by threads, processes and (tests/slurm) jobs have the same bits, also for files larger than the memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from sns_core.data import shard_dataset, simulate_trajectories
from sns_core.errors import UserError
from sns_core.metrics.dask_backend import ONE_THREAD, computed_by, each
from sns_core.metrics.reference import compute_reference
from sns_core.metrics.rollout_metrics import compute_metrics
from sns_core.rollout import rollout_segment

pytestmark = pytest.mark.slow  # starts processes

SYSTEM = {"name": "KolmogorovFlow", "parameters": {"resolution": 64, "viscosity": 2e-3, "dt": 0.01}}
EMULATOR = {"resolution": 64, "step": 0.04}
MEMBERS, STEPS = 2, 20
REPEATS = 8  # of the short rollout, in the rollout that several workers score


@pytest.fixture(scope="module")
def rollout(tmp_path_factory) -> SimpleNamespace:
    """A short rollout of the solver on a fine grid, with all files that its metrics need."""
    folder = tmp_path_factory.mktemp("rollout")
    files = [folder / f"{split}.nc" for split in ("train", "validation", "test")]
    for path in files:
        simulate_trajectories(
            system=SYSTEM, emulator=EMULATOR, split=path.stem, members=MEMBERS, frames=12, spin_up=0.4, seed=1,
            output=path, device="cpu",
        )  # fmt: skip
    manifest, reference, segment = folder / "manifest.json", folder / "reference.nc", folder / "segment.nc"
    shard_dataset(trajectories=files, output=manifest)
    compute_reference(trajectories=[files[-1]], manifest=manifest, lags=4, frame_stride=1, map_lags=3, output=reference)
    rollout_segment(
        name="solver", method={"kind": "solver"}, models={}, manifest=manifest, initial=[files[-1]], first_step=0,
        steps=STEPS, members=list(range(MEMBERS)), seed=1, frame_stride=1, block=5, lags=4, output=segment,
        restart=folder / "restart.safetensors", device="cpu",
    )  # fmt: skip
    return SimpleNamespace(manifest=manifest, reference=reference, segment=segment)


def arguments(rollout, segments, folder) -> dict:
    return {
        "segments": segments, "solver": segments, "reference": rollout.reference, "manifest": rollout.manifest,
        "window": 10, "shells": [1, 15], "map_lags": 3, "output": folder / "metrics.nc", "output_windows": folder / "windows.csv",
    }  # fmt: skip


def repeated(source: Path, target: Path, times: int) -> Path:
    """Write a rollout `times` as long, which repeats the frames and statistics."""
    with xr.open_dataset(source) as short:
        sizes = {"time": STEPS, "step": STEPS, "block": short.sizes["block"]}
        long = short.isel({axis: np.arange(size * times) % size for axis, size in sizes.items()})
        begin = {axis: short[axis].values[:2] for axis in sizes}
        ticks = {
            axis: first + (second - first) * np.arange(sizes[axis] * times) for axis, (first, second) in begin.items()
        }
        long.assign_coords(ticks).assign_attrs(steps=STEPS * times).to_netcdf(target)
    return target


@pytest.fixture(scope="module")
def by_one(rollout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    long = repeated(rollout.segment, folder / "long.nc", REPEATS)
    compute_metrics(**arguments(rollout, [long], folder))
    return folder, long


@pytest.mark.parametrize("dask", [{"scheduler": "threads", "workers": 3}, {"scheduler": "local", "workers": 2}])
def test_threads_and_processes_give_the_same_bits(rollout, by_one, tmp_path, dask):
    expected, long = by_one
    compute_metrics(**arguments(rollout, [long], tmp_path), dask={**ONE_THREAD, **dask})
    with xr.open_dataset(expected / "metrics.nc") as a, xr.open_dataset(tmp_path / "metrics.nc") as b:
        assert a.identical(b) and a.sizes["time"] == REPEATS * STEPS
        numbers = [name for name in a.variables if a[name].dtype.kind != "O"]
        assert all(a[name].values.tobytes() == b[name].values.tobytes() for name in numbers)
    assert (expected / "windows.csv").read_text() == (tmp_path / "windows.csv").read_text()


def test_one_frame_more_than_the_lags_has_an_early_and_a_late_map(rollout, tmp_path):
    """This is the shortest rollout that a configuration may have: both maps are over all of it."""
    with xr.open_dataset(rollout.segment) as segment:
        segment.isel(time=slice(4)).to_netcdf(tmp_path / "short.nc")
    compute_metrics(**arguments(rollout, [tmp_path / "short.nc"], tmp_path))
    with xr.open_dataset(tmp_path / "metrics.nc") as metrics:
        assert np.isfinite(metrics["map_late"]).all() and (metrics["map_late"] == metrics["map_early"]).all()


def peak(rollout, segment, folder) -> float:
    """Return the peak memory (MB) of the stage in a separate process."""
    words = [sys.executable, "-m", "sns_core", "compute_metrics", "--dask", json.dumps(ONE_THREAD)]
    for name, value in arguments(rollout, segment, folder).items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    process = subprocess.Popen(words)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    return used.ru_maxrss / 1024


def test_memory_does_not_grow_with_the_file(rollout, tmp_path):
    short, long = (repeated(rollout.segment, tmp_path / f"{n}.nc", n) for n in (20, 160))
    grown = (long.stat().st_size - short.stat().st_size) / 2**20
    assert grown > 85
    used = [peak(rollout, path, tmp_path) for path in (short, long)]
    assert used[1] - used[0] < grown / 4, used


def test_the_workers_are_separate_processes():
    with computed_by(**{**ONE_THREAD, "scheduler": "local", "workers": 2}):
        process_ids = each(os.getpid, [(), (), ()])
    assert os.getpid() not in process_ids


def test_a_worker_without_enough_memory_is_reported():
    with (
        pytest.raises(UserError, match=r"metrics.dask.memory: 1000 MB are too few"),
        computed_by(scheduler="local", workers=1, memory=1000, options={}),
    ):
        each(np.ones, [(2**29,)])


@pytest.mark.parametrize("scheduler", ["local", "slurm"])
def test_a_missing_package_or_program_is_named(monkeypatch, scheduler):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "distributed", None if scheduler == "local" else __import__("distributed"))
    expected = "package distributed: pip install" if scheduler == "local" else "needs `sbatch`"
    with (
        pytest.raises(UserError, match=expected),
        computed_by(**{**ONE_THREAD, "scheduler": scheduler}),
    ):
        pass


def test_dask_distributed_is_imported_only_for_schedulers_that_need_it():
    code = "import sys, sns_core.metrics.rollout_metrics; sys.exit('distributed' in sys.modules or 'dask_jobqueue' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
