#!/usr/bin/python3
"""One training step, or with --inference a forward pass, of the same network in PyTorch on the CPU: the rival of
the engine's step.

    /usr/bin/python3 benchmarks/rivals/step_cpu.py --hidden 256 --num_layers 4 --num_heads 4 --seq_len 128 \\
        --batch_size 16 --threads 2 --steps 15

float32, dropout and the contrastive loss on, AdamW, gradient clip: forward, losses, backward, clip, update; eager
modules, or with --compile those of torch.compile. The batch is in memory before the clock starts. Prints JSON on one line; times in milliseconds, one a step.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--num_layers", type=int, default=4)
    parser.add_argument("--num_heads", type=int, default=4)
    parser.add_argument("--seq_len", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--visual_dim", type=int, default=512)
    parser.add_argument("--audio_dim", type=int, default=512)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--cross_attention", choices=("a2v", "bidirectional", "both"), default="a2v",
                        help="both measures one after the other")
    parser.add_argument("--adamw", choices=("foreach", "loop"), default="foreach", help="implementation of the update")
    parser.add_argument("--inference", action="store_true", help="forward only, without dropout and contrastive loss")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network and its losses")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--omp_wait", choices=("passive", "active"), default="active",
                        help="whether idle OpenMP threads sleep or spin; spinning takes the cores from BLAS threads")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the clock starts")
    parser.add_argument("--steps", type=int, default=15, help="steps timed, one by one")
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.threads < 1 or arguments.warmup < 0:
        parser.error("--steps and --threads are at least 1, --warmup at least 0")
    return arguments


ARGUMENTS = parse_arguments()
# OpenMP and a BLAS read these when they are loaded. OpenMP's threads spin by default, which is faster with PyTorch's own
# builds; with a BLAS that has threads of its own (OpenBLAS, pthread: Debian's PyTorch) it can double the time of a step.
os.environ["OMP_WAIT_POLICY"] = ARGUMENTS.omp_wait
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(ARGUMENTS.threads)

import torch  # noqa: E402

from network import flops_per_step, reference  # noqa: E402


def blas_libraries():
    """The BLAS this process has in fact loaded, by file; empty when it is linked into torch itself."""
    with open("/proc/self/maps") as maps:
        files = {line.split()[-1] for line in maps if "/" in line}
    names = ("blas", "mkl", "blis", "atlas")
    return sorted(os.path.realpath(f) for f in files if any(n in os.path.basename(f).lower() for n in names))


def cpu_name():
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def gemm_roof():
    """GFLOP/s of the best of several float32 products of 1024 x 1024."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best / 1e9


def measure(form):
    roofs = [gemm_roof()]
    torch.manual_seed(1)
    config = reference.Config(
        visual_dim=ARGUMENTS.visual_dim, audio_dim=ARGUMENTS.audio_dim, hidden=ARGUMENTS.hidden,
        num_layers=ARGUMENTS.num_layers, num_heads=ARGUMENTS.num_heads, seq_len=ARGUMENTS.seq_len,
        dropout=ARGUMENTS.dropout, cross_attention=form, use_contrastive=not ARGUMENTS.inference,
        label_smoothing=0.1,
    )
    model = reference.CrossModalTransformer(config).train(not ARGUMENTS.inference)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=1e-4, foreach=ARGUMENTS.adamw == "foreach")
    batch = ARGUMENTS.batch_size
    visual = torch.randn(batch, config.seq_len, config.visual_dim)
    audio = torch.randn(batch, config.seq_len, config.audio_dim)
    labels = torch.arange(batch, dtype=torch.int32) % 2

    def forward():
        with torch.inference_mode():
            return model(visual, audio)

    def loss_of_batch():
        return reference.losses(config, model(visual, audio), labels)[0]

    def training_step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of_batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    if ARGUMENTS.compile:
        if ARGUMENTS.inference:
            model = torch.compile(model)
        else:
            loss_of_batch = torch.compile(loss_of_batch)
    work = forward if ARGUMENTS.inference else training_step
    times = []
    for step in range(ARGUMENTS.warmup + ARGUMENTS.steps):
        start = time.perf_counter()
        work()
        if step >= ARGUMENTS.warmup:
            times.append((time.perf_counter() - start) * 1e3)
    roofs.append(gemm_roof())
    median = statistics.median(times)
    flops = flops_per_step(config, batch) // (3 if ARGUMENTS.inference else 1)
    return {
        "cross_attention": form,
        "parameters": sum(p.numel() for p in model.parameters()),
        "ms_per_step": [round(t, 3) for t in times],
        "median_ms": round(median, 3),
        "min_ms": round(min(times), 3),
        "max_ms": round(max(times), 3),
        "gemm_flops_per_step": flops,
        "gflops": round(flops / median / 1e6, 2),
        "gemm_roof_gflops_before_and_after": [round(r, 1) for r in roofs],
    }


def main():
    torch.set_num_threads(ARGUMENTS.threads)
    forms = ("a2v", "bidirectional") if ARGUMENTS.cross_attention == "both" else (ARGUMENTS.cross_attention,)
    results = [measure(form) for form in forms]
    print(json.dumps({
        "what": f"{'inference' if ARGUMENTS.inference else 'training step'}, PyTorch CPU, "
                f"{'torch.compile' if ARGUMENTS.compile else 'eager'}, fp32",
        "command": " ".join([os.path.basename(sys.executable)] + sys.argv),
        "options": vars(ARGUMENTS),
        "torch": torch.__version__,
        "blas": blas_libraries(),
        "cpu": cpu_name(),
        "results": results,
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }))


if __name__ == "__main__":
    main()
