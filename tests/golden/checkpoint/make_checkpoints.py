#!/usr/bin/env python3
"""Writes the .pt files beside it with PyTorch 1.13, and the forms of zip and pickle that other versions write.

    /usr/bin/python3 make_checkpoints.py

Every tensor holds pattern(k): element i is ((7 i + k) mod 13) / 4 - 1, exact in each floating-point type, so that the
tests need no second file with the numbers.
"""
import argparse
import collections
import io
import os
import zipfile

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))


def pattern(k, *shape):
    count = int(np.prod(shape)) if shape else 1
    return torch.tensor([((7 * i + k) % 13) / 4 - 1 for i in range(count)]).reshape(shape)


def path(name):
    return os.path.join(HERE, name)


class Small(torch.nn.Module):
    """The module of written_checkpoint.pt too; parameters in order of registration."""

    def __init__(self):
        super().__init__()
        self.proj = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
        self.classifier = torch.nn.Linear(4, 1)


def small():
    model = Small()
    with torch.no_grad():
        for k, parameter in enumerate(model.parameters()):
            parameter.copy_(pattern(k, *parameter.shape))
    return model


def training():
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=1e-4)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    with torch.no_grad():
        for k, parameter in enumerate(model.parameters()):
            parameter.copy_(pattern(k, *parameter.shape))
            optimizer.state[parameter]["exp_avg"].copy_(pattern(10 + k, *parameter.shape))
            optimizer.state[parameter]["exp_avg_sq"].copy_(pattern(20 + k, *parameter.shape))
    return {
        "epoch": 7,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "val_acc": np.float64(0.875),
        "val_auc": np.float32(0.9375),
        "config": {"hidden": 768, "lr": 3e-4, "use_contrastive": True, "save_path": "best.pt",
                   "folds": np.int64(-3), "fine": np.bool_(True), "schedule": None, "betas": (0.9, 0.999)},
    }


def rewrite(source, target, write):
    """Copies a zip's records through `write(archive, name, bytes)`."""
    with zipfile.ZipFile(path(source)) as old, zipfile.ZipFile(path(target), "w") as new:
        for info in old.infolist():
            write(new, info.filename, old.read(info))


def with_date(name):
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


class Unseekable(io.RawIOBase):
    """Makes zipfile write data descriptors."""

    def __init__(self, file):
        super().__init__()
        self.file = file

    def writable(self):
        return True

    def write(self, data):
        return self.file.write(data)


class Hostile:
    def __reduce__(self):
        return os.system, ("touch voca_was_here",)


def main():
    torch.manual_seed(0)
    torch.save(small().state_dict(), path("state_dict.pt"))
    for protocol in (3, 4, 5):
        torch.save(small().state_dict(), path(f"protocol_{protocol}.pt"), pickle_protocol=protocol)
    torch.save(training(), path("training.pt"))
    torch.save({"state_dict": torch.nn.DataParallel(small()).state_dict(), "epoch": 3}, path("data_parallel.pt"))
    torch.save(dict(small().named_parameters()), path("parameters.pt"))
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
              torch.int8, torch.uint8, torch.bool]
    whole = torch.arange(6).reshape(2, 3)
    torch.save({str(d): (pattern(0, 2, 3) if d.is_floating_point else whole).to(d) for d in dtypes},
               path("dtypes.pt"))
    base = pattern(0, 4, 6)
    torch.save({"base": base, "transposed": base.t(), "block": base[1:3, 2:5], "column": base[:, 3],
                "scalar": base[2, 2], "empty": base[:0]}, path("views.pt"))
    torch.save({"expanded": torch.ones(1).expand(1000, 1000)}, path("expanded.pt"))
    torch.save(small().state_dict(), path("legacy.pt"), _use_new_zipfile_serialization=False)
    torch.save({"state_dict": small().state_dict(), "args": argparse.Namespace(lr=1.0),
                "tags": {"a"}, "defaults": collections.defaultdict(list, k=[1]), "rng": np.arange(2)},
               path("objects.pt"))
    torch.save({"state_dict": small().state_dict(), "hook": Hostile()}, path("hostile.pt"))

    rewrite("state_dict.pt", "deflated.pt",
            lambda zip_, name, data: zip_.writestr(with_date(name), data, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path("state_dict.pt")) as old, open(path("data_descriptor.pt"), "wb") as file:
        with zipfile.ZipFile(Unseekable(file), "w") as new:
            for info in old.infolist():
                new.writestr(with_date(info.filename), old.read(info))
    limit, zipfile.ZIP64_LIMIT = zipfile.ZIP64_LIMIT, 64
    count, zipfile.ZIP_FILECOUNT_LIMIT = zipfile.ZIP_FILECOUNT_LIMIT, 2
    rewrite("state_dict.pt", "zip64.pt", lambda zip_, name, data: zip_.writestr(with_date(name), data))
    zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT = limit, count

    def swap(zip_, name, data):
        zip_.writestr(with_date(name), np.frombuffer(data, "<f4").byteswap().tobytes() if "/data/" in name else data)
        if name.endswith("data.pkl"):
            zip_.writestr(with_date(name.replace("data.pkl", "byteorder")), b"big")

    rewrite("state_dict.pt", "big_endian.pt", swap)


if __name__ == "__main__":
    main()
