#!/usr/bin/env bash
# Snakemake's cache between workflows gives one entry to jobs that differ in their wildcards alone
#
# Versions: snakemake 9.27.1, Python 3.11
#
# One would guess: a rule that is marked "cache: True" and uses a wildcard in its shell command has one entry in the
# cache for each value of the wildcard.
# What happens: the key of an entry is made of the command as written in the rule (before wildcards are filled in), of
# params, of input files and of software. The second job finds the entry of the first and takes its file: the file
# for seed 2 holds the result of seed 1. There is no message. With the wildcard handed on through params, the two jobs
# have entries of their own.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "snakemake==9.27.1"
mkdir "$folder/flow" "$folder/cache"
cd "$folder/flow"
export SNAKEMAKE_OUTPUT_CACHE=$folder/cache

cat >Snakefile <<'SNAKEFILE'
rule by_wildcard:
    output:
        "wildcard_{seed}.txt",
    cache: True
    shell:
        "echo seed {wildcards.seed} > {output}"


rule by_params:
    output:
        "params_{seed}.txt",
    params:
        seed="{seed}",
    cache: True
    shell:
        "echo seed {params.seed} > {output}"
SNAKEFILE

attempt() {
    snakemake --cores 1 --quiet all --cache -- "$1" >log 2>&1 || cat log
    echo "$1 says $(cat "$1")"
}

expected() {
    cat <<'TEXT'
wildcard_1.txt says seed 1
wildcard_2.txt says seed 1
params_1.txt says seed 1
params_2.txt says seed 2
TEXT
}

actual() {
    attempt wildcard_1.txt
    attempt wildcard_2.txt
    attempt params_1.txt
    attempt params_2.txt
}

diff <(expected) <(actual)
