"""Does peftk on a GPU compute what transformers + peft compute: logits, and the losses of a training run on the same images?

usage: python gpu_parity.py --backbone DIR [--peftk EXECUTABLE] [--parts logits,dora,lora] [--out REPORT.json]

DIR is a transformers folder of a DINOv2 backbone (config.json, model.safetensors), or `random`: a ViT-S/14 with random weights, made on
the spot. Adapters and the head are made by peft, images by this script; both programs read the same files.

  logits  a random head and an adapter with a non-zero B, DoRA and LoRA: `peftk predict` in f32 and bf16 against peft in float64.
          error = max|a-b| / max|b| over all logits. torch's own f32 (no TF32) and bf16 autocast on the same device are given beside it.
  dora    --steps AdamW steps (q,v, constant rate, no augmentation, no shuffling) from one initial adapter and head, by `peftk train` and by
          peft's own loop on the same u8 batches, in bf16 (autocast) and in f32. Means over --window steps have to agree within 3 % or 0.02.
  lora    the same with LoRA, --lora-steps steps.

Images are --input-size squares, so that no program resizes them. --layout mixed (the default) names them in a labels.csv, in which classes
alternate at random; --layout folders has a folder a class, whose order makes every batch one or two classes: the loss then jumps.

Prints one JSON report; exit code 0 when all that was asked for agrees, 1 when something does not or could not be run (its part then has an
"error"), 2 for a wrong command line. --device cpu runs both programs on the CPU, f32 alone.

needs: pip install torch transformers peft pillow safetensors numpy
"""
import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all files are local; peft would ask the hub while it saves

import numpy
import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from safetensors.torch import load_file
from transformers import Dinov2Config, Dinov2Model

from peft_check import MEAN, STD, load_adapted, load_backbone, read_predictions

HERE = os.path.dirname(os.path.abspath(__file__))
EXECUTABLES = [os.path.join(HERE, "..", "..", place) for place in (".carry/peftk", "target/release/peftk")]
LABEL_NOISE = 0.1  # images with another class's label, so that the loss neither reaches zero nor loses its gradients


# Images

def picture(label, classes, size, rng):
    """[S,S,3] u8: a gradient and a shape whose colours and directions tell the class, at a random place, with noise on top."""
    y, x = numpy.mgrid[0:size, 0:size] / size
    angle = 2 * numpy.pi * label / classes + rng.normal(0, 0.15)
    ramp = (numpy.cos(angle) * (x - 0.5) + numpy.sin(angle) * (y - 0.5) + 0.7) / 1.4
    hue = numpy.array([numpy.sin(2 * numpy.pi * (label / classes + shift)) for shift in (0, 1 / 3, 2 / 3)])
    colour = 0.5 + 0.3 * hue + rng.normal(0, 0.12, 3)
    image = ramp[..., None] * colour + (1 - ramp[..., None]) * (1 - colour)
    cx, cy, radius = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), rng.uniform(0.12, 0.28)
    round_distance, square_distance = numpy.hypot(x - cx, y - cy), numpy.maximum(abs(x - cx), abs(y - cy))
    inside = [round_distance < radius, square_distance < radius, (round_distance < radius) & (round_distance > 0.6 * radius),
              abs(x - cx) + abs(y - cy) < radius, (numpy.sin(40 * (x - cx)) > 0) & (square_distance < radius)][label % 5]
    image[inside] = rng.uniform(0, 1, 3) * 0.4 + 0.6 * (label % 3) / 2
    return (numpy.clip(image + rng.normal(0, 0.12, image.shape), 0, 1) * 255).round().astype(numpy.uint8)


