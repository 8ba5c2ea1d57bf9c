"""Start a program on GPUs of its own: `python -m sns_core.gpus COUNT WORD ...` runs `python WORD ...`.

Snakemake counts GPUs (`resources: gpu`), but does not say which of them a job has, so that parallel jobs on one machine
would all compute on the first. This launcher takes COUNT places, one on each of COUNT GPUs, and shows the program these
GPUs alone (CUDA_VISIBLE_DEVICES). A place is a lock on a file. The kernel gives it back when the program ends, however it
ends. Where there are more jobs than GPUs, each GPU gets a second place before any gets a third.

On a cluster the scheduler has chosen the GPUs, and where there are no more GPUs than COUNT there is no choice.
"""

import fcntl
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")  # variables that jobs of a cluster have


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use: those in CUDA_VISIBLE_DEVICES, or all of the machine."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    words = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        listing = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return listing.stdout.split() if listing.returncode == 0 else []


def take_places(gpus: list[str], count: int, folder: Path) -> list[str]:
    """Take a place on each of `count` GPUs for the rest of this process, and return the names of these GPUs in order.

    The locks also hold for the program that this process becomes. `folder`: of the locks, the same for all jobs.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    taken: list[str] = []
    for place in itertools.count():
        for gpu in gpus:
            if len(taken) == count:
                return sorted(taken, key=gpus.index)
            if gpu not in taken:
                lock = os.open(folder / f"{gpu.replace('/', '_')}.{place}", os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(lock)
                else:
                    os.set_inheritable(lock, True)
                    taken.append(gpu)
    raise AssertionError("an endless loop ended")


def main(words: list[str]) -> None:
    """Become the program in `words` after the first word, on as many GPUs of its own as the first word says."""
    count, gpus = int(words[0]), visible_gpus()
    if count < len(gpus) and count > 0 and not any(name in os.environ for name in SCHEDULERS):
        folder = Path(tempfile.gettempdir(), f"sns-gpus-{os.getuid()}")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(take_places(gpus, count, folder))
    os.execv(sys.executable, [sys.executable, *words[1:]])


if __name__ == "__main__":
    main(sys.argv[1:])
