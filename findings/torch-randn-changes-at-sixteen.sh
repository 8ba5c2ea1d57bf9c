#!/usr/bin/env bash
# torch.randn on the CPU: from 16 numbers on, one number more changes the numbers before it
#
# Versions: torch 2.13.0 (CPU), numpy 2.4.6, Python 3.11
#
# One would guess: with the same seed, a shorter draw is the beginning of a longer one, as with numpy's generators, so
# that noise for one member more leaves the noise of the others alone.
# What happens: up to 15 numbers come one after the other, and a longer draw continues a shorter one. From 16 on,
# numbers are made in blocks of 16. A rest that does not fill a block makes no short block: the last 16 places are
# drawn anew, over numbers that were there. So draws of 15 and of 16 numbers have nothing in common, draws of 16 and of
# 17 share the first number alone, and draws of 32 and of 33 share 17 of 32.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "torch==2.13.0" "numpy==2.4.6"
cd "$folder"

expected() {
    cat <<'TEXT'
14 numbers, then 15: numpy keeps 14, torch 14
15 numbers, then 16: numpy keeps 15, torch 0
16 numbers, then 17: numpy keeps 16, torch 1
17 numbers, then 18: numpy keeps 17, torch 15
31 numbers, then 32: numpy keeps 31, torch 15
32 numbers, then 33: numpy keeps 32, torch 17
TEXT
}

actual() {
    python - <<'PYTHON'
import numpy as np
import torch


def torch_numbers(count):
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).numpy()


def numpy_numbers(count):
    return np.random.default_rng(0).standard_normal(count, dtype=np.float32)


for count in 14, 15, 16, 17, 31, 32:
    shared = []
    for draw in numpy_numbers, torch_numbers:
        same = draw(count) == draw(count + 1)[:count]
        shared.append(int(same.sum()))
    print(f"{count} numbers, then {count + 1}: numpy keeps {shared[0]}, torch {shared[1]}")
PYTHON
}

diff <(expected) <(actual)
