"""The images that the embedded micro backbone was trained on: the drawings of Debian's openclipart-png (public domain) outside the 20 classes
of the embedded set, with the words of their folders and file names as labels.

usage: data.py EMBEDDED OUT     EMBEDDED: the 20-class folder (train, val) that tools/embed-data.py packed
                                OUT/{train,val}/labels.csv and images; needs Pillow, apt-get and dpkg-deb

No drawing of the 20 classes' folders is taken, none that looks like one of theirs (equal at 64 x 64) and none of an author's series that is
in them. Labels: each folder on the way and each word of the file name that LEAST drawings for training have. One tenth, by series, is for validation.
"""
import collections
import csv
import glob
import hashlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile

from PIL import Image

Image.MAX_IMAGE_PIXELS = None
# Random crops of 56 pixels find detail in so many, and 5,000 drawings stay small.
SIDE = 96
# Drawings that a word needs to be a label.
LEAST = 8
# Of a folder that repeats one motif by the hundred, at most so many.
MOST = 240


def words(path):
    """Folders on the way and words of the name: at least 3 letters, no numbers."""
    folders = os.path.dirname(path).split("/")
    ways = ["/".join(folders[: i + 1]) for i in range(len(folders))]
    return ways + sorted(set(re.findall("[a-z]{3,}", os.path.basename(path)[:-4].lower())))


def series(path):
    """One author's numbered drawings of one thing, or the same drawing in another folder."""
    return re.sub(r"[\d_\-\.]+", "", os.path.basename(path)[:-4].lower())[:14]


def look(path):
    """A hash of what is seen at 64 x 64, and the drawing on white; None where it is too large, too small or broken."""
    try:
        with Image.open(path) as image:
            if image.size[0] * image.size[1] > 16_000_000 or min(image.size) < 24:
                return None
            image = image.convert("RGBA")
    except Exception:
        return None
    seen = hashlib.sha1(image.resize((64, 64)).tobytes()).hexdigest()
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    white = white.convert("RGB")
    white.thumbnail((SIDE, SIDE), Image.BICUBIC)
    return seen, white


def main(embedded, out):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "-q", "download", "openclipart-png"], cwd=folder, check=True)
        subprocess.run(["dpkg-deb", "-x", glob.glob(folder + "/*.deb")[0], folder + "/x"], check=True)
        source = folder + "/x/usr/share/openclipart/png"
        known = sorted(glob.glob(embedded + "/*/*/*"))
        classes = {os.path.basename(os.path.dirname(path)).replace("__", "/") for path in known}
        # The embedded set's names begin with six digits of a hash.
        taken = {series(re.sub("^[0-9a-f]{6}_", "", os.path.basename(path))) for path in known}
        paths = sorted(os.path.relpath(p, source) for p in glob.glob(source + "/**/*.png", recursive=True))
        paths = [p for p in paths if "/".join(p.split("/")[:2]) not in classes and not p.startswith("unsorted/")]
        paths = [p for p in paths if series(p) not in taken]
        with multiprocessing.Pool() as pool:
            seen = {looked[0] for looked in pool.map(look, known, chunksize=16) if looked}
            looks = pool.map(look, [source + "/" + path for path in paths], chunksize=16)
        kept, per_folder = {}, collections.Counter()
        for path, looked in sorted(zip(paths, looks), key=lambda both: hashlib.md5(both[0].encode()).hexdigest()):
            place = os.path.dirname(path)
            if looked is None or looked[0] in seen or per_folder[place] >= MOST:
                continue
            seen.add(looked[0])
            per_folder[place] += 1
            kept[path] = looked[1]
    is_val = {path: int(hashlib.md5(series(path).encode()).hexdigest(), 16) % 10 == 0 for path in kept}
    counts = collections.Counter(word for path in kept if not is_val[path] for word in words(path))
    labels = sorted(word for word, count in counts.items() if count >= LEAST)
    shutil.rmtree(out, ignore_errors=True)
    for side in ("train", "val"):
        os.makedirs(f"{out}/{side}")
        with open(f"{out}/{side}/labels.csv", "w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["filename"] + labels)
            for path in sorted(kept):
                if is_val[path] != (side == "val"):
                    continue
                name = re.sub(r"[^A-Za-z0-9.-]", "_", path)[:-4] + ".jpg"
                kept[path].save(f"{out}/{side}/{name}", quality=88, subsampling=0)
                has = set(words(path))
                table.writerow([name] + [int(label in has) for label in labels])
    print(f"{out}: {len(kept)} drawings, {len(labels)} labels")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
