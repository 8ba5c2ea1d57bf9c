#!/usr/bin/env bash
# Snakemake leaves out a job whose output is missing, if it follows a job to be run through an ancient() input alone
#
# Versions: snakemake 9.27.1, Python 3.11
#
# One would guess: ancient() says that the date of an input does not matter. A target whose file is missing is made.
# What happens: "source.txt" exists and its parameter has changed, so its job has to run. All jobs behind it are then
# no longer examined by themselves: they run if they are reached from it. An ancient() input that exists does not
# reach. So the missing "target.txt", which is asked for, is not planned: the call makes "source.txt", says that
# it is done and ends with 0. The same call again makes "target.txt". Without ancient(), one call makes both.
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
mark = ancient if config["mark"] == "ancient" else str


rule target:
    input:
        mark("source.txt"),
    output:
        "target.txt",
    shell:
        "cp {input} {output}"


rule source:
    output:
        "source.txt",
    params:
        value=config["value"],
    shell:
        "echo {params.value} > {output}"
SNAKEFILE

call() {
    snakemake --cores 1 --quiet all --config "mark=$1" "value=$2" -- target.txt >log 2>&1 || cat log
    echo "$1, value $2: source.txt holds $(cat source.txt), target.txt holds $(cat target.txt 2>/dev/null || echo nothing)"
}

expected() {
    cat <<'TEXT'
ancient, value 1: source.txt holds 1, target.txt holds 1
ancient, value 2: source.txt holds 2, target.txt holds nothing
ancient, value 2: source.txt holds 2, target.txt holds 2
plain, value 1: source.txt holds 1, target.txt holds 1
plain, value 2: source.txt holds 2, target.txt holds 2
TEXT
}

actual() {
    call ancient 1
    rm target.txt
    call ancient 2
    call ancient 2
    rm -rf ./*.txt .snakemake
    call plain 1
    rm target.txt
    call plain 2
}

diff <(expected) <(actual)
