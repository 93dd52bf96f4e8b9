"""Sums up a CSV of ncu (--csv --page raw --print-units base) kernel by kernel: python3 tools/profile_summary.py STEP.csv

Columns: launches, time and its share, DRAM traffic a second, operations a second (bf16 tensor products and f32 multiply-adds, where ncu
counts them), occupancy as warps in flight of the most possible, and how much of the time the tensor pipes were busy; the last two are
means weighted by time. Needs Python's standard library alone.
"""

import csv
import sys

TIME = "gpu__time_duration.sum"
BYTES = ("dram__bytes_read.sum", "dram__bytes_write.sum")
OCCUPANCY = "sm__warps_active.avg.pct_of_peak_sustained_active"
TENSOR = (
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
)
# Operations of one count.
OPERATIONS = {"sm__ops_path_tensor_src_bf16_dst_fp32.sum": 1, "sm__sass_thread_inst_executed_op_ffma_pred_on.sum": 2}


def launches(lines):
    """The rows of a report as dictionaries; what ncu says before the table, and the row of units, are left out."""
    lines = list(lines)
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        sys.exit("no table in it: was any launch profiled?")
    return [row for row in csv.DictReader(lines[start:]) if (row.get("ID") or "").isdigit()]


def number(row, name):
    """A metric's value; None where it was not measured."""
    try:
        return float(row[name].replace(",", ""))
    except (KeyError, ValueError, AttributeError):
        return None


def summarise(rows):
    """By kernel: its name and sums, those that took longest first."""
    kernels = {}
    for row in rows:
        nanoseconds = number(row, TIME)
        if nanoseconds is None:
            continue
        # A template's or a function's arguments say nothing here.
        name = row["Kernel Name"].split("(")[0]
        sums = kernels.setdefault(name, dict(count=0, ns=0.0, bytes=None, ops=None, occupancy=0.0, tensor=None))
        sums["count"] += 1
        sums["ns"] += nanoseconds
        moved = [number(row, metric) for metric in BYTES]
        if None not in moved:
            sums["bytes"] = (sums["bytes"] or 0.0) + sum(moved)
        counts = [(number(row, metric), each) for metric, each in OPERATIONS.items()]
        counts = [value * each for value, each in counts if value is not None]
        if counts:
            sums["ops"] = (sums["ops"] or 0.0) + sum(counts)
        sums["occupancy"] += nanoseconds * (number(row, OCCUPANCY) or 0.0)
        busy = next((value for value in (number(row, metric) for metric in TENSOR) if value is not None), None)
        if busy is not None:
            sums["tensor"] = (sums["tensor"] or 0.0) + nanoseconds * busy
    return sorted(kernels.items(), key=lambda kernel: -kernel[1]["ns"])


def line(name, sums, total):
    """One line of the table."""

    def cell(value, form):
        return format("-" if value is None else form.format(value), ">8")

    ns = sums["ns"] or 1.0
    per_ns = {key: None if sums[key] is None else sums[key] / ns for key in ("bytes", "ops", "tensor")}
    return (
        f"{name:<48} {sums['count']:>6} {ns / 1e3:>10.1f} {100 * ns / total:>6.1f}%"
        f" {cell(per_ns['bytes'], '{:.0f}')}"
        f" {cell(None if per_ns['ops'] is None else per_ns['ops'] / 1e3, '{:.1f}')}"
        f" {sums['occupancy'] / ns:>7.1f}% {cell(per_ns['tensor'], '{:.1f}%')}"
    )


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], newline="", encoding="utf-8") as report:
        kernels = summarise(launches(report))
    if not kernels:
        sys.exit("no launch has a time")
    total = sum(sums["ns"] for _, sums in kernels)
    print(f"{'kernel':<48} {'count':>6} {'us':>10} {'share':>7} {'GB/s':>8} {'TFLOP/s':>8} {'occup.':>8} {'tensor':>8}")
    for name, sums in kernels:
        print(line(name, sums, total))
    together = dict(count=0, ns=0.0, bytes=None, ops=None, occupancy=0.0, tensor=None)
    for _, sums in kernels:
        for key, value in sums.items():
            if value is not None:
                together[key] = (together[key] or 0) + value
    print(line("all", together, total))


if __name__ == "__main__":
    main()
