#!/usr/bin/env python3
"""Time of the door's embedders in tract beside SFace in onnxruntime, one thread each, in turn in one run, as a ratio.

    tests/bench/embedder_compare.py --facelatchd FILE --models DIR [--rounds N] [--teacher NAME]

DIR holds models and manifest.toml as `facelatch models import` and `add` write them. Each round runs `facelatchd bench` (median of 20 of each
model) and then onnxruntime (median of 20 on noise of the same shape); what is shown is the median of the rounds and their range. Needs numpy,
onnx and onnxruntime (`.ci/setup test` puts them into target/onnx-venv); says so and exits 77 without them.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path
from statistics import median

from onnx_reference import np, session

RUNS = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facelatchd", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--teacher", default="sface", help="the model that onnxruntime runs (default: sface)")
    args = parser.parse_args()
    if not (args.models / f"{args.teacher}.onnx").exists():
        parser.error(f"{args.models} has no {args.teacher}.onnx: run `facelatch models import {args.teacher} --out {args.models}`")
    teacher = session(args.models / f"{args.teacher}.onnx", 112, 112, fast=True)
    chip = np.random.default_rng(1).uniform(0, 255, (1, 3, 112, 112)).astype(np.float32)
    times = {}
    for _ in range(args.rounds):
        bench = [args.facelatchd, "bench", "--json", "--rounds", str(RUNS), "--models", args.models]
        ran = subprocess.run(bench, stdout=subprocess.PIPE, text=True)
        if ran.returncode:
            parser.error(f"{args.facelatchd} bench ended with {ran.returncode}, see above")
        said = json.loads(ran.stdout)
        for row in said["rows"]:
            if row["stage"] == "embed":
                times.setdefault(f"{row['what']} in tract", []).append(row["median_us"] / 1000)
        times.setdefault(f"{args.teacher} in onnxruntime", []).append(once(teacher, chip))
    reference = median(times[f"{args.teacher} in onnxruntime"])
    print(f"{'one thread, ms a face':32} {'median':>8} {'range':>15} {'ratio':>7}")
    for name, values in sorted(times.items(), key=lambda item: -median(item[1])):
        span = f"{min(values):.1f} - {max(values):.1f}"
        print(f"{name:32} {median(values):8.1f} {span:>15} {median(values) / reference:7.2f}")


def once(net, chip):
    name, taken = net.get_inputs()[0].name, []
    net.run(None, {name: chip})
    for _ in range(RUNS):
        begun = time.perf_counter()
        net.run(None, {name: chip})
        taken.append((time.perf_counter() - begun) * 1000)
    return median(taken)


if __name__ == "__main__":
    main()
