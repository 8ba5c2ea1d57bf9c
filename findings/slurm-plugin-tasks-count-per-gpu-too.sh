#!/usr/bin/env bash
# Tasks of an MPI job with GPUs are submitted twice: as tasks of the job, and as tasks of each GPU
#
# Versions: snakemake-executor-plugin-slurm 2.8.0, snakemake 9.27.1, Python 3.11
#
# One would guess: the resource `tasks` of an MPI job is the number of its tasks (--ntasks), with or without GPUs.
# What happens: with GPUs (`gpu`, or `gres` of a gpu), the plugin writes --ntasks-per-gpu with the same number beside
# --ntasks. Two tasks on two GPUs then ask for four tasks and for two. `tasks_per_gpu: 0` leaves the first out.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "snakemake-executor-plugin-slurm==2.8.0" "snakemake==9.27.1"

cat >"$folder/submit.py" <<'PYTHON'
import re
from types import SimpleNamespace

from snakemake_executor_plugin_slurm.submit_string import get_submit_command


class Resources(dict):
    __getattr__ = dict.__getitem__


FIXED = {"run_uuid": "x", "slurm_logfile": "log", "comment_str": "rule", "account": "", "partition": "", "workdir": "."}
MPI = {"mpi": "srun", "nodes": 2, "tasks": 2}
for more in ({}, {"gpu": 2}, {"gres": "gpu:1"}, {"gres": "gpu:1", "tasks_per_gpu": 0}):
    job = SimpleNamespace(resources=Resources(MPI | more), threads=1)
    words = re.findall(r"--ntasks\S*", get_submit_command(job, FIXED))
    print(more or "no GPU", "->", *words)
PYTHON

expected() {
    cat <<'TEXT'
no GPU -> --ntasks=2
{'gpu': 2} -> --ntasks-per-gpu=2 --ntasks=2
{'gres': 'gpu:1'} -> --ntasks-per-gpu=2 --ntasks=2
{'gres': 'gpu:1', 'tasks_per_gpu': 0} -> --ntasks=2
TEXT
}

diff <(expected) <(python "$folder/submit.py")
