#!/usr/bin/python3
"""One training step of the same network and recipe in PyTorch, as people write it: what a step of the engine on a GPU is held against.

    benchmarks/rivals/step.py --size base large                   # on a GPU
    benchmarks/rivals/step.py --size tiny --turns 2 --steps 2     # to see that it runs, on a CPU too

Variants, all with dropout, InfoNCE, gradient clipping, float32 parameters and, but in fp32, automatic mixed precision:

    script    nn.MultiheadAttention called with its defaults (need_weights), PyTorch's default AdamW, the loss read each step
    eager     scaled_dot_product_attention, fused AdamW
    compile   the same through torch.compile, mode max-autotune, attention by flash

They run in turns: a turn times --steps steps of each. Before each turn the roofs of the machine are measured: copying, and a large
product in the same precision. On a GPU steps are timed by events, after the L2 cache is overwritten. The batch is on the device before the
clock starts. What this PyTorch or this device lacks is "n/a" in the results, with the reason. Prints JSON; --save writes it to
benchmarks/results/<date>-<device>-step-pytorch-<precision>.json. Exit code 1 when a variant failed.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import results  # noqa: E402


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=("tiny", "base", "large"), default=["base", "large"])
    parser.add_argument("--cross_attention", choices=("a2v", "bidirectional", "both"), default="a2v")
    parser.add_argument("--variants", nargs="+", choices=("script", "eager", "compile"), default=["script", "eager", "compile"])
    parser.add_argument("--precision", choices=("auto", "bf16", "fp16", "fp32"), default="auto",
                        help="auto: bf16 on a GPU, fp32 on a CPU")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps of each variant timed in a turn")
    parser.add_argument("--warmup", type=int, default=10, help="steps of each variant before the first turn")
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; 0: PyTorch's choice")
    parser.add_argument("--save", action="store_true", help="write the results to benchmarks/results")
    arguments = parser.parse_args()
    if min(arguments.turns, arguments.steps, arguments.warmup) < 1:
        parser.error("--turns, --steps and --warmup are at least 1")
    return arguments


ARGUMENTS = parse_arguments()
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded; see step_cpu.py

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import network  # noqa: E402

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class NotAvailable(Exception):
    """What this PyTorch or this device does not have."""


def first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


class Timer:
    """Times calls one by one, in milliseconds, without waiting between them."""

    def __init__(self, device):
        self.cuda = device.type == "cuda"
        self.marks = []
        if self.cuda:
            cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
            self.flush = torch.empty(max(4 * cache, 256 << 20), dtype=torch.uint8, device=device)

    def mark(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def run(self, call):
        if self.cuda:
            self.flush.zero_()
        begin = self.mark()
        call()
        self.marks.append((begin, self.mark()))

    def times(self):
        marks, self.marks = self.marks, []
        if not self.cuda:
            return [(end - begin) * 1e3 for begin, end in marks]
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) for begin, end in marks]


class DefaultAttention(nn.MultiheadAttention):
    """Called as most scripts call it: the probabilities are made, averaged over heads and returned too."""

    def forward(self, query, key, value, need_weights=True):
        return super().forward(query, key, value)


def call_attention_with_defaults(model):
    # The encoder's layers belong to PyTorch, which asks them for no probabilities; only cross-attention is a script's own call.
    for name in ("cross_attn", "a2v_attn", "v2a_attn"):
        if hasattr(model, name):
            getattr(model, name).__class__ = DefaultAttention


def flash_attention(config, device):
    """A context in which attention is flash attention, and what it is; PyTorch's choice, and why, where flash does not run."""
    if not hasattr(torch.nn, "attention"):
        return contextlib.nullcontext, f"PyTorch's choice (flash: n/a, torch {torch.__version__} has no torch.nn.attention, 2.3)"
    from torch.nn.attention import SDPBackend, sdpa_kernel
    shape = (1, config.num_heads, config.seq_len, config.hidden // config.num_heads)
    q = torch.ones(shape, dtype=DTYPES[ARGUMENTS.precision], device=device, requires_grad=True)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            warnings.simplefilter("ignore")
            F.scaled_dot_product_attention(q, q, q, dropout_p=config.dropout).sum().backward()
    except RuntimeError as error:
        return contextlib.nullcontext, f"PyTorch's choice (flash: n/a, {first_line(error)})"
    return lambda: sdpa_kernel(SDPBackend.FLASH_ATTENTION), "flash"


def make_adamw(parameters, fused):
    options = {"lr": 3e-4, "weight_decay": 1e-4}
    if fused:
        try:
            return torch.optim.AdamW(parameters, fused=True, **options), "fused"
        except (TypeError, RuntimeError, ValueError) as error:
            return torch.optim.AdamW(parameters, **options), f"default (fused: n/a, {first_line(error)})"
    return torch.optim.AdamW(parameters, **options), "default"


def make_scaler(device):
    if ARGUMENTS.precision != "fp16":
        return None
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type)
    return torch.cuda.amp.GradScaler()


