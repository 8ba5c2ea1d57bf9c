#!/usr/bin/env bash
# The CRPS of an ensemble that scoringrules computes by default is another score since version 0.9.0
#
# Versions: scoringrules 0.8.0, 0.9.0 and 0.10.0, scipy 1.16.3, numpy 2.3.5, Python 3.11
#
# One would guess: crps_ensemble(observation, members) gives the same number in two neighbouring versions.
# What happens: the default estimator was "pwm" and is now "qd". The first divides by M (M - 1) and is the fair score,
# which does not depend on the number of members in expectation; nothing in the name says so. The second is the score of
# the empirical distribution, which punishes small ensembles. With few members the numbers are far apart, and a table
# that is half computed with one version and half with the other looks like a change of skill. The energy score of a
# single variable, which should be the CRPS, has used the second form all along.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "scipy==1.16.3" "numpy==2.3.5"
for version in 0.8.0 0.9.0 0.10.0; do
    pip install --quiet --disable-pip-version-check --no-compile --no-deps --target "$folder/$version" "scoringrules==$version"
done
cd "$folder"

expected() {
    cat <<'TEXT'
scoringrules 0.8.0: default 0.2333, fair 0.2333, pwm 0.2333, nrg 0.4556, energy score 0.4556
scoringrules 0.9.0: default 0.4556, fair 0.2333, pwm 0.2333, nrg 0.4556, energy score 0.4556
scoringrules 0.10.0: default 0.4556, fair 0.2333, pwm 0.2333, nrg 0.4556, energy score 0.4556
TEXT
}

actual() {
    local version
    for version in 0.8.0 0.9.0 0.10.0; do
        PYTHONPATH=$folder/$version python - "$version" <<'PYTHON'
import sys

import numpy as np
import scoringrules

observation, members = 0.3, np.array([0.0, 1.0, 2.0])
scores = {"default": scoringrules.crps_ensemble(observation, members, backend="numpy")}
for estimator in "fair", "pwm", "nrg":
    scores[estimator] = scoringrules.crps_ensemble(observation, members, estimator=estimator, backend="numpy")
scores["energy score"] = scoringrules.es_ensemble(np.array([observation]), members[:, None], backend="numpy")
print(f"scoringrules {sys.argv[1]}: " + ", ".join(f"{name} {float(value):.4f}" for name, value in scores.items()))
PYTHON
    done
}

diff <(expected) <(actual)
