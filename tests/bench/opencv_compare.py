#!/usr/bin/env python3
"""Time of each stage of the door's pipeline beside OpenCV's Python package, on the same frames, in one run, as a ratio.

    tests/bench/opencv_compare.py [--rounds N] [--json FILE] [--models DIR] [-- OURS ...]

Frames: the demo's photographs, each on a 640x480 picture (PNG, so that both sides start from the same pixels).
Stages: detect (shrink to the net's 320 pixels, YuNet, non-maximum suppression), align (112x112 crop of the largest face from
the full frame), embed (SFace). One thread on each side. Both sides run in turn, ROUNDS times, each time in a fresh process that
goes over all frames REPEATS times after one pass of warming up; what is shown is the median of the rounds' medians and the
range over the rounds. OpenCV runs twice: with the two files as published (int8 blocks, which it expands at every call) and,
where it can read them, with the door's own imported files; the ratio is against the faster of the two.

OURS is a command that takes the frames' folder as its last argument and prints JSON on stdout:
    {"stages": {"detect": {"median_us": 3000.0, "n": 65}, "align": {...}, "embed": {...}}, "frames_with_face": 12}
Without it only OpenCV is timed. OpenCV is installed into a virtual environment under target/.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
# 5.0 cannot load SFace's int8 blocks (setMainGraphInput asserts); this is the newest that can.
OPENCV = "opencv-python-headless==4.14.0.94"
DETECTOR = "face_detection_yunet_2023mar_int8bq.onnx"
EMBEDDER = "face_recognition_sface_2021dec_int8bq.onnx"
STAGES = ("detect", "align", "embed")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs, in turn (default: 5)")
    parser.add_argument("--repeats", type=int, default=5, help="passes over the frames in one round (default: 5)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--models", type=Path, help="folder of the door's imported models, for OpenCV to run as well")
    parser.add_argument("ours", nargs="*", metavar="OURS", help="our command, after --")
    args = parser.parse_args()

    target = Path(os.environ.get("CARGO_TARGET_DIR") or HERE.parent.parent / "target").resolve()
    python = opencv_python(target)
    frames = target / "bench" / "frames"
    say("composing frames")
    capture([python, HERE / "opencv_worker.py", "compose", assets() / "photos", frames])

    sides = {"opencv, as published": worker(python, assets() / "models" / DETECTOR, assets() / "models" / EMBEDDER, frames, args)}
    imported = imported_files(args.models)
    if imported:
        sides["opencv, imported files"] = worker(python, *imported, frames, args)
    if args.ours:
        sides["facelatch"] = [*args.ours, frames]

    results = {name: [] for name in sides}
    for turn in range(args.rounds):
        for name, command in list(sides.items()):
            say(f"round {turn + 1} of {args.rounds}: {name}")
            try:
                results[name].append(json.loads(capture(command)))
            except (subprocess.CalledProcessError, json.JSONDecodeError, OSError) as error:
                if name != "opencv, imported files":
                    sys.exit(f"bench: {name} failed: {reason(error)}\n  command: {shlex.join(map(str, command))}")
                say(f"OpenCV cannot run the imported files: {reason(error)}")
                del sides[name], results[name]

    report = summary(results, args)
    print_table(report)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def summary(results, args):
    """Median and range over the rounds for each side and stage, and the ratios ours / fastest OpenCV."""
    report = {"rounds": args.rounds, "repeats": args.repeats, "opencv_package": OPENCV, "sides": {}, "ratio": {}}
    for name, rounds in results.items():
        stages = {}
        for stage in STAGES:
            medians = [r["stages"][stage]["median_us"] for r in rounds if stage in r["stages"]]
            if not medians:
                sys.exit(f"bench: {name} reports no stage '{stage}'; was any face found?")
            stages[stage] = {"median_us": median(medians), "min_us": min(medians), "max_us": max(medians)}
        whole = sum(s["median_us"] for s in stages.values())
        report["sides"][name] = {"stages": stages, "total_us": whole, "frames_with_face": rounds[0].get("frames_with_face")}
    if "facelatch" in results:
        ours = report["sides"]["facelatch"]
        theirs = [side for name, side in report["sides"].items() if name != "facelatch"]
        for stage in STAGES:
            fastest = min(side["stages"][stage]["median_us"] for side in theirs)
            report["ratio"][stage] = round(ours["stages"][stage]["median_us"] / fastest, 3)
        report["ratio"]["total"] = round(ours["total_us"] / min(side["total_us"] for side in theirs), 3)
    return report


def print_table(report):
    print(f"\nMilliseconds a frame, one thread: median of {report['rounds']} rounds (range over the rounds)\n")
    names = list(report["sides"])
    print(f"{'stage':8}" + "".join(f"{n:>28}" for n in names) + (f"{'ratio':>10}" if report["ratio"] else ""))
    for stage in STAGES:
        row = f"{stage:8}"
        for name in names:
            s = report["sides"][name]["stages"][stage]
            row += f"{s['median_us'] / 1e3:.3f} ({s['min_us'] / 1e3:.3f}-{s['max_us'] / 1e3:.3f})".rjust(28)
        print(row + (f"{report['ratio'][stage]:>9.2f}x" if report["ratio"] else ""))
    row = f"{'total':8}" + "".join(f"{report['sides'][n]['total_us'] / 1e3:.3f}".rjust(28) for n in names)
    print(row + (f"{report['ratio']['total']:>9.2f}x" if report["ratio"] else ""))
    found = ", ".join(f"{n} {report['sides'][n]['frames_with_face']}" for n in names)
    print(f"\nframes with a face: {found}")
    if report["ratio"]:
        print("ratio: facelatch / the faster OpenCV; below 1 the door is faster")


def worker(python, detector, embedder, frames, args):
    return [python, HERE / "opencv_worker.py", "time", detector, embedder, frames, args.repeats]


def imported_files(folder):
    """The imported detector and embedder of `folder`, or None. Their names begin like the model's."""
    if not folder:
        return None
    found = [sorted(folder.glob(f"*{name}*.onnx")) for name in ("yunet", "sface")]
    return [f[0] for f in found] if all(found) else None


def opencv_python(target):
    """A Python that has OpenCV: a virtual environment made on first use."""
    python = target / "bench-venv" / "bin" / "python"
    stamp = target / "bench-venv" / "installed"
    if not (python.exists() and stamp.exists() and stamp.read_text() == OPENCV):
        say(f"installing {OPENCV} into {python.parent.parent}")
        capture([sys.executable, "-m", "venv", "--clear", target / "bench-venv"])
        capture([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", OPENCV])
        stamp.write_text(OPENCV)
    return python


def assets():
    """Where .ci/fetch puts models and photographs."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("FACELATCH_ASSETS") or Path(cache) / "facelatch" / "assets")
    if not (folder / "models" / DETECTOR).exists():
        sys.exit(f"bench: no models in {folder}; run .ci/fetch first")
    return folder


def capture(command):
    done = subprocess.run([str(c) for c in command], env={**os.environ, **ONE_THREAD}, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    done.check_returncode()
    return done.stdout


def reason(error):
    lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
    return lines[-1] if lines else f"exit code {error.returncode}, nothing on stderr"


def say(text):
    print(f"bench: {text}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"bench: {shlex.join(error.cmd)}\n  failed: {reason(error)}")
