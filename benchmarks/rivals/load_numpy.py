#!/usr/bin/python3
"""A training batch from a feature tree with np.load: the rival of the packed dataset.

    /usr/bin/python3 benchmarks/rivals/load_numpy.py --tree DIR --batch_size 64 --seq_len 256 --epochs 2

What a PyTorch dataset over such a tree does for every sample: np.load of both files, cut to the shorter stream,
roll, crop or repeat the last frame; then one array a stream. One process; the page cache is warmed by one epoch
that is not timed. Prints JSON on one line; times in milliseconds, one a batch.
"""

import argparse
import json
import os
import statistics
import sys
import time

import numpy as np


def videos_of(tree):
    folders = []
    for name in ("real", "fake"):
        parent = os.path.join(tree, name)
        if os.path.isdir(parent):
            folders += [os.path.join(parent, video) for video in sorted(os.listdir(parent))]
    return folders


def load(folder, seq_len, random):
    """The two streams of one video, (seq_len, width) each."""
    streams = []
    for name in ("visual", "audio"):
        with np.load(os.path.join(folder, f"{name}_embeddings.npz")) as arrays:
            streams.append(arrays["embeddings"].astype(np.float32, copy=False))
    frames = min(len(stream) for stream in streams)
    streams = [stream[:frames] for stream in streams]
    if random.random() < 0.2:
        shift = int(random.integers(-3, 4))
        if shift > 0:
            streams[1] = np.roll(streams[1], shift, axis=0)
        elif shift < 0:
            streams[0] = np.roll(streams[0], -shift, axis=0)
    if frames >= seq_len:
        start = int(random.integers(0, frames - seq_len + 1))
        return [stream[start:start + seq_len] for stream in streams]
    return [np.concatenate([stream, np.repeat(stream[-1:], seq_len - frames, axis=0)]) for stream in streams]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", required=True)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--seq_len", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=2, help="timed")
    arguments = parser.parse_args()
    random = np.random.default_rng(1)
    videos = videos_of(arguments.tree)
    times = []
    for epoch in range(arguments.epochs + 1):
        order = random.permutation(len(videos))
        for first in range(0, len(order) - arguments.batch_size + 1, arguments.batch_size):
            start = time.perf_counter()
            pairs = [load(videos[i], arguments.seq_len, random) for i in order[first:first + arguments.batch_size]]
            batch = [np.stack([pair[s] for pair in pairs]) for s in (0, 1)]
            elapsed = (time.perf_counter() - start) * 1e3
            assert all(stream.shape[:2] == (arguments.batch_size, arguments.seq_len) for stream in batch)
            if epoch > 0:
                times.append(elapsed)
    print(json.dumps({
        "what": "a training batch from a feature tree, np.load, warm cache",
        "command": " ".join([os.path.basename(sys.executable)] + sys.argv),
        "numpy": np.__version__,
        "batch_size": arguments.batch_size,
        "seq_len": arguments.seq_len,
        "ms_per_batch": [round(t, 3) for t in times],
        "median_ms": round(statistics.median(times), 3),
    }))


if __name__ == "__main__":
    main()
