#!/usr/bin/python3
"""Makes the golden files of the model from reference.py; README.md describes what is in them.

    /usr/bin/python3 tests/golden/model/make_goldens.py

Weights and inputs come from the generator below, which tests/model/support/golden.cpp repeats bit for bit, so
the files hold only results. Refuses to write a case whose own numbers are not trustworthy: fp32 and fp64 of
PyTorch too far apart, or a maximum over time so close that rounding decides where its gradient goes.
"""

import dataclasses
import json
import math
import os
import struct

import numpy as np
import torch

from reference import Config, CrossModalTransformer, learning_rate, losses, make_optimizer, train_step

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLES = 256  # of a large gradient
STAGE_SAMPLES = 64
SAMPLE_STEP = 10007  # prime, and larger than any of the extents here
STEPS = 20
SMALLEST_GAP = 5e-5


# --- safetensors and the generator ---------------------------------------------------------------------------


def write_safetensors(path, tensors, metadata):
    """8 bytes little-endian length of the header, JSON header, raw little-endian data."""
    names = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64"}
    header, blobs, offset = {"__metadata__": metadata}, [], 0
    # The widest types first keep every tensor aligned.
    for name, array in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        blob = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": names[str(array.dtype)], "shape": list(array.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def mix(x):
    """The 32-bit finaliser lowbias32; x is an array of uint64 below 2^32."""
    mask = np.uint64(0xFFFFFFFF)
    x = x ^ (x >> np.uint64(16))
    x = (x * np.uint64(0x7FEB352D)) & mask
    x = x ^ (x >> np.uint64(15))
    x = (x * np.uint64(0x846CA68B)) & mask
    return x ^ (x >> np.uint64(16))


def fnv1a(name, seed):
    h = 0x811C9DC5 ^ seed
    for byte in name.encode():
        h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
    return h


