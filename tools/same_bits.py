#!/usr/bin/env python3
"""Compares what two builds of voca-engine compute, bit for bit, for work that must not change a number.

    tools/same_bits.py BEFORE AFTER [--folder F]
    tools/same_bits.py "VOCA_CPU_ARCH=x86-64-v3 PROGRAM" PROGRAM

Both programs make a tree, pack it, train 20 steps on one rank and on four, export, evaluate and predict on the CPU. The
packed dataset, the losses of every step, the tensors of .pt, .safetensors and resume states, predictions and the
evaluation must be the same; names of keys, versions and times may differ. The CUDA kernels' share is in the tests: cuda_on_host_tests
--gtest_filter='WholeStep*' compares a step on them with the CPU's.

Exit codes: 0 the same, 1 different, 64 usage.
"""

import argparse
import json
import pathlib
import shlex
import struct
import subprocess
import sys
import tempfile
import zipfile

# Widths that no vector divides, so that the remainders of loops count.
NETWORK = "--hidden 36 --num_layers 2 --num_heads 3 --seq_len 29 --batch_size 4".split()
TRAINING = "--use_contrastive --label_smoothing 0.1 --max_steps 20 --log_every 1 --quiet".split()


def command(text):
    """A program, with or without NAME=VALUE for its environment before it, as words to call it from any folder."""
    *environment, program = shlex.split(text)
    return ["env", *environment, str(pathlib.Path(program).resolve())]


def run(program, folder, *words):
    done = subprocess.run([*program, *words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join([*program, *words])}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def make(program, folder):
    """Everything that is compared, in a folder of this program's own."""
    folder.mkdir()
    run(program, folder, "synth", "--out", "tree", "--videos", "160", "--frames_min", "30", "--frames_max", "50")
    run(program, folder, "pack", "--features_root", "tree", "--out", "f.h5", "--group_by", "identity")
    train = ["train", "--features_root", "f.h5", *NETWORK, *TRAINING, "--epochs", "4", "--device", "cpu"]
    run(program, folder, *train, "--save_path", "1.pt", "--save_last", "last1.pt")
    run(program, folder, "launch", "--nproc_per_node", "4", "--", *train, "--save_path", "4.pt", "--save_last", "last4.pt")
    run(program, folder, "inspect", "last1.pt", "--export", "last1.safetensors")
    common = ["--checkpoint", "1.pt", "--features_root", "f.h5", "--device", "cpu"]
    run(program, folder, "predict", *common, "--out", "predictions.csv")
    (folder / "evaluation.json").write_text(run(program, folder, "eval", *common, "--split", "test", "--json"))
    (folder / "dataset.json").write_text(run(program, folder, "inspect", "f.h5", "--json"))


def numbers(value):
    """The leaves of a JSON value, sorted; keys, their order and texts are names, which may change."""

    def leaves(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            return [leaf for one in value for leaf in leaves(one)]
        return [] if isinstance(value, str) else [value]

    return sorted(leaves(value), key=repr)


def pt(path):
    """The bytes of a .pt's storages by name; what lies beside them names revisions."""
    with zipfile.ZipFile(path) as archive:
        return {name.split("/data/")[1]: archive.read(name) for name in archive.namelist() if "/data/" in name}


def safetensors(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    return {name: (tensor["dtype"], tensor["shape"], raw[8 + length :][slice(*tensor["data_offsets"])])
            for name, tensor in header.items()}


def state(run_folder):
    """The bytes of a run's newest resume state by name, in its form or in that of earlier versions."""
    path = max((run_folder / "checkpoints").glob("state-*.resume"))
    raw = path.read_bytes()
    if not raw.startswith(b"VOCARES"):
        return {name: data for name, (_, _, data) in safetensors(path).items()}
    (length,) = struct.unpack("<Q", raw[8:16])
    first = -(-(20 + length) // 64) * 64
    return {section["name"]: raw[first + section["offset"] :][: section["bytes"]]
            for section in json.loads(raw[20 : 20 + length])["sections"]}


def losses(run_folder):
    """The numbers of every record, without what a clock or a memory says."""
    measured = ("per_s", "second", "time", "bytes", "duration")
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    return [numbers({key: value for key, value in json.loads(line).items() if not any(m in key for m in measured)})
            for line in lines]


def dataset(folder):
    facts = json.loads((folder / "dataset.json").read_text())
    return {key: facts[key] for key in ("content_hash", "split_hash", "samples", "visual_frames", "audio_frames")}


COMPARED = {
    "packed dataset": dataset,
    "records of one rank": lambda folder: losses(folder / "1.run"),
    "records of four ranks": lambda folder: losses(folder / "4.run"),
    "best .pt of one rank": lambda folder: pt(folder / "1.pt"),
    "last .pt of one rank": lambda folder: pt(folder / "last1.pt"),
    "last .pt of four ranks": lambda folder: pt(folder / "last4.pt"),
    "resume state of one rank": lambda folder: state(folder / "1.run"),
    "resume state of four ranks": lambda folder: state(folder / "4.run"),
    ".safetensors": lambda folder: safetensors(folder / "last1.safetensors"),
    "predictions": lambda folder: (folder / "predictions.csv").read_bytes(),
    "evaluation": lambda folder: numbers(json.loads((folder / "evaluation.json").read_text())),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("before", type=command)
    parser.add_argument("after", type=command)
    parser.add_argument("--folder", type=pathlib.Path, help="keep what is made here, in a new folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.folder or pathlib.Path(scratch) / "bits"
        root.mkdir()
        for name in ("before", "after"):
            make(getattr(arguments, name), root / name)
        differ = 0
        for what, value in COMPARED.items():
            before, after = value(root / "before"), value(root / "after")
            if not before:
                sys.exit(f"{what}: there is nothing to compare")
            differ += before != after
            print(f"{'the same ' if before == after else 'DIFFERENT'}  {what}")
    sys.exit(1 if differ else 0)


main()
