"""How long peftk takes to its first optimiser step, what compiling kernels costs of that, and how near a run comes to the bare step.

usage: python first_step.py [--peftk EXECUTABLE] [--parts start,loop] [--data DIR | --make N] [--backbone random:small] [--size small]
                            [--strategy lora] [--batch-size 64] [--input-size 224] [--epochs 3] [--repeats 3] [--cache 16GiB]
                            [--device cuda] [--out FILE.json]

  start  seconds from the start of the process, the driver's cache of compiled kernels empty ("cold", once) and filled ("warm", the median
         of --repeats): of `peftk train` on the embedded images to the line of metrics.jsonl with the first step's loss, and of
         `peftk bench --steps 1 --warmup 0` to its end. jit_s is the difference: what compiling PTX costs the first run on a machine.
  loop   `peftk train` for --epochs on DIR, on N photographs made on the spot (JPEG, 500 x 375, 20 classes; needs pillow), or on the
         embedded images. Of each epoch: images a second over its optimiser steps, waiting for data included, without the last and perhaps
         short batch; those of its validation, from the last step's line to the validation's; seconds from one validation to the next. All
         images are decoded before the first step: read_images_per_s counts from the start of the process to the run's first line, so with
         whatever else happens there. Beside it `peftk bench` with the same settings, and with freeze for the validation's forward pass.

Prints one JSON object; a part that could not be measured has an "error", and the exit code is 1. 2 for a wrong command line.
"""
import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXECUTABLES = [os.path.join(ROOT, place) for place in (".carry/peftk", "target/release/peftk")]
CLASSES = 20
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class Watched:
    """A process, and the lines of its metrics.jsonl with the second after its start at which each was there."""

    def __init__(self, words, run, timeout, **variables):
        self.path, self.timeout, self.start = os.path.join(run, "metrics.jsonl"), timeout, time.perf_counter()
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=self.errors, env=os.environ | variables)

    def lines(self):
        """(seconds, line) until the process has ended."""
        file, rest, ended = None, "", False
        while not ended:
            ended = self.process.poll() is not None  # asked before reading, so that what came last is still read
            if file is None and os.path.exists(self.path):
                file = open(self.path)
            rest += file.read() if file else ""
            now = time.perf_counter() - self.start
            *whole, rest = rest.split("\n")
            for line in whole:
                yield now, json.loads(line)
            if now > self.timeout:
                self.process.kill()
                raise RuntimeError(f"no end after {self.timeout:.0f} s")
            time.sleep(0.001)
        if self.process.returncode:
            self.errors.seek(0)
            raise RuntimeError(f"exit code {self.process.returncode}: {self.errors.read().strip()[-400:]}")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def train_words(args, out, *more):
    return [args.peftk, "train", "--quiet", "--device", args.device, "--backbone", args.backbone, "--strategy", args.strategy,
            "--batch-size", str(args.batch_size), "--input-size", str(args.input_size), "--out", out, *more]


def first_step(args, kernels):
    """Seconds to the run's first line, when the model is there, and to the first step's."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run")
        watched = Watched(train_words(args, out, "--epochs", "1"), out, args.timeout, CUDA_CACHE_PATH=kernels)
        times = {}
        for seconds, line in watched.lines():
            times.setdefault(line["kind"], seconds)
            if "step" in times:
                watched.stop()
                return {"model_s": round(times["run"], 3), "first_step_s": round(times["step"], 3)}
    raise RuntimeError("no step was taken")


def bench(args, strategy, **variables):
    """A line of `peftk bench`, with the seconds that its process took; one step where variables are given."""
    steps = ["--steps", "1", "--warmup", "0"] if variables else ["--steps", str(args.steps), "--warmup", "5"]
    words = [args.peftk, "bench", "--json", "--quiet", "--device", args.device, "--size", args.size, "--strategy", strategy,
             "--batch-size", str(args.batch_size), "--input-size", str(args.input_size), "--classes", str(CLASSES), *steps]
    start = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, timeout=args.timeout, env=os.environ | variables)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"bench: exit code {done.returncode}: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"process_s": round(seconds, 3)}


def start_part(args):
    """Cold once, then warm; each of the two programs with a cache of its own, so that both are cold."""
    result = {}
    measures = {"train": lambda kernels: first_step(args, kernels),
                "bench": lambda kernels: {"process_s": bench(args, args.strategy, CUDA_CACHE_PATH=kernels)["process_s"]}}
    for name, measure in measures.items():
        with tempfile.TemporaryDirectory() as kernels:
            cold = measure(kernels)
            warm = [measure(kernels) for _ in range(args.repeats)]
            held = sum(os.path.getsize(os.path.join(base, file)) for base, _, files in os.walk(kernels) for file in files)
        medians = {key: statistics.median(one[key] for one in warm) for key in cold}
        last = list(cold)[-1]
        jit_s = round(cold[last] - medians[last], 3)
        result[name] = {"cold": cold, "warm": medians, "warm_all": warm, "jit_s": jit_s, "jit_cache_bytes": held}
    return result


def epochs_of(lines):
    """Seconds to the run's first line, and of each epoch its rates, from (seconds, line)."""
    epochs, steps, begun, closed = [], [], None, None
    for seconds, line in lines:
        if line["kind"] == "run":
            begun = closed = seconds
        elif line["kind"] == "step":
            steps.append((seconds, line["images_per_s"]))
        elif line["kind"] == "val":
            whole = [rate for _, rate in steps[:-1]]
            epochs.append({
                "steps": len(steps), "images_per_s": round(len(whole) / sum(1 / rate for rate in whole), 1) if whole else None,
                # Without the steps in which the pipeline fills.
                "later_images_per_s": round((len(whole) - 2) / sum(1 / rate for rate in whole[2:]), 1) if len(whole) > 4 else None,
                "validation_images": line["images"], "validation_s": round(seconds - steps[-1][0], 4),
                "validation_images_per_s": round(line["images"] / (seconds - steps[-1][0]), 1), "epoch_s": round(seconds - closed, 3),
            })
            steps, closed = [], seconds
    if not epochs:
        raise RuntimeError("no epoch was validated")
    return begun, epochs