def generate(name, seed, shape, center, scale):
    """float32 in [center - scale, center + scale): center + scale * k / 2^23 with k the upper 24 bits of the hash,
    less 2^23. `scale` has 24 significant bits, so the product is exact in double and one rounding remains."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64)
    h = mix(mix(index) ^ np.uint64(fnv1a(name, seed)))
    k = (h >> np.uint64(8)).astype(np.int64) - (1 << 23)
    value = np.float64(center) + k.astype(np.float64) * (np.float64(scale) / 2.0**23)
    return value.astype(np.float32).reshape(shape)


def fill_of(name, shape):
    """(center, scale): large enough that softmax, GELU and the losses are far from flat."""
    in_norm = "norm" in name or name.startswith(("v_proj.1", "a_proj.1"))
    if in_norm:
        center, scale = (1.0, 0.25) if name.endswith("weight") else (0.0, 0.1)
    elif name.endswith("in_proj_weight"):
        center, scale = 0.0, 2.0 * math.sqrt(1.5 / shape[1])
    elif name.endswith("bias"):
        center, scale = 0.0, 0.1
    elif name == "pos_embed":
        center, scale = 0.0, 0.5
    else:
        center, scale = 0.0, math.sqrt(3.0 / shape[1])
    return center, float(np.float32(scale))


INPUT_SCALE = 1.5


# --- what is computed ------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Case:
    name: str
    config: Config
    batch: int
    one_class: bool = False
    seed: int = 1


def build(case, dtype):
    """The model filled by the generator, and (visual, audio, labels)."""
    config = case.config
    model = CrossModalTransformer(config).to(dtype)
    # Dropout is 0 throughout; training mode keeps PyTorch on the path that autograd sees.
    model.train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            center, scale = fill_of(name, parameter.shape)
            parameter.copy_(torch.from_numpy(generate(name, case.seed, parameter.shape, center, scale)))
    shapes = {"visual": (case.batch, config.seq_len, config.visual_dim), "audio": (case.batch, config.seq_len, config.audio_dim)}
    visual, audio = (torch.from_numpy(generate(k, case.seed, s, 0.0, INPUT_SCALE)).to(dtype) for k, s in shapes.items())
    classes = max(2, config.num_classes)
    draw = generate("labels", case.seed, (case.batch,), 0.0, 1.0).astype(np.float64)
    labels = np.floor((draw + 1.0) * 0.5 * classes).astype(np.int32)
    if case.one_class:
        labels[:] = 1
    elif case.batch > 1 and (labels == labels[0]).all():
        labels[-1] = (labels[0] + 1) % classes
    return model, visual, audio, torch.from_numpy(labels)


def smallest_gap(stages):
    """Between the largest and the second largest value over time, over every column that is pooled."""
    last = max((k for k in stages if k.startswith("layer")), key=lambda k: int(k[5:]))
    if stages[last].shape[1] < 2:
        return math.inf
    top = stages[last].detach().topk(2, dim=1)[0]
    return float((top[:, 0] - top[:, 1]).min())


def sample_indices(count, samples):
    if count <= samples:
        return np.arange(count)
    assert math.gcd(count, SAMPLE_STEP) == 1
    return (np.arange(samples, dtype=np.int64) * SAMPLE_STEP) % count


def sampled(tensor, samples):
    flat = tensor.detach().numpy().reshape(-1)
    return flat[sample_indices(flat.size, samples)]


def parameters_of(model):
    return [
        {"name": n, "shape": list(p.shape), "center": fill_of(n, p.shape)[0], "scale": fill_of(n, p.shape)[1]}
        for n, p in model.named_parameters()
    ]


def metadata_of(kind, case, model, **more):
    """Values of __metadata__ are strings; "golden" is JSON in one."""
    config = dataclasses.asdict(case.config)
    body = {"kind": kind, "name": case.name, "seed": case.seed, "batch": case.batch, "config": config,
            "input_scale": INPUT_SCALE, "parameters": parameters_of(model), "torch": torch.__version__, **more}
    return {"golden": json.dumps(body, separators=(",", ":"))}


def spot_checks(case, model, visual):
    """A few generated values as they are, so that a generator that drifts is caught before anything else."""
    first = next(iter(model.parameters()))
    return {"check/visual": visual.numpy().reshape(-1)[:16].copy(),
            "check/first_parameter": first.detach().numpy().reshape(-1)[:16].copy()}


def make_case(case):
    while True:  # the first seed whose maxima over time are clear
        model64, visual64, audio64, labels = build(case, torch.float64)
        stages = {}
        outputs64 = model64(visual64, audio64, stages)
        if smallest_gap(stages) > SMALLEST_GAP:
            break
        case.seed += 1
    parts64 = losses(case.config, outputs64, labels)
    parts64[0].backward()
    model32, visual32, audio32, _ = build(case, torch.float32)
    outputs32 = model32(visual32, audio32)
    parts32 = losses(case.config, outputs32, labels)
    parts32[0].backward()

    # A gradient that is zero but for rounding (the contrastive head's with one sample) has no scale of its own.
    floor = 1e-6 * max(float(p.grad.abs().max()) for p in model64.parameters() if p.grad is not None)
    gradients, norms, sums, worst = {}, [], [], 0.0
    for (name, p64), p32 in zip(model64.named_parameters(), model32.parameters()):
        g64 = torch.zeros_like(p64) if p64.grad is None else p64.grad
        g32 = torch.zeros_like(p32) if p32.grad is None else p32.grad
        gradients["grad/" + name] = sampled(g64, SAMPLES if g64.numel() > 512 else 512)
        norms.append(float(g64.norm()))
        sums.append(float(g64.sum()))
        worst = max(worst, float((g32.double() - g64).abs().max()) / max(float(g64.abs().max()), floor))
    logit_error = float((outputs32[0].double() - outputs64[0]).detach().abs().max())
    assert logit_error < 1e-5, (case.name, logit_error)
    assert worst < 1e-4, (case.name, worst)

    tensors = {
        "labels": labels.numpy(),
        "logits_f32": outputs32[0].detach().numpy(),
        "logits_f64": outputs64[0].detach().numpy(),
        "loss_f32": np.array([p.item() for p in parts32], dtype=np.float64),
        "loss_f64": np.array([p.item() for p in parts64], dtype=np.float64),
        "grad_norms": np.array(norms),
        "grad_sums": np.array(sums),
        **{"stage/" + k: sampled(v, STAGE_SAMPLES) for k, v in stages.items()},
        **gradients,
        **spot_checks(case, model32, visual32),
    }
    path = os.path.join(HERE, "cases", case.name + ".safetensors")
    write_safetensors(path, tensors, metadata_of("case", case, model64))
    print(f"{case.name:40s} {os.path.getsize(path) / 1e3:6.1f} kB  loss {parts64[0].item():8.5f}  "
          f"fp32 - fp64: logits {logit_error:.1e}, gradients {worst:.1e}")


def make_run(case, schedule, epochs, steps_per_epoch, warmup_epochs, lr, weight_decay, max_grad_norm):
    assert epochs * steps_per_epoch == STEPS
    rates = []
    for step in range(STEPS):
        if schedule == "epoch":
            rates.append(learning_rate(lr, step // steps_per_epoch, warmup_epochs, epochs))
        else:
            rates.append(learning_rate(lr, step, warmup_epochs * steps_per_epoch, STEPS))
    tensors = {"lr": np.array(rates)}
    for suffix, dtype in (("f32", torch.float32), ("f64", torch.float64)):
        model, visual, audio, labels = build(case, dtype)
        if dtype == torch.float32:
            tensors.update(spot_checks(case, model, visual))
        optimizer = make_optimizer(model, lr, weight_decay)
        loss, norms = [], []
        for rate in rates:
            parts, norm = train_step(model, optimizer, rate, visual, audio, labels, max_grad_norm)
            loss.append([p.item() for p in parts])
            norms.append(float(norm))
        tensors["loss_" + suffix] = np.array(loss, dtype=np.float64)
        tensors["grad_norm_" + suffix] = np.array(norms, dtype=np.float64)
        tensors["final_logits_" + suffix] = model(visual, audio)[0].detach().numpy()
        tensors["final_norms_" + suffix] = np.array([float(p.detach().double().norm()) for p in model.parameters()])
    tensors["labels"] = labels.numpy()
    # Relative tolerances need a loss that stays away from zero.
    assert tensors["loss_f64"][:, 0].min() > 0.1, (case.name, tensors["loss_f64"])
    drift = np.abs(tensors["loss_f32"][:, 0] / tensors["loss_f64"][:, 0] - 1).max()
    assert drift < 1e-4, (case.name, drift)
    norms = tensors["grad_norm_f64"]
    assert norms.max() > max_grad_norm > norms.min(), (case.name, norms)
    recipe = dict(schedule=schedule, epochs=epochs, steps_per_epoch=steps_per_epoch, warmup_epochs=warmup_epochs,
                  lr=lr, weight_decay=weight_decay, max_grad_norm=max_grad_norm)
    path = os.path.join(HERE, "runs", case.name + ".safetensors")
    write_safetensors(path, tensors, metadata_of("run", case, model, recipe=recipe))
    total = tensors["loss_f64"][:, 0]
    print(f"{case.name:40s} {os.path.getsize(path) / 1e3:6.1f} kB  loss {total[0]:.4f} -> {total[-1]:.4f}  "
          f"norm {norms.min():.3f} .. {norms.max():.3f}  fp32 / fp64 - 1: {drift:.1e}")


def make_initialisation():
    """What PyTorch draws for the default network: per parameter the family, its bound, and one draw's statistics."""
    result = {"torch": torch.__version__, "networks": []}
    for form in ("a2v", "bidirectional"):
        torch.manual_seed(1)
        config = Config(cross_attention=form)
        model = CrossModalTransformer(config)
        layers = model.temporal_encoder.layers
        for other in layers[1:]:
            for p, q in zip(layers[0].parameters(), other.parameters()):
                assert torch.equal(p, q)
        rows = []
        for name, parameter in model.named_parameters():
            if name.startswith("temporal_encoder.layers.") and not name.startswith("temporal_encoder.layers.0."):
                continue
            p = parameter.detach().double()
            row = {"name": name, "shape": list(p.shape)}
            # A single number tells nothing of its distribution: classifier.3.bias is drawn, not constant.
            if p.min() == p.max() and p.numel() > 1:
                row.update(family="constant", value=float(p.min()))
            else:
                if name.endswith("in_proj_weight"):
                    bound = math.sqrt(6.0 / (p.shape[0] + p.shape[1]))
                else:
                    weight = dict(model.named_parameters())[name.rsplit(".", 1)[0] + ".weight"]
                    bound = 1.0 / math.sqrt(weight.shape[1])
                assert (p.numel() == 1 or 0.97 * bound < p.abs().max()) and p.abs().max() <= bound * (1 + 1e-6), name
                row.update(family="uniform", bound=bound, min=float(p.min()), max=float(p.max()),
                           mean=float(p.mean()), std=float(p.std(unbiased=False)))
            rows.append(row)
        result["networks"].append({"config": dataclasses.asdict(config), "layers_start_equal": True, "parameters": rows})
    text = json.dumps(result, separators=(",", ":")).replace('{"name"', '\n{"name"').replace(',{"config"', ',\n{"config"')
    with open(os.path.join(HERE, "initialisation.json"), "w") as out:
        out.write(text + "\n")


