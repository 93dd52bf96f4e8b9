"""The bare training step of peftk and of what users run today, on one GPU in one go.

usage: python gpu_speed.py --out FILE.json [--ours EXECUTABLE] [--strategies lora,dora,full,freeze] [--batches 64,256]
                           [--targets q,v|all-linear] [--rank 8] [--size small] [--steps 30]
                           [--peers transformers:eager,timm:compile | none] [--commit HASH]

Ours is examples/train_step.rs (built: .carry/example-train_step or target/release/examples/train_step), the peers are torch_peer.py's,
whose page says what a step is there. Every configuration of ours is a process, every peer is one; one at a time. FILE.json is
{"commit","device","settings","ours":[lines],"peers":[lines]} and is written anew after every process, so that a run cut short leaves what it
had. A table of images a second and memory, ours over the best peer, goes to stderr.

Exit code 0 when every configuration was measured, 1 when one failed (its line then has "error"), 2 for a wrong command line.

needs: pip install torch transformers peft timm
"""
import argparse
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
EXECUTABLES = [os.path.join(ROOT, place) for place in (".carry/example-train_step", "target/release/examples/train_step")]
STRATEGIES = ("lora", "dora", "full", "freeze")


def commit_of_tree():
    """HEAD, with a + when the tree differs from it; None without git."""
    def git(*words):
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()
    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def lines_of(words, timeout):
    """The JSON lines that a command printed, and what went wrong (None: nothing)."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, errors="replace")
        out, wrong = done.stdout, f"exit code {done.returncode}: {done.stderr.strip()[-600:]}" if done.returncode else None
    except subprocess.TimeoutExpired as late:
        out, wrong = late.stdout or "", f"no end after {timeout} s"
        out = out.decode(errors="replace") if isinstance(out, bytes) else out
    except OSError as reason:
        return [], str(reason)
    lines = []
    for line in out.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # notes of a compiler, or a line that was cut off
            continue
    return lines, wrong


def run_ours(args, save):
    """A line a configuration."""
    for strategy in args.strategies:
        for batch in args.batches:
            words = [args.ours, "--strategy", strategy, "--batch", str(batch), "--steps", str(args.steps), "--warmup", str(args.warmup),
                     "--size", args.size, *args.ours_flags.split()]
            adapted = strategy in ("lora", "dora")
            if adapted:
                words += ["--targets", args.targets, "--rank", str(args.rank)]
            lines, wrong = lines_of(words, args.timeout)
            line = lines[-1] if lines and not wrong else {
                "strategy": strategy, "size": args.size, "batch": batch, "targets": args.targets if adapted else None,
                "rank": args.rank if adapted else None, "error": wrong or "no JSON line on stdout"}
            save("ours", [line])


def run_peer(args, peer, save):
    """One peer's lines; those that a crash or the time limit took are named in an error."""
    words = [sys.executable, os.path.join(HERE, "torch_peer.py"), "--peers", peer, "--strategies", ",".join(args.strategies),
             "--batches", ",".join(map(str, args.batches)), "--size", args.size, "--targets", args.targets, "--rank", str(args.rank),
             "--steps", str(args.steps), "--warmup", str(args.peer_warmup), "--device", args.device]
    lines, wrong = lines_of(words, args.peer_timeout)
    wanted = len(args.strategies) * len(args.batches)
    if len(lines) < wanted:
        lines.append({"impl": peer.partition(":")[0], "mode": peer.partition(":")[2],
                      "error": f"{wanted - len(lines)} configurations are missing: {wrong}"})
    save("peers", lines)


def best(lines, strategy, batch):
    found = [line for line in lines if line.get("strategy") == strategy and line.get("batch") == batch and "images_per_s" in line]
    return max(found, key=lambda line: line["images_per_s"], default=None)


def table(args, report):
    """Ours beside the fastest peer and the peer that needs the least memory."""
    print(f"{'strategy':8} {'batch':>5} {'ours/s':>8} {'peer/s':>8} {'ratio':>6}  {'ours MiB':>8} {'peer MiB':>8}  fastest peer", file=sys.stderr)
    for strategy in args.strategies:
        for batch in args.batches:
            ours, peer = best(report["ours"], strategy, batch), best(report["peers"], strategy, batch)
            cell = lambda line, key: f"{line[key]:.0f}" if line and line.get(key) is not None else "-"
            ratio = f"{ours['images_per_s'] / peer['images_per_s']:.2f}" if ours and peer else "-"
            name = f"{peer['impl']}:{peer['mode']}" if peer else "-"
            print(f"{strategy:8} {batch:5} {cell(ours, 'images_per_s'):>8} {cell(peer, 'images_per_s'):>8} {ratio:>6}  "
                  f"{cell(ours, 'device_mib'):>8} {cell(peer, 'device_mib'):>8}  {name}", file=sys.stderr)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="FILE.json")
    parser.add_argument("--ours", default=next((path for path in EXECUTABLES if os.path.exists(path)), EXECUTABLES[-1]), help="or none")
    parser.add_argument("--ours-flags", default="", help="more flags for ours, such as '--micro-batch 16'")
    parser.add_argument("--peers", default="transformers:eager,timm:compile", help="as torch_peer.py takes them, or none")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--batches", default="64,256")
    parser.add_argument("--targets", choices=["q,v", "all-linear"], default="q,v")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--size", default="small")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--peer-warmup", type=int, default=6)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="the peers' (ours needs a GPU)")
    parser.add_argument("--commit", help="what was measured [default: git's HEAD]")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one configuration of ours")
    parser.add_argument("--peer-timeout", type=float, default=480, help="seconds for one peer")
    args = parser.parse_args()
    args.strategies, args.batches = args.strategies.split(","), [int(batch) for batch in args.batches.split(",")]
    if not set(args.strategies) <= set(STRATEGIES):
        parser.error(f"--strategies: expected {', '.join(STRATEGIES)}, found {','.join(args.strategies)}")
    args.peers = [] if args.peers == "none" else args.peers.split(",")
    if args.ours != "none" and not os.access(args.ours, os.X_OK):
        parser.error(f"--ours: no executable {args.ours}")
    return args


def main():
    args = parse()
    settings = {key: getattr(args, key) for key in ("strategies", "batches", "targets", "rank", "size", "steps")}
    report = {"commit": args.commit or commit_of_tree(), "device": None, "settings": settings, "ours": [], "peers": []}

    def save(side, lines):
        report[side] += lines
        report["device"] = report["device"] or next((line["device"] for line in lines if line.get("device")), None)
        with open(args.out + ".part", "w") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
        os.replace(args.out + ".part", args.out)
        for line in lines:
            print(json.dumps(line), flush=True)

    clock = time.perf_counter()
    if args.ours != "none":
        run_ours(args, save)
    print(f"ours: {time.perf_counter() - clock:.0f} s", file=sys.stderr, flush=True)
    for peer in args.peers:
        clock = time.perf_counter()
        run_peer(args, peer, save)
        print(f"{peer}: {time.perf_counter() - clock:.0f} s", file=sys.stderr, flush=True)
    table(args, report)
    return 1 if any("error" in line for line in report["ours"] + report["peers"]) else 0


if __name__ == "__main__":
    sys.exit(main())
