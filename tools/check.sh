#!/usr/bin/env bash
# Every test, from nothing: installs what is missing, checks format and links, builds, tests, runs the quickstart, then builds
# and tests again under AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   tools/check.sh [--quick|--full]
#
# --quick leaves the sanitizers and the quickstart out; --full adds the long sweep of failing calls, ThreadSanitizer, a
# link that finds names with two definitions, the kernels' instruction counts, a training with narrower vectors, the kernels on
# 64-bit ARM (emulated), and clang-tidy.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

mode=${1:-}
case "$mode" in '' | --quick | --full) ;; *) echo "usage: tools/check.sh [--quick|--full]" >&2 && exit 64 ;; esac
packages=(libgtest-dev libgmock-dev libbenchmark-dev clang-format python3)
[ "$mode" = --full ] && packages+=(clang-tidy valgrind g++-aarch64-linux-gnu qemu-user googletest)
setup_packages "${packages[@]}"

say "format and links"
git ls-files '*.cpp' '*.h' '*.cu' | xargs clang-format --dry-run --Werror
tools/check_links.py

# run_tests PRESET [ctest options]
run_tests() {
  local preset=$1
  shift
  say "testing $preset"
  # Some tests mostly wait: one more than there are cores keeps these busy.
  ctest --preset "$preset" -j "$(($(nproc) + 1))" --output-on-failure --quiet -O "build/$preset/ctest.log" "$@" || {
    grep -v ' Passed ' "build/$preset/ctest.log" || true
    exit 1
  }
  grep -E '^[0-9]+% tests passed|\*\*\*(Not Run|Skipped)|^Total Test time' "build/$preset/ctest.log"
}

build release -DVOCA_BUILD_TESTS=ON -DVOCA_BUILD_BENCHMARKS=ON
if [ "$mode" = --full ]; then run_tests release; else run_tests release -LE sweep; fi
[ "$mode" = --quick ] && exit 0

VOCA_DEVELOPER=ON tools/quickstart.sh build/quickstart
auc=$(sed -n 's/^  "auc": \([0-9.]*\),$/\1/p' build/quickstart/evaluation.json)
awk -v auc="${auc:-0}" 'BEGIN { exit !(auc >= 0.93) }' || {
  echo "the quickstart's test AUC is ${auc:-missing}, expected at least 0.93" >&2
  exit 1
}

sanitizers=(asan)
[ "$mode" = --full ] && sanitizers+=(tsan)
for preset in "${sanitizers[@]}"; do
  build "$preset" -DVOCA_BUILD_BENCHMARKS=OFF
  run_tests "$preset" -LE 'slow|sweep'
done

if [ "$mode" = --full ]; then
  # Two definitions of one name are an error here (-Wodr). Linking is the test.
  build lto -DVOCA_BUILD_TESTS=OFF
  say "instruction counts"
  benchmarks/instruction_counts.py build/release/bin/step_bench
  say "the same bits with other vectors"
  tools/same_bits.py "VOCA_CPU_ARCH=x86-64-v3 build/release/bin/voca-engine" build/release/bin/voca-engine
  build aarch64
  run_tests aarch64
  say "clang-tidy"
  git ls-files 'kernels/*.cpp' 'engine/*.cpp' 'model/*.cpp' 'data/*.cpp' 'tools/*.cpp' |
    xargs -P "$(nproc)" -n 4 clang-tidy -p build/release --quiet
fi
say "all of it holds"
