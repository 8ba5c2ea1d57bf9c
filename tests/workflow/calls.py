"""Calls of the workflow at the smoke scale: run to the end, planned, or started to be disturbed."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from shared import process_group

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
        with process_group(line, stdout=log, stderr=log, env=environment()) as process:
            yield process


def wait_for(condition, process: subprocess.Popen, seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, "the moment never came"
        time.sleep(0.01)
