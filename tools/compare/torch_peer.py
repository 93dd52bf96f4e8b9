"""What users run today, timed on this GPU: one training step of a DINOv2 classifier in bf16 autocast with PyTorch.

usage: python torch_peer.py [--peers transformers:eager,timm:compile] [--strategies lora,dora,full,freeze] [--batches 64]
                            [--size small] [--targets q,v|all-linear] [--rank 8] [--steps 30] [--warmup 6] [--out FILE]

A peer is LIBRARY:MODE, or LIBRARY:MODE+OPTION+OPTION.
  transformers  Dinov2ForImageClassification with SDPA; lora and dora are peft's, and the head is trained with them
  timm          vit_*_patch14_dinov2 at 224 px with its packed qkv; the adapters are this file's own, on the q and v rows of it (all-linear
                is peft's alone), DoRA in its cheapest form: one product with the merged weight
  eager | checkpoint (blocks recomputed) | compile | graphs (compile with CUDA graphs) | autotune (compile, kernels tried out)
  +cudnn        attention by cuDNN, where PyTorch would take another
  +bf16         frozen weights are kept in bf16, which spares casting them in every step

Weights are random, which does not change the speed, and 100 classes. A step is forward, cross entropy, backward and fused AdamW, on f32 images
that lie on the GPU already normalised: the peer is spared decoding, copying and normalising.
Median of --steps after --warmup by CUDA events; a mode that compiles is warm before it is timed.

One JSON object a line on stdout: {"impl","mode","strategy","size","batch","targets","rank","images_per_s","ms_per_step","ms_min","device_mib",
"peak_allocated_mib","peak_reserved_mib","trainable","warmup_s","device","torch","transformers","peft","timm"}. device_mib is what the driver
counts for the process less an empty context, after the steps. A configuration that fails leaves a line with "error" and the exit code is 1.

needs: pip install torch transformers peft timm
"""
import argparse
import contextlib
import gc
import importlib.metadata
import json
import os
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
MODES = {"eager": None, "checkpoint": None, "compile": {}, "graphs": {"mode": "reduce-overhead"},
         "autotune": {"mode": "max-autotune-no-cudagraphs"}}
OPTIONS = ("cudnn", "bf16")
STRATEGIES = ("lora", "dora", "full", "freeze")
CLASSES, SIDE = 100, 224


class PackedAdapter(nn.Module):
    """LoRA or DoRA on the query and value rows of a packed qkv linear."""

    def __init__(self, packed, rank, dora):
        super().__init__()
        width = packed.in_features
        self.packed, self.dora = packed, dora
        # alpha is the rank, so the scale is 1
        self.down = nn.ParameterList(nn.Parameter(torch.empty(rank, width).uniform_(-1, 1) / width ** 0.5) for _ in "qv")
        self.up = nn.ParameterList(nn.Parameter(torch.zeros(width, rank)) for _ in "qv")
        if dora:
            query, _, value = packed.weight.detach().chunk(3)
            self.magnitude = nn.ParameterList(nn.Parameter(rows.norm(dim=1)) for rows in (query, value))

    def forward(self, x):
        if not self.dora:
            query, value = (functional.linear(functional.linear(x, down), up) for down, up in zip(self.down, self.up))
            return self.packed(x) + torch.cat([query, torch.zeros_like(query), value], dim=-1)
        query, key, value = self.packed.weight.chunk(3)
        merged = []
        for rows, down, up, magnitude in zip((query, value), self.down, self.up, self.magnitude):
            direction = rows + up @ down
            merged.append(direction * (magnitude / direction.norm(dim=1).detach())[:, None])
        return functional.linear(x, torch.cat([merged[0], key, merged[1]]), self.packed.bias)


def from_transformers(args, strategy):
    from transformers import Dinov2Config, Dinov2ForImageClassification
    hidden, layers, heads = SIZES[args.size]
    model = Dinov2ForImageClassification(Dinov2Config(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, image_size=518, patch_size=14, num_labels=CLASSES,
        attn_implementation="sdpa"))
    if strategy in ("lora", "dora"):
        from peft import LoraConfig, get_peft_model
        # transformers 5 renamed the projections; the older names are tried so that both versions can be timed
        old = any(name.endswith("attention.query") for name, _ in model.named_modules())
        q, k, v, o = ("query", "key", "value", "attention.output.dense") if old else ("q_proj", "k_proj", "v_proj", "o_proj")
        model = get_peft_model(model, LoraConfig(
            r=args.rank, lora_alpha=args.rank, target_modules=[q, v] if args.targets == "q,v" else [q, k, v, o, "fc1", "fc2"],
            use_dora=strategy == "dora", modules_to_save=["classifier"]))
    return model, lambda images: model(pixel_values=images).logits, "classifier"


def from_timm(args, strategy):
    import timm
    if args.targets != "q,v":
        raise ValueError("timm: adapters on q,v only")
    model = timm.create_model(f"vit_{args.size}_patch14_dinov2", img_size=SIDE, num_classes=CLASSES)
    if strategy in ("lora", "dora"):
        for value in model.parameters():
            value.requires_grad_(False)
        model.head.requires_grad_(True)
        for block in model.blocks:
            block.attn.qkv = PackedAdapter(block.attn.qkv, args.rank, strategy == "dora")
    return model, model, "head"


