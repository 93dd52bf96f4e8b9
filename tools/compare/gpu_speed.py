"""The bare training step of peftk and of what users run today, on one GPU in one go.

usage: python gpu_speed.py --out FILE.json [--table speed] [--rows REGEX] [--tier best|named|all] [--peers REGEX|none] [--skip-peers REGEX]
                           [--ours EXECUTABLE|none] [--ours-flags WORDS] [--prepare 4] [--deadline SECONDS] [--commit HASH]
       python gpu_speed.py --merge FILE.json FILE.json.. --out FILE.json

The rows of a table, their peers and goals stand in speed_rows.py. Ours is `peftk bench --json` (.carry/peftk or target/release/peftk): wall
time, each step with the upload of its u8 images. The peers are torch_peer.py's, whose page says what a step is there. Every configuration
is a process with a time limit, one at a time, ours before the peers of its row. One row is measured first, whatever --rows says, and ours
and its first peer again at the end, so that a drift of the machine shows.

With --prepare N the peers that compile are first run for one step, N at a time: torch keeps what it compiled, and the timed processes take
it from there. Kernel variants are tried out again in the timed process, alone on the GPU (torch_peer.py sees to that); autotune is never
prepared. After --deadline seconds nothing is started any more but the last measurement of drift; what was left out is said, and the exit
code is 1. A call that is cut short leaves what it had: FILE.json is {"commit","device","settings","ours":[lines],"peers":[lines]}, written
anew after every process; lines have "row", and "drift": "start" or "end" where they tell of nothing else. --merge puts the lines of several
calls together. A table goes to stderr: ours (the fastest of the row), the peer of each goal, the ratio, and the best of all peers.

Exit code 0 when every configuration was measured, 1 when one failed (its line then has "error"), 2 for a wrong command line.

needs: pip install torch transformers peft timm
"""
import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import time

from speed_rows import DRIFT, TABLES, TIERS
from speed_table import table

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
EXECUTABLES = [os.path.join(ROOT, place) for place in (".carry/peftk", "target/release/peftk")]
COMPILES = re.compile(r":(compile|graphs|capture)")  # what --prepare can help


