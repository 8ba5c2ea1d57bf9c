#!/usr/bin/env bash
# A workflow that snakedeploy deploys from a local clone looks for itself in the new folder
#
# Versions: snakedeploy 0.17.1, snakemake 9.27.1, Python 3.11
#
# One would guess: `snakedeploy deploy-workflow /path/to/clone target --tag v1` makes a module of the clone's state at that tag,
# as it does for an address.
# What happens: the call succeeds. The Snakefile that it writes names the workflow's Snakefile without any folder or tag, so
# Snakemake looks for it beside the new file. There it is missing, or, if it is the clone's top file, it is the new file itself.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "snakedeploy==0.17.1" "snakemake==9.27.1"
mkdir -p "$folder/clone/workflow" "$folder/clone/config" "$folder/target"
cd "$folder/clone"
echo "drag: 1" >config/config.yaml
cat >workflow/Snakefile <<'SNAKEFILE'
rule decay:
    output:
        "decay.txt",
    shell:
        "echo 1 > {output}"
SNAKEFILE
git init --quiet
git add .
git -c user.name=someone -c user.email=someone@example.org commit --quiet --message first
git tag v1

expected() {
    cat <<'TEXT'
snakedeploy: 0
the module's Snakefile: "workflow/Snakefile"
snakemake: No such file or directory: 'target/workflow/workflow/Snakefile'
TEXT
}

actual() {
    snakedeploy deploy-workflow "$folder/clone" "$folder/target" --tag v1 >"$folder/log" 2>&1 && echo "snakedeploy: $?"
    cd "$folder/target"
    echo "the module's Snakefile: $(grep -A 1 'snakefile:' workflow/Snakefile | tail -n 1 | xargs printf '"%s"')"
    { snakemake --dry-run 2>&1 || true; } | sed -n "s|.*\(No such file.*'\)$folder/|snakemake: \1|p"
}

diff <(expected) <(actual)
