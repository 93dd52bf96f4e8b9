"""How fast PIL, torchvision and torch's DataLoader get images from a folder: what examples/data_rates.rs measures, by others.

usage: python data_rates.py FOLDER [--seconds 5] [--workers N]         the rates, a JSON object a line
       python data_rates.py OUT --make WxH:COUNT --from PHOTO...       photographs of a size, in 4 class folders, JPEG quality 90

Rates: PIL decoding to RGB on one thread; the same and RandomResizedCrop(224, bicubic, antialias) with a flip by torchvision on PIL
images, torch on one thread; an epoch of a DataLoader over an ImageFolder, batch 64, shuffled, to u8 tensors, with as many worker
processes as there are cores: the first, and later ones with the same workers. Nothing of it is kept from epoch to epoch: that is how torch
reads a folder. images_per_cpu_s is by CPU time of this process and its workers, for machines that others use too.
Without torch PIL alone is measured. --make cuts each image from a photograph, scaled to between the whole and two thirds of it, and
repeats photographs as it must; the same arguments give the same images.

needs: pip install pillow; torch torchvision (one of https://download.pytorch.org/whl/cpu will do)
"""
import argparse
import json
import os
import random
import resource
import time

import PIL
from PIL import Image, features

SIZE, BATCH = 224, 64


def cpu_s():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in both)


def children_s():
    """CPU time of processes that still run, from /proc: workers that are kept for the next epoch are not waited for."""
    total, tick = 0.0, os.sysconf("SC_CLK_TCK")
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            total += (int(fields[11]) + int(fields[12])) / tick
    return total


def files(folder):
    found = [os.path.join(base, name) for base, _, names in os.walk(folder) for name in names]
    return sorted(f for f in found if f.lower().endswith((".jpg", ".jpeg", ".png", ".webp")))


def rgb(path):
    """As torchvision's ImageFolder reads a file."""
    with open(path, "rb") as file:
        return Image.open(file).convert("RGB")


def say(what, folder, images, wall, cpu, **more):
    print(json.dumps({
        "what": what, "folder": folder, "images": images, "images_per_s": round(images / wall, 1),
        "images_per_cpu_s": round(images / cpu, 1), "load": os.getloadavg()[0], **more,
    }), flush=True)


def repeat(paths, seconds, one):
    for path in paths:
        one(path)
    images, wall, cpu = 0, time.perf_counter(), cpu_s()
    while time.perf_counter() - wall < seconds:
        for path in paths:
            one(path)
        images += len(paths)
    return images, time.perf_counter() - wall, cpu_s() - cpu


def rates(args):
    paths = files(args.folder)
    versions = {"pillow": PIL.__version__, "libjpeg_turbo": features.version("libjpeg_turbo")}
    say("decode, 1 thread", args.folder, *repeat(paths, args.seconds, rgb), impl="PIL", **versions)
    try:
        import torch
        import torchvision
        from torchvision.transforms import InterpolationMode, v2
    except ImportError:
        print(json.dumps({"impl": "torchvision", "what": "not there: pip install torch torchvision"}))
        return
    versions |= {"torch": torch.__version__, "torchvision": torchvision.__version__}
    torch.set_num_threads(1)
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(SIZE, interpolation=InterpolationMode.BICUBIC, antialias=True)
    augment = v2.Compose([crop, v2.RandomHorizontalFlip()])
    rate = repeat(paths, args.seconds, lambda path: augment(rgb(path)))
    say("decode + crop to 224 + flip, 1 thread", args.folder, *rate, impl="torchvision", **versions)

    to_tensor = v2.Compose([augment, v2.PILToTensor()])
    workers = args.workers or len(os.sched_getaffinity(0))
    loader = torch.utils.data.DataLoader(
        torchvision.datasets.ImageFolder(args.folder, to_tensor), BATCH, shuffle=True, num_workers=workers, persistent_workers=True)
    for which, least in (("first epoch", 0), ("later epochs", args.seconds)):
        wall, cpu, images = time.perf_counter(), cpu_s() + children_s(), 0
        while images == 0 or time.perf_counter() - wall < least:
            for batch, _ in loader:
                images += len(batch)
        wall, cpu = time.perf_counter() - wall, cpu_s() + children_s() - cpu
        say(f"loader, {which}", args.folder, images, wall, cpu, impl="torch DataLoader", workers=workers, **versions)


def make(args):
    size, count = args.make.split(":")
    width, height = map(int, size.split("x"))
    draw = random.Random(0)
    for i in range(int(count)):
        image = Image.open(args.photos[i % len(args.photos)]).convert("RGB")
        scale = max(width / image.width, height / image.height) * draw.uniform(1, 1.5)
        w, h = min(image.width, width / scale), min(image.height, height / scale)
        x, y = draw.uniform(0, image.width - w), draw.uniform(0, image.height - h)
        out = os.path.join(args.folder, f"class{i % 4}")
        os.makedirs(out, exist_ok=True)
        image.resize((width, height), Image.LANCZOS, box=(x, y, x + w, y + h)).save(os.path.join(out, f"{i:05}.jpg"), quality=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--make", metavar="WxH:COUNT")
    parser.add_argument("--from", dest="photos", nargs="+", default=[], metavar="PHOTO")
    args = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None
    make(args) if args.make else rates(args)
