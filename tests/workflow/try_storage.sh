#!/usr/bin/env bash
# Run the smoke configuration on machines that share no files: `tests/workflow/try_storage.sh FOLDER [TARGET]`.
#
# Each job is a process in an empty folder with an environment of its own. It gets the clone's files and its inputs from a
# storage, a folder below FOLDER, and only what the rules declare comes back. Needs rsync; two plugins of Snakemake are
# installed below FOLDER. The tests do not call this script: a job takes half a minute more than elsewhere.
set -euo pipefail
folder=$(realpath "${1:?usage: $0 FOLDER [TARGET]}") target=${2:-all}
cd "$(dirname "$0")/../.."
python -m pip install --quiet --target "$folder/plugins" --no-deps snakemake-storage-plugin-fs==1.1.3 sysrsync==1.1.1 \
    reretry==0.11.8 toml==0.10.2 snakemake-executor-plugin-cluster-generic==1.0.9
cat > "$folder/submit" << END
#!/usr/bin/env bash
node=\$(mktemp -d $folder/node.XXXXXX)
cd "\$node"
env -i PATH="\$PATH" HOME="\$node" PYTHONPATH=$folder/plugins OMP_NUM_THREADS=1 bash "\$1" > "\$node/log" 2>&1 &&
    echo success > "\$node/state" || echo failed > "\$node/state"
echo "\$node"
END
printf '#!/bin/sh\ncat "$1/state"\n' > "$folder/status"
chmod +x "$folder/submit" "$folder/status"
PYTHONPATH=$PWD:$folder/plugins exec python -m snakemake --configfile config/smoke.yaml \
    --executor cluster-generic --cluster-generic-submit-cmd "$folder/submit" --cluster-generic-status-cmd "$folder/status" \
    --jobs 1 --default-storage-provider fs --default-storage-prefix "$folder/storage" --local-storage-prefix "$folder/copies" \
    --shared-fs-usage none --job-deploy-sources -- "$target"