def make_images(args, folder):
    """Writes the data folder that peftk reads; the same images [N,S,S,3] u8 and labels in the order of its batches, and the paths."""
    rng = numpy.random.default_rng(args.seed)
    shown = numpy.arange(args.images) % args.classes
    if args.layout == "mixed":
        rng.shuffle(shown)
    else:
        shown.sort()
    wrong = rng.random(args.images) < LABEL_NOISE
    labels = numpy.where(wrong, rng.integers(0, args.classes, args.images), shown)
    if args.layout == "folders":
        order = numpy.argsort(labels, kind="stable")  # a class's images lie together by their label, not by what they show
        shown, labels = shown[order], labels[order]
    names = [f"{i:05}.png" if args.layout == "mixed" else f"class_{labels[i]:03}/{i:05}.png" for i in range(args.images)]
    paths = [os.path.join(folder, name) for name in names]
    for path in {os.path.dirname(path) for path in paths}:
        os.makedirs(path, exist_ok=True)
    if args.layout == "mixed":
        with open(os.path.join(folder, "labels.csv"), "w") as file:
            print("filename", *(f"class_{c:03}" for c in range(args.classes)), sep=",", file=file)
            for name, label in zip(names, labels):
                print(name, *(int(c == label) for c in range(args.classes)), sep=",", file=file)

    def one(i):
        image = picture(shown[i], args.classes, args.input_size, numpy.random.default_rng([args.seed, i]))
        Image.fromarray(image).save(paths[i], compress_level=1)
        return image

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        images = numpy.stack(list(pool.map(one, range(args.images))))
    return torch.from_numpy(images), torch.from_numpy(labels.astype(numpy.int64)), paths


# Models

def random_backbone(folder, seed):
    """A ViT-S/14 as transformers initialises it."""
    torch.manual_seed(seed)
    Dinov2Model(Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)).save_pretrained(folder)
    return folder


def make_adapter(args, backbone, folder, strategy, trained):
    """An adapter on q and v with the head, as peft writes it: fresh, or with values as if `trained`."""
    torch.manual_seed(args.seed)
    model, _ = load_backbone(backbone, args.classes)
    model.classifier.reset_parameters()  # a folder may have a head of its own
    old = any(name.endswith("attention.query") for name, _ in model.named_modules())  # transformers 5 renamed the projections
    model = get_peft_model(model, LoraConfig(
        r=args.rank, lora_alpha=2 * args.rank if trained else args.rank, target_modules=["query", "value"] if old else ["q_proj", "v_proj"],
        use_dora=strategy == "dora", modules_to_save=["classifier"]))
    with torch.no_grad():
        for name, value in model.named_parameters() if trained else []:
            if ".modules_to_save." in name or ".lora_A." in name:
                value.normal_(0, 0.3 / value.shape[-1] ** 0.5)
            elif ".lora_B." in name:
                value.normal_(0, 0.1)
            elif ".lora_magnitude_vector." in name:
                value.mul_(1 + 0.1 * torch.randn_like(value))
    model.save_pretrained(folder)
    return folder


