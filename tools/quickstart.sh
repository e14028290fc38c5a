#!/usr/bin/env bash
# From nothing to a trained, evaluated detector: installs what is missing, builds, makes a dataset, packs it, trains,
# evaluates, predicts. Writes into quickstart/ (or the folder named) and begins it anew.
#
#   tools/quickstart.sh [--program VOCA_ENGINE] [FOLDER]
#
# --program names a voca-engine built elsewhere: then nothing is installed or built.
started_in=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

voca=
if [ "${1:-}" = --program ]; then
  voca=$(cd "$started_in" && realpath -e -- "${2:?a path is expected after --program}") || exit 64
  shift 2
fi
folder=${1:-quickstart}
if [ -z "$voca" ]; then
  setup_packages
  VOCA_TARGETS=voca-engine build release -DVOCA_DEVELOPER="${VOCA_DEVELOPER:-OFF}" -DVOCA_BUILD_TESTS=OFF -DVOCA_BUILD_BENCHMARKS=OFF
  voca=$PWD/build/release/bin/voca-engine
fi

# What an earlier quickstart left is begun anew; a folder of anyone else's is not touched.
if [ -e "$folder" ] && [ -n "$(ls -A "$folder")" ] && [ ! -e "$folder/.voca-quickstart" ]; then
  echo "tools/quickstart.sh: $folder: exists and is not of a quickstart; name another folder" >&2
  exit 64
fi
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
touch .voca-quickstart

say "this machine"
"$voca" doctor

say "a feature tree of 1000 synthetic videos"
"$voca" synth --out features --videos 1000 --frames_min 40 --frames_max 80

say "packed into one file, identities kept within one split"
"$voca" pack --features_root features --out features.h5 --group_by identity

say "training"
"$voca" train --features_root features.h5 --hidden 64 --num_layers 2 --num_heads 4 --seq_len 48 --batch_size 16 \
  --epochs 10 --warmup_epochs 1 --lr 1e-3 --use_contrastive --label_smoothing 0.1 --save_path best.pt

say "evaluation on the test split"
"$voca" eval --checkpoint best.pt --features_root features.h5 --split test
"$voca" eval --checkpoint best.pt --features_root features.h5 --split test --json >evaluation.json

say "a verdict on every video"
"$voca" predict --checkpoint best.pt --features_root features.h5 --out predictions.csv
head -4 predictions.csv
