"""A single-label image folder for pre-training: the drawings of Debian's openclipart-png (public domain) outside the 20 classes of a set.

usage: classes.py KNOWN OUT [--png]     KNOWN: the 20-class folder, {train,val}/<top>__<folder>/<6 hex digits>_<name>.png
                                        OUT/{train,val}/<class>/*.jpg, quality 90, or PNG
needs: pip install pillow numpy; apt-get (update run once), dpkg-deb

A class is a motif that the file's name or folder says (MOTIFS, the first that fits), or else its folder; a folder with fewer than LEAST
drawings adds them to its parent's. Left out: the folders of the 20 classes; what equals one of KNOWN's drawings at 64 x 64, resembles one
(ALIKE) or bears the name of one of its series; folders that show nothing or say nothing (NOTHING). On white, longest side SIDE pixels at
most. Of a class, whole series are for validation while they fit into a tenth. The same package and Pillow give the same bytes.
"""
import argparse
import collections
import glob
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import tempfile

import numpy
from PIL import Image, ImageChops

Image.MAX_IMAGE_PIXELS = None
SIDE = 112
# Drawings of a class, for training and validation together: those with fewer are merged or left out, of more a part is taken.
LEAST, MOST = 12, 150
# Correlation of two drawings' 24 x 24 thumbnails, cut to what is drawn, from which they count as the same drawing.
ALIKE = 0.97
# Blank renderings, rings that differ in the number of teeth, drawings nobody sorted, and a mixture of the rest.
NOTHING = r"special/gradients/|special/examples/|shapes/stars/|unsorted/|shapes/[^/]*$|special/[^/]*$|buttons/"
# Class and expression; the path is relative and in lower case, "@" stands for what is not a letter (or the start of the name).
MOTIFS = [
    ("card_face", r"games/cards/.*_[cdhs]_[jqk](_r)?\."),
    ("card_clubs", r"games/cards/.*_c_"),
    ("card_diamonds", r"games/cards/.*_d_"),
    ("card_hearts", r"games/cards/.*_h_"),
    ("card_spades", r"games/cards/.*_s_"),
    ("pictogram_aiga", r"@aiga_"),
    ("pictogram_hotel", r"@hotel_icon"),
    ("avatar", r"@people_juliane"),
    ("badge", r"/70a\d|plastik_icon"),
    ("dots", r"special/patterns/.*(dots?|circles)-"),
    ("folder", r"@folder|@cartella"),
    ("math", r"@math_|@[lr](sub|sup)\.|@(frac|matrix|paren|brackets|int|abs)\."),
    ("pen_line", r"@pen_(style|width)|@line_"),
    ("border", r"actions?/border"),
    ("window", r"@view_|@window_|@tab_"),
    ("magnifier", r"@viewmag|@magnif|/mag\d|@lente@|@zoom|@find"),
    ("player", r"@player_"),
    ("music_note", r"icons/.*@music_"),
    ("mail", r"mail|envelop|@letter"),
    ("disc", r"@(cd|dvd)(rom|writer|track|image|copy|info|burn|audio|@)|@mo_u?n?mount|cd-?rom"),
    ("disk_drive", r"@hdd|floppy|zip_|zip\.|@usb_|@nfs_|usbfloppy"),
    ("document", r"document|/mimetypes/|@doc@|@file|@paper|parchment|@page|newspaper|mime-"),
    ("arrow", r"arrow|@suivre@|freccia"),
    ("button", r"computer/buttons/|@(round)?button|@tasto@|pulsante"),
    ("clock", r"@clock|/clocks/|@watch|@alarm|clessidra|sand_glass"),
    ("phone", r"phone|@telefon|@mobile|/telephone/"),
    ("book", r"@book(s|case|@)|/books/|@libro"),
    ("bookmark", r"@bookmark"),
    ("balloon", r"@ballo+n|@baloon|palloncin"),
    ("christmas", r"christmas|@xmas|@santa|babbo_natale|presepe"),
    ("tree", r"@tree|@evergreen|/trees/|@albero"),
    ("mountain", r"@(hill|mountain)_"),
    ("heart", r"heart|@cuore|valentine"),
    ("light", r"bulb|@lamp|@lantern|@candle"),
    ("celestial", r"@(moon|jupiter|saturn|mars|venus|mercury|neptune|uranus|pluto|planet|moonphases)|/astronomy/|@(un|wax|wan)\w*(moon|gibbous|crescent)"),
    ("globe", r"globe|@earth|@mondo@|@world"),
    ("map", r"geography/"),
    ("brush", r"brush|pennello|@roller"),
    ("pen", r"@pen(cil)?s?@|@penna|@matita|@feather|@crayon|ballpoint"),
    ("key_lock", r"lock(s|ed|@)|@key(ring|s|@)|@chiave@|lucchetto"),
    ("scissors", r"scissors|forbici|pruner|shear|@cut\."),
    ("hand_tool", r"shovel|@rake|@trowel|@spade|@axe|@saw@|hammer|wrench|screwdriver|@drill|@pliers|@nail|viti_|utensil|anvil"),
    ("gear", r"@gear|@cog@|ruota_dentata|engrenagem"),
    ("chess", r"chess|@pawn|_bishop"),
    ("woman", r"people/[^/]*(woman|girl|lady|female|signora|signorina|donna|bride|pregnan|silvia|stripper)"),
    ("body", r"/bodypart/|@hands?@|thumb|finger|@eyes?@"),
    ("network", r"/network/|/diagrams/|/connectors/|switch|router|firewall|@hub@|cisco|modem|connector|antenna"),
    ("traffic_sign", r"@sign|sign_|@panneau|obligatoire|@stop|@warning|@no_|danger|hazard|poison|protection"),
]