def normalised(images, dtype):
    """[N,3,S,S] of [N,S,S,3] u8."""
    mean, std = (torch.tensor(value, dtype=dtype, device=images.device) for value in (MEAN, STD))
    return ((images.to(dtype) / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def autocast(args, precision):
    return torch.autocast(args.device, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


# peftk

def peftk(args, words):
    """Runs the executable; its standard output. RuntimeError with what it said, when it fails."""
    try:
        done = subprocess.run([args.peftk, *words], capture_output=True, text=True, timeout=args.timeout, errors="replace")
    except subprocess.TimeoutExpired as late:
        raise RuntimeError(f"peftk {words[0]}: no end after {late.timeout} s") from None
    if done.returncode:
        raise RuntimeError(f"peftk {words[0]} ended with {done.returncode}: {done.stderr.strip()[-1500:]}")
    return done.stdout


def device_words(args, precision):
    # the CPU knows f32 alone, and older executables have no --precision for predict
    return ["--device", args.device] + (["--precision", precision] if args.device == "cuda" else [])


# Logits

def error(found, expected):
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


def logits(args, backbone, folder, images, paths):
    """Each program's and precision's largest relative error of an adapter's logits."""
    report = {"images": args.logit_images, "tolerance_f32": args.tolerance, "bf16_at_most_times_torch": args.bf16_factor}
    images, paths = images[:args.logit_images].to(args.device), paths[:args.logit_images]
    good = True
    for strategy in ("dora", "lora"):
        adapter = make_adapter(args, backbone, os.path.join(folder, f"trained-{strategy}"), strategy, trained=True)
        model = load_adapted(backbone, adapter).to(args.device).eval()
        part = report[strategy] = {}
        with torch.no_grad():
            theirs = {}
            for precision in ("f32", "bf16"):
                with autocast(args, precision):
                    theirs[precision] = model(pixel_values=normalised(images, torch.float32)).logits.double()
            expected = model.double()(pixel_values=normalised(images, torch.float64)).logits
            for module in model.modules():
                if isinstance(module, BaseTunerLayer):  # the head stays
                    module.enable_adapters(False)
            unadapted = model(pixel_values=normalised(images, torch.float64)).logits
        part["largest_logit"] = expected.abs().max().item()
        # how much of the answer is the adapter's: an adapter that is ignored must not pass
        part["adapter_changes_logits_by"] = error(unadapted, expected)
        for precision in args.precisions:
            part[f"torch_{precision}"] = error(theirs[precision], expected)
        for precision in args.precisions:
            words = ["predict", "--backbone", backbone, "--adapter", adapter, "--input-size", str(args.input_size), "--resize", "squash",
                     "--json", "--quiet", *device_words(args, precision), *paths]
            try:
                lines = os.path.join(folder, f"{strategy}-{precision}.jsonl")
                with open(lines, "w") as file:
                    file.write(peftk(args, words))
                found = read_predictions(lines)
                ours = torch.tensor([found[os.path.abspath(path)] for path in paths], dtype=torch.float64, device=args.device)
                part[f"peftk_{precision}"] = error(ours, expected)
                part[f"same_top1_{precision}"] = (ours.argmax(1) == expected.argmax(1)).sum().item()
            except (RuntimeError, KeyError, SystemExit) as reason:
                part[f"error_{precision}"] = str(reason)
                good = False
                continue
            limit = args.tolerance if precision == "f32" else args.bf16_factor * part["torch_bf16"]
            part[f"ok_{precision}"] = part[f"peftk_{precision}"] <= limit  # False for a NaN
            good &= part[f"ok_{precision}"]
    report["ok"] = good
    return report


# Training

def peft_losses(args, backbone, adapter, images, labels, steps, precision):
    """Losses before each update of peft's own loop, and the adapter's tensors at its end."""
    torch.manual_seed(args.seed)
    model = load_adapted(backbone, adapter).to(args.device).train()
    for name, value in model.named_parameters():
        value.requires_grad_(".lora_" in name or ".modules_to_save." in name)
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=args.lr, weight_decay=args.weight_decay)
    images, labels, losses = images.to(args.device), labels.to(args.device), []
    for step in range(steps):
        first = step * args.batch % len(images)
        part = slice(first, first + args.batch)
        with autocast(args, precision):
            outputs = model(pixel_values=normalised(images[part], torch.float32)).logits
        loss = torch.nn.functional.cross_entropy(outputs.float(), labels[part])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return torch.stack(losses).tolist(), {name: value.float().cpu() for name, value in get_peft_model_state_dict(model).items()}


def peftk_losses(args, backbone, adapter, data, steps, precision, run):
    """The same of `peftk train`."""
    peftk(args, ["train", "--data", data, "--task", "multiclass", "--backbone", backbone, "--init-adapter", adapter, "--out", run,
                 "--input-size", str(args.input_size), "--epochs", str(steps * args.batch // args.images), "--batch-size", str(args.batch),
                 "--lr", repr(args.lr), "--weight-decay", repr(args.weight_decay), "--schedule", "constant", "--augment", "none",
                 "--resize", "squash", "--no-shuffle", "--val-fraction", "0", *device_words(args, precision)])
    with open(os.path.join(run, "metrics.jsonl")) as file:
        lines = [json.loads(line) for line in file]
    found = [line for line in lines if line["kind"] == "step"]
    if [line["step"] for line in found] != list(range(1, steps + 1)):
        raise RuntimeError(f"{run}: expected steps 1 to {steps}, found {len(found)}")
    end = {key: value for key, value in lines[-1].items() if key != "kind"}
    return [line["loss"] for line in found], load_file(os.path.join(run, "adapter", "adapter_model.safetensors")), end


def windows(args, ours, theirs):
    """Means over windows, side by side."""
    rows = []
    for first in range(0, len(ours), args.window):
        a, b = (sum(part) / len(part) for part in (ours[first:first + args.window], theirs[first:first + args.window]))
        rows.append({"steps": [first + 1, first + min(args.window, len(ours) - first)], "peftk": a, "peft": b, "difference": a - b,
                     "percent": 100 * (a - b) / b, "ok": abs(a - b) <= max(0.03 * b, 0.02)})
    return rows


def moved_apart(start, ours, theirs):
    """By kind of tensor: the distance between both ends over the distance that peft's went."""
    sums = {}
    for name, end in theirs.items():
        kind = next((kind for kind in ("lora_A", "lora_B", "lora_magnitude_vector") if kind in name), name.rsplit(".", 2)[-2])
        apart, went = sums.get(kind, (0.0, 0.0))
        sums[kind] = (apart + (ours[name] - end).square().sum().item(), went + (end - start[name]).square().sum().item())
    return {kind: (apart / went) ** 0.5 if went else None for kind, (apart, went) in sums.items()}


def training(args, backbone, folder, data, images, labels, strategy, steps):
    """Losses of both programs in each precision."""
    adapter = make_adapter(args, backbone, os.path.join(folder, f"fresh-{strategy}"), strategy, trained=False)
    start = load_file(os.path.join(adapter, "adapter_model.safetensors"))
    report = {"steps": steps, "batch": args.batch, "images": args.images, "lr": args.lr, "weight_decay": args.weight_decay, "layout": args.layout}
    good, peft_by_precision = True, {}
    for precision in args.precisions:
        part = report[precision] = {}
        before = time.perf_counter()
        theirs, their_end = peft_losses(args, backbone, adapter, images, labels, steps, precision)
        peft_by_precision[precision] = theirs
        part["peft_s"] = round(time.perf_counter() - before, 1)
        before = time.perf_counter()
        try:
            ours, our_end, end = peftk_losses(args, backbone, adapter, data, steps, precision, os.path.join(folder, f"run-{strategy}-{precision}"))
            if set(our_end) != set(their_end):
                raise RuntimeError(f"names that only one adapter has: {sorted(set(our_end) ^ set(their_end))[:4]}")
        except (RuntimeError, OSError) as reason:
            part.update(error=str(reason), losses={"peft": theirs})
            good = False
            continue
        part["peftk_s"] = round(time.perf_counter() - before, 1)
        part["windows"] = windows(args, ours, theirs)
        part["largest_step_difference"] = max(abs(a - b) for a, b in zip(ours, theirs))
        part["first_step_difference"] = ours[0] - theirs[0]
        part["adapters_moved_apart"] = moved_apart(start, our_end, their_end)
        part["peftk_end"] = end
        part["ok"] = all(row["ok"] for row in part["windows"])
        part["losses"] = {"peftk": ours, "peft": theirs}
        good &= part["ok"]
    if len(peft_by_precision) == 2:  # how far rounding alone takes the reference
        report["peft_bf16_against_peft_f32"] = windows(args, peft_by_precision["bf16"], peft_by_precision["f32"])
        for row in report["peft_bf16_against_peft_f32"]:
            row["peft_bf16"], row["peft_f32"] = row.pop("peftk"), row.pop("peft")
    report["ok"] = good
    return report


def brief(report):
    """The report without the losses of single steps."""
    if isinstance(report, dict):
        return {key: brief(value) for key, value in report.items() if key != "losses"}
    return [brief(value) for value in report] if isinstance(report, list) else report


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, metavar="DIR|random")
    parser.add_argument("--peftk", default=next((path for path in EXECUTABLES if os.path.exists(path)), EXECUTABLES[-1]))
    parser.add_argument("--parts", default="logits,dora")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--precisions", default="bf16,f32")
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lora-steps", type=int, default=100)
    parser.add_argument("--window", type=int, default=20)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--layout", choices=["mixed", "folders"], default="mixed")
    parser.add_argument("--logit-images", type=int, default=16)
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest error of f32 logits")
    parser.add_argument("--bf16-factor", type=float, default=1.5, help="largest error of bf16 logits, in times torch's autocast's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=240, help="seconds that one run of peftk may take")
    parser.add_argument("--keep", metavar="DIR", help="leave images, adapters and runs there")
    parser.add_argument("--out", metavar="FILE", help="the report with the losses of all steps")
    args = parser.parse_args()
    args.parts, args.precisions = args.parts.split(","), args.precisions.split(",")
    args.peftk = os.path.abspath(args.peftk)
    if args.device == "cpu":
        args.precisions = ["f32"]
    for flag, found, known in (("--parts", args.parts, {"logits", "dora", "lora"}), ("--precisions", args.precisions, {"f32", "bf16"})):
        if not set(found) <= known:
            parser.error(f"{flag}: expected some of {','.join(sorted(known))}, found {','.join(found)}")
    for steps in (args.steps, args.lora_steps):
        if args.images % args.batch or steps * args.batch % args.images:
            parser.error(f"{steps} steps of {args.batch} images are no whole epochs of {args.images} images in whole batches")
    if not os.access(args.peftk, os.X_OK):
        parser.error(f"--peftk: no executable {args.peftk}")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU")
    return args


def main():
    args = parse()
    # f32 has to mean f32: cuDNN would take TF32 for the patch embedding by default
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    report = {"device": torch.cuda.get_device_name(0) if args.device == "cuda" else "CPU", "backbone": args.backbone, "input_size": args.input_size,
              "torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__, "seconds": {}}
    with tempfile.TemporaryDirectory(prefix="peftk-parity-") as temporary:
        folder = os.path.abspath(args.keep) if args.keep else temporary
        backbone, data = args.backbone, os.path.join(folder, "data")
        clock = time.perf_counter()
        images, labels, paths = make_images(args, data)
        if backbone == "random":
            backbone = random_backbone(os.path.join(folder, "backbone"), args.seed)
        report["seconds"]["files"] = round(time.perf_counter() - clock, 1)
        for part in args.parts:
            clock = time.perf_counter()
            try:
                if part == "logits":
                    report[part] = logits(args, backbone, folder, images, paths)
                else:
                    steps = args.steps if part == "dora" else args.lora_steps
                    report[part] = training(args, backbone, folder, data, images, labels, part, steps)
            except (Exception, SystemExit) as reason:  # one part's failure must not cost the others' figures
                report[part] = {"ok": False, "error": f"{type(reason).__name__}: {reason}"[:2000]}
            report["seconds"][part] = round(time.perf_counter() - clock, 1)
            print(f"{part}: {'ok' if report[part]['ok'] else 'NOT OK'}, {report['seconds'][part]} s", file=sys.stderr, flush=True)
    report["ok"] = all(report[part]["ok"] for part in args.parts)
    if args.out:
        with open(args.out, "w") as file:
            json.dump(report, file)
            file.write("\n")
    print(json.dumps(brief(report)))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
