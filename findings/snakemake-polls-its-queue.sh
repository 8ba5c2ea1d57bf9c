#!/usr/bin/env bash
# Snakemake's scheduler looks at its queue once a second for every job that has ended
#
# Versions: snakemake 9.27.1, Python 3.11
#
# One would guess: the scheduler looks for jobs to start when a job ends.
# What happens: by default at most 100 jobs may start per second, so after each look at a queue with waiting jobs it
# starts a timer of one second for the next look. Each job that ends brings a look, too, and with it one more timer that
# renews itself. A look reads the sizes of all inputs of the waiting jobs. A workflow of 71 jobs had 14,590 looks in ten
# minutes. Without a limit there are no timers, but the command line cannot lift it; a workflow can, in `onstart`:
# workflow.scheduler.job_rate_limiter = None.
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

cat >Snakefile <<'SNAKEFILE'
if config["unlimited"]:
    onstart:
        workflow.scheduler.job_rate_limiter = None

rule all:
    input:
        expand("short_{i}", i=range(config["short"])),
        "long_0",
        "long_1",

rule short:
    output:
        "short_{i}",
    priority: 1
    shell:
        "touch {output}"

rule long:
    output:
        "long_{i}",
    shell:
        "sleep 10; touch {output}"
SNAKEFILE

# Two jobs of ten seconds follow each other on one core, after `short` jobs that end at once.
looks() {
    rm -f short_* long_*
    snakemake --cores 1 --verbose --config "short=$1" "unlimited=$2" >log 2>&1
    count=$(grep -c "^Ready jobs: " log)
    if ((count > 6 * ($1 + 2))); then
        echo "$3: more than six looks per job"
    elif ((count > $1 + 4)); then
        echo "$3: more looks than jobs, up to six per job"
    else
        echo "$3: a look per job"
    fi
}

expected() {
    cat <<'TEXT'
2 jobs: more looks than jobs, up to six per job
22 jobs: more than six looks per job
22 jobs without a limit: a look per job
TEXT
}

actual() {
    looks 0 "" "2 jobs"
    looks 20 "" "22 jobs"
    looks 20 yes "22 jobs without a limit"
}

diff <(expected) <(actual)
