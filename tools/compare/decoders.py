"""Every image of a folder by peftk's decoders and by Pillow's: what both read has to look the same, the rest has to have a reason.

    cargo build --release --example decode_images
    pip install pillow numpy
    python tools/compare/decoders.py FOLDER [--table OUT.txt]

The table has a line a file of a format that peftk reads (JPEG, PNG, WebP, BMP, TIFF, by its content) and one of sums. "same" is a mean
difference of less than 2 levels of 255. Pillow's image is its first frame, turned as EXIF says, on white, 16-bit levels divided by 257.
"""

import argparse
import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

ROOT = Path(__file__).resolve().parents[2]
OURS = {"JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF"}
STARTS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WEBP", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF"}
Image.MAX_IMAGE_PIXELS = 100_000_000


def kind(path):
    start = path.read_bytes()[:12]
    found = next((name for begin, name in STARTS.items() if start.startswith(begin)), None)
    return None if found == "WEBP" and start[8:12] != b"WEBP" else found


def pillow(path):
    """RGB levels, or why there are none."""
    try:
        with Image.open(path) as image:
            if image.format not in OURS:
                return None, f"Pillow takes it for {image.format}"
            image.load()
            image = ImageOps.exif_transpose(image)
            if (image.mode.startswith("I;16") or image.mode == "I") and "transparency" in image.info:
                return None, "Pillow: 16-bit levels with a transparent one"
            if image.mode.startswith("I;16") or image.mode == "I":
                levels = np.asarray(image).astype(np.float64)
                if image.mode == "I" and levels.max(initial=0) > 65535:
                    return None, "Pillow: 32-bit levels"
                grey = np.clip(np.round(levels / 257), 0, 255).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2), None
            if image.mode == "F":
                return None, "Pillow: float levels"
            if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, (255, 255, 255, 255))
                image = Image.alpha_composite(white, image)
            return np.asarray(image.convert("RGB")), None
    except Exception as error:  # whatever a damaged file brings
        return None, f"Pillow: {type(error).__name__}: {error}".replace(str(path), path.name)


def outcome(ours, theirs, why):
    if ours is None:
        return "refused by both" if theirs is None else "refused"
    if theirs is None:
        return "read"
    if ours.shape != theirs.shape:
        return f"other size {ours.shape[1]}x{ours.shape[0]}, Pillow {theirs.shape[1]}x{theirs.shape[0]}"
    difference = float(np.mean(np.abs(ours.astype(np.int16) - theirs.astype(np.int16))))
    return f"same {difference:.2f}" if difference < 2.0 else f"different {difference:.1f}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/examples/decode_images")
    args = parser.parse_args()
    paths = sorted(path for path in args.folder.rglob("*") if path.is_file() and kind(path))
    with tempfile.TemporaryDirectory() as out:
        # The largest resident set of the children so far, in KiB.
        import resource

        lines = subprocess.run(
            [args.program, out], input="\n".join(map(str, paths)), capture_output=True, text=True, check=True
        ).stdout.splitlines()
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
        rows, sums, slowest = [], collections.Counter(), 0
        for index, (path, line) in enumerate(zip(paths, lines, strict=True)):
            made = json.loads(line)
            slowest = max(slowest, made["ms"])
            ours = None
            if "reason" not in made:
                data = (Path(out) / f"{index}.ppm").read_bytes().split(b"\n", 3)[3]
                ours = np.frombuffer(data, np.uint8).reshape(made["height"], made["width"], 3)
            theirs, why = pillow(path)
            what = outcome(ours, theirs, why)
            sums[what.split()[0] + (" by both" if what == "refused by both" else "")] += 1
            reason = made.get("reason", "").removeprefix(f"{path}: ")
            note = "; ".join(part for part in [reason, why or ""] if part)
            rows.append(f"{path.relative_to(args.folder)}\t{kind(path)}\t{what}\t{note}")
    total = ", ".join(f"{count} {name}" for name, count in sums.most_common())
    summary = f"{len(rows)} files: {total}. Slowest {slowest} ms, peak memory {peak} MiB."
    print(summary)
    for row in rows:
        if not row.split("\t")[2].startswith(("same", "refused by both")):
            print(row)
    if args.table:
        head = f"# tools/compare/decoders.py: file, kind by content, outcome, why. Pillow {Image.__version__}.\n# {summary}\n"
        args.table.write_text(head + "\n".join(rows) + "\n")


ImageFile.LOAD_TRUNCATED_IMAGES = False
sys.exit(main())
