#!/usr/bin/python3
"""Attention with dropout as PyTorch has it (FlashAttention-2), at the shapes of benchmarks/cuda/kernels_bench.cpp: what the fused
kernels are held against. Needs a GPU. Prints JSON: milliseconds of every repeat, forward and backward, operands rotated past the L2 cache.

    benchmarks/rivals/attention.py
"""

import json
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = ((64, 8, 256, 96), (80, 16, 320, 64))
REPEATS = 15
LAUNCHES = 20


def milliseconds(run, sets):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    times = []
    for repeat in range(REPEATS + 3):
        begin.record()
        for i in range(LAUNCHES):
            run(i % sets)
        end.record()
        end.synchronize()
        if repeat >= 3:
            times.append(begin.elapsed_time(end) / LAUNCHES)
    return times


def measure(batch, heads, length, size, dropout):
    sets = 4
    shape = (batch, heads, length, size)
    operands = [[torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)] for _ in range(sets)]
    gradients = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(sets)]

    def forward(i):
        return torch.nn.functional.scaled_dot_product_attention(*operands[i], dropout_p=dropout)

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        with torch.no_grad():
            forward_ms = milliseconds(forward, sets)
        outs = [forward(i) for i in range(sets)]
        backward_ms = milliseconds(lambda i: torch.autograd.grad(outs[i], operands[i], gradients[i], retain_graph=True), sets)
    return {"B": batch, "N": heads, "T": length, "d": size, "dropout": dropout, "forward_ms": forward_ms, "backward_ms": backward_ms,
            "forward_median_ms": statistics.median(forward_ms), "backward_median_ms": statistics.median(backward_ms)}


print(json.dumps({"what": "scaled_dot_product_attention, flash, bf16", "torch": torch.__version__, "device": torch.cuda.get_device_name(),
                  "results": [measure(*shape, dropout) for shape in SHAPES for dropout in (0.0, 0.1)]}))
