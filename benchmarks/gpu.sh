#!/usr/bin/env bash
# The measurements on a GPU, in ten minutes, on a bare machine: Python 3.12, torch (CUDA), numpy, xarray, pandas, matplotlib
# and safetensors. Neither Snakemake nor netCDF4 is needed, nor this project's own installation.
#
#   benchmarks/gpu.sh [FOLDER [PART ...]]     FOLDER: results (default: benchmarks/results); parts: see gpu.py (default: all)
#
# Wheels in $WHEELS, a folder, are installed for these measurements alone: pytest, netCDF4, cftime and dask for the tests.
# With DEVICE=cpu SIZES=tiny, the script itself is tested. SECONDS_<part> changes the time limit of a part.
#
# Each part has its own time limit, and writes its rows as it goes: a part that is stopped leaves what it has measured. The
# page gpu_<date>_<card>.md holds all parts so far; *.log have the messages.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
folder="${1:-$here/results}"
all=(tests equality solvers networks rollouts training)
declare -A limits=([tests]=60 [equality]=50 [solvers]=120 [networks]=160 [rollouts]=80 [training]=110)
parts=("${@:2}")
[ "${#parts[@]}" -gt 0 ] || parts=("${all[@]}")
device="${DEVICE:-cuda}"
mkdir -p "$folder/parts"
folder="$(cd "$folder" && pwd)"
export PYTHONPATH="$here/..:$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

if [ -n "${WHEELS:-}" ]; then
    site="$(mktemp -d)"
    trap 'rm -rf "$site"' EXIT
    python3 -m pip install --quiet --no-index --no-deps --target "$site" "$WHEELS"/*.whl && PYTHONPATH="$PYTHONPATH:$site"
fi

python3 "$here/gpu.py" machine --device "$device" > "$folder/parts/machine.md" || exit 1
card="$(sed -n '1s/^# \([^,]*\),.*/\1/p' "$folder/parts/machine.md" | tr -cs 'A-Za-z0-9\n' -)"
page="$folder/gpu_$(date +%F)_$card.md"
for part in "${parts[@]}"; do
    limit="SECONDS_$part"
    limit="${!limit:-${limits[$part]}}"
    began=$SECONDS
    timeout --kill-after=10 "$limit" python3 "$here/gpu.py" "$part" --device "$device" --sizes "${SIZES:-full}" \
        > "$folder/parts/$part.md" 2> "$folder/parts/$part.log"
    case $? in
        0) ;;
        124 | 137) printf '\nStopped after its limit of %s seconds.\n\n' "$limit" >> "$folder/parts/$part.md" ;;
        *) printf '\nFailed: %s\n\n' "$(tail -n 1 "$folder/parts/$part.log")" >> "$folder/parts/$part.md" ;;
    esac
    echo "$part: $((SECONDS - began)) s"
    (cd "$folder/parts" && cat machine.md "${all[@]/%/.md}" 2> /dev/null) > "$page"
done
echo "$page"
