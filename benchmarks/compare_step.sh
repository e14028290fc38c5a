#!/usr/bin/env bash
# Training steps and inference here and in PyTorch, eager and compiled, on this machine, in turns. Writes
# benchmarks/results/<date>-<device>-step-cpu[-<label>].json.
#
#   benchmarks/compare_step.sh [turns]        # default 5
#
# PYTHON is a Python with torch; unless set, one is made in build/rival with the current release from the package index.
# BUILD (build/cpu), THREADS (2), STEPS (8, timed in a turn), RIVALS ("eager compile"), LABEL and WAIT may be set. WAIT is
# what PyTorch's idle OpenMP threads do: active, its default and faster here, or passive, for one whose BLAS has threads of
# its own (Debian's). Forced to AVX2:
#
#   LABEL=avx2 VOCA_CPU_ARCH=x86-64-v3 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
#     ONEDNN_MAX_CPU_ISA=AVX2 benchmarks/compare_step.sh
set -euo pipefail
cd "$(dirname "$0")/.."
turns=${1:-5}
build=${BUILD:-build/cpu}
threads=${THREADS:-2}
steps=${STEPS:-8}
rivals=${RIVALS:-eager compile}
wait=${WAIT:-active}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -z "${PYTHON:-}" ]; then
  PYTHON=build/rival/bin/python
  [ -x "$PYTHON" ] || { python3 -m venv build/rival && "$PYTHON" -m pip install -q torch numpy; }
fi

cases=(
  "quickstart: --hidden 64 --num_layers 2 --num_heads 4 --seq_len 48 --batch_size 16"
  "middle: --hidden 256 --num_layers 4 --num_heads 4 --seq_len 128 --batch_size 16"
  "middle, bidirectional: --hidden 256 --num_layers 4 --num_heads 4 --seq_len 128 --batch_size 16 --cross_attention bidirectional"
  "narrow: --hidden 768 --num_layers 4 --num_heads 8 --seq_len 256 --batch_size 4"
  "middle, inference: --hidden 256 --num_layers 4 --num_heads 4 --seq_len 128 --batch_size 16 --inference"
  "narrow, inference: --hidden 768 --num_layers 4 --num_heads 8 --seq_len 256 --batch_size 4 --inference"
)
unset OMP_WAIT_POLICY
for turn in $(seq "$turns"); do
  for case in "${cases[@]}"; do
    echo "turn $turn of $turns: $case" >&2
    read -r -a options <<<"${case#*: } --threads $threads --steps $steps"
    run() { # run FILE COMMAND...: a line of the case's name and the command's JSON
      local file=$1
      shift
      printf '%s\t%s\n' "${case%%: *}" "$("$@" "${options[@]}")" >>"$work/$file"
    }
    run ours env GOMP_SPINCOUNT=10000 "$build/bin/step_bench" # as voca-engine sets it
    for rival in $rivals; do
      flag=(--omp_wait "$wait")
      [ "$rival" = compile ] && flag+=(--compile)
      run "rival-$rival" "$PYTHON" benchmarks/rivals/step_cpu.py "${flag[@]}"
    done
    cut -d' ' -f1 /proc/loadavg >>"$work/load"
  done
done
"$PYTHON" benchmarks/results.py step --work "$work" --rivals "$rivals" --load "$work/load" \
  --label "${LABEL:-}" --command "benchmarks/compare_step.sh $turns"
