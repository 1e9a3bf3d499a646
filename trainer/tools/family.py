#!/usr/bin/env python3
"""The family of nets that the door's embedder was chosen from: each shape taught alike, timed in tract, tried on LFW View 1.

    family.py --data FACES --teacher VECTORS.safetensors --lfw LFW --models DIR --out RUNS
              [--steps N] [--rounds N] [--only NAME,...] [--facelatch FILE] [--facelatchd FILE]

Every shape sees the same faces in the same order for the same number of steps, so that the table compares shapes and not trainings: these
accuracies are those of short runs. DIR is a model directory with the detector (`facelatch models import yunet sface`). A run that exists is
resumed, and one that was exported is left as it is, so that an interrupted comparison goes on where it was; RUNS/family.md is the table. Times
are medians over rounds in which every net is run in turn by `facelatchd bench`, in its form with int8 weights.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from statistics import median

# stem, channels of the stages, residual blocks of the stages, head, side of the input.
SHAPES = {
    "half": (16, (32, 64, 128), (1, 1, 1), 256, 112),
    "narrow": (24, (48, 96, 192), (1, 1, 1), 384, 112),
    "compact-96": (32, (64, 128, 256), (1, 1, 1), 512, 96),
    "compact": (32, (64, 128, 256), (1, 1, 1), 512, 112),
    "late": (32, (64, 128, 256), (0, 1, 2), 512, 112),
    "deep": (32, (64, 128, 256), (1, 2, 2), 512, 112),
    "wide": (40, (80, 160, 320), (1, 1, 1), 512, 112),
}


def multiply_adds(stem, stages, blocks, head, side):
    """Of one face: 3×3 convolutions halve the side at the stem and at each stage; then 1×1, global depthwise and linear."""
    side //= 2
    total = side**2 * 9 * 3 * stem
    came = stem
    for channels, count in zip(stages, blocks):
        side //= 2
        total += side**2 * 9 * channels * (came + 2 * count * channels)
        came = channels
    return total + side**2 * came * head + side**2 * head + head * 128


def train(args, name, shape):
    run = args.out / name
    if (args.out / f"{name}.onnx").exists():
        return
    command = [args.facelatch, "train", "--recipe", "compact", "--data", args.data, "--teacher", args.teacher, "--out", run]
    if (run / "checkpoint.safetensors").exists():
        command += ["--resume"]
    else:
        config = args.out / f"{name}.toml"
        stem, stages, blocks, head, side = shape
        config.write_text(
            f"steps = {args.steps}\nbatch = 64\nthreads = 1\nbf16 = false\nwarmup_steps = 50\nema = 0.99\n"
            f"sides = [{{ px = 64, until = 0.8 }}, {{ px = {side}, until = 1.0 }}]\n"
            f"[shape]\nstem = {stem}\nstages = {list(stages)}\nblocks = {list(blocks)}\nhead = {head}\ninput_px = {side}\n"
        )
        command += ["--config", config, "--save-every", "200"]
    subprocess.run(command, check=True)
    subprocess.run([args.facelatch, "export", run, "--form", "w8", "--out", args.out / f"{name}.onnx"], check=True)


def model_directory(args, names):
    """A copy of DIR in which each net of the family is an embedder."""
    folder = args.out / "models"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(args.models, folder)
    entries = []
    for name in names:
        file = f"family-{name}.onnx"
        shutil.copy(args.out / f"{name}.onnx", folder / file)
        digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        entries.append(
            f'\n[[models]]\nname = "family-{name}"\nkind = "embedder"\nfamily = "embedding"\nfile = "{file}"\nsha256 = "{digest}"\n'
            f'licence = "LicenseRef-Trial"\ndefault_threshold = 0.5\nthreshold_note = "none: a trial"\n'
            f'[models.source]\npackage = "facelatch"\nversion = "trial"\npath = "{file}"\nsha256 = "{digest}"\n'
            f'[models.contract]\nwidth_px = 112\nheight_px = 112\nchannels = "rgb"\nmean = [0.0, 0.0, 0.0]\nscale = [1.0, 1.0, 1.0]\n'
            f'[models.contract.alignment]\nmethod = "similarity"\ncanonical = "arcface112"\n'
        )
    with (folder / "manifest.toml").open("a") as manifest:
        manifest.writelines(entries)
    return folder


def times(args, folder):
    """Of each embedder, the median over the rounds of its median, in ms."""
    taken = {}
    for _ in range(args.rounds):
        bench = [args.facelatchd, "bench", "--json", "--rounds", "20", "--models", folder]
        ran = subprocess.run(bench, check=True, stdout=subprocess.PIPE, text=True)
        for row in json.loads(ran.stdout)["rows"]:
            if row["stage"] == "embed":
                taken.setdefault(row["what"], []).append(row["median_us"] / 1000)
    return {name: median(values) for name, values in taken.items()}


def view1(args, folder, name):
    """Accuracy on LFW View 1 and its standard deviation over ten parts, in percent."""
    command = [args.facelatch, "evaluate", "lfw", "--json", "--images", args.lfw / "images", "--pairs", args.lfw / "pairsDevTest.txt"]
    command += ["--models", folder, "--detector", "yunet", "--embedder", f"family-{name}", "--threads", "1"]
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return 100 * said["accuracy"], 100 * said["accuracy_std"]


def held_out(args, name):
    """The last held-out cosine to the teacher, and parameters, of a run."""
    lines = [json.loads(line) for line in (args.out / name / "log.jsonl").read_text().splitlines()]
    cosine = [line["held_out_cosine_at_input"] for line in lines if "held_out_cosine_at_input" in line][-1]
    parameters = re.search(r"^parameters = (\d+)$", (args.out / name / "run.toml").read_text(), re.MULTILINE)
    return cosine, int(parameters[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("data", "teacher", "lfw", "models", "out"):
        parser.add_argument(f"--{option}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default=",".join(SHAPES), help="names of shapes, with commas between them")
    parser.add_argument("--facelatch", default="facelatch")
    parser.add_argument("--facelatchd", default="facelatchd")
    args = parser.parse_args()
    names = args.only.split(",")
    unknown = [name for name in names if name not in SHAPES]
    if unknown:
        parser.error(f"no shape {', '.join(unknown)}; there are: {', '.join(SHAPES)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        train(args, name, SHAPES[name])
    folder = model_directory(args, names)
    taken = times(args, folder)
    lines = [
        "| shape | stem, stages, blocks, head, input | multiply-adds, M | parameters | w8, MB | ms a face | held-out cosine | View 1 test, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        stem, stages, blocks, head, side = SHAPES[name]
        (accuracy, deviation), (cosine, parameters) = view1(args, folder, name), held_out(args, name)
        cells = [
            name,
            f"{stem}, {'-'.join(map(str, stages))}, {'-'.join(map(str, blocks))}, {head}, {side} px",
            f"{multiply_adds(*SHAPES[name]) / 1e6:.0f}",
            f"{parameters:,}",
            f"{(args.out / f'{name}.onnx').stat().st_size / 1e6:.2f}",
            f"{taken[f'family-{name}']:.1f}",
            f"{cosine:.3f}",
            f"{accuracy:.1f} ± {deviation:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    others = [f"{name} {ms:.1f} ms" for name, ms in taken.items() if not name.startswith("family-")]
    lines.append(f"\n{args.steps} steps each; beside them in the same rounds: {', '.join(others)}.")
    (args.out / "family.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
