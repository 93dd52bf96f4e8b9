"""What gpu_speed.py measures: rows, the peers of each, and how much faster than which of them ours is to be.

A row is a training step of one strategy. Its peers are named as torch_peer.py takes them, in three tiers:
  named  those that a goal is set against
  best   others that may be faster, so that ours is compared with the best there is
  all    others that save memory, or try kernels out for minutes
"""
from typing import NamedTuple

TIERS = ("named", "best", "all")


class Goal(NamedTuple):
    """Ours over a peer, images a second: what has to be reached, and what is aimed at."""

    against: str
    at_least: float
    aim: float


class Row(NamedTuple):
    name: str
    strategy: str
    batch: int
    goals: tuple = ()
    best: tuple = ()
    all: tuple = ()
    targets: str = "q,v"
    rank: int = 8
    size: str = "small"
    input_size: int = 224
    # Flags of `peftk bench`, each a measurement of its own: what fits into plenty of memory, and what a user gets who asks for nothing.
    ours: tuple = (("--memory-budget", "20GiB"), ("--memory", "fast"))

    def peers(self, tier):
        """The peers up to a tier, each once, those of the goals first."""
        tiers = {"named": (), "best": self.best, "all": self.best + self.all}
        return list(dict.fromkeys([*(goal.against for goal in self.goals), *tiers[tier]]))

    def steps(self):
        """Counted steps: about a second and a half of them."""
        return 40 if self.batch >= 256 else 100 if self.batch >= 64 else 250


def adapters(batch, goals, best, everything=()):
    """Rows of LoRA and DoRA on q and v, the goals and peers of each."""
    return [Row(f"{strategy}-qv-{batch}", strategy, batch, goals[strategy], best[strategy], everything)
            for strategy in ("lora", "dora") if strategy in goals]


COMPILE, GRAPHS, BEST = "timm:compile", "timm:graphs", "+cudnn+bf16"
HF_EAGER, HF_COMPILE = "transformers:eager", "transformers:compile"

SPEED = [
    *adapters(256, {
        "lora": (Goal(COMPILE + BEST, 1.7, 2.4),),
        "dora": (Goal(GRAPHS + BEST, 1.5, 2.0), Goal(HF_EAGER, 4.7, 6.5)),
    }, {
        "lora": (GRAPHS + BEST, GRAPHS + BEST + "+merged", HF_EAGER),
        "dora": (COMPILE + BEST,),
    }, (COMPILE, "timm:checkpoint", COMPILE + BEST + "+micro64", COMPILE + BEST + "+budget50", "timm:autotune" + BEST)),
    Row("lora-all-256", "lora", 256, (Goal(HF_COMPILE, 2.2, 3.5),), (HF_COMPILE + BEST,), (HF_EAGER, "transformers:graphs" + BEST),
        targets="all-linear", rank=16),
    Row("dora-all-256", "dora", 256, (Goal(HF_COMPILE, 2.5, 4.5), Goal(HF_EAGER, 9, 16)), (HF_COMPILE + BEST,),
        ("transformers:graphs" + BEST,), targets="all-linear", rank=16),
    Row("full-256", "full", 256, (Goal(COMPILE, 1.5, 2.0),), (COMPILE + "+cudnn",),
        (HF_EAGER, "timm:graphs+cudnn", COMPILE + "+cudnn+micro64", "timm:autotune+cudnn")),
    Row("freeze-256", "freeze", 256, (Goal(COMPILE, 1.5, 2.0),), (GRAPHS + BEST,), (COMPILE + BEST, "timm:autotune" + BEST)),
    *adapters(64, {"lora": (Goal(GRAPHS, 1.8, 2.5),), "dora": (Goal(GRAPHS + BEST, 1.5, 2.0),)},
              {"lora": (GRAPHS + BEST, GRAPHS + BEST + "+merged"), "dora": ("timm:capture" + BEST,)}, (HF_EAGER,)),
    *adapters(16, {"lora": (Goal(GRAPHS, 2.0, 3.5),), "dora": (Goal(GRAPHS, 2.0, 3.5),)},
              {"lora": (GRAPHS + BEST, "timm:capture" + BEST + "+merged"), "dora": ("timm:capture" + BEST,)}, (HF_EAGER,)),
    # No aim was set beyond these: both bounds are one.
    Row("vitb-lora-64", "lora", 64, (Goal(COMPILE, 1.3, 1.3),), (COMPILE + BEST,), size="base"),
    Row("vitl-lora-64", "lora", 64, (Goal(COMPILE, 1.3, 1.3),), (COMPILE + BEST,), size="large"),
]

# For trying the tools out without a GPU.
TINY = [
    Row("lora-tiny", "lora", 4, (Goal("timm:eager", 1.0, 2.0),), (HF_EAGER,), (COMPILE,), size="micro", input_size=56),
    Row("full-tiny", "full", 4, (Goal(HF_EAGER, 1.0, 2.0),), ("timm:eager+micro2",), size="micro", input_size=56,
        ours=(("--memory", "fast"),)),
]

TABLES = {"speed": SPEED, "tiny": TINY}
# The row that is measured first and last: what the machine's speed did between.
DRIFT = {"speed": "lora-qv-256", "tiny": "lora-tiny"}
