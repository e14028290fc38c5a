#!/usr/bin/env bash
# Every kernel benchmark in random order, three times over, each held against the copy bandwidth or the matrix product
# of the same run. Writes benchmarks/results/<date>-<device>-kernels-cpu.json.
#
#   benchmarks/measure_kernels.sh [filter]    # default: all; -EXPRESSION leaves out what it finds
#
# BUILD (build/cpu), THREADS (2), SECONDS_EACH (0.1) and PYTHON (/usr/bin/python3) may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
filter=${1:-.}
build=${BUILD:-build/cpu}
python=${PYTHON:-/usr/bin/python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=${THREADS:-2}
"$build/bin/kernel_benchmarks" --benchmark_filter="$filter" --benchmark_min_time="${SECONDS_EACH:-0.1}" \
  --benchmark_repetitions=3 --benchmark_enable_random_interleaving=true --benchmark_out="$work/kernels.json" \
  --benchmark_out_format=json >&2
cut -d' ' -f1 /proc/loadavg >"$work/load"
"$python" benchmarks/results.py kernels --measured "$work/kernels.json" --load "$work/load" \
  --command "benchmarks/measure_kernels.sh $filter"
