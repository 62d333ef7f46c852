#!/bin/sh
# Builds the image tidemark:local from a program that is already there, without any registry.
#
#     deploy/image.sh [PROGRAM]        default: target/release/tidemark
#
# TIDEMARK_IMAGE names the image otherwise. Needs docker, strip and ldd.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
program=${1:-$here/../target/release/tidemark}
image=${TIDEMARK_IMAGE:-tidemark:local}

if [ ! -x "$program" ]; then
    echo "no program at $program: build it (cargo build --release), or name another" >&2
    exit 1
fi
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/root/etc" "$context/root/tmp" "$context/data"
chmod 1777 "$context/root/tmp"
strip -o "$context/root/tidemark" "$program"
# Every library under the path where the loader will look for it; none for a static program.
ldd "$program" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$context/root$(dirname "$library")"
    cp -L "$library" "$context/root$library"
done
echo 'tidemark:x:65532:65532::/data:/nowhere' >"$context/root/etc/passwd"
echo 'tidemark:x:65532:' >"$context/root/etc/group"
echo 'hosts: files dns' >"$context/root/etc/nsswitch.conf"
cp "$here/Dockerfile.binary" "$context/Dockerfile"
docker build --quiet --tag "$image" "$context" >/dev/null
echo "$image"
