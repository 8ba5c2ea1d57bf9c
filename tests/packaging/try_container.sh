#!/usr/bin/env bash
# Build envs/Containerfile line by line, and plan and begin a run in it: `tests/packaging/try_container.sh FOLDER`.
#
# For machines that reach no registry of images: the base image is made here, from Debian's packages (debootstrap) and the
# Python at the prefix of `python3.11`, under /usr/local as in python:3.11-slim. It is given the name that the file asks for,
# and buildah runs every line in a chroot, without a daemon. Needs root, debootstrap and buildah (Debian's packages), 8 GB
# below FOLDER, and the registries of the file's own steps: Debian's and pip's. The base gets this machine's certificates,
# and the settings of pip in the file PIP_SETTINGS; BUILD holds further words for `buildah build`, such as volumes of wheels.
# The tests do not call this script. It cannot check the real base image.
set -euo pipefail
folder=$(realpath "${1:?usage: $0 FOLDER}")
root=$(cd "$(dirname "$0")/../.." && pwd)
base=$folder/base
image=$(sed -n 's/^FROM //p' "$root/envs/Containerfile")
buildah() { command buildah --root "$folder/storage" --runroot "$folder/run" --storage-driver vfs "$@"; }

libraries=ca-certificates,libssl3,libffi8,libsqlite3-0,zlib1g,libbz2-1.0,liblzma5,libreadline8,libuuid1,libexpat1
[ -e "$base/usr/bin/env" ] || debootstrap --variant=minbase --include=$libraries bookworm "$base"
prefix=$(python3.11 -c 'import sys; print(sys.base_prefix)')
mkdir -p "$base/usr/local/lib/python3.11"
cp "$prefix/bin/python3.11" "$base/usr/local/bin/"
ln -sf python3.11 "$base/usr/local/bin/python3"
ln -sf python3.11 "$base/usr/local/bin/python"
tar -C "$prefix/lib/python3.11" --exclude=./site-packages --exclude=./test --exclude=__pycache__ -c . |
    tar -C "$base/usr/local/lib/python3.11" -x
cp -P "$prefix"/lib/libpython3.11*.so* "$base/usr/local/lib/" 2> /dev/null && chroot "$base" ldconfig
chroot "$base" python -m ensurepip --upgrade > /dev/null
ln -sf pip3.11 "$base/usr/local/bin/pip"
cp /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/"
cp "${PIP_SETTINGS:-/dev/null}" "$base/etc/pip.conf"

container=$(buildah from scratch)
buildah add -q "$container" "$base" / > /dev/null
buildah config --env PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin "$container"
buildah commit -q "$container" "$image" > /dev/null
buildah rm "$container" > /dev/null

# shellcheck disable=SC2086 # BUILD holds several words
buildah build --isolation chroot --pull-never --layers=false ${BUILD:-} -f "$root/envs/Containerfile" -t sns "$root"
container=$(buildah from --pull-never sns)
in_container() { buildah run --isolation chroot "$container" -- "$@"; }
in_container python -m sns_core --help > /dev/null
in_container snakemake --cores 1 --quiet all --dry-run
in_container snakemake --cores 1 --configfile config/smoke.yaml -- data
in_container python -c 'import sns_core; print(sns_core.load("gallery/re1e4", method="sns").grid)'
echo "built, and used"
