"""Parallel jobs of one machine compute on GPUs of their own. The GPUs are names that a script in the path lists."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sns_core.gpus import take_places, visible_gpus

# A program that prints its GPUs and then waits until its standard input is closed.
PROGRAM = "import os, sys; print(os.environ.get('CUDA_VISIBLE_DEVICES', 'all'), flush=True); sys.stdin.read()"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Let this machine have four GPUs, no scheduler, and a temporary folder of its own."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/nvidia-smi"
    script.write_text("#!/bin/sh\nprintf 'GPU-a\\nGPU-b\\nGPU-c\\nGPU-d\\n'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start(machine, root):
    """Return a function that starts a job on so many GPUs and returns (process, names of its GPUs)."""
    running = []

    def started(count: int) -> tuple[subprocess.Popen, str]:
        words = [sys.executable, "-m", "sns_core.gpus", str(count), "-c", PROGRAM]
        process = subprocess.Popen(words, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)
        return process, process.stdout.readline().strip()

    yield started
    for process in running:
        process.communicate()


def test_parallel_jobs_have_gpus_of_their_own_and_give_them_back(start):
    jobs = [start(count) for count in (1, 2, 1)]
    assert [gpus for _, gpus in jobs] == ["GPU-a", "GPU-b,GPU-c", "GPU-d"]
    jobs[1][0].send_signal(signal.SIGKILL)
    jobs[1][0].wait()
    assert [start(1)[1] for _ in range(3)] == ["GPU-b", "GPU-c", "GPU-a"], "the last of them shares the first GPU"


def test_a_job_that_may_use_all_gpus_or_none_or_has_a_scheduler_keeps_what_it_sees(start, monkeypatch):
    assert [start(4)[1], start(0)[1]] == ["all", "all"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert [start(1)[1], start(1)[1], start(2)[1]] == ["2", "3", "2,3"]
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert start(1)[1] == "2,3"


def test_a_machine_without_nvidia_smi_has_no_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == []


def test_places_are_taken_evenly(tmp_path):
    folder = Path(tmp_path, "locks")
    assert [take_places(["0", "1", "2"], 2, folder) for _ in range(3)] == [["0", "1"], ["0", "2"], ["1", "2"]]
