#!/usr/bin/env python3
"""Shows that PyTorch takes a checkpoint of ours: run by hand after the format changes.

    VOCA_WRITE_GOLDEN=$PWD/written_checkpoint.pt <build>/bin/engine_tests --gtest_filter=*ByteForByte*
    python3 check_with_torch.py written_checkpoint.pt

Loads it (PyTorch 2: with weights_only=True), strictly into the module and into torch.optim.AdamW, compares every number, and makes a
step.
"""
import sys

import torch

from make_checkpoints import Small, pattern


def main(path):
    # The restricted unpickler of PyTorch 1.13 knows no float at all (opcode BINFLOAT), nobody's optimizer state included.
    restricted = int(torch.__version__.split(".")[0]) >= 2
    checkpoint = torch.load(path, map_location="cpu", weights_only=restricted)
    assert list(checkpoint) == ["epoch", "model_state_dict", "optimizer_state_dict", "val_acc", "val_auc", "config",
                                "engine"], list(checkpoint)
    model = Small()
    model.load_state_dict(checkpoint["model_state_dict"], strict=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    for k, parameter in enumerate(model.parameters()):
        state = optimizer.state[parameter]
        assert torch.equal(parameter.detach(), pattern(k, *parameter.shape))
        assert torch.equal(state["exp_avg"], pattern(10 + k, *parameter.shape))
        assert torch.equal(state["exp_avg_sq"], pattern(20 + k, *parameter.shape))
        assert state["step"].shape == () and state["step"].dtype == torch.float32 and state["step"] == 2
        state["exp_avg_sq"].abs_()
        parameter.grad = torch.ones_like(parameter)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (3e-4, (0.9, 0.999), 1e-8, 1e-4)
    optimizer.step()
    assert all(optimizer.state[p]["step"] == 3 and torch.isfinite(p).all() for p in model.parameters())
    assert checkpoint["epoch"] == 7 and (checkpoint["val_acc"], checkpoint["val_auc"]) == (0.875, 0.9375)
    config = checkpoint["config"]
    assert config == {"hidden": 768, "lr": 3e-4, "use_contrastive": True, "save_path": "best.pt", "folds": -3,
                      "schedule": None, "betas": [0.9, 0.999], "far": 5000000000}, config
    assert checkpoint["engine"]["format_version"] == 1 and checkpoint["engine"]["threshold"] == 0.25
    print(f"PyTorch {torch.__version__} takes {path}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "written_checkpoint.pt")
