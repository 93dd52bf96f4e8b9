"""Inputs for the fuzz targets to start from, in tools/fuzz/corpus/<target>/; what is there already stays.

    pip install pillow; python3 tools/fuzz/seeds.py [FOLDER...]

Images of the formats that are read, of up to 12 KB: the fixtures, small ones of every kind that Pillow writes, Pillow's own test images (of its
source archive, which pip downloads), and those in FOLDER. The files of labels and weights are written here, or taken from the fixtures.
"""

import gzip
import hashlib
import io
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import tempfile
import types
import zipfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
CORPUS = Path(__file__).resolve().parent / "corpus"
MOST_BYTES = 12 << 10
MAGIC = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def put(target, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def put_image(data):
    if len(data) <= MOST_BYTES and data.startswith(MAGIC):
        put("decode", data)


def small_images():
    """Few pixels in every kind of file that Pillow writes: a mutation of one costs little to decode."""
    from PIL import Image

    base = Image.new("RGB", (19, 17))
    base.putdata([(x * 13 % 256, y * 15 % 256, (x * y * 7) % 256) for y in range(17) for x in range(19)])
    alpha = base.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(base.size))
    modes = {
        "1": base.convert("1"),
        "L": base.convert("L"),
        "LA": alpha.convert("LA"),
        "P": base.quantize(16),
        "RGB": base,
        "RGBA": alpha,
        "CMYK": base.convert("CMYK"),
        "YCbCr": base.convert("YCbCr"),
        "I;16": base.convert("L").convert("I").point(lambda v: v * 200).convert("I;16"),
        "I": base.convert("I"),
        "F": base.convert("F"),
    }
    exif = Image.Exif()
    exif[0x0112] = 6

    def save(image, **options):
        file = io.BytesIO()
        try:
            image.save(file, **options)
        except (OSError, ValueError, KeyError, TypeError):
            return  # a kind that there is not
        put_image(file.getvalue())

    for mode, image in modes.items():
        for quality in (5, 95):
            for subsampling in (0, 1, 2):
                for progressive in (False, True):
                    save(image, format="JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
        save(image, format="JPEG", restart_marker_blocks=1, exif=exif)
        save(image, format="JPEG", optimize=True, comment=b"words")
        save(image, format="PNG")
        save(image, format="PNG", exif=exif, optimize=True)
        save(image, format="PNG", save_all=True, append_images=[image.rotate(90)], duration=10)
        save(image, format="BMP")
        save(image, format="WEBP", lossless=True, exif=exif)
        for quality in (1, 80):
            save(image, format="WEBP", quality=quality, method=6)
        save(image, format="WEBP", save_all=True, append_images=[image.rotate(90)], duration=10)
        compressions = ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate"]
        compressions += ["group3", "group4", "tiff_ccitt"] if mode == "1" else []
        compressions += ["jpeg"] if mode in ("L", "RGB", "CMYK", "YCbCr") else []
        for compression in compressions:
            save(image, format="TIFF", compression=compression, tiffinfo={0x0112: 6})
            if mode != "1" and compression in ("tiff_lzw", "tiff_adobe_deflate"):
                save(image, format="TIFF", compression=compression, tiffinfo={317: 2})
        save(image, format="TIFF", big_tiff=True)


def pillow_tests():
    """The test images in Pillow's source archive."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "pillow", "--dest", folder, "pillow"]
        subprocess.run(command, check=True)
        (archive,) = Path(folder).iterdir()
        with tarfile.open(archive) as files:
            for member in files:
                if member.isfile() and "/Tests/images/" in member.name and member.size <= MOST_BYTES:
                    put_image(files.extractfile(member).read())


def images_in(folder):
    for path in Path(folder).rglob("*"):
        if path.is_file() and path.stat().st_size <= MOST_BYTES:
            put_image(path.read_bytes())


class Storage:
    """Stands for torch's storage in a pickle."""

    def __init__(self, kind, values):
        self.kind, self.values = kind, values


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return ("storage", value.kind, str(value.values), "cpu", value.values) if isinstance(value, Storage) else None


def fake_torch():
    """Modules with the names that torch's pickles ask for."""

    def module(name, *members):
        made = types.ModuleType(name)
        for member in members:
            member.__module__ = name
            setattr(made, member.__name__, member)
        sys.modules[name] = made
        return members

    def _rebuild_tensor_v2(*_):
        pass

    def _rebuild_parameter(*_):
        pass

    _rebuild_tensor_v2.__qualname__, _rebuild_parameter.__qualname__ = "_rebuild_tensor_v2", "_rebuild_parameter"
    rebuild = module("torch._utils", _rebuild_tensor_v2, _rebuild_parameter)
    kinds = module("torch", *(type(f"{kind}Storage", (), {}) for kind in ("Float", "Half", "BFloat16")))
    return rebuild, kinds


def pickles():
    """State dictionaries of a backbone of width 64 whose storages are those of the target pth."""
    (rebuild_tensor, rebuild_parameter), (_, half, bfloat) = fake_torch()

    class Tensor:
        def __init__(self, shape, kind, parameter=False):
            self.shape, self.kind, self.parameter = shape, kind, parameter

        def __reduce__(self):
            count, stride = 1, []
            for extent in reversed(self.shape):
                stride.insert(0, count)
                count *= extent
            storage = next(values for values in (2, 64, 192, 4096, 12288) if values >= count)
            arguments = (Storage(self.kind, storage), 0, self.shape, tuple(stride), False, None)
            if self.parameter:
                return rebuild_parameter, (Tensor(self.shape, self.kind), False, None)
            return rebuild_tensor, arguments

    def block(name, swiglu):
        tensors = {
            "norm1.weight": (64,),
            "norm1.bias": (64,),
            "attn.qkv.weight": (192, 64),
            "attn.qkv.bias": (192,),
            "attn.proj.weight": (64, 64),
            "attn.proj.bias": (64,),
            "ls1.gamma": (64,),
            "norm2.weight": (64,),
            "norm2.bias": (64,),
            "ls2.gamma": (64,),
        }
        if swiglu:
            tensors |= {"mlp.w12.weight": (2, 64), "mlp.w12.bias": (2,), "mlp.w3.weight": (64, 1), "mlp.w3.bias": (64,)}
        else:
            tensors |= {"mlp.fc1.weight": (1, 64), "mlp.fc1.bias": (1,), "mlp.fc2.weight": (64, 1), "mlp.fc2.bias": (64,)}
        return {f"{name}.{key}": shape for key, shape in tensors.items()}

    for swiglu in (False, True):
        for kind in (half, bfloat):
            shapes = {
                "cls_token": (1, 1, 64),
                "pos_embed": (1, 2, 64),
                "mask_token": (1, 64),
                "patch_embed.proj.weight": (64, 3, 1, 1),
                "patch_embed.proj.bias": (64,),
                **block("blocks.0", swiglu),
                "norm.weight": (64,),
                "norm.bias": (64,),
            }
            if swiglu:
                shapes["register_tokens"] = (1, 4, 64)
            state = {name: Tensor(shape, kind, name == "norm.bias") for name, shape in shapes.items()}
            for protocol in (2, 4):
                file = io.BytesIO()
                Pickler(file, protocol).dump(state)
                put("pth", file.getvalue())
    for path in FIXTURES.glob("*.pth"):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                put("pth", archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl"))))
        if path.stat().st_size <= MOST_BYTES:
            put("pth", path.read_bytes())
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        small = io.BytesIO()
        Pickler(small, 2).dump({"cls_token": Tensor((2,), half)})
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/data.pkl", small.getvalue())
        archive.writestr("archive/data/2", b"\0\x3c\0\x3c")
    put("pth", file.getvalue())


def safetensors(tensors):
    """A header of these names and shapes in f32, and how much data it speaks of."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors.items():
        size = 4
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    return json.dumps(header).encode(), end


def weights():
    layer = "encoder.layer.0"
    linears = [f"attention.attention.{name}" for name in ("query", "key", "value")]
    linears += ["attention.output.dense", "mlp.fc1", "mlp.fc2"]
    shapes = {
        "embeddings.cls_token": (1, 1, 2),
        "embeddings.position_embeddings": (1, 2, 2),
        "embeddings.mask_token": (1, 2),
        "embeddings.patch_embeddings.projection.weight": (2, 3, 1, 1),
        "embeddings.patch_embeddings.projection.bias": (2,),
        "layernorm.weight": (2,),
        "layernorm.bias": (2,),
    }
    for norm in ("norm1", "norm2"):
        shapes |= {f"{layer}.{norm}.weight": (2,), f"{layer}.{norm}.bias": (2,)}
    for linear in linears:
        shapes |= {f"{layer}.{linear}.weight": (2, 2), f"{layer}.{linear}.bias": (2,)}
    shapes |= {f"{layer}.layer_scale{i}.lambda1": (2,) for i in (1, 2)}
    config = {
        "model_type": "dinov2",
        "hidden_size": 2,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "mlp_ratio": 1,
        "image_size": 1,
        "patch_size": 1,
        "layer_norm_eps": 1e-6,
        "id2label": {"0": "a", "1": "b"},
        "problem_type": "single_label_classification",
        "peftk_positions": "meta",
        "hidden_dropout_prob": 0.1,
    }
    adapter = {
        "peft_type": "LORA",
        "r": 1,
        "lora_alpha": 2,
        "use_dora": True,
        "use_rslora": False,
        "target_modules": ["query"],
        "rank_pattern": {"query": 1},
        "alpha_pattern": {"layer.0.*query": 3},
        "layers_to_transform": [0],
        "modules_to_save": None,
        "init_lora_weights": "pissa",
        "lora_dropout": 0.0,
    }
    linear = "base_model.model.dinov2.encoder.layer.0"
    module = {}
    for name in linears:
        module |= {f"{linear}.{name}.lora_A.weight": (1, 2), f"{linear}.{name}.lora_B.weight": (2, 1)}
        module |= {f"{linear}.{name}.lora_magnitude_vector": (2,)}
    module |= {"base_model.model.classifier.weight": (2, 4), "base_model.model.classifier.bias": (2,)}
    # With a width of 64 the shape can be inferred.
    wide = {
        name: tuple(64 if extent == 2 and (name, at) != ("embeddings.position_embeddings", 1) else extent for at, extent in enumerate(shape))
        for name, shape in shapes.items()
    }
    headed = {f"dinov2.{name}": shape for name, shape in wide.items()}
    headed |= {"classifier.weight": (3, 128), "classifier.bias": (3,)}
    for tensors in (shapes, wide, headed):
        put("weights", b"\1" + safetensors(tensors)[0])
    for tensors in (shapes, {"a": (1,)}):
        header, size = safetensors(tensors)
        put("weights", b"\0" + struct.pack("<Q", len(header)) + header + bytes(size))
    put("weights", b"\2" + json.dumps(config).encode())
    put("weights", b"\2" + json.dumps(config | {"model_type": "dinov2_with_registers", "use_swiglu_ffn": True}).encode())
    names = [name for name in shapes if not name.endswith("mask_token")]
    files = {name: ("1" if name.startswith("embeddings") else "2") + ".safetensors" for name in names}
    put("weights", b"\3" + json.dumps({"metadata": {}, "weight_map": files}).encode())
    put("weights", b"\4" + json.dumps(adapter).encode())
    adapter["init_lora_weights"] = True
    put("weights", b"\4" + json.dumps(adapter).encode())
    put("weights", b"\4" + json.dumps(adapter | {"target_modules": ".*(query|key)$", "rank_pattern": {}}).encode())
    put("weights", b"\5" + safetensors(module)[0])
    for path in sorted(FIXTURES.glob("timm*.safetensors")):
        data = path.read_bytes()
        put("weights", b"\1" + data[8 : 8 + struct.unpack("<Q", data[:8])[0]])


def idx(kind, *sizes):
    count = 1
    for size in sizes:
        count *= size
    return bytes([0, 0, kind, len(sizes)]) + b"".join(struct.pack(">I", size) for size in sizes) + bytes(i % 3 for i in range(count))


def unpacked_mat(data):
    """A MAT-file with its variables not compressed, so that a mutation keeps no checksum from being right."""
    out, at = data[:128], 128
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + 8 + size]
        out += zlib.decompress(body) if kind == 15 else data[at : at + 8 + size]
        at += 8 + size
    return out


def folders():
    for way in range(12):
        first = lambda kind: bytes([kind + 12 * way])
        pairs = [(idx(8, 3, 2, 2), idx(8, 3)), (idx(8, 6, 5, 4), idx(8, 6))]
        for images, labels in pairs:
            put("folders", first(1) + struct.pack(">H", len(images)) + images + labels)
            images, labels = (gzip.compress(file, mtime=0) for file in (images, labels))
            put("folders", first(2) + struct.pack(">H", len(images)) + images + labels)
        coco = {
            "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
            "categories": [{"id": 3, "name": "x"}, {"id": 4, "name": "y"}, {"id": 5, "name": "z"}],
            "annotations": [{"image_id": 7, "category_id": 3}, {"image_id": 8, "category_id": 4}],
        }
        put("folders", first(5) + json.dumps(coco).encode())
        label = lambda id: {"type": "label", "label_id": id}
        datumaro = {
            "categories": {"label": {"labels": [{"name": "x"}, {"name": "y"}, {"name": "z"}]}},
            "items": [
                {"id": "a", "annotations": [label(0)], "image": {"path": "a.jpg"}},
                {"id": "b", "annotations": [label(1)]},
            ],
        }
        put("folders", first(6) + json.dumps(datumaro).encode())
        texts = {
            0: [
                "filename,x,y\na.png,1,0\nb.png,0,1\n",
                "file,label\na.png,x\n\"b.png\",\"y \"\"q\"\"\"\nc/d.jpg,x\n",
                "\ufefffilename,label\r\na.png,1\r\nb.png,0\r\n",
            ],
            7: ["lesion_id,image_id,dx\nL1,a,nv\nL1,b,nv\nL2,c,mel\n"],
            8: ["1 x\n2 y\n\0001 a.jpg\n2 b.jpg\n\0001 1\n2 2\n\0001 1\n2 1\n"],
            9: ["Car 0 0 0 0 0 0 0 0 0 0 0 0 7.5 0\nDontCare -1\n\0Van 0 0 0 0 0 0 0 0 0 0 0 0 15 0\n"],
            10: ["x\ny/z\n\0a x\nb y/z\n\0\0\n", "x\ny\n\0a x\n\0b y\n\0\n"],
            11: ["x\ny\n\0x/a\ny/b\n\0\n"],
        }
        for kind, those in texts.items():
            for text in those:
                put("folders", first(kind) + text.encode())
        for kind, name in ((3, "cars_meta"), (4, "cars_train_annos"), (4, "cars_test_annos_withlabels")):
            data = (FIXTURES / "formats" / f"{name}.mat").read_bytes()
            for file in (data, unpacked_mat(data)):
                put("folders", first(kind) + file)


def main():
    images_in(FIXTURES / "images")
    small_images()
    pillow_tests()
    for folder in sys.argv[1:]:
        images_in(folder)
    pickles()
    weights()
    folders()
    for folder in sorted(CORPUS.iterdir()):
        print(folder.relative_to(ROOT), sum(1 for _ in folder.iterdir()), "files")


if __name__ == "__main__":
    main()
