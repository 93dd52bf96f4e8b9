#!/usr/bin/env bash
# How assets/micro-dinov2.safetensors was made: 300 epochs of the micro DINOv2 from random weights, all of it trained, on drawings outside
# the embedded classes (data.py says which), then rounded to bf16. About two minutes on an H100.
#
#   tools/pretrain/run.sh OPENCLIPART20 OUT     OPENCLIPART20: the folder (train, val) that tools/embed-data.py packed
#
# Needs target/release/peftk (make build), Python 3 with Pillow and numpy, apt-get and dpkg-deb.
set -euo pipefail
peftk=$(dirname "$0")/../../target/release/peftk
here=$(dirname "$0")
[ $# -eq 2 ] || { sed -n '5,7p' "$0"; exit 2; }

mkdir -p "$2"
python3 "$here/data.py" "$1" "$2/data"
"$peftk" train --data "$2/data" --backbone random:micro --input-size 56 --strategy full --batch-size 128 --epochs 300 --lr 1e-3 \
    --warmup-steps 200 --grad-clip 1 --weight-decay 0.1 --loss asymmetric --out "$2/run"
python3 "$here/to_bf16.py" "$2/run/model.safetensors" "$2/micro-dinov2.safetensors"