def config(heads_of, hidden, **options):
    return Config(visual_dim=20, audio_dim=28, hidden=hidden, num_heads=hidden // heads_of, dropout=0.0, **options)


def main():
    torch.set_num_threads(1)
    for folder in ("cases", "runs"):
        os.makedirs(os.path.join(HERE, folder), exist_ok=True)
    a2v, both = dict(cross_attention="a2v"), dict(cross_attention="bidirectional")
    contrast = dict(use_contrastive=True)
    for case in (
        Case("a2v_d24", config(24, 48, **a2v, **contrast, seq_len=5, num_layers=1, label_smoothing=0.1, pos_weight=1.75), 3),
        Case("a2v_d32_sinusoidal", config(32, 64, **a2v, seq_len=7, num_layers=2, positional_encoding="sinusoidal"), 5),
        Case("a2v_d64_learned_k4", config(64, 128, **a2v, **contrast, seq_len=19, num_layers=1, num_classes=4,
                                          label_smoothing=0.1, positional_encoding="learned"), 7),
        Case("a2v_d96", config(96, 192, **a2v, **contrast, seq_len=11, num_layers=2, contrastive_weight=0.25,
                               label_smoothing=0.1, pos_weight=0.4), 3),
        Case("bidirectional_d24_sinusoidal_k4", config(24, 48, **both, seq_len=9, num_layers=2, num_classes=4,
                                                       positional_encoding="sinusoidal"), 5),
        Case("bidirectional_d32_learned", config(32, 64, **both, **contrast, seq_len=13, num_layers=1, pos_weight=3.0,
                                                 positional_encoding="learned"), 7),
        Case("bidirectional_d64", config(64, 128, **both, **contrast, seq_len=17, num_layers=2, label_smoothing=0.1), 3),
        Case("bidirectional_d96", config(96, 192, **both, seq_len=5, num_layers=1, label_smoothing=0.1, pos_weight=2.0), 5),
        Case("a2v_d128_one_sample", config(128, 128, **a2v, **contrast, seq_len=7, num_layers=1), 1),
        Case("bidirectional_d8_k2", config(8, 40, **both, **contrast, seq_len=15, num_layers=1, num_classes=2,
                                           label_smoothing=0.1), 4),
        Case("a2v_d24_one_frame", config(24, 48, **a2v, **contrast, seq_len=1, num_layers=2), 3),
        Case("a2v_d32_one_class", config(32, 64, **a2v, **contrast, seq_len=6, num_layers=1, label_smoothing=0.2), 5,
             one_class=True),
    ):
        make_case(case)
    for case, recipe in (
        (Case("run_a2v_epoch", config(32, 64, **a2v, **contrast, seq_len=9, num_layers=2, label_smoothing=0.2,
                                     contrastive_weight=0.25), 8),
         dict(schedule="epoch", epochs=5, steps_per_epoch=4, warmup_epochs=2, lr=1e-3, weight_decay=1e-4)),
        (Case("run_bidirectional_step", config(24, 48, **both, **contrast, seq_len=11, num_layers=1, pos_weight=1.5,
                                               label_smoothing=0.2, contrastive_weight=0.25), 7),
         dict(schedule="step", epochs=5, steps_per_epoch=4, warmup_epochs=1, lr=2e-3, weight_decay=1e-2)),
        (Case("run_a2v_k4_step", config(64, 128, **a2v, seq_len=5, num_layers=1, num_classes=4, label_smoothing=0.1,
                                        positional_encoding="learned"), 9),
         dict(schedule="step", epochs=20, steps_per_epoch=1, warmup_epochs=0, lr=5e-4, weight_decay=1e-4)),
        (Case("run_bidirectional_epoch", config(96, 192, **both, seq_len=7, num_layers=2, label_smoothing=0.1,
                                                positional_encoding="sinusoidal"), 5),
         dict(schedule="epoch", epochs=20, steps_per_epoch=1, warmup_epochs=3, lr=3e-4, weight_decay=1e-1)),
    ):
        make_run(case, max_grad_norm=1.0, **recipe)
    make_initialisation()


if __name__ == "__main__":
    main()
