#!/usr/bin/env bash
# Builds the kernel ladders of tools/lab and runs them on this machine's GPU: correctness first, then times. Needs nvcc 13.0 and g++.
#
#   tools/lab/run.sh [NAME..] [> log]      all, or these: attention, matmul, sm90_matmul, pointwise, adapter, augment
set -uo pipefail
cd "$(dirname "$0")/../.."

if [ $# -eq 0 ]; then
    set -- $(cd tools/lab && ls *.cu | sed 's/\.cu$//')
fi
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
for name in "$@"; do
    nvcc -std=c++17 -O3 -lineinfo -gencode=arch=compute_90a,code=sm_90a -Ikernels "tools/lab/$name.cu" -lcublas -lcuda \
        -o "$build/$name" >"$build/$name.log" 2>&1 &
done
wait
failed=0
for name in "$@"; do
    echo "== $name"
    if [ ! -x "$build/$name" ]; then
        cat "$build/$name.log"
        failed=1
        continue
    fi
    # A kernel that hangs must not take the others' time.
    timeout 60 "$build/$name" || { echo "$name: exit code $?"; failed=1; }
done
exit $failed
