#!/usr/bin/env bash
# Snakemake compares the params of a finished job as a set of values, without their names
#
# Versions: snakemake 9.27.1, Python 3.11
#
# One would guess: a job is run again when one of its params has another value than in the last run.
# What happens: Snakemake compares two sets that hold the printed values alone. Two params that exchange their values
# give the same set. So does a param that takes the value of another param, as long as its old value is still in use.
# Neither makes the job run again, and the old file stays as if it were up to date. A value that no param had before
# is noticed.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "snakemake==9.27.1"
mkdir "$folder/flow"
cd "$folder/flow"

cat >Snakefile <<'SNAKEFILE'
rule decay:
    output:
        "decay.txt",
    params:
        drag=config["drag"],
        viscosity=config["viscosity"],
        forcing=config["forcing"],
    shell:
        "echo {params.drag} {params.viscosity} {params.forcing} > {output}"
SNAKEFILE

attempt() {
    snakemake --cores 1 --quiet all --config "drag=$1" "viscosity=$2" "forcing=$3" >log 2>&1 || cat log
    echo "asked for $1 $2 $3: the file says $(cat decay.txt)"
}

expected() {
    cat <<'TEXT'
asked for 1 1 2: the file says 1 1 2
asked for 2 1 1: the file says 1 1 2
asked for 1 2 2: the file says 1 1 2
asked for 1 2 3: the file says 1 2 3
TEXT
}

actual() {
    attempt 1 1 2
    attempt 2 1 1
    attempt 1 2 2
    attempt 1 2 3
}

diff <(expected) <(actual)
