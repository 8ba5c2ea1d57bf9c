"""What tests of units, of the workflow and of SLURM share: results held against each other, processes that can be killed."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.files import read_tensors


@contextlib.contextmanager
def process_group(words: list[str], **options) -> Iterator[subprocess.Popen]:
    """A process in a group of its own, killed with all its children at the end of the block where it still runs."""
    process = subprocess.Popen(words, start_new_session=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def equal(one: Path, other: Path) -> bool:
    """Whether two results hold the same bits, dates, hosts and times in their notes aside."""
    if one.suffix == ".nc":
        with xr.open_dataset(one) as a, xr.open_dataset(other) as b:
            numbers = [name for name in a.variables if a[name].dtype.kind != "O"]
            return a.equals(b) and all(a[name].values.tobytes() == b[name].values.tobytes() for name in numbers)
    if one.suffix == ".safetensors":
        (tensors, note), (others, told) = read_tensors(one), read_tensors(other)
        return note == told and all(np.array_equal(tensors[n], others[n], equal_nan=True) for n in tensors | others)
    return one.read_bytes() == other.read_bytes()
