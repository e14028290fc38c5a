#!/usr/bin/python3
"""Puts what compare_step.sh, compare_gemm.sh, compare_load.sh and measure_kernels.sh measured into benchmarks/results/<date>-<device>-<what>.json: the
command, the revision, the machine, every repeat, medians, p99 and ratios."""

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))


def read_lines(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def summary(times):
    """Of times in milliseconds; p99 by linear interpolation."""
    ordered = sorted(times)
    place = 0.99 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return {
        "median_ms": round(statistics.median(ordered), 3),
        "p99_ms": round(ordered[low] + (ordered[high] - ordered[low]) * (place - low), 3),
        "min_ms": round(ordered[0], 3),
        "repeats": len(ordered),
    }


def first_match(path, pattern, default="unknown"):
    try:
        with open(path) as text:
            found = re.search(pattern, text.read(), re.MULTILINE)
    except OSError:
        return default
    return found.group(1).strip() if found else default


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def today():
    return datetime.date.today().isoformat()


def revision():
    commit = output_of("git", "rev-parse", "--short=12", "HEAD")
    return commit + " with changes" if output_of("git", "status", "--porcelain", "--untracked-files=no") else commit


def machine(load_file):
    """The processor, its cores, what else ran, and the libraries."""
    with open(load_file) as text:
        loads = [float(line) for line in text]
    return {
        "revision": revision(),
        "cpu": first_match("/proc/cpuinfo", r"^model name\s*:\s*(.*)$"),
        "cpu_family_model": " ".join(first_match("/proc/cpuinfo", rf"^{key}\s*:\s*(.*)$") for key in ("cpu family", "model")),
        "cores": os.cpu_count(),
        "memory_gib": round(int(first_match("/proc/meminfo", r"^MemTotal:\s*(\d+)", "0")) / 2**20, 1),
        "instruction_sets_forced": {name: os.environ[name] for name in
                                    ("VOCA_CPU_ARCH", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE") if name in os.environ},
        "load_average_after_each_turn": loads,
        "system": first_match("/etc/os-release", r'^PRETTY_NAME="(.*)"$'),
        "kernel": os.uname().release,
        "compiler": output_of("c++", "-dumpfullversion"),
        "hdf5": output_of("pkg-config", "--modversion", "hdf5-serial"),
        "isa-l": output_of("pkg-config", "--modversion", "libisal"),
    }


def to_json(results):
    """With lists of numbers on one line."""
    text = json.dumps(results, indent=1)
    return re.sub(r"\[[\d.,\s-]+\]", lambda numbers: " ".join(numbers[0].split()).replace("[ ", "[").replace(" ]", "]"), text)


def path_for(device, what, suffix="json"):
    """benchmarks/results/<date>-<device>-<what>.<suffix>"""
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    folder = os.path.join(HERE, "results")
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, f"{today()}-{slug}-{what}.{suffix}")


def write(results, device, what):
    path = path_for(device, what)
    with open(path, "w") as out:
        out.write(to_json(results) + "\n")
    return path


def step_results(arguments):
    def lines(name):
        """Runs by case, in the order of the turns."""
        runs = {}
        with open(os.path.join(arguments.work, name)) as text:
            for line in text:
                case, _, run = line.partition("\t")
                runs.setdefault(case, []).append(json.loads(run))
        return runs

    ours, rivals = lines("ours"), {name: lines(f"rival-{name}") for name in arguments.rivals.split()}
    cases = []
    for case, mine in ours.items():
        my_summary = summary([t for run in mine for t in run["ms_per_step"]])
        roof = max(run["gemm_roof_gflops"] for run in mine)
        rate = mine[0]["flops_per_step"] / my_summary["median_ms"] / 1e6
        result = {
            "case": case,
            "options": next(iter(rivals.values()))[case][0]["options"],
            "parameters": mine[0]["parameters"],
            "gflops": round(rate, 1),
            "gemm_roof_gflops": round(roof, 1),
            "share_of_gemm_roof": round(rate / roof, 3),
            "engine": my_summary | {
                "kernels": mine[0]["kernels"],
                "peak_rss_mib": round(max(run["peak_rss_mib"] for run in mine), 1),
                "ms_per_step": [[round(t, 3) for t in run["ms_per_step"]] for run in mine],
            },
        }
        for name, runs in rivals.items():
            theirs = [(run, run["results"][0]) for run in runs[case]]
            # A ratio a turn: what else the machine did in a turn, it did to both.
            ratios = [other["median_ms"] / run["median_ms"] for run, (_, other) in zip(mine, theirs)]
            result[f"pytorch_{name}"] = {
                "speedup": round(statistics.median(ratios), 3),
                "speedup_by_turn": [round(ratio, 3) for ratio in ratios],
            } | summary([t for _, other in theirs for t in other["ms_per_step"]]) | {
                "torch": theirs[0][0]["torch"],
                "peak_rss_mib": max(run["peak_rss_mib"] for run, _ in theirs),
                "gemm_roof_gflops": max(max(other["gemm_roof_gflops_before_and_after"]) for _, other in theirs),
                "ms_per_step": [other["ms_per_step"] for _, other in theirs],
            }
            print(f"{case}: engine {my_summary['median_ms']} ms, {result['engine']['peak_rss_mib']} MiB; PyTorch {name} "
                  f"{result[f'pytorch_{name}']['median_ms']} ms, {result[f'pytorch_{name}']['peak_rss_mib']} MiB; "
                  f"{result[f'pytorch_{name}']['speedup']} x")
        cases.append(result)
    return {"cases": cases}


def load_results(arguments):
    trees = []
    for form in ("stored", "compressed"):
        def lines(name, form=form):
            return read_lines(os.path.join(arguments.work, f"{name}-{form}.jsonl"))
        ours, rival, pack = lines("ours"), lines("rival"), lines("pack")
        numpy_times = [t for run in rival for t in run["ms_per_batch"]]
        numpy_summary = summary(numpy_times) | {"numpy": rival[0]["numpy"], "ms_per_batch": [run["ms_per_batch"] for run in rival]}
        cases = []
        for index, case in enumerate(ours[0]["cases"]):
            times = [t for run in ours for t in run["cases"][index]["ms_per_batch"]]
            ratios = [theirs["median_ms"] / run["cases"][index]["median_ms"] for run, theirs in zip(ours, rival)]
            cases.append({key: case[key] for key in ("dtype", "residency", "num_workers")} | {
                "speed_against_np_load": round(statistics.median(ratios), 1),
                "gb_per_s": round(ours[0]["batch_bytes"] / statistics.median(times) / 1e6, 2),
            } | summary(times) | {
                "ms_per_batch": [[round(t, 3) for t in run["cases"][index]["ms_per_batch"]] for run in ours],
            })
            print(f"{form} {case['dtype']} {case['residency']} {case['num_workers']} workers: {cases[-1]['median_ms']} ms, "
                  f"np.load {numpy_summary['median_ms']} ms, {cases[-1]['speed_against_np_load']} x")
        packing = {key: pack[0][key] for key in ("videos", "bytes_read", "bytes_written", "workers")}
        for key in ("pack_ms", "inflate_ms", "write_and_sync_ms", "share_of_floor"):
            packing[key] = [round(value, 3) for run in pack for value in run[key]]
        packing["median_share_of_floor"] = round(statistics.median(packing["share_of_floor"]), 3)
        packing["gb_per_s"] = round(packing["bytes_written"] / statistics.median(packing["pack_ms"]) / 1e6, 2)
        print(f"{form}: packing at {packing['median_share_of_floor']} of its floor, {packing['gb_per_s']} GB/s")
        trees.append({"tree": form, "batch_size": ours[0]["batch_size"], "seq_len": ours[0]["seq_len"],
                      "batch_bytes": ours[0]["batch_bytes"], "np_load": numpy_summary, "cases": cases, "packing": packing})
    return {"trees": trees}


def gemm_results(arguments):
    measured = read_lines(arguments.measured)[0]
    for gemm in measured["gemms"]:
        rates = gemm["gflops"]
        gemm["share_of_the_best"] = round(rates["voca-engine"] / max(rates.values()), 3)
        print(f"{gemm['m']} x {gemm['n']} x {gemm['k']} {gemm['transposed']}: {rates}")
    versions = {package: output_of("dpkg-query", "-W", "-f", "${Version}", package) for package in ("libopenblas0-pthread", "libdnnl2")}
    return {"libraries": versions} | measured


def kernel_results(arguments):
    with open(arguments.measured) as text:
        measured = json.load(text)
    runs = {}
    for run in measured["benchmarks"]:
        if run["run_type"] == "iteration":
            runs.setdefault(run["run_name"].removesuffix("/real_time"), []).append(run)
    kernels = []
    for name in sorted(runs):
        of_kernel = runs[name]
        kernel = {"kernel": name, "median_us": round(statistics.median(run["real_time"] for run in of_kernel) / 1e3, 2)}
        for counter, key, scale in (("bytes/s", "gb_per_s", 1e9), ("of_copy", "of_copy", 1), ("flop/s", "gflops", 1e9),
                                    ("of_gemm", "of_gemm", 1)):
            if counter in of_kernel[0]:
                kernel[key] = [round(run[counter] / scale, 3) for run in of_kernel]
        kernels.append(kernel)
    return {"threads": os.environ.get("OMP_NUM_THREADS", "all"), "kernels": kernels}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    step = kinds.add_parser("step")
    step.add_argument("--work", required=True)
    step.add_argument("--rivals", required=True, help="names of what PyTorch did")
    load = kinds.add_parser("load")
    load.add_argument("--work", required=True)
    kernels = kinds.add_parser("kernels")
    kernels.add_argument("--measured", required=True, help="JSON of Google Benchmark")
    gemm = kinds.add_parser("gemm")
    gemm.add_argument("--measured", required=True, help="JSON of gemm_rivals_bench")
    for kind in (step, gemm):
        kind.add_argument("--label", default="", help="of the results' file")
    for kind in (step, load, kernels, gemm):
        kind.add_argument("--load", required=True, help="load averages, one a line")
        kind.add_argument("--command", required=True)
    arguments = parser.parse_args()
    info = machine(arguments.load)
    measured = {"step": step_results, "load": load_results, "kernels": kernel_results,
                "gemm": gemm_results}[arguments.kind](arguments)
    results = {"command": arguments.command, "date": today()} | info | measured
    label = getattr(arguments, "label", "")
    print(write(results, info["cpu"], f"{arguments.kind}-cpu" + (f"-{label}" if label else "")))


if __name__ == "__main__":
    main()