def loop_part(args, data):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run")
        words = train_words(args, out, "--epochs", str(args.epochs), "--cache", args.cache, *(["--data", data] if data else []))
        begun, epochs = epochs_of(Watched(words, out, args.timeout).lines())
    bare, forward = bench(args, args.strategy), bench(args, "freeze")
    later = epochs[1:] or epochs
    best = max((epoch["images_per_s"] or 0 for epoch in later), default=0)
    validation = max(epoch["validation_images_per_s"] for epoch in later)
    files = [file for _, _, names in os.walk(data or "") for file in names if file.lower().endswith(IMAGES)]
    return {"data": data or "embedded", "read_s": round(begun, 3), "read_images_per_s": round(len(files) / begun, 1) if files else None,
            "read_threads": os.cpu_count(), "epochs": epochs, "bare_images_per_s": round(bare["images_per_s"], 1),
            "freeze_images_per_s": round(forward["images_per_s"], 1), "loop_to_bare": round(best / bare["images_per_s"], 3),
            "validation_to_freeze": round(validation / forward["images_per_s"], 3), "device": bare["device"]}


def make_images(folder, count):
    """Photograph-like JPEGs: blurred noise of several scales, so that decoding them costs what decoding photographs does."""
    from PIL import Image, ImageChops

    def one(i):
        rng = random.Random(i)
        image = Image.new("RGB", (500, 375), (128, 128, 128))
        for side in (4, 16, 64, 250):
            noise = Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side)).resize((500, 375), Image.Resampling.BICUBIC)
            image = ImageChops.add(image, noise, 2.0) if side < 250 else Image.blend(image, noise, 0.12)
        path = os.path.join(folder, f"class_{i % CLASSES:02}", f"{i:06}.jpg")
        image.save(path, quality=90)

    for label in range(CLASSES):
        os.makedirs(os.path.join(folder, f"class_{label:02}"), exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(count)))
    return folder


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peftk", default=next((path for path in EXECUTABLES if os.path.exists(path)), EXECUTABLES[-1]))
    parser.add_argument("--parts", default="start,loop")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="DIR")
    source.add_argument("--make", type=int, metavar="N")
    parser.add_argument("--backbone", default="random:small")
    parser.add_argument("--size", default="small", help="the backbone's, for bench")
    parser.add_argument("--strategy", choices=["lora", "dora", "full", "freeze"], default="lora")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50, help="counted steps of the bare step")
    parser.add_argument("--cache", default="16GiB")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--timeout", type=float, default=200, help="seconds for one process")
    parser.add_argument("--out", metavar="FILE.json", help="also write it there")
    args = parser.parse_args()
    args.parts = args.parts.split(",")
    if not set(args.parts) <= {"start", "loop"}:
        parser.error("--parts: expected start, loop or both")
    if not os.access(args.peftk, os.X_OK):
        parser.error(f"--peftk: no executable {args.peftk}")
    return args


def main():
    args = parse()
    report = {key: getattr(args, key) for key in ("backbone", "strategy", "batch_size", "input_size", "epochs", "cache")}
    with tempfile.TemporaryDirectory() as folder:
        for part in args.parts:
            try:
                if part == "start":
                    report[part] = start_part(args)
                else:
                    report[part] = loop_part(args, make_images(folder, args.make) if args.make else args.data)
            except (RuntimeError, OSError, ImportError, ValueError, subprocess.TimeoutExpired) as reason:
                report[part] = {"error": f"{type(reason).__name__}: {reason}"[:600]}
    text = json.dumps(report, indent=1)
    print(text)
    if args.out:
        with open(args.out, "w") as file:
            file.write(text + "\n")
    return 1 if any("error" in report[part] for part in args.parts) else 0


if __name__ == "__main__":
    sys.exit(main())
