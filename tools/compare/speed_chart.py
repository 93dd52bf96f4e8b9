"""Draws gpu_speed.py's report: images a second at batch 256 by strategy, ours beside the peers, and the memory that each took.

usage: python speed_chart.py REPORT.json [--out benches/results/speed-h100.svg]

Five bars a strategy, each where it was measured: ours at its fastest, ours with --memory fast (what a user gets who asks for nothing), the
fastest of timm's, transformers + peft compiled, and eager. On white, so that it reads on any page. The same report gives the same bytes.

Exit code 0, or 2 when there is no report, or no row of it was measured.
"""
import argparse
import json
import os
import sys
from xml.sax.saxutils import escape

from speed_table import fastest, memory

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(os.path.dirname(os.path.dirname(HERE)), "benches", "results", "speed-h100.svg")
ROWS = [("lora-qv-256", "LoRA", "q, v, rank 8"), ("dora-qv-256", "DoRA", "q, v, rank 8"), ("lora-all-256", "LoRA", "all linears, rank 16"),
        ("dora-all-256", "DoRA", "all linears, rank 16"), ("full-256", "full", "fine-tuning"), ("freeze-256", "freeze", "head alone")]
# Colours of Okabe and Ito, which the colour-blind tell apart.
OURS, PLAIN, TIMM, COMPILED, EAGER = range(5)
SERIES = [("peftk, fastest", "#0072b2"), ("peftk --memory fast", "#56b4e9"), ("timm, fastest", "#d55e00"),
          ("transformers + peft, torch.compile", "#e69f00"), ("transformers + peft, eager", "#8c959f")]
INK, FAINT, GRID = "#1f2328", "#59636e", "#dfe3e8"
WIDTH, LEFT, TOP, BAR, GAP = 960, 120, 96, 16, 16
SPEED, MEMORY = (LEFT, 270), (660, 200)  # where a panel's bars begin, and how long the longest is


def bars_of(report, row):
    """(series, line) of a row, from the top down."""
    found = []
    ours, plain = fastest(report["ours"], row), fastest([line for line in report["ours"] if line.get("flags") == "--memory fast"], row)
    found.append((OURS, ours))
    # Where that is the fastest there is no second bar to draw.
    found.append((PLAIN, plain if plain is not ours else None))
    peers = [line for line in report["peers"] if line["row"] == row]

    def best(wanted):
        return fastest([line for line in peers if wanted(line["peer"])], row)

    found.append((TIMM, best(lambda name: name.startswith("timm"))))
    found.append((COMPILED, best(lambda name: name.startswith("transformers") and ":eager" not in name and ":checkpoint" not in name)))
    found.append((EAGER, best(lambda name: name == "transformers:eager")))
    return [(series, line) for series, line in found if line is not None]


def note(series, line):
    """What a bar's measurement was, where the series does not say it."""
    if series == OURS:
        return line["flags"].replace("--memory-budget ", "budget ").replace("--memory ", "memory ")
    return line["peer"].partition(":")[2].replace("+", " + ") if series in (TIMM, COMPILED) else ""


def ticks(most):
    """Round numbers from 0 to `most`, about five."""
    step = next(unit for power in range(-2, 9) for unit in (10 ** power, 2 * 10 ** power, 5 * 10 ** power) if most / unit <= 6)
    return [step * count for count in range(int(most / step) + 1)]


def text(x, y, words, size=12, color=FAINT, anchor="start", weight=""):
    weight = f' font-weight="{weight}"' if weight else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'


def draw(report, rows):
    groups = [(name, detail, bars) for row, name, detail in rows if (bars := bars_of(report, row))]
    bottom = TOP + sum(BAR * len(bars) + GAP for _, _, bars in groups)
    most_speed = max(line["images_per_s"] for _, _, bars in groups for _, line in bars)
    most_memory = max(memory(line) or 0 for _, _, bars in groups for _, line in bars) / 1024
    device = report["device"] if isinstance(report["device"], str) else ", ".join(map(str, report["device"] or ["unknown device"]))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 40}" viewBox="0 0 {WIDTH} {bottom + 40}" '
        'font-family="DejaVu Sans, Verdana, Arial, sans-serif" role="img">',
        "<title>A training step by strategy: images a second and memory</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        text(16, 26, "ViT-S/14, 224 px, batch 256, bf16: a training step", 15, INK, weight="bold"),
        text(WIDTH - 16, 26, device, anchor="end"),
    ]
    x = 16
    for series, (name, color) in enumerate(SERIES):
        if any(series == drawn for _, _, bars in groups for drawn, _ in bars):
            parts.append(f'<rect x="{x}" y="41" width="12" height="12" fill="{color}"/>')
            parts.append(text(x + 17, 51, name))
            x += 40 + round(6.9 * len(name))
    for (start, length), most, name in ((SPEED, most_speed, "images/s"), (MEMORY, most_memory, "GiB of GPU memory")):
        parts.append(text(start, TOP - 18, name, 13, INK))
        for tick in ticks(most):
            at = start + length * tick / most if most else start
            parts.append(f'<line x1="{at:.1f}" y1="{TOP - 8}" x2="{at:.1f}" y2="{bottom - 4}" stroke="{GRID}"/>')
            parts.append(text(at, bottom + 12, f"{tick:,.0f}" if most >= 4 else f"{tick:g}", 11, anchor="middle"))
    y = TOP
    for name, detail, bars in groups:
        middle = y + BAR * len(bars) / 2
        parts += [text(16, middle - 2, name, 13, INK, weight="bold"), text(16, middle + 12, detail, 9.5)]
        for series, line in bars:
            rate, mib, color = line["images_per_s"], memory(line), SERIES[series][1]
            long = SPEED[1] * rate / most_speed
            parts.append(f'<rect x="{SPEED[0]}" y="{y + 1}" width="{long:.1f}" height="{BAR - 3}" fill="{color}"/>')
            label = f"{rate:,.0f}"
            parts.append(text(SPEED[0] + long + 5, y + 11.5, label, 11, INK))
            parts.append(text(SPEED[0] + long + 11 + 7 * len(label), y + 11.5, note(series, line), 9.5))
            if mib:
                long = MEMORY[1] * mib / 1024 / most_memory
                parts.append(f'<rect x="{MEMORY[0]}" y="{y + 1}" width="{long:.1f}" height="{BAR - 3}" fill="{color}"/>')
                parts.append(text(MEMORY[0] + long + 5, y + 11.5, f"{mib / 1024:.1f}", 11, INK))
            y += BAR
        y += GAP
    measured = "Memory: of peftk all that the process takes beyond an empty context, of the others what PyTorch allocated."
    parts.append(text(16, bottom + 32, measured, 10))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", metavar="REPORT.json")
    parser.add_argument("--out", default=OUT, metavar="FILE.svg")
    args = parser.parse_args()
    try:
        with open(args.report) as file:
            report = json.load(file)
    except (OSError, ValueError) as reason:
        print(f"error: {args.report}: {reason}", file=sys.stderr)
        return 2
    if not any(bars_of(report, row) for row, _, _ in ROWS):
        print(f"error: {args.report}: no row of batch 256 was measured", file=sys.stderr)
        return 2
    with open(args.out, "w") as file:
        file.write(draw(report, ROWS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
