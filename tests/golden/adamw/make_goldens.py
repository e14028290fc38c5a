#!/usr/bin/env python3
"""Writes adamw.txt: steps of torch.optim.AdamW after torch.nn.utils.clip_grad_norm_.

Made with PyTorch 1.13 on a CPU:  python3 make_goldens.py > adamw.txt

Per case a line `case <name> <float32|float64> <elements> <steps> <weight_decay> <max_norm> <loss_scale>`, a line
`start` with the initial parameters, then per step the lines `lr`, `gradient` (as backward leaves it, times the
loss scale), `norm` (of the unscaled gradient), `parameter`, `exp_avg`, `exp_avg_sq` (after the step).
"""
import torch

ELEMENTS = 7
STEPS = 8
CASES = [  # name, weight decay, max norm (0: no clipping), loss scale
    ("plain", 0.0, 0.0, 1.0),
    ("recipe", 1e-4, 1.0, 1.0),
    ("scaled", 0.1, 0.5, 1024.0),
]


def line(name, values):
    print(name, *("%.17g" % value for value in values))


for name, weight_decay, max_norm, loss_scale in CASES:
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(5)
        parameter = torch.nn.Parameter(torch.randn(ELEMENTS, dtype=torch.float32).to(dtype))
        optimizer = torch.optim.AdamW([parameter], lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay)
        print("case", name, str(dtype).split(".")[1], ELEMENTS, STEPS, weight_decay, max_norm, loss_scale)
        line("start", parameter.tolist())
        for step in range(STEPS):
            # Norms fall on both sides of the clip; the last element's gradient stays zero, the first's is tiny.
            gradient = torch.randn(ELEMENTS, dtype=torch.float32).to(dtype) * (2.0 if step % 3 == 0 else 0.1)
            gradient[0] *= 1e-7
            gradient[-1] = 0
            lr = 1e-3 * (0.1 + 0.9 * step / 4) if step < 4 else 1e-3 / (step - 3)
            optimizer.param_groups[0]["lr"] = lr
            parameter.grad = gradient.clone()
            norm = torch.linalg.vector_norm(parameter.grad)
            if max_norm > 0:
                torch.nn.utils.clip_grad_norm_([parameter], max_norm)
            optimizer.step()
            state = optimizer.state[parameter]
            line("lr", [lr])
            line("gradient", (gradient * loss_scale).tolist())
            line("norm", [norm.item()])
            line("parameter", parameter.tolist())
            line("exp_avg", state["exp_avg"].tolist())
            line("exp_avg_sq", state["exp_avg_sq"].tolist())
