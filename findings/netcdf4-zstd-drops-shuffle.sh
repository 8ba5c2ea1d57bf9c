#!/usr/bin/env bash
# netCDF4 drops shuffle=True in silence when the compression is zstd
#
# Versions: netCDF4 1.7.5.1.post1, numpy 2.4.6, Python 3.11
#
# One would guess: shuffle=True, which the documentation promises for "before compressing" and which is the default,
# sorts the bytes before any of the compressions.
# What happens: with zstd the filter is not set, and no error or warning says so. A smooth field in float32 becomes
# larger than with zlib, though zstd is the newer compression.
#
# Seen on 2026-11-28: the text below, in "expected". The files held 0.961 (zlib), 0.830 (zlib with shuffle), 0.961
# (zstd) and 0.961 (zstd with shuffle asked for) of the raw size.
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "netCDF4==1.7.5.1.post1" "numpy==2.4.6"
cd "$folder"

expected() {
    cat <<'TEXT'
zlib, shuffle=False: filter set False, size 0.96 of the raw data
zlib, shuffle=True: filter set True, size 0.83 of the raw data
zstd, shuffle=False: filter set False, size 0.96 of the raw data
zstd, shuffle=True: filter set False, size 0.96 of the raw data
TEXT
}

actual() {
    python - <<'PYTHON'
import os

import netCDF4
import numpy as np

x = np.linspace(0, 2 * np.pi, 256, endpoint=False)
waves = np.random.default_rng(0).normal(size=(8, 8, 2))
field = sum(
    waves[k, m, 0] * np.cos(k * x[:, None] + m * x) + waves[k, m, 1] * np.sin(k * x[:, None] - m * x)
    for k in range(8)
    for m in range(8)
).astype("float32")
for compression in "zlib", "zstd":
    for shuffle in False, True:
        name = f"{compression}_{shuffle}.nc"
        with netCDF4.Dataset(name, "w") as file:
            file.createDimension("y", 256)
            file.createDimension("x", 256)
            variable = file.createVariable(
                "field", "f4", ("y", "x"), compression=compression, shuffle=shuffle, complevel=4
            )
            variable[:] = field
            filters = variable.filters()
        size = os.path.getsize(name) / field.nbytes
        print(f"{compression}, shuffle={shuffle}: filter set {filters['shuffle']}, size {size:.2f} of the raw data")
PYTHON
}

diff <(expected) <(actual)
