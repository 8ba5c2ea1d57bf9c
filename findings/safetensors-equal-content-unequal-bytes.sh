#!/usr/bin/env bash
# safetensors writes the same tensors and the same metadata to files with different bytes
#
# Versions: safetensors 0.8.0, numpy 2.4.6, Python 3.11
#
# One would guess: a format of plain arrays with a JSON header gives the same bytes for the same content, so a hash of
# the file shows whether a model changed. The tensors are indeed sorted.
# What happens: the entries of the metadata are written in a random order that changes from one call to the next, within
# one process as well. With one entry, or with none, the bytes are the same.
#
# Seen on 2026-11-28: the text below, in "expected". For six entries, nearly all of the 100 files differed.
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "safetensors==0.8.0" "numpy==2.4.6"
cd "$folder"

expected() {
    cat <<'TEXT'
metadata of size 0: bytes equal, content equal
metadata of size 1: bytes equal, content equal
metadata of size 6: bytes differ, content equal
TEXT
}

actual() {
    python - <<'PYTHON'
import json

import numpy as np
from safetensors.numpy import load, save

tensors = {"weight": np.arange(6.0).reshape(2, 3), "bias": np.zeros(2)}


def header(data):
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])


def equal(left, right):
    arrays = load(left), load(right)
    same_tensors = all(np.array_equal(arrays[0][name], arrays[1][name]) for name in tensors)
    return same_tensors and header(left) == header(right)


for count in 0, 1, 6:
    metadata = {f"key{number}": str(number) for number in range(count)}
    files = [save(tensors, metadata=metadata) for _ in range(100)]
    print(
        f"metadata of size {count}: bytes {'equal' if len(set(files)) == 1 else 'differ'}, "
        f"content {'equal' if all(equal(files[0], data) for data in files) else 'differs'}"
    )
PYTHON
}

diff <(expected) <(actual)
