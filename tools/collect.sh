#!/usr/bin/env bash
# Puts peftk and the test executables into .carry/, stripped, to be run on a GPU machine that has neither Rust nor this source.
#
#   tools/collect.sh                    everything, release build
#   tools/collect.sh --test kernels     what these cargo arguments select, and peftk
#
# PROFILE=dev takes the development build instead. On the GPU machine: .carry/run [FILTER]
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-release}
if [ $# -eq 0 ]; then
    set -- --lib --bins --tests
fi
list=$(mktemp)
trap 'rm -f "$list"' EXIT
PEFTK_REQUIRE_NVCC=1 cargo build --locked --profile "$profile" --bin peftk --message-format=json >"$list"
PEFTK_REQUIRE_NVCC=1 cargo test --locked --profile "$profile" --no-run "$@" --message-format=json >>"$list"

rm -rf .carry
mkdir .carry
# A test executable is named after its target: test-kernels is tests/kernels, test-lib the unit tests of the library.
python3 - "$list" <<'PYTHON'
import json, shutil, sys

for line in open(sys.argv[1]):
    message = json.loads(line) if line.startswith("{") else {}
    executable = message.get("executable")
    if message.get("reason") != "compiler-artifact" or not executable:
        continue
    target = message["target"]
    if not message["profile"]["test"]:
        name = target["name"]
    elif "test" in target["kind"]:
        name = "test-" + target["name"]
    else:
        name = "test-lib" if "lib" in target["kind"] else "test-bin-" + target["name"]
    shutil.copy2(executable, ".carry/" + name)
PYTHON
strip .carry/*
cat >.carry/run <<'RUN'
#!/usr/bin/env bash
# Runs the kernels' tests on this machine's GPU: .carry/run [FILTER]; without a GPU it fails.
set -euo pipefail
cd "$(dirname "$0")"
PEFTK_REQUIRE_GPU=1 exec ./test-kernels "$@"
RUN
chmod +x .carry/run
ls -l .carry
