"""What transformers + peft reach on this machine's CPU: one f32 training step of a DINOv2 classifier, timed.

usage: python cpu_peer.py [--strategies lora,dora,full,freeze] [--batch 8] [--size small] [--input-size 224] [--steps 10]
                          [--warmup 2] [--threads N] [--attention sdpa,eager] [--compile] [--targets q,v|all-linear] [--rank 8] [--out FILE]

The model is Dinov2ForImageClassification with random weights (speed does not depend on them), 100 classes; lora and dora adapt
query and value at rank 8 unless told otherwise and train the head, freeze trains the head alone. A step is: normalise random u8
images, forward, cross entropy, backward, AdamW. Threads: all cores. Each strategy runs with each attention implementation, and
the line printed is the faster one's (all of them with --all). Median of --steps after --warmup.

One JSON object a line on stdout: {"impl","strategy","batch","images_per_s","ms_per_step","ms_min","threads","attention","compile",
"size","targets","rank","torch","transformers","peft","torch_cpu_capability","cpu","load_before"}: load_before is the machine's
one-minute load average before the configuration, so that a figure taken on a busy machine shows it.

needs: pip install torch transformers peft
"""
import argparse
import gc
import json
import os
import statistics
import sys
import time

import peft
import torch
import transformers
from transformers import Dinov2Config, Dinov2ForImageClassification

SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = 100


def build(args, strategy, attention):
    """The classifier with the strategy's trainable values, and those values."""
    torch.manual_seed(0)
    hidden, layers, heads = SIZES[args.size]
    config = Dinov2Config(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, image_size=518, patch_size=14,
                          num_labels=CLASSES, attn_implementation=attention)
    model = Dinov2ForImageClassification(config)
    if strategy in ("lora", "dora"):
        # transformers 5 renamed the projections; the older names are tried so that both versions can be timed
        old = any(name.endswith("attention.query") for name, _ in model.named_modules())
        q, k, v, o = ("query", "key", "value", "attention.output.dense") if old else ("q_proj", "k_proj", "v_proj", "o_proj")
        targets = [q, v] if args.targets == "q,v" else [q, k, v, o, "fc1", "fc2"]
        model = peft.get_peft_model(model, peft.LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=targets,
                                                           use_dora=strategy == "dora", modules_to_save=["classifier"]))
    elif strategy == "freeze":
        for name, value in model.named_parameters():
            value.requires_grad = name.startswith("classifier")
    return model.train(), [p for p in model.parameters() if p.requires_grad]


def measure(args, strategy, attention):
    """Milliseconds of each timed step."""
    model, trained = build(args, strategy, attention)
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.05)
    images = torch.randint(0, 256, (args.batch, 3, args.input_size, args.input_size), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (args.batch,))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    forward = torch.compile(model) if args.compile else model
    times = []
    for step in range(args.warmup + args.steps):
        start = time.perf_counter()
        pixels = (images.float() / 255 - mean) / std
        loss = torch.nn.functional.cross_entropy(forward(pixel_values=pixels).logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step >= args.warmup:
            times.append((time.perf_counter() - start) * 1e3)
    if not loss.isfinite():
        sys.exit(f"{strategy}: the loss is not finite, so the timing means nothing")
    return times


def cpu_name():
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", default="lora,dora,full,freeze")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--attention", default="sdpa,eager")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model (needs a C++ compiler)")
    parser.add_argument("--targets", choices=["q,v", "all-linear"], default="q,v")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--all", action="store_true", help="print every attention implementation, not only the faster")
    parser.add_argument("--out", help="also append the lines to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for strategy in args.strategies.split(","):
        if strategy not in ("lora", "dora", "full", "freeze"):
            parser.error(f"--strategies: expected lora, dora, full or freeze, found '{strategy}'")
        lines = []
        for attention in args.attention.split(","):
            load = os.getloadavg()[0]
            times = measure(args, strategy, attention)
            gc.collect()
            ms = statistics.median(times)
            adapted = strategy in ("lora", "dora")
            lines.append({
                "impl": "transformers+peft", "strategy": strategy, "batch": args.batch, "images_per_s": round(args.batch / ms * 1e3, 3),
                "ms_per_step": round(ms, 2), "ms_min": round(min(times), 2), "threads": torch.get_num_threads(), "attention": attention,
                "compile": args.compile, "size": args.size, "targets": args.targets if adapted else None,
                "rank": args.rank if adapted else None, "torch": torch.__version__, "transformers": transformers.__version__,
                "peft": peft.__version__, "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(), "cpu": cpu_name(),
                "load_before": round(load, 2)})
        for line in lines if args.all else [max(lines, key=lambda line: line["images_per_s"])]:
            print(json.dumps(line), flush=True)
            if args.out:
                with open(args.out, "a") as f:
                    f.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
