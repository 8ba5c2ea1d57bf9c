"""Members of any length: each stage that reads trajectories holds a few blocks of frames, with the numbers of whole arrays."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sns_core import sums
from sns_core.data import frames as frames_module
from sns_core.data import load_dataset, recording, shard_dataset, shards, stores
from sns_core.data.source import facts_of, read_source
from sns_core.metrics import temporal
from sns_core.metrics.reference import compute_reference
from sns_core.metrics.stationarity_check import check_stationarity
from sns_core.shells import shell_power
from sns_core.sums import field_means, pairwise_sum

FRAMES, SIDE = 800, 64
MEMBER_BYTES = FRAMES * SIDE**2 * 4


@pytest.fixture
def small_blocks(monkeypatch):
    """All blocks as small beside a member as they are beside one of gigabytes."""
    for module, name, value in [
        (recording, "BLOCK_BYTES", 2**19), (stores, "CHUNK_BYTES", 2**18), (shards, "READ_BYTES", 2**19), (shards, "CACHED", 2**12),
        (sums, "CACHED", 2**12), (frames_module, "BLOCK_BYTES", 2**19),
    ]:  # fmt: skip
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def long_file(tmp_path) -> Path:
    """Three members of 13 MB: a few fields, again and again."""
    fields = np.random.default_rng(0).normal(size=(50, SIDE, SIDE)).astype("f4")
    values = np.stack([np.resize(fields[member:], (FRAMES, SIDE, SIDE)) for member in range(3)])
    axes = {"member": range(3), "time": np.arange(FRAMES) * 0.5, "y": np.arange(1.0 * SIDE), "x": np.arange(1.0 * SIDE)}
    xr.Dataset({"b": (tuple(axes), values)}, axes).to_netcdf(tmp_path / "long.nc")
    return tmp_path / "long.nc"


def test_no_stage_holds_a_whole_member(long_file, small_blocks, tmp_path):
    source = {
        "files": [str(long_file)], "variables": ["b"], "dims": {}, "join": None, "pieces": 1, "start": 0, "spin_up": 0.0,
        "velocity": "none", "length": None, "splits": {"by": "member", "validation": 0.3, "test": 0.3, "gap": 0},
        "homogeneous": {"y": True, "x": True}, "periodic": {"y": True, "x": True},
    }  # fmt: skip
    facts = facts_of(source)
    emulator = {"resolution": SIDE, "step": 0.5}
    system = {"name": "RecordedFlow", "parameters": {**facts["parameters"], "resolution": SIDE, "dt": 0.5}}
    files = {split: tmp_path / f"{split}.nc" for split in facts["splits"]}
    manifest = tmp_path / "shards" / "manifest.json"

    def read():
        for split, output in files.items():
            read_source(
                source=source, files=[long_file], system=system, emulator=emulator, split=split, output=output,
                **facts["splits"][split],
            )  # fmt: skip

    stages = {
        "read_source": read,
        "shard_dataset": lambda: shard_dataset(trajectories=list(files.values()), output=manifest, shard_members=1),
        "shell_correlation": lambda: load_dataset(manifest, "train").shell_correlation(),
        "check_stationarity": lambda: check_stationarity(
            trajectories={split: [str(path)] for split, path in files.items()}, manifest=manifest, spin_up=0.0,
            required=False, output=tmp_path / "stationarity.csv",
        ),
        "compute_reference": lambda: compute_reference(
            trajectories=[files["test"]], manifest=manifest, lags=5, frame_stride=2, map_lags=3, output=tmp_path / "reference.nc"
        ),
    }  # fmt: skip
    for name, stage in stages.items():
        tracemalloc.start()
        stage()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 0.75 * MEMBER_BYTES, f"{name} held {peak / 1e6:.1f} MB of a member of {MEMBER_BYTES / 1e6:.1f} MB"


@pytest.mark.parametrize("shape", [(2, 75, 1, 16, 24), (3, 41, 2, 8, 12), (4, 333, 1, 1, 32), (2, 30, 3, 1, 48)])
def test_statistics_in_blocks_have_the_bits_of_those_of_the_whole_array(shape, monkeypatch):
    monkeypatch.setattr(sums, "CACHED", 512)
    monkeypatch.setattr(shards, "CACHED", 1000)
    frames = np.random.default_rng(1).normal(3, 1, shape).astype("f4")
    precise, axes = frames.astype(float), (0, 1, 3, 4)
    moments = shards.moments(frames)
    assert np.array_equal(moments["mean"], precise.mean(axes))
    assert np.array_equal(moments["square"], (precise**2).mean(axes))
    assert np.array_equal(moments["increment_square"], (np.diff(precise, axis=1) ** 2).mean(axes))
    assert np.array_equal(shell_power(frames, changes=True), shell_power(frames[:, 1:] - frames[:, :-1]))


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_sums_in_blocks_have_the_bits_of_numpy_s(kind, monkeypatch):
    monkeypatch.setattr(sums, "CACHED", 128)
    numbers = np.random.default_rng(2).normal(size=(2, 10007)).astype(kind)
    blocks = np.split(numbers, [3, 700, 5001, 5002], axis=1)
    assert np.array_equal(pairwise_sum(blocks, 10007), [row.sum() for row in numbers])
    fields = numbers[:, :9600].reshape(2, 10, 3, 16, 20)
    parts = iter(np.split(fields, [1, 7], axis=1))
    assert np.array_equal(field_means(parts, 10), fields.mean((1, 3, 4), dtype=kind))


def test_the_correlation_in_space_and_time_does_not_depend_on_the_blocks(monkeypatch):
    frames = np.random.default_rng(3).normal(size=(90, 2, 4, 8)).cumsum(0).astype("f4")
    whole = temporal.space_time_correlation(frames, 7)
    anomaly = (frames - frames.mean((-2, -1), keepdims=True)).astype(float)
    for lag in (0, 3, 7):  # straight from the definition
        for shift in range(5):
            product = sum((anomaly[: 90 - lag] * np.roll(anomaly[lag:], s, -1)).mean() for s in (shift, -shift)) / 2
            assert whole[lag, shift] == pytest.approx(product / (anomaly**2).mean(), abs=1e-5)
    monkeypatch.setattr(frames_module, "BLOCK_FRAMES", 4)  # fewer than the lags
    assert np.array_equal(temporal.space_time_correlation(frames, 7), whole)
