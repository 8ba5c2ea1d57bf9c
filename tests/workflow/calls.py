"""Calls of the workflow at the smoke scale: run to the end, planned, or started to be disturbed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from sns_core.files import read_tensors

# Where the results of the smoke run are.
SYSTEM = Path("results/smoke/kolmogorov")


def command(root: Path, folder: Path, *words: str, overlay: str = "") -> list[str]:
    """The words of a call; `overlay` is a further configuration file's text."""
    extra = []
    if overlay:
        extra = [str(folder / f"overlay_{abs(hash(overlay))}.yaml")]
        Path(extra[0]).write_text(overlay)
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile"), "--directory", str(folder),
        "--workflow-profile", str(root / "profiles" / "default"), "--configfile", str(root / "config" / "smoke.yaml"), *extra,
        "--cores", "2", "--", *words,
    ]  # fmt: skip


def environment() -> dict:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def snakemake(root: Path, folder: Path, *words: str, flags: tuple[str, ...] = (), overlay: str = ""):
    """Run to the end; the finished process with its output in one stream."""
    line = command(root, folder, *words, overlay=overlay)
    line[-len(words) - 1 : -len(words) - 1] = flags
    return subprocess.run(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), timeout=600
    )


def planned(root: Path, folder: Path, *words: str, overlay: str = "") -> set[str]:
    """Rules that a dry run would execute."""
    result = snakemake(root, folder, *words, flags=("--dry-run",), overlay=overlay)
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    return {line.split()[0] for line in lines if len(line.split()) == 2 and line.split()[1].isdigit()} - {"total"}


@contextlib.contextmanager
def started(root: Path, folder: Path, *words: str, overlay: str = "") -> Iterator[subprocess.Popen]:
    """A call in a process group of its own, killed at the end of the block where it still runs; its output is in `log`."""
    with (folder / "log").open("w") as log:
        line = command(root, folder, *words, overlay=overlay)
        process = subprocess.Popen(line, stdout=log, stderr=log, env=environment(), start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for(condition, process: subprocess.Popen, seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, "the moment never came"
        time.sleep(0.01)


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
