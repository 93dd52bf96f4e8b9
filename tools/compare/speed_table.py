"""The table of gpu_speed.py, and which line of a report stands for a row: its own, never one of the drift's."""
import sys


def fastest(lines, row, peer=None):
    """The fastest line of a row that was measured, of one peer or of any; None without one."""
    measured = (line for line in lines if line["row"] == row and "images_per_s" in line and "drift" not in line)
    found = [line for line in measured if peer in (None, line.get("peer"))]
    return max(found, key=lambda line: line["images_per_s"], default=None)


def memory(line):
    """MiB: of ours all that the process takes beyond an empty context (on a CPU its plan), of a peer what PyTorch allocated."""
    keys = ("peak_allocated_mib",) if "peer" in line else ("device_mib", "planned_mib")
    return next((line[key] for key in keys if line.get(key) is not None), None)


def cells(line):
    mib = line and memory(line)
    return f"{line['images_per_s']:8.0f} {'-' if mib is None else format(mib, '.0f'):>6}" if line else f"{'-':>8} {'-':>6}"


def verdict(ratio, goal):
    return "aim" if ratio >= goal.aim else "at least" if ratio >= goal.at_least else "below"


def drifts(report, file):
    """How far apart the repeated measurements are."""
    lines = [line for line in report["ours"] + report["peers"] if "images_per_s" in line]

    def key(line):
        return line["row"], line.get("peer", f"ours {line.get('flags')}")

    for repeated in dict.fromkeys(key(line) for line in lines if "drift" in line):
        rates = [line["images_per_s"] for line in lines if key(line) == repeated]
        print(f"drift, {' '.join(repeated)}: {', '.join(f'{rate:.0f}' for rate in rates)} images/s, "
              f"{100 * (max(rates) / min(rates) - 1):.1f} % apart", file=file)


def table(rows, report, file=sys.stderr):
    """Ours beside the peer of every goal, and beside the best of all peers."""
    head = f"{'row':13} {'ours/s':>8} {'MiB':>6}  {'peer/s':>8} {'MiB':>6} {'ratio':>6} {'least':>5} {'aim':>5} {'reached':9} peer"
    print(head, file=file)
    for row in rows:
        mine, best = fastest(report["ours"], row.name), fastest(report["peers"], row.name)
        goals = [(goal.against, goal) for goal in row.goals]
        if best and best["peer"] not in [against for against, _ in goals]:
            goals.append((best["peer"], None))
        for against, goal in goals:
            other = fastest(report["peers"], row.name, against)
            ratio = mine["images_per_s"] / other["images_per_s"] if mine and other else None
            bounds = f"{goal.at_least:5.1f} {goal.aim:5.1f}" if goal else f"{'':5} {'':5}"
            reached = verdict(ratio, goal) if goal and ratio else ""
            best_mark = " (the fastest)" if best is not None and best["peer"] == against else ""
            print(f"{row.name:13} {cells(mine)}  {cells(other)} {'-' if ratio is None else format(ratio, '.2f'):>6} {bounds} {reached:9} "
                  f"{against}{best_mark}", file=file)
    lora, dora = (fastest(report["ours"], name) for name in ("lora-qv-256", "dora-qv-256"))
    if lora and dora:
        print(f"DoRA's step over LoRA's, q,v, batch 256: {lora['images_per_s'] / dora['images_per_s']:.3f}", file=file)
    drifts(report, file)
