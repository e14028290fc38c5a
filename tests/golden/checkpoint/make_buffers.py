#!/usr/bin/env python3
"""Writes buffers.pt beside it with a PyTorch that has torch.nn.Buffer (2.5 and newer; it was 2.15).

    python3 make_buffers.py

A tensor with Python attributes, which a Buffer is, is pickled as torch._tensor._rebuild_from_type_v2; a parameter with
attributes as torch._utils._rebuild_parameter_with_state. Tensors hold pattern(k) of make_checkpoints.py.
"""
import os

import torch


def pattern(k, *shape):
    count = torch.Size(shape).numel()
    return torch.tensor([((7 * i + k) % 13) / 4 - 1 for i in range(count)]).reshape(shape)


class Tagged(torch.Tensor):
    """A type that may mean something else by its numbers."""


def main():
    parameter = torch.nn.Parameter(pattern(0, 2, 3))
    parameter.tag = "no weight decay"
    noted = pattern(3, 4)
    noted.note = {"from": "calibration"}
    torch.save({"weight": parameter, "mean": torch.nn.Buffer(pattern(1, 3)),
                "transposed": torch.nn.Buffer(pattern(2, 2, 3).t(), persistent=False), "noted": noted,
                "subclass": pattern(4, 2).as_subclass(Tagged)},
               os.path.join(os.path.dirname(os.path.abspath(__file__)), "buffers.pt"))


if __name__ == "__main__":
    main()
