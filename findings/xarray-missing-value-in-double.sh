#!/usr/bin/env bash
# A missing_value in double precision masks -9999 in a field of single precision, and leaves 1e20 in it as a number
#
# Versions: xarray 2026.9.0, netCDF4 1.7.5.1.post1, numpy 2.4.6, Python 3.11
#
# One would guess: the attribute says which value is missing, so xarray masks it, whatever number stands there.
# What happens: xarray compares the field with the attribute as it is stored. In double precision (CF asks for the type
# of the variable, and the netCDF library takes any), -9999 equals its neighbour in single precision and 1e20 does not.
# Land of 1e20 is read as 1e20, without a warning. netCDF4-python masks neither 1e20, but warns.
#
# Seen on 2026-11-30: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "xarray==2026.9.0" "netCDF4==1.7.5.1.post1" "numpy==2.4.6"
cd "$folder"

expected() {
    cat <<'TEXT'
-9999.0 as float32: xarray [ 1. nan], 0 warnings; netCDF4 [1.0 --], 0 warnings
-9999.0 as float64: xarray [ 1. nan], 0 warnings; netCDF4 [1.0 --], 0 warnings
1e+20 as float32: xarray [ 1. nan], 0 warnings; netCDF4 [1.0 --], 0 warnings
1e+20 as float64: xarray [1.e+00 1.e+20], 0 warnings; netCDF4 [1.e+00 1.e+20], 1 warnings
TEXT
}

actual() {
    python - <<'PYTHON'
import warnings

import netCDF4
import numpy as np
import xarray as xr


def read(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return function(), f"{len(caught)} warnings"


for missing in -9999.0, 1e20:
    for kind in np.float32, np.float64:
        path = f"{missing}_{kind.__name__}.nc"
        with netCDF4.Dataset(path, "w") as file:
            file.createDimension("x", 2)
            field = file.createVariable("field", "f4", ("x",))
            field.set_auto_mask(False)
            field.missing_value = kind(missing)
            field[:] = np.array([1.0, missing], np.float32)
        by_xarray, of_xarray = read(lambda: xr.open_dataset(path).load().field.values)
        by_netcdf, of_netcdf = read(lambda: netCDF4.Dataset(path)["field"][:])
        print(f"{missing} as {kind.__name__}: xarray {by_xarray}, {of_xarray}; netCDF4 {by_netcdf}, {of_netcdf}")
PYTHON
}

diff <(expected) <(actual)