def commit_of_tree():
    """HEAD, with a + when the tree differs from it; None without git."""
    def git(*words):
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()
    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def line_of(words, timeout, **variables):
    """The last JSON line that a command printed, or why there is none. A line with an "error" of its own stands."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, errors="replace", env=os.environ | variables)
        out, wrong = done.stdout, f"exit code {done.returncode}: {done.stderr.strip()[-600:]}"
    except subprocess.TimeoutExpired:
        return {"error": f"no end after {timeout:.0f} s"}
    except OSError as reason:
        return {"error": str(reason)}
    for line in reversed(out.splitlines()):
        try:
            return json.loads(line)
        except ValueError:  # notes of a compiler, or a line that was cut off
            continue
    return {"error": wrong}


def what(row):
    """The configuration, for lines that hold nothing but an error."""
    adapted = row.strategy in ("lora", "dora")
    return {"row": row.name, "strategy": row.strategy, "size": row.size, "batch": row.batch, "targets": row.targets if adapted else None,
            "rank": row.rank if adapted else None}


def ours(args, row, flags):
    """A line of `peftk bench`."""
    words = [args.ours, "bench", "--json", "--quiet", "--device", args.device, "--strategy", row.strategy, "--batch-size", str(row.batch),
             "--size", row.size, "--input-size", str(row.input_size), "--steps", str(row.steps()), "--warmup", "8"]
    flags = [*flags, *args.ours_flags.split()]
    if row.strategy in ("lora", "dora"):
        words += ["--targets", row.targets, "--rank", str(row.rank)]
    return what(row) | line_of(words + flags, args.timeout) | {"flags": " ".join(flags)}


def peer(args, row, name, prepare=False):
    """A line of torch_peer.py; to prepare, one step is enough."""
    steps, warmup = (1, 0) if prepare else (row.steps(), 8)
    words = [sys.executable, os.path.join(HERE, "torch_peer.py"), "--peers", name, "--strategies", row.strategy,
             "--batches", str(row.batch), "--size", row.size, "--input-size", str(row.input_size), "--targets", row.targets,
             "--rank", str(row.rank), "--steps", str(steps), "--warmup", str(warmup), "--device", args.device]
    library, _, mode = name.partition(":")
    # Torch starts up to 32 compiling workers a process otherwise, which would fight for the cores.
    variables = {"TORCHINDUCTOR_COMPILE_THREADS": str(max(1, (os.cpu_count() or 1) // args.prepare))} if prepare else {}
    line = line_of(words, args.autotune_timeout if "autotune" in mode else args.peer_timeout, **variables)
    return what(row) | {"impl": library, "mode": mode} | line | {"peer": name}


class Report:
    """The lines so far, in a file."""

    def __init__(self, args):
        self.path, self.start = args.out, time.perf_counter()
        settings = {key: getattr(args, key) for key in ("table", "rows", "tier", "peers", "skip_peers", "ours_flags", "prepare")}
        self.body = {"commit": args.commit or commit_of_tree(), "device": None, "settings": settings, "ours": [], "peers": []}

    def add(self, side, line, **more):
        line |= more
        self.body[side].append(line)
        self.body["device"] = self.body["device"] or line.get("device")
        self.write()
        print(json.dumps(line), flush=True)

    def write(self):
        with open(self.path + ".part", "w") as file:
            json.dump(self.body, file, indent=1)
            file.write("\n")
        os.replace(self.path + ".part", self.path)

    def seconds(self):
        return time.perf_counter() - self.start


def prepare(args, rows, report):
    """Compiles for the peers, several at a time."""
    wanted = [(row, name) for row, names in rows for name in names if COMPILES.search(name)]
    if not args.prepare or not wanted:
        return
    with concurrent.futures.ThreadPoolExecutor(args.prepare) as pool:
        def one(case):
            if args.deadline is None or report.seconds() < args.deadline / 2:
                peer(args, *case, prepare=True)
        list(pool.map(one, wanted))
    print(f"prepared {len(wanted)} peers: {report.seconds():.0f} s", file=sys.stderr, flush=True)


def measure(args, rows, drift, report):
    """All rows; returns what the deadline left out."""
    left = []

    def one(row, names, first_flags_only=False, **more):
        for flags in (row.ours[:1] if first_flags_only else row.ours) if args.ours != "none" else ():
            report.add("ours", ours(args, row, flags), **more)
        for name in names:
            if args.deadline is not None and report.seconds() > args.deadline and not more:
                left.append(f"{row.name} {name}")
            else:
                report.add("peers", peer(args, row, name), **more)

    rows = sorted(rows, key=lambda case: not drift or case[0] != drift[0])
    # The row itself, where it is measured, is the first of the two.
    if drift and (not rows or rows[0][0] != drift[0]):
        one(*drift, first_flags_only=True, drift="start")
    for row, names in rows:
        if args.deadline is not None and report.seconds() > args.deadline:
            left.append(row.name)
            continue
        one(row, names)
        print(f"{row.name}: {report.seconds():.0f} s", file=sys.stderr, flush=True)
    if drift:
        one(*drift, first_flags_only=True, drift="end")
    return left


def merge(paths, out):
    """The lines of several reports in one; of what was measured again after an error, the error goes."""
    bodies = []
    for path in paths:
        with open(path) as file:
            bodies.append(json.load(file))
    merged = {key: list(dict.fromkeys(body[key] for body in bodies)) for key in ("commit", "device")}
    merged = {key: values[0] if len(values) == 1 else values for key, values in merged.items()}
    merged["settings"] = [body["settings"] for body in bodies]
    for side, key in (("ours", "flags"), ("peers", "peer")):
        lines = [line | {"call": call} for call, body in enumerate(bodies) for line in body[side]]
        measured = {(line["row"], line[key]) for line in lines if "error" not in line}
        merged[side] = [line for line in lines if "error" not in line or (line["row"], line[key]) not in measured]
    with open(out, "w") as file:
        json.dump(merged, file, indent=1)
        file.write("\n")
    return merged


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="FILE.json")
    parser.add_argument("--merge", nargs="+", metavar="FILE.json", help="reports to put together, instead of measuring")
    parser.add_argument("--table", choices=TABLES, default="speed")
    parser.add_argument("--rows", default="", metavar="REGEX", help="rows whose name it is found in [default: all]")
    parser.add_argument("--tier", choices=TIERS, default="best")
    parser.add_argument("--peers", default="", metavar="REGEX", help="peers whose name it is found in, or none")
    parser.add_argument("--skip-peers", metavar="REGEX", help="all but those")
    parser.add_argument("--ours", default=next((path for path in EXECUTABLES if os.path.exists(path)), EXECUTABLES[-1]), help="or none")
    parser.add_argument("--ours-flags", default="", help="more flags for ours, such as '--micro-batch 64'")
    parser.add_argument("--prepare", type=int, default=0, metavar="N", help="compile for so many peers at a time first [default: 0]")
    parser.add_argument("--no-drift", action="store_true", help="nothing is measured twice")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--commit", help="what was measured [default: git's HEAD]")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="nothing is started after it")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one configuration of ours")
    parser.add_argument("--peer-timeout", type=float, default=120, help="seconds for one of a peer")
    parser.add_argument("--autotune-timeout", type=float, default=400, help="seconds for one that tries kernels out")
    args = parser.parse_args()
    if not args.merge and args.ours != "none" and not os.access(args.ours, os.X_OK):
        parser.error(f"--ours: no executable {args.ours}")
    return args


def main():
    args = parse()
    if args.merge:
        report = merge(args.merge, args.out)
        table(TABLES[args.table], report)
        return 1 if any("error" in line for line in report["ours"] + report["peers"]) else 0

    def wanted(name):
        return args.peers != "none" and re.search(args.peers, name) and not (args.skip_peers and re.search(args.skip_peers, name))

    everything = TABLES[args.table]
    rows = [(row, list(filter(wanted, row.peers(args.tier)))) for row in everything if re.search(args.rows, row.name)]
    drift = None if args.no_drift else next((row, row.peers("named")[:1]) for row in everything if row.name == DRIFT[args.table])
    if drift and args.peers == "none":
        drift = (drift[0], [])
    report = Report(args)
    prepare(args, rows + [drift] * bool(drift and drift[0] not in [row for row, _ in rows]), report)
    left = measure(args, rows, drift, report)
    table([row for row, _ in rows], report.body)
    if left:
        print(f"left out for the deadline: {', '.join(left)}", file=sys.stderr)
    return 1 if left or any("error" in line for line in report.body["ours"] + report.body["peers"]) else 0


if __name__ == "__main__":
    sys.exit(main())
