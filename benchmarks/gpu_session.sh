#!/usr/bin/env bash
# What to do the first time a GPU is at hand, and after every change of a kernel: builds, runs every fixture on the device, again under each
# tool of compute-sanitizer, then measures. Goes on past whatever fails, and says at the end what did.
#
#   benchmarks/gpu_session.sh                  # all of it
#   benchmarks/gpu_session.sh rivals-bf16      # some steps, by name; --list names them
#
# Each step leaves benchmarks/results/<date>-<device>-<step>.txt: its command, the revision, the device, how it ended, what it printed. Steps
# that measure write their .json beside it. PYTHON (python3, with PyTorch 2 for CUDA), BUILD (build/release) and LIMIT (seconds a step, 3600)
# may be set. Exit code 1 when a step failed or did not run on a GPU.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python3}
build=${BUILD:-build/release}
limit=${LIMIT:-3600}
PATH=$PATH:/usr/local/cuda/bin

# Derivatives in double are the CPU's alone.
fixtures=(--gtest_brief=1 "--gtest_filter=-*Derivative/*:*Gradient/*:WideCast/*")

sanitize() { # TOOL
  compute-sanitizer --tool "$1" --error-exitcode 1 --print-limit 20 "$build/bin/cuda_tests" "${fixtures[@]}"
}

steps=(machine build doctor cuda-tests cuda-engine memcheck racecheck initcheck synccheck engine-memcheck microbenchmarks rivals-bf16
  rivals-fp16 rivals-attention steps quickstart)
run_step() {
  case $1 in
    machine) nvidia-smi && nvidia-smi -q -d CLOCK,ECC,PERFORMANCE,MEMORY && nvidia-smi topo -m && nvcc --version && "$python" --version ;;
    build) cmake --preset release && cmake --build "$build" ;;
    doctor) "$build/bin/voca-engine" doctor ;;
    cuda-tests) "$build/bin/cuda_tests" "${fixtures[@]}" ;;
    memcheck | racecheck | initcheck | synccheck) sanitize "$1" ;;
    cuda-engine) "$build/bin/cuda_engine_tests" --gtest_brief=1 ;;
    # NCCL asks after kernels of other architectures and is told that there are none: no error of ours, hence no API errors.
    engine-memcheck) compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 1 --print-limit 20 "$build/bin/cuda_engine_tests" --gtest_brief=1 ;;
    microbenchmarks)
      "$build/bin/cuda_kernel_benchmarks" --benchmark_repetitions=5 --benchmark_format=json \
        --benchmark_out="benchmarks/results/$(date +%F)-kernels-cuda.json"
      ;;
    rivals-bf16) "$python" benchmarks/rivals/step.py --size base large --cross_attention both --precision bf16 --device cuda --save ;;
    rivals-fp16) "$python" benchmarks/rivals/step.py --size base large --precision fp16 --device cuda --save ;;
    rivals-attention) "$python" benchmarks/rivals/attention.py ;;
    steps)
      local precision
      for precision in bf16 fp16 tf32; do
        "$build/bin/step_bench" --device cuda --precision $precision --hidden 768 --num_layers 4 --num_heads 8 --seq_len 256 \
          --batch_size 64 --warmup 10 --steps 10 --group 10 || return
        "$build/bin/step_bench" --device cuda --precision $precision --hidden 1024 --num_layers 6 --num_heads 16 --seq_len 320 \
          --batch_size 80 --warmup 10 --steps 10 --group 10 || return
      done
      ;;
    quickstart) tools/quickstart.sh build/quickstart ;;
    *) echo "there is no step $1" && return 64 ;;
  esac
}

if [ "${1:-}" = --list ]; then
  printf '%s\n' "${steps[@]}"
  exit 0
fi
# One step alone in a process of its own, so that a time limit can end it.
if [ "${1:-}" = --run ]; then
  run_step "$2"
  exit
fi
[ $# -gt 0 ] && steps=("$@")
for step in "${steps[@]}"; do
  benchmarks/gpu_session.sh --list | grep -qx -- "$step" || {
    echo "gpu_session.sh: there is no step $step; --list names them" >&2
    exit 64
  }
done

device=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1)
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1)
device=${device:-no GPU}
slug=$(printf '%s' "$device" | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9' '-' | sed 's/^-*//; s/-*$//')
revision=$(git rev-parse --short=12 HEAD)
[ -z "$(git status --porcelain --untracked-files=no)" ] || revision+=' with changes'
printed=$(mktemp)
trap 'rm -f "$printed"' EXIT

outcomes=()
failures=0
for step in "${steps[@]}"; do
  file=benchmarks/results/$(date +%F)-$slug-$step.txt
  echo "== $step" >&2
  begin=$SECONDS
  timeout --kill-after=30 "$limit" benchmarks/gpu_session.sh --run "$step" 2>&1 | tee "$printed"
  code=${PIPESTATUS[0]}
  case $code in
    0) outcome=ok ;;
    124 | 137) outcome="stopped after $limit s" ;;
    *) outcome="failed with exit code $code" ;;
  esac
  # A fixture without a device skips itself and succeeds. (What other steps print may say so of the device for other reasons.)
  [ "$outcome" = ok ] && [[ $step =~ ^(cuda-tests|.*check)$ ]] && grep -q 'no CUDA device' "$printed" && outcome='skipped: no CUDA device'
  [ "$outcome" = ok ] || failures=$((failures + 1))
  {
    printf '%s\n' "command: benchmarks/gpu_session.sh $step" "revision: $revision" "date: $(date -Is)" "device: $device" \
      "driver: ${driver:-none}" "seconds: $((SECONDS - begin))" "outcome: $outcome" ''
    cat "$printed"
  } >"$file"
  outcomes+=("$(printf '%-16s %s   %s' "$step" "$outcome" "$file")")
done

echo "== $device, driver ${driver:-none}, revision $revision" >&2
printf '%s\n' "${outcomes[@]}"
echo "$failures of ${#steps[@]} steps failed or were skipped"
[ "$failures" -eq 0 ]
