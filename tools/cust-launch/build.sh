#!/usr/bin/env bash
# Builds cust-launch on a machine without a CUDA toolkit or driver: target/release/peftk-cust-launch.
#
# cust links libcuda. Here a stub with the same names stands in for it, made from cust's own list of functions; on the GPU machine
# the loader finds the driver's libcuda.so.1. With CUDA_LIBRARY_PATH set, that toolkit is linked and no stub is made.
set -euo pipefail
cd "$(dirname "$0")"
# The target folder is this crate's own: the stub lies in it.
export CARGO_TARGET_DIR=target

if [ -z "${CUDA_LIBRARY_PATH:-}" ]; then
    command -v gcc >/dev/null || { echo "cust-launch: gcc is missing" >&2; exit 1; }
    manifest=$(cargo metadata --format-version 1 --locked | grep -o '"[^"]*/cust_raw-[^"/]*/Cargo.toml"' | head -n 1 | tr -d '"')
    [ -n "$manifest" ] || { echo "cust-launch: cargo metadata names no cust_raw" >&2; exit 1; }
    mkdir -p target/stub/lib64
    # 999 is CUDA_ERROR_UNKNOWN: what a program gets that was started with the stub after all.
    grep -o 'pub fn cu[A-Za-z0-9_]*' "$(dirname "$manifest")/src/cuda.rs" | awk '{ print $3 }' | sort -u |
        sed 's/.*/int &(void) { return 999; }/' >target/stub/stub.c
    gcc -w -shared -fno-builtin -Wl,-soname,libcuda.so.1 -o target/stub/lib64/libcuda.so target/stub/stub.c
    export CUDA_LIBRARY_PATH=$PWD/target/stub
fi
cargo build --release --locked "$@"
echo "built $PWD/target/release/peftk-cust-launch"
