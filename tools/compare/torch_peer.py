"""What users run today, timed on this GPU: one training step of a DINOv2 classifier in bf16 autocast with PyTorch.

usage: python torch_peer.py [--peers transformers:eager,timm:compile] [--strategies lora,dora,full,freeze] [--batches 64]
                            [--size small] [--targets q,v|all-linear] [--rank 8] [--steps 30] [--warmup 8] [--out FILE]

A peer is LIBRARY:MODE, or LIBRARY:MODE+OPTION+OPTION.
  transformers    Dinov2ForImageClassification with SDPA; lora and dora are peft's, and the head is trained with them
  timm            vit_*_patch14_dinov2 at 224 px with its packed qkv; the adapters are peer_models.py's own, on the q and v rows of it
                  (all-linear is peft's alone), DoRA in its cheapest form: one product with the merged weight
  eager | checkpoint (blocks recomputed) | compile | graphs (compile with CUDA graphs, "reduce-overhead") | capture (compile, and the whole
  step with its optimiser in one CUDA graph recorded by hand) | autotune (compile, kernels tried out) | autotune-graphs (both)
  +cudnn          attention by cuDNN, where PyTorch would take another
  +bf16           frozen weights are kept in bf16, which spares casting them in every step; the residual stream is then bf16 too
  +merged         timm's LoRA as one product with the merged weight, as DoRA is
  +microN         N images at a time, gradients accumulated; the step is that of the whole batch
  +budgetN        compile keeps N % of what it would keep for the backward pass (activation_memory_budget), and computes the rest again

Weights are random, which does not change the speed, and 100 classes. A step is forward, cross entropy, backward and fused AdamW, on f32
images that lie on the GPU already normalised: the peer is spared copying and normalising, which ours does within its step.
Median of --steps after --warmup by CUDA events; a mode that compiles is warm before it is timed.

One JSON object a line on stdout: {"impl","mode","strategy","size","batch","targets","rank","images_per_s","ms_per_step","ms_min",
"device_mib","peak_allocated_mib","peak_reserved_mib","trainable","loss","first_step_s","warmup_s","device","torch","transformers","peft",
"timm"}. device_mib is what the driver counts for the process less an empty context, after the steps. A configuration that fails leaves a
line with "error" and the exit code is 1.

needs: pip install torch transformers peft timm
"""
import argparse
import contextlib
import gc
import importlib.metadata
import json
import re
import statistics
import sys
import time

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from peer_models import ADAPTED, CLASSES, SIZES, build

# What torch.compile takes; None: it is not used.
MODES = {"eager": None, "checkpoint": None, "compile": {}, "graphs": {"mode": "reduce-overhead"}, "capture": {},
         "autotune": {"mode": "max-autotune-no-cudagraphs"}, "autotune-graphs": {"mode": "max-autotune"}}
OPTIONS = re.compile(r"cudnn|bf16|merged|micro[1-9]\d*|budget(\d{1,2}|100)")
STRATEGIES = ("lora", "dora", "full", "freeze")


def number_of(options, name):
    """N of an option such as microN; None without it."""
    return next((int(option[len(name):]) for option in options if option.startswith(name)), None)


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


def compiled(loss_of, name, mode, options):
    """torch.compile as the mode and its options ask for it."""
    if MODES[mode] is None:
        if number_of(options, "budget") is not None:
            raise ValueError("budget is for modes that compile")
        return loss_of
    import torch._functorch.config
    import torch._inductor.config
    # What attention backend was asked for is no part of the key that compiled code is found by again.
    torch.compiler.config.cache_key_tag = name
    # Which variant of a kernel is fastest is found out in this process: one that ran beside others may have measured them.
    torch._inductor.config.autotune_local_cache = False
    torch._functorch.config.activation_memory_budget = (number_of(options, "budget") or 100) / 100
    return torch.compile(loss_of, dynamic=False, **MODES[mode])


def step_of(args, library, mode, options, strategy, batch):
    """A training step as a function that returns the loss, and what it trains."""
    model, forward = build(args, library, mode, options, strategy)
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.05, fused=True, capturable=mode == "capture")
    images = torch.randn(batch, 3, args.input_size, args.input_size, device=args.device)
    labels = torch.randint(0, CLASSES, (batch,), device=args.device)
    micro = number_of(options, "micro") or batch
    if batch % micro:
        raise ValueError(f"micro{micro}: no divisor of {batch}")
    parts = list(zip(images.split(micro), labels.split(micro)))
    loss_of = compiled(lambda images, labels: functional.cross_entropy(forward(images).float(), labels) / len(parts),
                       f"{library}:{'+'.join([mode, *options])}", mode, options)
    # A recorded backward pass writes its gradients to the same place each time: they are added to others that stay.
    keep_grads = "graphs" in mode and len(parts) > 1
    if keep_grads:
        for value in trained:
            value.grad = torch.zeros_like(value)

    def step():
        total = None
        for images, labels in parts:
            attention = sdpa_kernel(SDPBackend.CUDNN_ATTENTION) if "cudnn" in options else contextlib.nullcontext()
            if keep_grads:
                torch.compiler.cudagraph_mark_step_begin()
            with attention, torch.autocast(args.device, dtype=torch.bfloat16):
                loss = loss_of(images, labels)
            loss.backward()
            total = loss.detach() if len(parts) == 1 else loss.detach() + (0 if total is None else total)
        optimizer.step()
        optimizer.zero_grad(set_to_none=not keep_grads)
        return total

    return step, trained


def captured(step, warmup):
    """The step as one CUDA graph. It runs a few times on a stream of its own first, as PyTorch's manual has it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warmup):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay():
        graph.replay()
        return loss

    return replay


def measure(args, library, mode, strategy, batch, empty_mib):
    """One configuration's line."""
    torch.manual_seed(0)
    mode, *options = mode.split("+")
    clock = Clock(args.device)
    if mode == "capture" and not clock.cuda:
        raise ValueError("capture: a GPU's alone")
    step, trained = step_of(args, library, mode, options, strategy, batch)
    if clock.cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    step()
    clock.wait()
    first_step_s = time.perf_counter() - start
    if mode == "capture":
        step = captured(step, 3)
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
        line |= {"device_mib": round(used_mib() - empty_mib, 1),
                 "peak_allocated_mib": round(torch.cuda.max_memory_allocated() / 2 ** 20, 1),
                 "peak_reserved_mib": round(torch.cuda.max_memory_reserved() / 2 ** 20, 1)}
    return line | {"trainable": sum(value.numel() for value in trained), "loss": round(float(loss), 4),
                   "first_step_s": round(first_step_s, 1), "warmup_s": round(warmup_s, 1)}


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
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--targets", choices=["q,v", "all-linear"], default="q,v")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=8)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", help="also append the lines to this file")
    args = parser.parse_args()
    args.peers = [tuple(peer.partition(":")[::2]) for peer in args.peers.split(",")]
    for library, mode in args.peers:
        name, *options = mode.split("+")
        if library not in ("transformers", "timm") or name not in MODES or not all(map(OPTIONS.fullmatch, options)):
            parser.error(f"--peers: expected transformers or timm with one of {', '.join(MODES)}, found {library}:{mode}")
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
                adapted = strategy in ADAPTED
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
