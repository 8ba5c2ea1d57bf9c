#!/usr/bin/env bash
# xarray's open_mfdataset multiplies two axes that both grow from file to file
#
# Versions: xarray 2026.9.0, dask 2026.8.0, netCDF4 1.7.5.1.post1, numpy 2.4.6, Python 3.11
#
# One would guess: files that hold a field on a fine time axis and a map on a coarse one are joined variable by
# variable, each along its own axis. Each file is valid and opens well alone.
# What happens: every variable receives both axes, and the part of the product that no file covers is NaN. With n files,
# the share of numbers is 1 / n: three files below give two thirds of NaN, and the size grows with the square of n. The
# warnings speak of future defaults, none of them of missing values. With data_vars="minimal" the variables keep their
# axes. With the future defaults, which can be switched on already, the same call raises AlignmentError.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "xarray==2026.9.0" "dask==2026.8.0" "netCDF4==1.7.5.1.post1" "numpy==2.4.6"
cd "$folder"

expected() {
    cat <<'TEXT'
the defaults of today:
  energy: map_time 6, time 12, x 2, NaN 0.67
  map: time 12, map_time 6, x 2, NaN 0.67
data_vars="minimal":
  energy: time 12, x 2, NaN 0.00
  map: map_time 6, x 2, NaN 0.00
the defaults to come: AlignmentError
categories of warnings: FutureWarning
TEXT
}

actual() {
    python - <<'PYTHON'
import warnings

import numpy as np
import xarray as xr

for number in range(3):
    time = 4 * number + np.arange(4)
    map_time = 4 * number + np.arange(0, 4, 2)
    xr.Dataset(
        {"energy": (("time", "x"), np.ones((4, 2))), "map": (("map_time", "x"), np.ones((2, 2)))},
        {"time": time, "map_time": map_time},
    ).to_netcdf(f"segment_{number}.nc")

with warnings.catch_warnings(record=True) as raised:
    warnings.simplefilter("always")
    for title, options in {"the defaults of today": {}, 'data_vars="minimal"': {"data_vars": "minimal"}}.items():
        print(f"{title}:")
        with xr.open_mfdataset("segment_*.nc", **options) as data:
            for name in "energy", "map":
                sizes = ", ".join(f"{dimension} {size}" for dimension, size in data[name].sizes.items())
                print(f"  {name}: {sizes}, NaN {float(data[name].isnull().mean()):.2f}")
    try:
        with xr.set_options(use_new_combine_kwarg_defaults=True):
            xr.open_mfdataset("segment_*.nc")
    except ValueError as error:
        print("the defaults to come:", type(error).__name__)
print("categories of warnings:", ", ".join(sorted({warning.category.__name__ for warning in raised})))
PYTHON
}

diff <(expected) <(actual)
