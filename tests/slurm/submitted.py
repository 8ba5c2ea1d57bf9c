"""Calls of the workflow through sbatch at the smoke scale, and what is seen of their jobs."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from cluster import Cluster
from helpers import process_group
from snakemake_calls import SYSTEM, environment

from sns_core.files import read_tensors

# The fewest jobs that cover all stages up to the tables. `cpu`: the GPUs of the tests are no GPUs.
OVERLAY = """
hardware: {device: cpu}
use: {methods: [solver, pointwise, sns]}
models: {pointwise: {training: {steps: 400}}}
rollout: {steps: 30}
"""
MODEL = str(SYSTEM / "models/pointwise.safetensors")

# Python reads this module when it starts: it notes what a job was given, and lets one stage fail once if that is wanted.
NOTES = """
import os, sys
words = sys.orig_argv
if "sns_core" in words:
    stage = words[words.index("sns_core") + 1]
    with open("{folder}/stages", "a") as notes:
        values = [os.environ.get(name, "") for name in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES")]
        print(stage, ",".join([*values, str(os.getpid())]), file=notes)
    if stage == os.environ["FAILS_ONCE"] and not os.path.exists("{folder}/failed"):
        os.mkdir("{folder}/failed")
        with open(words[words.index("--log") + 1], "w") as log:
            print("it fails on purpose", file=log)
        os._exit(1)
"""


class Submitter:
    """Starts calls with the profile for SLURM, as a user on the login node does."""

    def __init__(self, cluster: Cluster, root: Path):
        self.cluster, self.root, self.profile, self.overlay = cluster, root, root / "profiles" / "slurm", OVERLAY

    def command(self, folder: Path, *words: str, flags: tuple[str, ...] = ()) -> list[str]:
        """The words of a call. Only the waiting is shortened: the profile has minutes-long jobs in mind."""
        overlay = folder / "overlay.yaml"
        overlay.write_text(self.overlay)
        return [
            sys.executable, "-m", "snakemake", "--snakefile", str(self.root / "Snakefile"), "--directory", str(folder),
            "--workflow-profile", str(self.profile), "--configfile", str(self.root / "config/smoke.yaml"), str(overlay),
            "--slurm-init-seconds-before-status-checks", "10", "--latency-wait", "5", *flags, "--", *words,
        ]  # fmt: skip

    def environment(self, folder: Path, fails_once: str = "") -> dict[str, str]:
        own = folder / "modules"
        own.mkdir(exist_ok=True)
        (own / "sitecustomize.py").write_text(NOTES.format(folder=folder))
        known = {name: value for name, value in environment().items() if not name.startswith(("SLURM_", "CUDA_"))}
        cluster = self.cluster.environment()
        path = os.pathsep.join([str(self.cluster.folder / "bin"), known["PATH"], cluster["PATH"]])
        modules = os.pathsep.join([str(own), *filter(None, [known.get("PYTHONPATH")])])
        return {**known, **cluster, "PATH": path, "PYTHONPATH": modules, "FAILS_ONCE": fails_once}

    @contextlib.contextmanager
    def started(
        self, folder: Path, *words: str, flags: tuple[str, ...] = (), fails_once: str = ""
    ) -> Iterator[subprocess.Popen]:
        """A call in a process group of its own, killed at the end of the block where it still runs; output in `log`."""
        with (folder / "log").open("w") as log:
            words, environment = self.command(folder, *words, flags=flags), self.environment(folder, fails_once)
            with process_group(words, env=environment, stdout=log, stderr=log) as process:
                yield process

    def call(self, folder: Path, *words: str, flags: tuple[str, ...] = (), fails_once: str = "") -> tuple[int, str]:
        """Run to the end: the exit status and what was said."""
        with self.started(folder, *words, flags=flags, fails_once=fails_once) as process:
            status = process.wait(400)
        return status, (folder / "log").read_text()

    def jobs(self, folder: Path, rule: str = "") -> list[dict[str, str]]:
        """SLURM's own account of the jobs of a folder."""
        mine = [job for job in self.cluster.jobs() if job["WorkDir"] == str(folder)]
        return [job for job in mine if job["Comment"].startswith(f"rule_{rule}")]


def without_surrogate(finished: Path, folder: Path) -> Path:
    """A copy of a finished run in which the surrogate is to be trained again."""
    shutil.copytree(finished, folder)
    for path in folder.glob(f"{SYSTEM}/models/pointwise.*"):
        path.unlink()
    return folder


def stages(folder: Path) -> list[tuple[str, str, str, int]]:
    """(stage, SLURM's number of the job, GPUs given to it, process) of each stage that began."""
    path = folder / "stages"
    lines = [line.split(" ", 1) for line in path.read_text().splitlines()] if path.exists() else []
    found = []
    for stage, rest in lines:
        number, *gpus, process = rest.split(",")
        found.append((stage, number, ",".join(gpus), int(process)))
    return found


class Watch(threading.Thread):
    """Looks at the surrogate's checkpoint as often as it changes: `steps` are those it was seen at."""

    def __init__(self, folder: Path):
        super().__init__(daemon=True)
        self.folder, self.steps, self.ended = folder / SYSTEM / "models" / ".work", [], threading.Event()

    def run(self) -> None:
        last = None
        while not self.ended.wait(0.02):
            for path in self.folder.glob("*/checkpoint.safetensors"):
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime_ns != last:
                        last = path.stat().st_mtime_ns
                        self.steps.append(read_tensors(path)[1]["step"])

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.join()