def mixed_precision(device):
    if ARGUMENTS.precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[ARGUMENTS.precision])


def check_precision(device):
    """That autocast computes in the precision asked for."""
    if ARGUMENTS.precision == "fp32":
        return
    a = torch.ones(8, 8, device=device)
    computed_in = None
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
        warnings.simplefilter("ignore")
        with mixed_precision(device):
            computed_in = (a @ a).dtype
    if computed_in != DTYPES[ARGUMENTS.precision]:
        raise NotAvailable(f"torch {torch.__version__} has no {ARGUMENTS.precision} autocast on this device")


class Training:
    """One variant of the step with its model, its optimizer and a batch."""

    def __init__(self, variant, size, cross_attention, device):
        check_precision(device)
        if variant != "script" and not hasattr(F, "scaled_dot_product_attention"):
            raise NotAvailable(f"torch {torch.__version__} has no scaled_dot_product_attention (2.0)")
        if variant == "compile" and not hasattr(torch, "compile"):
            raise NotAvailable(f"torch {torch.__version__} has no torch.compile (2.0)")
        torch.manual_seed(1)
        self.device, self.variant = device, variant
        self.bytes_before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
        self.model = network.make_model(size, cross_attention).to(device).train()
        self.config = self.model.config
        if variant == "script":
            call_attention_with_defaults(self.model)
        self.optimizer, self.adamw = make_adamw(self.model.parameters(), fused=variant != "script")
        self.scaler = make_scaler(device)
        batch = network.SIZES[size].batch
        self.visual = torch.randn(batch, self.config.seq_len, self.config.visual_dim, device=device)
        self.audio = torch.randn(batch, self.config.seq_len, self.config.audio_dim, device=device)
        self.labels = torch.arange(batch, dtype=torch.int32, device=device) % 2
        self.attention_kernel, self.attention = contextlib.nullcontext, "PyTorch's choice"
        self.loss_of_batch = self.loss
        if variant == "compile":
            self.attention_kernel, self.attention = flash_attention(self.config, device)
            self.loss_of_batch = torch.compile(self.loss, mode="max-autotune")
        self.last_loss = None

    def loss(self):
        # As reference.losses, but for a weight of the positive class that is made on the host at every call.
        with mixed_precision(self.device):
            logits, zv, za = self.model(self.visual, self.audio)
            smoothing = self.config.label_smoothing
            target = self.labels.to(logits) * (1.0 - smoothing) + 0.5 * smoothing
            classification = F.binary_cross_entropy_with_logits(logits, target)
            return classification + self.config.contrastive_weight * network.reference.info_nce(zv, za, self.labels)

    def step(self):
        if self.variant == "compile" and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        self.optimizer.zero_grad(set_to_none=True)
        with self.attention_kernel():
            loss = self.loss_of_batch()
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.last_loss = loss.item() if self.variant == "script" else loss.detach()

    def warm_up(self):
        """Returns the memory this variant takes, in MiB, where the device counts it."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(ARGUMENTS.warmup):
            self.step()
        if not torch.isfinite(torch.as_tensor(self.last_loss)):
            raise ArithmeticError("the loss is not finite")
        return round((torch.cuda.max_memory_allocated() - self.bytes_before) / 2**20, 1) if cuda else None


def best_of(call, timer, repeats=5):
    for _ in range(repeats):
        timer.run(call)
    return min(timer.times()) / 1e3


def measure_roofs(device, timer, tiny):
    """Bytes per second of copying and FLOP/s of a product; the best of a few."""
    elements = (1 << 20) if tiny else (1 << 28)
    source = torch.ones(elements, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    copy = 2 * source.numel() * source.element_size() / best_of(lambda: target.copy_(source), timer)
    del source, target
    n = 256 if tiny else 8192
    a, b = (torch.randn(n, n, device=device).to(DTYPES[ARGUMENTS.precision]) for _ in range(2))
    product = 2 * n**3 / best_of(lambda: a @ b, timer)
    return {"copy_gb_per_s": round(copy / 1e9, 2), "gemm_gflops": round(product / 1e9, 1)}


def guarded(call):
    """(what it returned, None), or (None, why not)."""
    try:
        return call(), None
    except NotAvailable as missing:
        return None, {"status": "n/a", "reason": str(missing)}
    except Exception as error:  # a rival that fails is a result, and the others go on
        return None, {"status": "failed", "reason": " ".join(f"{type(error).__name__}: {error}".split())[:500]}


def measure(size, cross_attention, device, timer):
    trainings, outcomes = {}, {}
    for variant in ARGUMENTS.variants:
        print(f"{size} {cross_attention} {variant}: warming up", file=sys.stderr)
        training, reason = guarded(lambda: Training(variant, size, cross_attention, device))
        memory, reason = (None, reason) if reason else guarded(training.warm_up)
        if reason:
            print(f"{size} {cross_attention} {variant}: {reason['status']}: {reason['reason']}", file=sys.stderr)
            outcomes[variant] = reason
            continue
        trainings[variant] = training
        outcomes[variant] = {"status": "ok", "attention": training.attention, "adamw": training.adamw,
                             "peak_mib": memory, "ms_per_step": []}
    roofs = []
    for turn in range(ARGUMENTS.turns if trainings else 0):
        roofs.append(measure_roofs(device, timer, size == "tiny"))
        for variant, training in trainings.items():
            for _ in range(ARGUMENTS.steps):
                timer.run(training.step)
            outcomes[variant]["ms_per_step"].append([round(t, 4) for t in timer.times()])
        print(f"{size} {cross_attention}: turn {turn + 1} of {ARGUMENTS.turns}", file=sys.stderr)
    config, batch = network.SIZES[size].config(cross_attention), network.SIZES[size].batch
    flops = network.flops_per_step(config, batch)
    for outcome in outcomes.values():
        if outcome["status"] == "ok":
            outcome.update(results.summary([t for turn in outcome["ms_per_step"] for t in turn]))
            outcome["gflops"] = round(flops / outcome["median_ms"] / 1e6, 1)
    return {"size": size, "cross_attention": cross_attention, "parameters": network.PARAMETERS[size, cross_attention],
            "batch_size": batch, "options": network.SIZES[size].options, "flops_per_step": flops,
            "roofs_by_turn": roofs, "variants": outcomes}


def describe(device):
    # Such as TORCHINDUCTOR_MAX_AUTOTUNE_GEMM_BACKENDS=ATEN, which leaves products to cuBLAS and saves minutes of compiling.
    inductor = {name: value for name, value in os.environ.items() if name.startswith("TORCHINDUCTOR_")}
    info = {"torch": torch.__version__, "inductor": inductor, "python": sys.version.split()[0], "cpu": results.first_match("/proc/cpuinfo", r"^model name\s*:\s*(.*)$")}
    if device.type == "cpu":
        return info | {"device": info["cpu"], "driver": "n/a", "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(device)
    query = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,power.draw,power.limit,ecc.mode.current"
    smi = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "-i", str(device.index or 0)],
                         capture_output=True, text=True, check=False).stdout.strip().split(", ")
    state = dict(zip(query.split(","), smi)) if len(smi) == len(query.split(",")) else {}
    return info | {"device": properties.name, "driver": state.get("driver_version", "unknown"), "state_at_start": state,
                   "compute_capability": f"{properties.major}.{properties.minor}", "memory_mib": properties.total_memory >> 20,
                   "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}


def main():
    kind = ARGUMENTS.device if ARGUMENTS.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda" and not torch.cuda.is_available():
        sys.exit(f"step.py: --device cuda: torch {torch.__version__} finds no GPU")
    device = torch.device(kind, 0) if kind == "cuda" else torch.device(kind)
    if ARGUMENTS.precision == "auto":
        ARGUMENTS.precision = "bf16" if kind == "cuda" else "fp32"
    if ARGUMENTS.threads:
        torch.set_num_threads(ARGUMENTS.threads)
    timer = Timer(device)
    forms = ("a2v", "bidirectional") if ARGUMENTS.cross_attention == "both" else (ARGUMENTS.cross_attention,)
    report = {"what": "training step in PyTorch", "command": " ".join([os.path.basename(sys.executable), *sys.argv]),
              "date": results.today(), "revision": results.revision()} | describe(device)
    report |= {"arguments": vars(ARGUMENTS), "results": [measure(size, form, device, timer) for size in ARGUMENTS.size for form in forms]}
    if ARGUMENTS.save:
        print(results.write(report, report["device"], f"step-pytorch-{ARGUMENTS.precision}"))
    else:
        print(results.to_json(report))
    failed = [v for r in report["results"] for v in r["variants"].values() if v["status"] == "failed"]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
