#!/usr/bin/env bash
# Makes .venv in the repository with what only a build needs: NVIDIA's nvcc, and libclang for regenerating src/kernels/params.rs.
# Running the program needs neither. Safe to run again: when everything is there it only says where.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "setup: $1" >&2
    exit 1
}

# All five extras: nvcc alone pulls newer parts, whose PTX the driver for CUDA 13.0 refuses.
packages=('cuda-toolkit[nvcc,crt,nvvm,cudart,cccl]==13.0.2' 'libclang==18.1.1')
# Written last, so that an interrupted installation is taken up again, and a changed list is installed anew.
stamp=.venv/peftk-setup.txt
wanted="${packages[*]}"

command -v g++ >/dev/null || fail "g++ is missing (nvcc needs a host compiler): install it, on Debian 'apt-get install g++'"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    command -v python3 >/dev/null || fail "python3 is missing: install it, on Debian 'apt-get install python3 python3-venv'"
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        python3 -c 'import venv, ensurepip' 2>/dev/null ||
            fail "python3 has no venv: install it, on Debian 'apt-get install python3-venv'"
        python3 -m venv --clear .venv || fail "could not make .venv with python3 -m venv"
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "${packages[@]}" ||
        fail "pip could not install: ${packages[*]}"
    # cargo does not watch a folder that was not there: a newer build.rs makes it look for nvcc again.
    touch build.rs
fi

nvcc=$(echo .venv/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)
[ -x "$nvcc" ] || fail "nvcc is not at $nvcc: remove .venv and run this again"
"$nvcc" --version >/dev/null || fail "$nvcc does not run here: remove .venv and run this again"
echo "$wanted" >"$stamp"
echo "nvcc: $PWD/$nvcc"
