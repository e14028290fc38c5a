#!/usr/bin/env python3
"""Counts the instructions of each CPU kernel in one training step, with callgrind, and compares them with
benchmarks/instruction_counts.json: a regression shows without a quiet machine.

    benchmarks/instruction_counts.py STEP_BENCH [--update]

They are those of x86-64-v3: valgrind knows no AVX-512. Ends with 1 if a kernel takes over 3 %
more instructions than the table says. The counts are those of one compiler; with another, nothing is compared."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "instruction_counts.json")
OPTIONS = ("--hidden 64 --num_layers 2 --num_heads 4 --seq_len 48 --batch_size 16 --threads 1 --warmup 0 --steps 1 "
           "--roofs false").split()
# A function counts for the first of these that its demangled name contains; what is inlined counts for its caller.
KERNELS = ["attention_forward", "attention_backward", "forward_head", "backward_head", "attention_dropout_tile",
           "tile_bits", "run_bits", "philox_words", "update_strip", "pack_columns", "pack_rows", "update_part", "tile<",
           "serial_gemm", "layernorm_forward", "layernorm_backward", "gelu_forward", "gelu_backward", "bias_gradient",
           "pooling", "softmax", "infonce", "l2_normalize", "binary_cross_entropy", "gradient_norm", "adamw",
           "positional_encoding", "fill<"]
TOLERANCE = 0.03
SMALLEST = 100_000  # instructions of a kernel worth a line


def count(program):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "callgrind.out")
        subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--quiet", program] + OPTIONS, check=True,
                       stdout=subprocess.DEVNULL, env=os.environ | {"GOMP_SPINCOUNT": "0", "VOCA_CPU_ARCH": "x86-64-v3"})
        text = subprocess.run(["callgrind_annotate", "--threshold=100", out], check=True, capture_output=True, text=True).stdout
    counts = {}
    for line in text.splitlines():
        found = re.match(r"\s*([\d,]+) \([\s\d.]+%\)\s+\S*?:(.*)$", line)
        if not found or not re.search("voca::kernels|voca7kernels", found[2]):  # some names stay mangled
            continue
        kernel = next((name.rstrip("<") for name in KERNELS if name in found[2]), "other")
        counts[kernel] = counts.get(kernel, 0) + int(found[1].replace(",", ""))
    return {kernel: total for kernel, total in sorted(counts.items()) if total >= SMALLEST}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", metavar="STEP_BENCH")
    parser.add_argument("--update", action="store_true", help="write the table instead of comparing")
    arguments = parser.parse_args()
    compiler = subprocess.run(["c++", "-dumpfullversion"], check=True, capture_output=True, text=True).stdout.strip()
    measured = {"options": " ".join(OPTIONS), "compiler": compiler, "instructions": count(arguments.program)}
    if arguments.update:
        with open(TABLE, "w") as table:
            table.write(json.dumps(measured, indent=1) + "\n")
        return 0
    with open(TABLE) as table:
        known = json.load(table)
    if (known["compiler"], known["options"]) != (measured["compiler"], measured["options"]):
        print(f"not compared: the table is of compiler {known['compiler']}, {known['options']}")
        return 0
    worse = 0
    for kernel in sorted(known["instructions"] | measured["instructions"]):
        before, now = known["instructions"].get(kernel, 0), measured["instructions"].get(kernel, 0)
        change = f"{(now - before) / before:+.1%}" if before else "new"
        is_worse = now > before * (1 + TOLERANCE)
        worse += is_worse
        print(f"{kernel:24} {before:12,} {now:12,} {change:>7}{'  more than the table allows' if is_worse else ''}")
    if worse:
        print(f"{worse} of the kernels take more instructions than {TABLE} says; --update if that is meant", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
