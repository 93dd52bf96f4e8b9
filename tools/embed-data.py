"""Packs an image folder into the one file that the program embeds as its default data set.

usage: embed-data.py FOLDER OUT.bin

FOLDER holds train/<class>/* and val/<class>/*. Every image is composited on white, resized so that its short side is 70
pixels (its long side at most 140; nothing is enlarged) and encoded as lossless WebP, or as JPEG of quality 90 where that
is smaller by a third or more. Reads nothing but FOLDER; the same folder and Pillow version give the same bytes.

The container, all integers little-endian:

    magic    8 bytes  "PEFTKDS\\0"
    version  u32      1
    classes  u32      then for each: name (string)
    items    u32      then for each: split u8 (0 train, 1 val), class u16, name (string), length u32, encoded image
    string   u16 length, then that many bytes of UTF-8

Classes are in byte order; items by split, class and file name in byte order. Needs Pillow.
"""

import io
import os
import struct
import sys

from PIL import Image

SHORT, LONG, QUALITY = 70, 140, 90


def shrunk(path):
    """The image as RGB on white, at its stored size."""
    with Image.open(path) as image:
        rgba = image.convert("RGBA")
    # Resize with the alpha still there (Pillow weighs colours by it), so that transparent pixels bleed into nothing.
    width, height = rgba.size
    scale = min(1.0, SHORT / min(width, height), LONG / max(width, height))
    if scale < 1.0:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        rgba = rgba.resize(size, Image.Resampling.BICUBIC)
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    white.alpha_composite(rgba)
    return white.convert("RGB")


def encoded(image):
    """The smaller of lossless WebP and, where it saves a third, JPEG."""
    webp, jpeg = io.BytesIO(), io.BytesIO()
    image.save(webp, "WEBP", lossless=True, quality=100, method=6)
    image.save(jpeg, "JPEG", quality=QUALITY, optimize=True, subsampling=0)
    lossless, lossy = webp.getvalue(), jpeg.getvalue()
    return lossy if len(lossy) * 3 < len(lossless) * 2 else lossless


def string(text):
    data = text.encode()
    return struct.pack("<H", len(data)) + data


def main(folder, out):
    classes = sorted(os.listdir(os.path.join(folder, "train")), key=os.fsencode)
    items, counts = [], [0, 0]
    for split, name in enumerate(("train", "val")):
        for label, class_name in enumerate(classes):
            inside = os.path.join(folder, name, class_name)
            for file in sorted(os.listdir(inside), key=os.fsencode):
                image = encoded(shrunk(os.path.join(inside, file)))
                items.append(struct.pack("<BH", split, label) + string(file) + struct.pack("<I", len(image)) + image)
                counts[split] += 1
    with open(out, "wb") as sink:
        sink.write(b"PEFTKDS\0" + struct.pack("<II", 1, len(classes)))
        sink.writelines(map(string, classes))
        sink.write(struct.pack("<I", len(items)))
        sink.writelines(items)
    print(f"{out}: {len(classes)} classes, {counts[0]} + {counts[1]} images, {os.path.getsize(out)} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
