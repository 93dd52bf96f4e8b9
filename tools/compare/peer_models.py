"""The classifiers that torch_peer.py times: DINOv2 as transformers (with peft) and timm build it, with random weights and 100 classes."""
import os

import torch
from torch import nn
from torch.nn import functional

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# width, blocks, heads; micro is peftk's own size, for trying this out without a GPU
SIZES = {"micro": (128, 5, 2), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
CLASSES = 100
ADAPTED = ("lora", "dora")


class PackedAdapter(nn.Module):
    """LoRA or DoRA on the query and value rows of a packed qkv linear.

    DoRA is always one product with the merged weight, its cheapest form; LoRA is x A^T B^T beside the frozen product, as everybody writes
    it, or with `merged` like DoRA.
    """

    def __init__(self, packed, rank, dora, merged):
        super().__init__()
        width = packed.in_features
        self.packed, self.dora, self.merged = packed, dora, merged
        # alpha is the rank, so the scale is 1
        self.down = nn.ParameterList(nn.Parameter(torch.empty(rank, width).uniform_(-1, 1) / width ** 0.5) for _ in "qv")
        self.up = nn.ParameterList(nn.Parameter(torch.zeros(width, rank)) for _ in "qv")
        if dora:
            query, _, value = packed.weight.detach().chunk(3)
            self.magnitude = nn.ParameterList(nn.Parameter(rows.norm(dim=1)) for rows in (query, value))

    def forward(self, x):
        if not self.dora and not self.merged:
            query, value = (functional.linear(functional.linear(x, down), up) for down, up in zip(self.down, self.up))
            return self.packed(x) + torch.cat([query, torch.zeros_like(query), value], dim=-1)
        query, key, value = self.packed.weight.chunk(3)
        merged = [rows + up @ down for rows, down, up in zip((query, value), self.down, self.up)]
        if self.dora:
            merged = [rows * (magnitude / rows.norm(dim=1).detach())[:, None] for rows, magnitude in zip(merged, self.magnitude)]
        return functional.linear(x, torch.cat([merged[0], key, merged[1]]), self.packed.bias)


def from_transformers(args, strategy, options):
    from transformers import Dinov2Config, Dinov2ForImageClassification
    if "merged" in options:
        raise ValueError("transformers: peft has no merged training")
    hidden, layers, heads = SIZES[args.size]
    model = Dinov2ForImageClassification(Dinov2Config(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, image_size=518, patch_size=14, num_labels=CLASSES,
        attn_implementation="sdpa"))
    if strategy in ADAPTED:
        from peft import LoraConfig, get_peft_model
        # transformers 5 renamed the projections; the older names are tried so that both versions can be timed
        old = any(name.endswith("attention.query") for name, _ in model.named_modules())
        q, k, v, o = ("query", "key", "value", "attention.output.dense") if old else ("q_proj", "k_proj", "v_proj", "o_proj")
        model = get_peft_model(model, LoraConfig(
            r=args.rank, lora_alpha=args.rank, target_modules=[q, v] if args.targets == "q,v" else [q, k, v, o, "fc1", "fc2"],
            use_dora=strategy == "dora", modules_to_save=["classifier"]))
    return model, lambda images: model(pixel_values=images).logits, "classifier"


def from_timm(args, strategy, options):
    import timm
    if strategy in ADAPTED and args.targets != "q,v":
        raise ValueError("timm: adapters on q,v only")
    width, depth, heads = SIZES[args.size]
    name = "small" if args.size == "micro" else args.size
    model = timm.create_model(f"vit_{name}_patch14_dinov2", img_size=args.input_size, num_classes=CLASSES, embed_dim=width, depth=depth,
                              num_heads=heads)
    if strategy in ADAPTED:
        for value in model.parameters():
            value.requires_grad_(False)
        model.head.requires_grad_(True)
        for block in model.blocks:
            block.attn.qkv = PackedAdapter(block.attn.qkv, args.rank, strategy == "dora", "merged" in options)
    return model, model, "head"


def build(args, library, mode, options, strategy):
    """The model on the device, and images -> logits."""
    model, forward, head = {"transformers": from_transformers, "timm": from_timm}[library](args, strategy, options)
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
