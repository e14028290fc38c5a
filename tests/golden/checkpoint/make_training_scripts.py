#!/usr/bin/env python3
"""Writes what training scripts of others save of a small CrossModalTransformer (docs/crossmodal_transformer.py).

    /usr/bin/python3 -B make_training_scripts.py    # PyTorch 1.13 or newer

The files of one attention form hold the same weights, so that a test can compare what is predicted with them. Weights
are multiples of 1/64 and records are deflated to keep the files small.
"""
import argparse
import collections
import copy
import dataclasses
import datetime
import enum
import os
import pathlib
import random
import sys
import types

import numpy as np
import torch

from make_checkpoints import path, rewrite, with_date

sys.path.insert(0, path("../../../docs"))
from crossmodal_transformer import Config, CrossModalTransformer  # noqa: E402: found beside the documents

# The widths of the tree that tests/tools/support/small_data.cpp makes.
SMALL = dict(visual_dim=24, audio_dim=16, hidden=4, num_layers=1, num_heads=2, seq_len=12, dropout=0.0)


class Mode(enum.Enum):
    TRAIN = 1


class Metrics(collections.OrderedDict):
    pass


@dataclasses.dataclass
class Options:
    """Of a script that keeps its options in a dataclass, the network's in one of its own."""

    lr: float = 1e-3
    model: object = None


def network(**options):
    torch.manual_seed(3)
    model = CrossModalTransformer(Config(**{**SMALL, **options}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.round(torch.randn_like(parameter) * 24) / 64)
    return model


def stepped(model, optimizer, contrastive):
    """One step; without the contrastive loss its head gets no gradient and so no state."""
    optimizer.zero_grad(set_to_none=True)
    logits, zv, za = model(torch.ones(2, 12, 24), torch.ones(2, 12, 16))
    (logits.sum() + (zv.sum() + za.sum() if contrastive else 0)).backward()
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.step()
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), weights):
            parameter.copy_(weight)
    return optimizer.state_dict()


def wrapped(state, prefix):
    return collections.OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def save(value, name):
    torch.save(value, path("whole.pt"))

    def deflate(archive, record, data):
        # zipfile takes its default level for a ZipInfo unless told; the highest keeps the files small.
        archive.writestr(with_date(record), data, 8, compresslevel=9)

    rewrite("whole.pt", name, deflate)
    os.remove(path("whole.pt"))


def torchrun_script():
    """DistributedDataParallel of a compiled model, everything that a run needs to go on, and much that it does not."""
    model = network()
    state = model.state_dict()
    linked = []
    linked.append(linked)
    return {
        "epoch": np.int64(7),
        "model_state_dict": wrapped(state, "module._orig_mod."),
        "optimizer_state_dict": stepped(model, torch.optim.AdamW(model.parameters(), lr=1e-3), contrastive=False),
        "scheduler": {"T_max": 50, "last_epoch": 7, "_last_lr": [1e-3], "mode": Mode.TRAIN},
        "args": argparse.Namespace(num_heads="2", seq_len=12, hidden=4, out=pathlib.Path("runs/a"), mode=Mode.TRAIN),
        "val_acc": "0.93",
        "val_auc": "n/a",
        "metrics": Metrics(best=np.float32(0.5)),
        "history": collections.defaultdict(list, loss=[0.5, 0.25]),
        "counts": collections.Counter(real=3, fake=4),
        "tags": {"a"},
        "started": datetime.datetime(2024, 5, 1, 12, 0),
        "rng": {"numpy": np.random.RandomState(0).get_state(), "python": random.Random(0).getstate()[0],
                "torch": torch.zeros(16, dtype=torch.uint8)},
        "seed": 2**64 - 1,
        "huge": 2**100,
        "numpy_seed": np.uint64(2**63 + 1),
        "complex": 1j,
        "complex_tensor": torch.zeros(2, dtype=torch.complex64),
        "expanded": torch.ones(1).expand(1000),
        "class_weights": torch.ones(2),
        "name": "not \udcff UTF-8",
        "linked": linked,
    }


def lightning():
    """A LightningModule that holds the network as `model` and its loss as `criterion`."""
    model = network()
    state = wrapped(model.state_dict(), "model.")
    state["criterion.pos_weight"] = torch.ones(1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return {
        "epoch": 7, "global_step": 70, "pytorch-lightning_version": "2.1.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 8}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_auc'}": {"best_model_score": torch.tensor(0.9)}},
        "optimizer_states": [stepped(model, sgd, contrastive=True)],
        "lr_schedulers": [{"_last_lr": [0.1]}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "model": {"num_heads": 2.0, "seq_len": 12}},
    }


def averaged():
    """A model and its average (torch.optim.swa_utils), amsgrad, and a decay and a no-decay group."""
    model = network()
    average = torch.optim.swa_utils.AveragedModel(network())
    with torch.no_grad():
        model.classifier[3].bias.add_(1)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW([{"params": parameters[:9], "weight_decay": 0.0}, {"params": parameters[9:]}],
                                  amsgrad=True)
    return {"model": model.state_dict(), "ema": average.state_dict(),
            "optimizer": stepped(model, optimizer, contrastive=True), "num_heads": 2, "seq_len": 12}


def main():
    config = Options(model=types.SimpleNamespace(num_heads=2, seq_len=12))
    save({"net": network().state_dict(), "hparams": config}, "script_plain.pt")
    save(torchrun_script(), "script_torchrun.pt")
    save(lightning(), "script_lightning.pt")
    save(averaged(), "script_averaged.pt")
    bidirectional = network(cross_attention="bidirectional")
    save(torch.optim.swa_utils.AveragedModel(copy.deepcopy(bidirectional)).state_dict(), "script_bare_average.pt")
    save(network().half().state_dict(), "script_half.pt")


if __name__ == "__main__":
    main()
