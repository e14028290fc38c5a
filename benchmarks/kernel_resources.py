#!/usr/bin/env python3
"""Registers, shared memory and spills of every CUDA kernel, as a Markdown table.

kernel_resources.py --output TABLE.md -- NVCC OPTIONS... -- SOURCE.cu...

Compiles each source with ptxas -v and reads what that prints. Prints the table and writes it to TABLE.md.
"""

import argparse
import pathlib
import re
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(.*)")
SHARED = re.compile(r"(\d+) bytes smem")


def demangled(names):
    text = subprocess.run(["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True, check=True)
    return text.stdout.splitlines()


def short(name):
    for noise in ("voca::kernels::cuda::", "(anonymous namespace)::", "voca::kernels::"):
        name = name.replace(noise, "")
    # A template's name comes with its return type.
    return re.sub(r"^void ", "", name).replace("__nv_bfloat16", "bf16").replace("__half", "fp16")


def kernels_of(command, source):
    result = subprocess.run([*command, "-Xptxas=-v", "-c", source, "-o", "/dev/null"], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(result.stderr)
    rows = []
    entry = stack = None
    for line in result.stderr.splitlines():
        if match := ENTRY.search(line):
            entry = match.groups()
        elif match := STACK.search(line):
            stack = [int(x) for x in match.groups()]
        elif (match := USED.search(line)) and entry:
            shared = SHARED.search(match[2])
            rows.append((*entry, int(match[1]), int(shared[1]) if shared else 0, stack[1] + stack[2]))
            entry = None
    return rows


def table(command, sources):
    lines = [
        "# Resources of the CUDA kernels",
        "",
        "Made by `cmake --build --preset release --target kernel_resources`: what ptxas reports. Registers are a",
        "thread's; shared memory is the static part of a block's, in bytes; spills are bytes stored and loaded.",
        "",
        subprocess.run([command[0], "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[-2],
        "",
        "| file | kernel | registers sm_80 | sm_90 | shared | spills sm_80 | sm_90 |",
        "|---|---|---|---|---|---|---|",
    ]
    for source in sorted(sources):
        rows = kernels_of(command, source)
        names = sorted({row[0] for row in rows})
        for name, readable in sorted(zip(names, demangled(names)), key=lambda pair: pair[1]):
            of = {row[1]: row for row in rows if row[0] == name}
            a, b = of["sm_80"], of["sm_90"]
            lines.append(f"| {pathlib.Path(source).name} | `{short(readable)}` | {a[2]} | {b[2]} | {a[3]} | {a[4]} | {b[4]} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    rest = arguments.rest[1:] if arguments.rest[:1] == ["--"] else arguments.rest
    split = rest.index("--")
    text = table(rest[:split], rest[split + 1 :])
    print(text)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text)


if __name__ == "__main__":
    main()
