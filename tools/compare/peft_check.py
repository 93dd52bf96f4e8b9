"""Does transformers + peft, in float64, agree with peftk on the same files?

usage: python peft_check.py BACKBONE ADAPTER IMAGES... --predict LINES.jsonl     an adapter peftk wrote, read by peft
       python peft_check.py --merged DIR IMAGES... --predict LINES.jsonl         a merged folder alone, read by transformers
       python peft_check.py BACKBONE --make DIR [IMAGES...] [what to make]       an adapter peft wrote, for peftk to read
       python peft_check.py --expected DIR --predict LINES.jsonl                 peftk's answer to what --make wrote

LINES.jsonl is what `peftk predict --json --resize squash IMAGES...` printed ('-': standard input). IMAGES are files or folders; they must be
squares whose side is a multiple of 14, so that squash changes no pixel. A line is matched to its image by path. Prints one JSON
line with error = max|a-b| / max|b| over all logits; exit code 0 when it is at most --tolerance (1e-5), 1 when it is not or when an
image, a class or a tensor is missing on either side, 2 for a wrong command line.

--make DIR writes DIR/adapter (peft's two files, every value random), DIR/images (random PNGs, unless IMAGES are given) and
DIR/expected.safetensors (logits [N,classes] and pixel_values [N,3,S,S], both f64) with the image list in DIR/expected.json. What to make:
--strategy lora|dora --rank 4 --alpha 8 --targets q_proj,v_proj --rslora --dropout 0.0 --rank-pattern JSON --alpha-pattern JSON
--classes 5 --count 4 --input-size 56 --seed 0

needs: pip install torch transformers peft pillow safetensors numpy
"""
import argparse
import json
import os
import sys
import warnings

import numpy
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageClassification
from transformers.utils import logging as transformers_logging

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def image_paths(given):
    """The images of files and folders, folders walked in name order."""
    paths = []
    for path in given:
        if os.path.isdir(path):
            found = [os.path.join(d, f) for d, _, files in os.walk(path) for f in files if f.lower().endswith(EXTENSIONS)]
            paths += sorted(found)
        elif os.path.isfile(path):
            paths.append(path)
        else:
            fail(f"{path}: no such image or folder")
    return paths


def pixels(path):
    """[3,H,W] in f64, normalised; refuses a picture that a squash would resample."""
    with Image.open(path) as image:
        if image.size[0] != image.size[1] or image.size[0] % 14:
            fail(f"{path}: expected a square with a side that is a multiple of 14, found {image.size[0]} x {image.size[1]}")
        if image.mode not in ("RGB", "L"):
            fail(f"{path}: expected an RGB or grey image (alpha is blended differently by each program), found mode {image.mode}")
        u8 = torch.from_numpy(numpy.array(image.convert("RGB")))
    scaled = u8.permute(2, 0, 1).to(torch.float64) / 255
    return (scaled - torch.tensor(MEAN, dtype=torch.float64).view(3, 1, 1)) / torch.tensor(STD, dtype=torch.float64).view(3, 1, 1)


def load_backbone(folder, classes):
    """A classifier over the folder's backbone; its own head is kept when it has the wanted number of classes."""
    config = AutoConfig.from_pretrained(folder, **({} if classes is None else {"num_labels": classes}))
    if not config.model_type.startswith("dinov2"):
        fail(f"{folder}: expected a dinov2 or dinov2_with_registers model, found {config.model_type}")
    model, info = AutoModelForImageClassification.from_pretrained(
        folder, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True)
    missing = [name for name in info["missing_keys"] if not name.startswith("classifier.") and not name.endswith("mask_token")]
    if missing or info["unexpected_keys"]:
        fail(f"{folder}: transformers misses {sorted(missing)[:5]} and does not know {sorted(info['unexpected_keys'])[:5]}")
    return model, [name for name in info["missing_keys"] if name.startswith("classifier.")]


