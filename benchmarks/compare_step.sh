#!/usr/bin/env bash
# A training step here and in PyTorch, on this machine, in turns: both forms of cross-attention at hidden 256,
# 4 layers, T 128, B 16, float32. Writes benchmarks/results/<date>-<device>-step-cpu.json.
#
#   benchmarks/compare_step.sh [turns]        # default 5
#
# BUILD (build/cpu), THREADS (2), STEPS (10, timed in a turn) and PYTHON (/usr/bin/python3, with torch) may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
turns=${1:-5}
build=${BUILD:-build/cpu}
threads=${THREADS:-2}
steps=${STEPS:-10}
python=${PYTHON:-/usr/bin/python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

options=(--hidden 256 --num_layers 4 --num_heads 4 --seq_len 128 --batch_size 16 --threads "$threads" --steps "$steps")
export OMP_WAIT_POLICY=passive  # of both: idle threads sleep instead of taking a core from the other's
for turn in $(seq "$turns"); do
  for form in a2v bidirectional; do
    echo "turn $turn of $turns: $form" >&2
    "$build/bin/step_bench" "${options[@]}" --cross_attention "$form" >>"$work/ours.jsonl"
    "$python" benchmarks/rivals/step_cpu.py "${options[@]}" --cross_attention "$form" >>"$work/rival.jsonl"
    cut -d' ' -f1 /proc/loadavg >>"$work/load"
  done
done
"$python" benchmarks/results.py step --ours "$work/ours.jsonl" --rival "$work/rival.jsonl" --load "$work/load" \
  --command "benchmarks/compare_step.sh $turns" --options "${options[*]}"
