#!/usr/bin/env bash
# Puts peftk, the tests, the benches for a GPU and the example into .carry/, stripped, to be run on a GPU machine that has neither Rust nor
# this source.
#
#   tools/collect.sh                    everything, release build
#   tools/collect.sh --test kernels     the tests that these cargo arguments select, and peftk
#
# PROFILE=dev takes the development build instead, FEATURES=nvtx names ranges for Nsight Systems.
# On the GPU machine: .carry/run [FILTER], .carry/run-all [FOLDER], .carry/bench-kernels --bench [FILTER], tools/profile.sh
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
# Side by side they take the longest one's time: half of it is spent on the host, where the plain loops run.
cat >.carry/run-all <<'RUN'
#!/usr/bin/env bash
# Runs all tests for a GPU at once, each part with a log of its own in the folder given (by default logs): .carry/run-all [FOLDER]
set -uo pipefail
logs=$(mkdir -p "${1:-logs}" && cd "${1:-logs}" && pwd)
cd "$(dirname "$0")/.."
export PEFTK_REQUIRE_GPU=1
part() {
    local name=$1
    shift
    "$@" >"$logs/$name.txt" 2>&1 || echo "$name failed: $logs/$name.txt" >>"$logs/failed"
}
rm -f "$logs/failed"
part kernels .carry/test-kernels &
part gpu-memory .carry/test-gpu memory guard adapters walks &
part gpu-runs .carry/test-gpu runs commands compare explain &
part gpu-rest .carry/test-gpu --skip memory --skip guard --skip adapters --skip walks --skip runs --skip commands --skip compare --skip explain &
wait
grep -H '^test result' "$logs"/*.txt
[ ! -e "$logs/failed" ] || { cat "$logs/failed"; exit 1; }
RUN
chmod +x .carry/run .carry/run-all
ls -l .carry