def load_adapted(backbone, folder):
    """The classifier with peft's adapter, having made sure that every tensor of the adapter file arrived."""
    with safe_open(os.path.join(folder, "adapter_model.safetensors"), "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
    heads = [shape[0] for name, shape in shapes.items() if name.endswith("classifier.weight")]
    if len(heads) != 1:
        fail(f"{folder}: expected one classifier.weight in the adapter, found {len(heads)}")
    model, _ = load_backbone(backbone, heads[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = PeftModel.from_pretrained(model, folder)
        except (ValueError, RuntimeError) as reason:  # for one, names of transformers 4 under transformers 5
            fail(f"{folder}: peft cannot load it: {' '.join(str(reason).split())[:400]}")
    for warning in caught:
        if "keys" in str(warning.message) and ("missing" in str(warning.message) or "unexpected" in str(warning.message)):
            fail(f"{folder}: {str(warning.message)[:400]}")
    own = [name for name, _ in model.named_parameters() if ".lora_" in name or ".modules_to_save." in name]
    if len(own) != len(shapes):
        fail(f"{folder}: the file has {len(shapes)} tensors and peft's model {len(own)}")
    return model


@torch.no_grad()
def logits_of(model, paths):
    """[N,classes] in f64, one image at a time so that sizes may differ."""
    model = model.to(torch.float64).eval()
    return torch.cat([model(pixel_values=pixels(path).unsqueeze(0)).logits for path in paths])


def read_predictions(path):
    """peftk's lines: {absolute path: logits}."""
    try:
        with (sys.stdin if path == "-" else open(path)) as file:
            lines = [json.loads(line) for line in file if line.strip()]
        return {os.path.abspath(line["path"]): line["logits"] for line in lines}
    except (OSError, ValueError, KeyError, TypeError) as reason:
        fail(f"{path}: expected the lines of peftk predict --json: {reason!r}")


def compare(paths, expected, predictions, tolerance, what):
    """Prints the largest relative error over all logits; the exit code."""
    found = {os.path.abspath(path) for path in paths}
    if found != set(predictions):
        odd = sorted(found ^ set(predictions))
        fail(f"{len(odd)} images are on one side only, the first {odd[0]}")
    classes = {len(row) for row in predictions.values()}
    if classes != {expected.shape[1]}:
        fail(f"peftk has {sorted(classes)} logits an image, {what} {expected.shape[1]}")
    ours = torch.tensor([predictions[os.path.abspath(path)] for path in paths], dtype=torch.float64)
    error = ((ours - expected).abs().max() / expected.abs().max()).item()
    same = (ours.argmax(1) == expected.argmax(1)).sum().item()
    good = error <= tolerance  # False for a NaN
    print(json.dumps({"what": what, "images": len(paths), "classes": expected.shape[1], "error": error, "same_top1": same,
                      "tolerance": tolerance, "ok": good}))
    return 0 if good else 1


def make(args, parser):
    """Writes an adapter with random values as peft saves it, and its logits."""
    torch.manual_seed(args.seed)
    model, fresh = load_backbone(args.paths[0], args.classes)
    size = args.input_size
    if size <= 0 or size % 14:
        parser.error(f"--input-size: expected a positive multiple of 14, found {size}")
    model = get_peft_model(model, LoraConfig(
        r=args.rank, lora_alpha=args.alpha, target_modules=args.targets.split(","), use_dora=args.strategy == "dora",
        use_rslora=args.rslora, lora_dropout=args.dropout, rank_pattern=json.loads(args.rank_pattern),
        alpha_pattern=json.loads(args.alpha_pattern), modules_to_save=["classifier"]))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".modules_to_save." in name or ".lora_A." in name or ".lora_B." in name:
                value.normal_(0, 0.3 / value.shape[-1] ** 0.5 if ".lora_B." not in name else 0.1)
            elif ".lora_magnitude_vector." in name:
                value.mul_(1 + 0.2 * torch.randn_like(value))
    os.makedirs(args.make, exist_ok=True)
    model.save_pretrained(os.path.join(args.make, "adapter"))
    if len(args.paths) > 1:
        paths = image_paths(args.paths[1:])
    else:
        folder = os.path.join(args.make, "images")
        os.makedirs(folder, exist_ok=True)
        paths = [os.path.join(folder, f"{i}.png") for i in range(args.count)]
        for path in paths:  # smooth colours with noise on top: pictures that differ from one another
            coarse = torch.rand(1, 3, 4, 4)
            picture = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")[0] + 0.1 * torch.randn(3, size, size)
            Image.fromarray((picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()).save(path)
    # from the files as written, so that what peft saved is what is answered for
    logits = logits_of(load_adapted(args.paths[0], os.path.join(args.make, "adapter")), paths)
    inputs = [pixels(path) for path in paths]
    tensors = {"logits": logits}
    if len({value.shape for value in inputs}) == 1:
        tensors["pixel_values"] = torch.stack(inputs)
    save_file(tensors, os.path.join(args.make, "expected.safetensors"))
    with open(os.path.join(args.make, "expected.json"), "w") as file:
        json.dump({"backbone": os.path.relpath(args.paths[0], args.make), "files": [os.path.relpath(p, args.make) for p in paths]}, file)
    print(json.dumps({"what": "made", "dir": args.make, "images": len(paths), "classes": logits.shape[1],
                      "strategy": args.strategy, "largest_logit": logits.abs().max().item()}))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", metavar="PATH")
    for flag in ("--predict", "--merged", "--make", "--expected"):
        parser.add_argument(flag)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--strategy", choices=["lora", "dora"], default="dora")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--alpha", type=float, default=8)
    parser.add_argument("--targets", default="q_proj,v_proj")
    parser.add_argument("--rslora", action="store_true")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--rank-pattern", default="{}")
    parser.add_argument("--alpha-pattern", default="{}")
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--input-size", type=int, default=56)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.make:
        if not args.paths:
            parser.error("--make needs a BACKBONE")
        return make(args, parser)
    if not args.predict:
        parser.error("expected --predict LINES.jsonl, or --make DIR")
    predictions = read_predictions(args.predict)
    if args.expected:
        with open(os.path.join(args.expected, "expected.json")) as file:
            paths = [os.path.normpath(os.path.join(args.expected, name)) for name in json.load(file)["files"]]
        expected = load_file(os.path.join(args.expected, "expected.safetensors"))["logits"]
        return compare(paths, expected, predictions, args.tolerance, "peft's adapter")
    if args.merged:
        model, fresh = load_backbone(args.merged, None)
        if fresh:
            fail(f"{args.merged}: has no classifier")
        paths, what = image_paths(args.paths), "transformers, merged folder"
    else:
        if len(args.paths) < 3:
            parser.error("expected BACKBONE ADAPTER IMAGES...")
        model, paths, what = load_adapted(*args.paths[:2]), image_paths(args.paths[2:]), "transformers + peft"
    if not paths:
        parser.error("no images")
    return compare(paths, logits_of(model, paths), predictions, args.tolerance, what)


if __name__ == "__main__":
    sys.exit(main())
