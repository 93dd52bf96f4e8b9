"""Rounds a backbone to bf16 for embedding.

usage: to_bf16.py model.safetensors OUT.safetensors     drops classifier.*; the same file gives the same bytes; needs numpy
"""
import json
import struct
import sys

import numpy as np


def main(source, out):
    with open(source, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    table, parts, at = {}, [], 0
    for name in sorted(n for n in header if not n.startswith("classifier.")):
        entry = header[name]
        if entry["dtype"] != "F32":
            sys.exit(f"{name}: expected F32, found {entry['dtype']}")
        begin, end = entry["data_offsets"]
        bits = np.frombuffer(data[begin:end], "<u4").astype(np.uint64)
        # To the nearest, of two equally near ones to the even.
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
        table[name] = {"dtype": "BF16", "shape": entry["shape"], "data_offsets": [at, at + len(rounded)]}
        parts.append(rounded)
        at += len(rounded)
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(out, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
    print(f"{out}: {len(table)} tensors, {8 + len(text) + at} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
