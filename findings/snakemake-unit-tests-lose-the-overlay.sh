#!/usr/bin/env bash
# Unit tests that Snakemake generates under `--configfile` run with the configuration that the overlay replaced
#
# Versions: snakemake 9.27.1, pytest 9.0.2, Python 3.11
#
# One would guess: a test that `snakemake --configfile overlay.yaml --generate-unit-tests` writes makes the file again that
# the same call made.
# What happens: the generated call names the overlay first and the Snakefile's own `configfile:` after it. The last file wins,
# so the test makes the file of the default configuration, and fails. Without an overlay the generated test passes.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "snakemake==9.27.1" "pytest==9.0.2"
mkdir "$folder/flow"
cd "$folder/flow"

cat >Snakefile <<'SNAKEFILE'
configfile: "default.yaml"

rule decay:
    output:
        "decay.txt",
    shell:
        "echo {config[drag]} > {output}"
SNAKEFILE
echo "drag: 1" >default.yaml
echo "drag: 2" >overlay.yaml

attempt() {
    rm -rf decay.txt .tests
    snakemake --cores 1 --quiet all "$@" >log 2>&1 || cat log
    snakemake --cores 1 --generate-unit-tests "$@" >log 2>&1 || cat log
    echo "${*:-no overlay}: the file says $(cat decay.txt), the test's call names" \
        "$(grep -o '"[a-z]*.yaml"' .tests/unit/test_decay.py | tr -d '"' | xargs)," \
        "$(pytest -q .tests/unit 2>&1 | grep -o '1 [a-z]*' | tail -n 1)"
}

expected() {
    cat <<'TEXT'
no overlay: the file says 1, the test's call names default.yaml, 1 passed
--configfile overlay.yaml: the file says 2, the test's call names overlay.yaml default.yaml, 1 failed
TEXT
}

actual() {
    attempt
    attempt --configfile overlay.yaml
}

diff <(expected) <(actual)
