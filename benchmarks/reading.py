"""Reading and sharding of somebody else's files beside xarray alone, in one run.

    python benchmarks/reading.py [--megabytes 400]

Three kinds of files with the same frames, two channels on 64 x 64 points: in one piece, in pieces of a frame, and compressed.
xarray reads each file whole, by blocks of time; then `read_source` and `shard_dataset` work through it. The table has megabytes
of frames per second. The processor's seconds count, because other jobs on a machine slow the clock, and files are in the page
cache. Each rate is the difference between a file and one a quarter as large: opening and checking files takes a time "once per
file". "Its disk": megabytes of frames per second of the clock while a program reads the bytes of the file from the disk.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.data import shard_dataset
from sns_core.data.source import facts_of, read_source

SIDE, MEMBERS, BLOCK = 64, 8, 50
ROLES = ("member", "time", "y", "x")
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
FRAME_BYTES = 2 * MEMBERS * SIDE**2 * 4  # of all members at one time


def smooth_fields(frames: int) -> xr.Dataset:
    """Return random fields that are about as smooth as those of a flow, so that they are compressed about as well."""
    rng, k = np.random.default_rng(0), np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE, 1 / SIDE), np.arange(SIDE // 2 + 1)))
    spectra = np.fft.rfft2(rng.normal(size=(BLOCK, SIDE, SIDE))) / (1 + k.T) ** 2
    fields = np.fft.irfft2(spectra).astype("f4")
    shape = (MEMBERS, frames, SIDE, SIDE)
    drawn = {name: (tuple(ROLES), fields[rng.integers(BLOCK, size=shape[:2])]) for name in "hu"}
    positions = np.arange(float(SIDE))
    return xr.Dataset(
        drawn, {"member": range(MEMBERS), "time": 0.5 * np.arange(frames), "y": positions, "x": positions}
    )


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


def seconds(work: Callable, *arguments) -> float:
    began = time.process_time()
    work(*arguments)
    return time.process_time() - began


def measure(path: Path, repeats: int) -> np.ndarray:
    """Return the least processor seconds of xarray alone, of `read_source` and of `shard_dataset` for a file."""
    works = [(xarray_alone, path), (read, path.parent, path), (shard, path.parent)]
    xarray_alone(path)  # so that all three read from the page cache
    return np.min([[seconds(*work) for work in works] for _ in range(repeats)], axis=0)


def from_disk(path: Path) -> float:
    """Return the seconds of the clock in which a file is read that lies on the disk alone."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.monotonic()
        while handle.read(2**24):
            pass
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--megabytes", type=float, default=400.0, help="of frames in the larger file of each kind")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement; the least time counts")
    arguments = parser.parse_args()
    large = max(4 * BLOCK, int(arguments.megabytes * 1e6 / FRAME_BYTES))
    small = large // 4
    print("| file | its disk | xarray alone | read_source | shard_dataset | both | both / xarray | once per file |")
    print("|---|---|---|---|---|---|---|---|")
    fields = smooth_fields(large)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.nc"
        for name, encoding in FILES.items():
            fields.isel(time=slice(small)).to_netcdf(path, encoding=dict.fromkeys("hu", encoding))
            small_file = measure(path, arguments.repeats)
            fields.to_netcdf(path, encoding=dict.fromkeys("hu", encoding))
            large_file = measure(path, arguments.repeats)
            disk = large * FRAME_BYTES / 1e6 / from_disk(path)
            per_megabyte = (large_file - small_file) / ((large - small) * FRAME_BYTES / 1e6)
            once = (small_file - per_megabyte * small * FRAME_BYTES / 1e6)[1:].sum()
            both = 1 / per_megabyte[1:].sum()
            rates = " | ".join(f"{rate:.0f}" for rate in (disk, *(1 / per_megabyte), both))
            print(f"| {name} | {rates} | {both * per_megabyte[0]:.2f} | {once:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
