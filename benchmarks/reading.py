"""Reading and sharding of somebody else's files beside xarray alone, in one run.

    python benchmarks/reading.py [--megabytes 250]

Three files with the same frames, two channels on 64 x 64 points: in one piece, in pieces of a frame, and compressed. xarray reads
each file whole, by blocks of time; then `read_source` and `shard_dataset` work through it. The table has the processor's
megabytes of frames per second, because other jobs on a machine slow the clock.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.data import shard_dataset
from sns_core.data.source import facts_of, read_source

SIDE, MEMBERS, BLOCK = 64, 8, 50
SOURCE = {
    "variables": ["h", "u"], "dims": {}, "join": None, "pieces": 1, "start": 0, "spin_up": 0.0, "velocity": "none", "length": None,
    "splits": {"by": "member", "validation": 0.125, "test": 0.125, "gap": 0}, "homogeneous": {"y": False, "x": True},
    "periodic": {"y": True, "x": True},
}  # fmt: skip
FILES = {
    "in one piece": {},
    "in pieces of a frame": {"chunksizes": (1, 1, SIDE, SIDE)},
    "compressed": {"chunksizes": (1, BLOCK, SIDE, SIDE), "zlib": True, "complevel": 1},
}


def write(path: Path, frames: int, encoding: dict) -> None:
    """Write smooth random fields: those of a flow are compressed about as well."""
    rng, k = (
        np.random.default_rng(0),
        np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE, 1 / SIDE), np.arange(SIDE // 2 + 1), indexing="ij")),
    )
    fields = rng.normal(size=(2, MEMBERS, frames, SIDE, SIDE)).astype("f4")
    for field in fields.reshape(-1, SIDE, SIDE):
        field[:] = np.fft.irfft2(np.fft.rfft2(field) / (1 + k) ** 2)
    axes = {
        "member": range(MEMBERS),
        "time": 0.5 * np.arange(frames),
        "y": np.arange(1.0 * SIDE),
        "x": np.arange(1.0 * SIDE),
    }
    dataset = xr.Dataset({name: (tuple(axes), field) for name, field in zip("hu", fields, strict=True)}, axes)
    dataset.to_netcdf(path, encoding=dict.fromkeys("hu", encoding))


def xarray_alone(path: Path) -> None:
    with xr.open_dataset(path, cache=False) as dataset:
        for member in range(MEMBERS):
            for first in range(0, dataset.sizes["time"], BLOCK):
                dataset.isel(member=member, time=slice(first, first + BLOCK)).load()


def read(folder: Path, path: Path) -> None:
    source = {**SOURCE, "files": [str(path)]}
    facts = facts_of(source)
    emulator = {"resolution": facts["resolution"], "step": facts["step"]}
    system = {
        "name": "RecordedFlow",
        "parameters": {**facts["parameters"], "resolution": facts["resolution"], "dt": facts["step"]},
    }
    for split, size in facts["splits"].items():
        output = folder / f"{split}.nc"
        read_source(source=source, files=[path], system=system, emulator=emulator, split=split, output=output, **size)


def shard(folder: Path) -> None:
    trajectories = [folder / f"{split}.nc" for split in ("train", "validation", "test")]
    shard_dataset(trajectories=trajectories, output=folder / "shards" / "manifest.json", shard_members=2)


def rate(megabytes: float, work: Callable, *arguments) -> float:
    began = time.process_time()
    work(*arguments)
    return megabytes / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--megabytes", type=float, default=250.0, help="of frames in each file")
    arguments = parser.parse_args()
    frames = max(BLOCK, int(arguments.megabytes * 1e6 / (2 * MEMBERS * SIDE**2 * 4)))
    print("| file | xarray alone | read_source | shard_dataset | both | both / xarray |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, encoding in FILES.items():
            path = Path(folder) / "frames.nc"
            write(path, frames, encoding)
            xarray_alone(path)  # so that both sides read from the page cache
            megabytes = 2 * MEMBERS * frames * SIDE**2 * 4 / 1e6
            rates = [rate(megabytes, xarray_alone, path), rate(megabytes, read, Path(folder), path)]
            rates.append(rate(megabytes, shard, Path(folder)))
            both = 1 / (1 / rates[1] + 1 / rates[2])
            print(
                f"| {name} | {' | '.join(f'{each:.0f}' for each in [*rates, both])} | {both / rates[0]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
