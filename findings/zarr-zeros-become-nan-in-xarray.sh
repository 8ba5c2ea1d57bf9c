#!/usr/bin/env bash
# Zeros that zarr writes in format 2 are missing values when xarray reads them, and integers become floats
#
# Versions: zarr 3.1.6, xarray 2026.9.0, numpy 2.4.6, Python 3.11
#
# One would guess: numbers that were written to a store are numbers when they are read, in both formats of zarr.
# What happens: zarr gives each array a fill value, 0 unless something else is asked for, which is the value of chunks
# that were never written. In format 2, xarray takes it for the mark of missing data, as in netCDF: every true zero is
# read as NaN, and an integer array with a fill value is read as floats. In format 3 the same call of zarr gives a store
# that is read right. Neither library warns.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "zarr==3.1.6" "xarray==2026.9.0" "numpy==2.4.6"
cd "$folder"

expected() {
    cat <<'TEXT'
format 2: zarr [-1.  0.  1.], xarray [-1. nan  1.], float64
format 2: zarr [2 0 1], xarray [ 2. nan  1.], float64
format 3: zarr [-1.  0.  1.], xarray [-1.  0.  1.], float64
format 3: zarr [2 0 1], xarray [2 0 1], int64
TEXT
}

actual() {
    python -W ignore - <<'PYTHON'
import numpy as np
import xarray as xr
import zarr

for version in 2, 3:
    group = zarr.open_group(f"store_{version}.zarr", mode="w", zarr_format=version)
    options = {"dimension_names": ["x"]} if version == 3 else {}
    for name, values in {"field": np.array([-1.0, 0.0, 1.0]), "count": np.array([2, 0, 1])}.items():
        array = group.create_array(name, shape=(3,), dtype=values.dtype, **options)
        array[:] = values
        if version == 2:
            array.attrs["_ARRAY_DIMENSIONS"] = ["x"]
    data = xr.open_zarr(f"store_{version}.zarr", consolidated=False)
    for name in "field", "count":
        print(f"format {version}: zarr {group[name][:]}, xarray {data[name].values}, {data[name].dtype}")
PYTHON
}

diff <(expected) <(actual)