def series(path):
    """The start of a name without digits and marks: equal for one author's numbered drawings."""
    return re.sub(r"[\d_.\-]+", "", os.path.basename(path)[:-4].lower())[:14]


def order(text):
    return hashlib.md5(text.encode()).hexdigest()


def thumbnail(image):
    """24 x 24 of what is drawn, as a centred vector of length 1; zeros for what is blank."""
    box = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    if box is None:
        return numpy.zeros(1728, numpy.float32)
    values = numpy.asarray(image.crop(box).resize((24, 24), Image.BOX), numpy.float32).ravel()
    values -= values.mean()
    return values / max(float(numpy.linalg.norm(values)), 1.0)


def look(path):
    """Hash at 64 x 64, thumbnail, and the drawing on white; None for what is broken, huge, tiny or a thin strip."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > 40_000_000 or min(width, height) < 24 or max(width, height) > 5 * min(width, height):
                return None
            image = image.convert("RGBA")
    except (OSError, ValueError, SyntaxError):
        return None
    seen = hashlib.sha1(image.resize((64, 64)).tobytes()).hexdigest()
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    white = white.convert("RGB")
    white.thumbnail((SIDE, SIDE), Image.BICUBIC)
    return seen, thumbnail(white), white


def package(folder):
    """The unpacked package's folder of drawings."""
    subprocess.run(["apt-get", "-q", "download", "openclipart-png"], cwd=folder, check=True)
    subprocess.run(["dpkg-deb", "-x", glob.glob(folder + "/*.deb")[0], folder + "/tree"], check=True)
    return folder + "/tree/usr/share/openclipart/png"


def motif(path):
    path = path.lower()
    return next((name for name, rule in MOTIFS if re.search(rule.replace("@", r"(?:(?<=/)|(?<=[\W\d_])|(?=[\W\d_]))"), path)), None)


def classes(paths):
    """Class to paths. Motifs and folders of fewer than LEAST go to the folder, then its parents."""
    motifs, folders = collections.defaultdict(list), collections.defaultdict(list)
    for path in paths:
        motifs[motif(path)].append(path)
    for name in list(motifs):
        if name is None or len(motifs[name]) < LEAST:
            for path in motifs.pop(name):
                folders[os.path.dirname(path)].append(path)
    while small := [f for f, found in folders.items() if 0 < len(found) < LEAST and "/" in f]:
        folder = max(small, key=lambda folder: (folder.count("/"), folder))
        folders[os.path.dirname(folder)] += folders.pop(folder)
    found = {re.sub("[^a-z0-9]+", "_", folder.lower()): paths for folder, paths in folders.items()}
    found = {name: paths for name, paths in (motifs | found).items() if len(paths) >= LEAST}
    return {name: sorted(paths, key=order)[:MOST] for name, paths in sorted(found.items())}


def validation(name, paths):
    """The paths of whole series that make about a tenth: in an order by hash, each series that still fits."""
    groups = collections.defaultdict(list)
    for path in paths:
        groups[series(path)].append(path)
    room, taken = max(round(0.1 * len(paths)), 1), set()
    for group in sorted(groups, key=lambda group: order(name + group)):
        if len(taken) + len(groups[group]) <= room:
            taken.update(groups[group])
    return taken


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("known")
    arguments.add_argument("out")
    arguments.add_argument("--png", action="store_true")
    options = arguments.parse_args()
    known = sorted(glob.glob(options.known + "/*/*/*.png"))
    held_out = {os.path.basename(os.path.dirname(path)).replace("__", "/") for path in known}
    names = {series(path[:-4].split("/")[-1][7:] + ".png") for path in known}
    left = collections.Counter()
    with tempfile.TemporaryDirectory() as folder, multiprocessing.Pool(2) as pool:
        source = package(folder)
        paths = sorted(os.path.relpath(p, source) for p in glob.glob(source + "/**/*.png", recursive=True))
        others = [p for p in paths if "/".join(p.split("/")[:2]) not in held_out]
        kept = [p for p in others if not re.match(NOTHING, p)]
        left.update({"in a folder of the set": len(paths) - len(others), "shows or says nothing": len(others) - len(kept)})
        looked = [found for found in pool.map(look, known, chunksize=16) if found]
        seen, thumbnails = {found[0] for found in looked}, numpy.stack([found[1] for found in looked])
        drawings = {}
        for path, found in zip(kept, pool.imap(look, [f"{source}/{path}" for path in kept], chunksize=16)):
            why = "broken, huge, tiny or thin" if found is None else "seen before" if found[0] in seen else None
            why = why or ("of a series of the set" if series(path) in names else None)
            why = why or ("resembles one of the set" if (thumbnails @ found[1]).max() > ALIKE else None)
            why = why or ("blank" if not found[1].any() else None)
            left[why] += why is not None
            if why is None:
                seen.add(found[0])
                drawings[path] = found[2]
    shutil.rmtree(options.out, ignore_errors=True)
    counts = {}
    for name, paths in classes(drawings).items():
        held = validation(name, paths)
        counts[name] = [len(paths) - len(held), len(held)]
        for path in paths:
            to = f"{options.out}/{'val' if path in held else 'train'}/{name}"
            os.makedirs(to, exist_ok=True)
            to += f"/{order(path)[:6]}_{os.path.basename(path)[:-4]}"
            if options.png:
                drawings[path].save(to + ".png", optimize=True)
            else:
                drawings[path].save(to + ".jpg", quality=90, subsampling=0, optimize=True)
    del left[None]
    train, val = map(sum, zip(*counts.values()))
    print(json.dumps({"classes": len(counts), "train": train, "val": val, "of": len(drawings), "left_out": left, "counts": counts}))


if __name__ == "__main__":
    main()
