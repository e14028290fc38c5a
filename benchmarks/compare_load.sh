#!/usr/bin/env bash
# A batch of 64 videos of 256 frames from a packed dataset and from its feature tree with np.load, and packing
# against inflating and writing, on this machine, in turns. Writes benchmarks/results/<date>-<device>-load-cpu.json.
#
#   benchmarks/compare_load.sh [turns]        # default 3
#
# BUILD (build/cpu), WORKERS (2), PYTHON (/usr/bin/python3, with numpy) and TMPDIR (1 GB is needed) may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
turns=${1:-3}
build=${BUILD:-build/cpu}
workers=${WORKERS:-2}
python=${PYTHON:-/usr/bin/python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for turn in $(seq "$turns"); do
  for form in stored compressed; do
    echo "turn $turn of $turns: $form" >&2
    flag=()
    if [ "$form" = compressed ]; then flag=(--compressed); fi
    "$build/bin/load_bench" --work "$work" --workers "$workers" "${flag[@]}" >>"$work/ours-$form.jsonl"
    "$python" benchmarks/rivals/load_numpy.py --tree "$work/tree-$form" >>"$work/rival-$form.jsonl"
    "$build/bin/pack_bench" --work "$work" --workers "$workers" "${flag[@]}" >>"$work/pack-$form.jsonl"
    cut -d' ' -f1 /proc/loadavg >>"$work/load"
  done
done
"$python" benchmarks/results.py load --work "$work" --load "$work/load" --command "benchmarks/compare_load.sh $turns"
