#!/usr/bin/env bash
# Snakemake's database of finished jobs forgets everything when the folder is moved, and says nothing
#
# Versions: snakemake 9.27.1, Python 3.11
#
# One would guess: the metadata lie in .snakemake/ beside the results, so a folder that is renamed keeps them, with the
# database backend as with the file backend.
# What happens: the database names each record by the absolute path of the folder. After a move no record is found. A
# file without a record counts as up to date, so changed params and changed code run nothing again. The file backend
# notices the change.
#
# Seen on 2026-11-28: the text below, in "expected".
set -euo pipefail
unset PYTHONPATH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
pip install --quiet --disable-pip-version-check --no-compile "snakemake==9.27.1"

cat >"$folder/Snakefile" <<'SNAKEFILE'
rule decay:
    output:
        "decay.txt",
    params:
        drag=config["drag"],
    shell:
        "echo drag {params.drag} > {output}"
SNAKEFILE

attempt() {
    snakemake --cores 1 --quiet all --persistence-backend "$1" --config "drag=$2" >log 2>&1 || cat log
    cat decay.txt
}

expected() {
    cat <<'TEXT'
file backend, first run: drag 0.1
file backend, other drag in the same folder: drag 0.2
file backend, other drag in the moved folder: drag 0.3
db backend, first run: drag 0.1
db backend, other drag in the same folder: drag 0.2
db backend, other drag in the moved folder: drag 0.2
TEXT
}

actual() {
    local backend
    for backend in file db; do
        mkdir "$folder/$backend"
        cp "$folder/Snakefile" "$folder/$backend/"
        cd "$folder/$backend"
        echo "$backend backend, first run: $(attempt $backend 0.1)"
        echo "$backend backend, other drag in the same folder: $(attempt $backend 0.2)"
        cd ..
        mv "$backend" "moved_$backend"
        cd "moved_$backend"
        echo "$backend backend, other drag in the moved folder: $(attempt $backend 0.3)"
    done
}

diff <(expected) <(actual)
