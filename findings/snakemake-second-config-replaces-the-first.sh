#!/usr/bin/env bash
# A second --config or --configfile of a call replaces the first one without a word
#
# Versions: snakemake 9.27.1, Python 3.11
#
# One would guess: options that set one value each add up, as `--set` of helm or `-c` of git do, or a repetition is
# refused.
# What happens: `--config` and `--configfile` each take a list of words, and a repetition begins a new list. The values and
# files of the first option are gone. A run that names its folder in one `--config` and its seed in the next one
# writes into the folder of the default run.
#
# Seen on 2026-11-30: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "snakemake==9.27.1"
mkdir "$folder/flow"
cd "$folder/flow"

echo '{run: default, seed: 0}' >config.yaml
echo '{run: mine}' >run.yaml
echo '{seed: 1}' >seed.yaml
cat >Snakefile <<'SNAKEFILE'
configfile: "config.yaml"

rule roll:
    output:
        "seen.txt",
    params:
        run=config["run"],
        seed=config["seed"],
    shell:
        "echo run {params.run}, seed {params.seed} > {output}"
SNAKEFILE

attempt() {
    snakemake --cores 1 --quiet all --forceall "$@" >log 2>&1 || cat log
    echo "$*: $(cat seen.txt)"
}

expected() {
    cat <<'TEXT'
--config run=mine seed=1: run mine, seed 1
--config run=mine --config seed=1: run default, seed 1
--configfile run.yaml seed.yaml: run mine, seed 1
--configfile run.yaml --configfile seed.yaml: run default, seed 1
TEXT
}

actual() {
    attempt --config run=mine seed=1
    attempt --config run=mine --config seed=1
    attempt --configfile run.yaml seed.yaml
    attempt --configfile run.yaml --configfile seed.yaml
}

diff <(expected) <(actual)
