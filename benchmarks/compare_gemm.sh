#!/usr/bin/env bash
# GEMMs on one core, here and in OpenBLAS (told to use its newest kernels), oneDNN and MKL, in turns. Writes
# benchmarks/results/<date>-<device>-gemm-cpu[-<label>].json.
#
#   benchmarks/compare_gemm.sh        # needs Debian's libopenblas0-pthread and libdnnl2
#
# MKL comes from the package index, into build/mkl. BUILD (build/cpu) and LABEL may be set. Forced to AVX2:
#
#   LABEL=avx2 VOCA_CPU_ARCH=x86-64-v3 OPENBLAS_CORETYPE=Haswell MKL_ENABLE_INSTRUCTIONS=AVX2 \
#     ONEDNN_MAX_CPU_ISA=AVX2 benchmarks/compare_gemm.sh
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build/cpu}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

[ -x build/mkl/bin/python ] || { python3 -m venv build/mkl && build/mkl/bin/python -m pip install -q mkl; }
mkl=$(ls build/mkl/lib/libmkl_rt.so.*)
export LD_LIBRARY_PATH="$PWD/build/mkl/lib" OPENBLAS_CORETYPE="${OPENBLAS_CORETYPE:-SkylakeX}"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_THREADING_LAYER=SEQUENTIAL
"$build/bin/gemm_rivals_bench" libopenblas.so.0 libdnnl.so.2 "$mkl" >"$work/gemm.jsonl"
cut -d' ' -f1 /proc/loadavg >"$work/load"
build/mkl/bin/python benchmarks/results.py gemm --measured "$work/gemm.jsonl" --load "$work/load" --label "${LABEL:-}" \
  --command benchmarks/compare_gemm.sh
