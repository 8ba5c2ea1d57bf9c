#!/usr/bin/env bash
# The checker of IOOS asks a dimension for a date because it is called "time"
#
# Versions: compliance-checker 6.1.0, netCDF4 1.7.5.1.post1, Python 3.11
#
# One would guess: CF tells a time coordinate by its units ("... since ..."), its standard name or its axis. The time of a
# simulation in a box has no date, so a coordinate with the units "s" and none of the three is one like any other.
# What happens: a dimension called "time" must have the standard name "time", says the check of section 5.1; with that
# name, sections 3.1 and 4.4 ask its units for a date. The same file with the dimension called "clock" has no error. The
# checker's issue 1245 is about the same check.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "compliance-checker==6.1.0" "netCDF4==1.7.5.1.post1"
cd "$folder"

expected() {
    cat <<'TEXT'
clock, no standard name: 0 errors
time, no standard name: 1 error
  Coordinate variable 'time' should have standard_name='time', found: 'None'
time, standard name time: 2 errors
  time does not have correct time units
  time must be in a valid units format <unit> since <epoch> not s
TEXT
}

actual() {
    python -W ignore - <<'PYTHON'
import contextlib
import io
import json

import netCDF4
from compliance_checker.runner import CheckSuite, ComplianceChecker


def messages(group):
    return [*group["msgs"], *(message for child in group["children"] for message in messages(child))]


CheckSuite.load_all_available_checkers()
for name, standard_name in ("clock", None), ("time", None), ("time", "time"):
    with netCDF4.Dataset("flow.nc", "w") as file:
        file.setncatts({"Conventions": "CF-1.10", "title": "A flow in a box", "history": "made here"})
        file.createDimension(name, 3)
        time = file.createVariable(name, "f8", (name,))
        time.setncatts({"units": "s", "long_name": "time since the start"})
        if standard_name:
            time.standard_name = standard_name
        time[:] = [0.0, 1.0, 2.0]
        energy = file.createVariable("energy", "f8", (name,))
        energy.setncatts({"units": "m2 s-2", "long_name": "kinetic energy"})
        energy[:] = 1.0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ComplianceChecker.run_checker("flow.nc", ["cf:1.10"], 0, "normal", output_filename="out.json", output_format="json")
    with open("out.json") as verdict:
        groups = json.load(verdict)["cf:1.10"]["high_priorities"]
    errors = sorted({message for group in groups for message in messages(group)})
    label = f"standard name {standard_name}" if standard_name else "no standard name"
    print(f"{name}, {label}: {len(errors)} error{'s' * (len(errors) != 1)}")
    for error in errors:
        print(f"  {error}")
PYTHON
}

diff <(expected) <(actual)
