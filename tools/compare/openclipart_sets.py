"""The drawings of openclipart-20 as two data sets with a test split: flat, and as a tree of labels.

usage: openclipart_sets.py FOLDER OUT     FOLDER: train and val, each <part>__<class>/*.png (the set that tools/embed-data.py packs)
                                          OUT/openclipart-20/{train,val,test}/<part>__<class>/*.jpg
                                          OUT/openclipart-tree/{train,val,test}/<part>/<class>/*.jpg     the same images; needs Pillow

Training images stay what they are. Those of val are divided: whole series of one author to one side, about half of each class for testing. All are put
on white, their longest side at most 256 pixels.
"""
import hashlib
import os
import re
import sys

from PIL import Image

Image.MAX_IMAGE_PIXELS = None
SIDE = 256


def series(name):
    """One author's numbered drawings of one thing; names begin with six digits of a hash."""
    return re.sub(r"[\d_\-\.]+", "", re.sub("^[0-9a-f]{6}_", "", name)[:-4].lower())[:14]


def halves(names):
    """Names to 'val' or 'test': the largest series first, each to the side that has fewer."""
    groups = {}
    for name in names:
        groups.setdefault(series(name), []).append(name)
    key = lambda group: (-len(groups[group]), hashlib.md5(group.encode()).hexdigest())
    counts, side = {"val": 0, "test": 0}, {}
    for group in sorted(groups, key=key):
        to = min(("test", "val"), key=counts.get)
        counts[to] += len(groups[group])
        side.update((name, to) for name in groups[group])
    return side


def main(folder, out):
    counts = {"train": 0, "val": 0, "test": 0}
    for part in ("train", "val"):
        for label in sorted(os.listdir(f"{folder}/{part}")):
            names = sorted(os.listdir(f"{folder}/{part}/{label}"))
            side = halves(names) if part == "val" else dict.fromkeys(names, "train")
            for name in names:
                image = Image.open(f"{folder}/{part}/{label}/{name}").convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                white.alpha_composite(image)
                white = white.convert("RGB")
                white.thumbnail((SIDE, SIDE), Image.BICUBIC)
                flat = f"{out}/openclipart-20/{side[name]}/{label}/{name[:-4]}.jpg"
                nested = f"{out}/openclipart-tree/{side[name]}/{label.replace('__', '/')}/{name[:-4]}.jpg"
                os.makedirs(os.path.dirname(flat), exist_ok=True)
                os.makedirs(os.path.dirname(nested), exist_ok=True)
                white.save(flat, quality=95, subsampling=0)
                if os.path.exists(nested):
                    os.remove(nested)
                os.link(flat, nested)
                counts[side[name]] += 1
    print(out, counts)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