def build(args, library, mode, options, strategy):
    """The model on the device, and images -> logits."""
    model, forward, head = {"transformers": from_transformers, "timm": from_timm}[library](args, strategy)
    if strategy == "freeze":
        for name, value in model.named_parameters():
            value.requires_grad_(name.startswith(head))
    if mode == "checkpoint" and library == "transformers":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    elif mode == "checkpoint":
        model.set_grad_checkpointing(True)
    for value in model.parameters() if "bf16" in options else []:
        if not value.requires_grad:
            value.data = value.data.bfloat16()
    return model.to(args.device).train(), forward


class Clock:
    """Milliseconds between two marks: the GPU's own events, or the CPU's clock."""

    def __init__(self, device):
        self.cuda = device == "cuda"

    def mark(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, first, last):
        return first.elapsed_time(last) if self.cuda else (last - first) * 1e3

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()


def used_mib():
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2 ** 20


def measure(args, library, mode, strategy, batch, empty_mib):
    """One configuration's line."""
    torch.manual_seed(0)
    mode, *options = mode.split("+")
    model, forward = build(args, library, mode, options, strategy)
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.05, fused=True)
    images = torch.randn(batch, 3, SIDE, SIDE, device=args.device)
    labels = torch.randint(0, CLASSES, (batch,), device=args.device)

    def loss_of(images, labels):
        return functional.cross_entropy(forward(images).float(), labels)

    if MODES[mode] is not None:
        loss_of = torch.compile(loss_of, **MODES[mode])

    def step():
        attention = sdpa_kernel(SDPBackend.CUDNN_ATTENTION) if "cudnn" in options else contextlib.nullcontext()
        with attention, torch.autocast(args.device, dtype=torch.bfloat16):
            loss = loss_of(images, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    clock, start = Clock(args.device), time.perf_counter()
    if clock.cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(args.warmup):
        step()
    clock.wait()
    warmup_s = time.perf_counter() - start
    marks = [clock.mark()]
    for _ in range(args.steps):
        loss = step()
        marks.append(clock.mark())
    clock.wait()
    if not loss.isfinite():
        raise RuntimeError("the loss is not finite, so the timing means nothing")
    times = [clock.between(first, last) for first, last in zip(marks, marks[1:])]
    ms = statistics.median(times)
    line = {"images_per_s": round(batch / ms * 1e3, 1), "ms_per_step": round(ms, 3), "ms_min": round(min(times), 3)}
    if clock.cuda:
        line |= {"device_mib": round(used_mib() - empty_mib, 1), "peak_allocated_mib": round(torch.cuda.max_memory_allocated() / 2 ** 20, 1),
                 "peak_reserved_mib": round(torch.cuda.max_memory_reserved() / 2 ** 20, 1)}
    return line | {"trainable": sum(value.numel() for value in trained), "warmup_s": round(warmup_s, 1)}


def versions():
    found = {}
    for name in ("torch", "transformers", "peft", "timm"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="transformers:eager,timm:compile")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--batches", default="64")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--targets", choices=["q,v", "all-linear"], default="q,v")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=6)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", help="also append the lines to this file")
    args = parser.parse_args()
    args.peers = [tuple(peer.partition(":")[::2]) for peer in args.peers.split(",")]
    for library, mode in args.peers:
        mode, *options = mode.split("+")
        if library not in ("transformers", "timm") or mode not in MODES or not set(options) <= set(OPTIONS):
            parser.error(f"--peers: expected transformers or timm with one of {', '.join(MODES)}, found {library}:{'+'.join([mode, *options])}")
    args.strategies = args.strategies.split(",")
    if not set(args.strategies) <= set(STRATEGIES):
        parser.error(f"--strategies: expected {', '.join(STRATEGIES)}, found {','.join(args.strategies)}")
    args.batches = [int(batch) for batch in args.batches.split(",")]
    return args


def main():
    args = parse()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # what a user in a hurry sets
    name, empty_mib, failed = "CPU", 0.0, False
    if args.device == "cuda":
        torch.zeros(1, device="cuda")
        torch.cuda.empty_cache()
        name, empty_mib = torch.cuda.get_device_name(0), used_mib()
    about = {"device": name, **versions()}
    for library, mode in args.peers:
        for strategy in args.strategies:
            for batch in args.batches:
                adapted = strategy in ("lora", "dora")
                line = {"impl": library, "mode": mode, "strategy": strategy, "size": args.size, "batch": batch,
                        "targets": args.targets if adapted else None, "rank": args.rank if adapted else None}
                try:
                    line |= measure(args, library, mode, strategy, batch, empty_mib)
                except Exception as reason:  # the other configurations still count
                    line["error"] = f"{type(reason).__name__}: {reason}"[:400]
                    failed = True
                torch._dynamo.reset()  # before collecting: compiled code holds its model
                gc.collect()
                if args.device == "cuda":
                    torch.cuda.empty_cache()
                print(json.dumps(line | about), flush=True)
                if args.out:
                    with open(args.out, "a") as file:
                        file.write(json.dumps(line | about) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
