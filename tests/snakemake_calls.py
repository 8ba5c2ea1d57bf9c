"""Call the workflow at the smoke scale: run it to the end, plan it, or start it in order to interrupt it."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import warm_python
from helpers import process_group

PROJECT = ("Snakefile", "workflow", "sns_core", "sns_workflow", "config", "profiles", "envs")
# The folder of the results of the smoke run, below the working directory.
SYSTEM = Path("results/smoke/kolmogorov")


def copy_project(root: Path, folder: Path) -> Path:
    """Copy the project without its compiled code, but with the memory of its files' syntax. Return the folder."""
    for name in PROJECT:
        if (root / name).is_dir():
            shutil.copytree(root / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("*.pyc"))
        else:
            shutil.copy(root / name, folder / name)
    return folder


def command(root: Path, folder: Path, *words: str, overlay: str = "", python: str = sys.executable) -> list[str]:
    """Return the words of a call. `overlay` is the text of one more configuration file."""
    extra = []
    if overlay:
        extra = [str(folder / f"overlay_{abs(hash(overlay))}.yaml")]
        Path(extra[0]).write_text(overlay)
    return [
        python, "-m", "snakemake", "--snakefile", str(root / "Snakefile"), "--directory", str(folder),
        "--workflow-profile", str(root / "profiles" / "default"), "--configfile", str(root / "config" / "smoke.yaml"), *extra,
        "--cores", "2", "--", *words,
    ]  # fmt: skip


def environment() -> dict:
    """Return the variables of a call by the real interpreter, which also runs the jobs."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def snakemake(root: Path, folder: Path, *words: str, flags: tuple[str, ...] = (), overlay: str = ""):
    """Run a call to its end. Return the finished process, with both of its outputs in `stdout`."""
    line = command(root, folder, *words, overlay=overlay, python=warm_python.executable())
    line[-len(words) - 1 : -len(words) - 1] = flags
    variables = warm_python.environment()
    return subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables, timeout=600)


def planned(root: Path, folder: Path, *words: str, overlay: str = "") -> set[str]:
    """Return the names of the rules that a dry run would execute."""
    result = snakemake(root, folder, *words, flags=("--dry-run",), overlay=overlay)
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    return {line.split()[0] for line in lines if len(line.split()) == 2 and line.split()[1].isdigit()} - {"total"}


@contextlib.contextmanager
def started(root: Path, folder: Path, *words: str, overlay: str = "", warm: bool = False) -> Iterator[subprocess.Popen]:
    """Start a call with its output in the file `log`. Kill it and its jobs if it still runs at the end of the block.

    `warm`: start it by the warm interpreter, which passes on the signals that end a call, but not SIGSTOP.
    """
    python, variables = sys.executable, environment()
    if warm:
        python, variables = warm_python.executable(), warm_python.environment()
    with (folder / "log").open("w") as log:
        line = command(root, folder, *words, overlay=overlay, python=python)
        with process_group(line, stdout=log, stderr=log, env=variables) as process:
            yield process


def wait_for(condition, process: subprocess.Popen, seconds: float = 400) -> None:
    """Wait until `condition()` is true. Fail after `seconds`, or if the process ends earlier."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, "the awaited state never came"
        time.sleep(0.01)
