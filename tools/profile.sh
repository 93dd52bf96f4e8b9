#!/usr/bin/env bash
# Profiles one training step on this machine's GPU, after warm-up, and prints it kernel by kernel.
#
#   tools/profile.sh [ncu] [ARGUMENTS]   Nsight Compute: time, DRAM bytes, occupancy, tensor pipes of every launch of the step
#   tools/profile.sh nsys [ARGUMENTS]    Nsight Systems: the timeline of five steps; the ranges need a build with --features nvtx
#
# ARGUMENTS are those of examples/train_step.rs but --steps and --warmup: --strategy dora --batch 256 --targets all-linear --rank 16
# The executable is .carry/example-train_step where there is one (tools/collect.sh), so this works without Rust; else
# target/release/examples/train_step. Reports go to $OUT, by default profile.tmp/.
# ncu replays a launch for each group of metrics, from a cleared cache and at the clocks the GPU has: its times are a little longer than in
# the run, and what a kernel finds in the L2 cache from the one before it counts as read from DRAM.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=ncu
case "${1:-}" in
ncu | nsys)
    tool=$1
    shift
    ;;
esac
step=.carry/example-train_step
[ -x "$step" ] || step=target/release/examples/train_step
if [ ! -x "$step" ]; then
    echo "no executable: make collect, or cargo build --release --locked --example train_step" >&2
    exit 2
fi
out=${OUT:-profile.tmp}
mkdir -p "$out"

# NVIDIA's packages put the tools into folders of their own, often not in PATH.
find_tool() {
    local path
    for path in "$(command -v "$1" || true)" /usr/local/cuda*/bin/"$1" /opt/nvidia/nsight-*/*/"$1" /opt/nvidia/nsight-*/*/bin/"$1"; do
        if [ -x "$path" ]; then
            echo "$path"
            return
        fi
    done
    echo "$1 was not found: install NVIDIA's Nsight tools, or put $1 in PATH" >&2
    exit 2
}

if [ "$tool" = nsys ]; then
    nsys=$(find_tool nsys)
    "$nsys" profile --trace=cuda,nvtx --sample=none --cpuctxsw=none --capture-range=cudaProfilerApi --capture-range-end=stop \
        --force-overwrite=true --output "$out/step" "$step" --warmup 3 --steps 5 --profile "$@"
    # Ranges as the GPU spent them, kernels, and the driver's calls.
    "$nsys" stats --force-export=true --report nvtx_gpu_proj_sum --report cuda_gpu_kern_sum --report cuda_gpu_mem_time_sum \
        --report cuda_api_sum "$out/step.nsys-rep" | tee "$out/step.txt"
    exit
fi

ncu=$(find_tool ncu)
# Names differ from one GPU to the next, and an unknown one ends the run: only those that are there are asked for.
known=$("$ncu" --query-metrics 2>/dev/null | awk '{ print $1 }' || true)
metrics=gpu__time_duration.sum
for metric in dram__bytes_read.sum dram__bytes_write.sum sm__warps_active.avg.pct_of_peak_sustained_active \
    sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active \
    sm__ops_path_tensor_src_bf16_dst_fp32.sum sm__sass_thread_inst_executed_op_ffma_pred_on.sum; do
    # Without a list, those that every GPU since compute capability 8.0 has.
    case "$known" in
    '') case $metric in dram* | sm__warps* | sm__inst*) metrics+=,$metric ;; esac ;;
    *) if grep -qx "${metric%%.*}" <<<"$known"; then metrics+=,$metric; fi ;;
    esac
done
if ! "$ncu" --profile-from-start off --clock-control none --metrics "$metrics" --csv --page raw --print-units base \
    --log-file "$out/step.csv" "$step" --warmup 3 --steps 1 --profile "$@" >"$out/step.json"; then
    tail -n 20 "$out/step.csv" "$out/step.json" >&2
    if grep -q ERR_NVGPUCTRPERM "$out/step.csv"; then
        echo "the counters are the administrator's alone on this machine: run as root, or look NVIDIA's page of that error up" >&2
    fi
    exit 1
fi
python3 tools/profile_summary.py "$out/step.csv" | tee "$out/step.txt"
