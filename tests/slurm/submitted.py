"""Calls of the workflow through sbatch at the smoke scale, and observations of their jobs."""

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import warm_python
from cluster import Cluster
from helpers import process_group
from snakemake_calls import SYSTEM

from sns_core.files import read_tensors

# The fewest jobs that cover all stages up to the tables. The device is `cpu`, because files stand for the tests' GPUs.
OVERLAY = """
hardware: {device: cpu}
use: {methods: [solver, pointwise, sns]}
models: {pointwise: {training: {steps: 100}}}
rollout: {steps: 30}
"""
MODEL = str(SYSTEM / "models/pointwise.safetensors")

# Python imports this module when it starts. The module notes the resources of a job. It lets the stage that FAILS_ONCE names
# fail once, and lets a training stop itself once, at its checkpoint number STOPS_AT, as SIGSTOP stops a process. Snakemake
# asks SLURM for the states of the jobs every second: the plugin's own pauses, which suit jobs of minutes, grow by ten seconds
# each time that no job has finished.
NOTES = """
import os, signal, sys
words = sys.orig_argv
if "snakemake" in words:
    import asyncio
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
    RemoteExecutor.sleep = lambda executor: asyncio.sleep(1)
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
    checkpoints, put = [], os.replace
    def replace(source, target):
        put(source, target)
        if os.path.basename(target) == "checkpoint.safetensors":
            checkpoints.append(target)
            if len(checkpoints) == int(os.environ["STOPS_AT"]) and not os.path.exists("{folder}/stopped"):
                os.mkdir("{folder}/stopped")
                os.kill(os.getpid(), signal.SIGSTOP)
    os.replace = replace
"""


class Submitter:
    """Start calls with the profile for SLURM, as a user on the login node does.

    The calls and their jobs fork from the warm interpreter, which saves most of their time.
    """

    def __init__(self, cluster: Cluster, root: Path):
        self.cluster, self.root, self.profile, self.overlay = cluster, root, root / "profiles" / "slurm", OVERLAY

    def command(self, folder: Path, *words: str, flags: tuple[str, ...] = ()) -> list[str]:
        """Return the words of a call. They shorten only the profile's waits, which suit jobs of minutes."""
        overlay = folder / "overlay.yaml"
        overlay.write_text(self.overlay)
        return [
            warm_python.executable(), "-m", "snakemake", "--snakefile", str(self.root / "Snakefile"), "--directory", str(folder),
            "--workflow-profile", str(self.profile), "--configfile", str(self.root / "config/smoke.yaml"), str(overlay),
            "--latency-wait", "5", *flags, "--", *words,
        ]  # fmt: skip

    def environment(self, folder: Path, fails_once: str, stops_at: int) -> dict[str, str]:
        module_folder = folder / "modules"
        module_folder.mkdir(exist_ok=True)
        (module_folder / "sitecustomize.py").write_text(NOTES.format(folder=folder))
        variables = warm_python.environment().items()
        variables = {name: value for name, value in variables if not name.startswith(("SLURM_", "CUDA_"))}
        cluster = self.cluster.environment()
        path = os.pathsep.join([str(self.cluster.folder / "bin"), variables["PATH"], cluster["PATH"]])
        modules = os.pathsep.join([str(module_folder), *filter(None, [variables.get("PYTHONPATH")])])
        return {
            **variables,
            **cluster,
            "PATH": path,
            "PYTHONPATH": modules,
            "FAILS_ONCE": fails_once,
            "STOPS_AT": str(stops_at),
        }

    @contextlib.contextmanager
    def started(
        self, folder: Path, *words: str, flags: tuple[str, ...] = (), fails_once: str = "", stops_at: int = 0
    ) -> Iterator[subprocess.Popen]:
        """Start a call in its own process group, its output in `log`. Kill it at the end of the block if it still runs."""
        with (folder / "log").open("w") as log:
            words, environment = (
                self.command(folder, *words, flags=flags),
                self.environment(folder, fails_once, stops_at),
            )
            with process_group(words, env=environment, stdout=log, stderr=log) as process:
                yield process

    def call(self, folder: Path, *words: str, flags: tuple[str, ...] = (), fails_once: str = "") -> tuple[int, str]:
        """Run a call to its end, and return the exit status and the output."""
        with self.started(folder, *words, flags=flags, fails_once=fails_once) as process:
            status = process.wait(900)  # only a cluster that hangs takes as long, however busy the machine is
        return status, (folder / "log").read_text()

    def jobs(self, folder: Path, rule: str = "") -> list[dict[str, str]]:
        """Return the jobs of a folder as SLURM lists them."""
        mine = [job for job in self.cluster.jobs() if job["WorkDir"] == str(folder)]
        return [job for job in mine if job["Comment"].startswith(f"rule_{rule}")]


def without_surrogate(finished: Path, folder: Path) -> Path:
    """Copy a finished run without its surrogate, so that the next call trains it."""
    shutil.copytree(finished, folder)
    for path in folder.glob(f"{SYSTEM}/models/pointwise.*"):
        path.unlink()
    return folder


def stages(folder: Path) -> list[tuple[str, str, str, int]]:
    """Return (stage, SLURM's job number, GPUs of the job, process number) of each stage that began."""
    path = folder / "stages"
    lines = [line.split(" ", 1) for line in path.read_text().splitlines()] if path.exists() else []
    started = []
    for stage, rest in lines:
        number, *gpus, process = rest.split(",")
        started.append((stage, number, ",".join(gpus), int(process)))
    return started


class Watch(threading.Thread):
    """Watch the surrogate's checkpoint. `steps` holds the training step of each new checkpoint."""

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
