#!/usr/bin/env bash
# Snakemake's --until a rule whose jobs follow each other makes the first of them, and then fails
#
# Versions: snakemake 9.27.1, Python 3.11
#
# One would guess: `--until RULE` makes all files of that rule, and of the rules before it.
# What happens: where a job of the rule needs the file of another job of the same rule, as the segments of a long
# simulation do, Snakemake counts all of them among its jobs, and runs the first one of each chain. Then it says that it
# has a bug because it is out of jobs that are ready, and ends with an error; so does the dry run. Called again, it makes
# one more and fails again. The last file of the chain as a target makes all of them.
#
# Seen on 2026-11-29: the text below, in "expected".
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
rule figure:
    input:
        "segment_3.txt",
    output:
        "figure.txt",
    shell:
        "cp {input} {output}"

rule segment:
    input:
        lambda wildcards: f"segment_{int(wildcards.index) - 1}.txt" if int(wildcards.index) else [],
    output:
        "segment_{index}.txt",
    shell:
        "echo {wildcards.index} > {output}"
SNAKEFILE

attempt() {
    snakemake "$@" --cores 1 >log 2>&1 && ending="ends well" || ending="fails"
    grep -q "Out of jobs ready to be started" log && ending="$ending, out of jobs that are ready"
    echo "$*: $ending; segments: $(find . -name 'segment_*' | wc -l)"
}

expected() {
    cat <<'TEXT'
counted segments: 4
--until segment: fails, out of jobs that are ready; segments: 1
--until segment: fails, out of jobs that are ready; segments: 2
segment_3.txt: ends well; segments: 4
TEXT
}

actual() {
    snakemake --cores 1 --dry-run --until segment >log 2>&1 || true
    echo "counted segments: $(awk '$1 == "segment" && !rows++ {print $2}' log)"
    attempt --until segment
    attempt --until segment
    attempt segment_3.txt
}

diff <(expected) <(actual)
