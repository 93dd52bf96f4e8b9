#!/usr/bin/env bash
# Puts peftk, the tests, the benches for a GPU and the example into .carry/, stripped, to be run on a GPU machine that has neither Rust nor
# this source.
#
#   tools/collect.sh                    everything, release build
#   tools/collect.sh --test kernels     the tests that these cargo arguments select, and peftk
#
# PROFILE=dev takes the development build instead, FEATURES=nvtx names ranges for Nsight Systems.
# On the GPU machine: .carry/run [FILTER], .carry/bench-kernels --bench [FILTER], tools/profile.sh
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-release}
programs=(--bin peftk)
if [ $# -eq 0 ]; then
    set -- --lib --bins --tests
    programs+=(--example train_step --bench kernels --bench strategies)
fi
common=(--locked --profile "$profile" --features "${FEATURES:-}" --message-format=json)
list=$(mktemp)
trap 'rm -f "$list"' EXIT
PEFTK_REQUIRE_NVCC=1 cargo build "${common[@]}" "${programs[@]}" >"$list"
PEFTK_REQUIRE_NVCC=1 cargo test "${common[@]}" --no-run "$@" >>"$list"

rm -rf .carry
mkdir .carry
# An executable is named after its target: test-kernels is tests/kernels, bench-kernels benches/kernels.rs, example-train_step
# examples/train_step.rs, test-lib the unit tests of the library.
python3 - "$list" <<'PYTHON'
import json, shutil, sys

for line in open(sys.argv[1]):
    message = json.loads(line) if line.startswith("{") else {}
    executable = message.get("executable")
    if message.get("reason") != "compiler-artifact" or not executable:
        continue
    target = message["target"]
    kind = target["kind"][0]
    if kind in ("bench", "example"):
        name = kind + "-" + target["name"]
    elif not message["profile"]["test"]:
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
