#!/usr/bin/env python3
"""LFW pairs through OpenCV's own YuNet, alignCrop and SFace, beside `facelatch evaluate lfw` on the same pictures.

    tests/bench/opencv_lfw.py --images DIR --pairs FILE [--calibrate FILE] [--facelatch PROGRAM --models DIR] [--json FILE]
                              [--dump FILE] [--tail]

OpenCV runs the files as published (int8 blocks). The rules are those of trainer/src/evaluate: of several faces the one with
the largest side x closeness to the middle, pairs with a face not found count as similarity -1, the threshold comes from
--calibrate or else from the other nine folds. With --facelatch that program measures the same pairs, both figures are printed
side by side, and the exit code is 1 when the accuracies are more than 0.5 points apart.
--tail compares every picture with every other one and prints how many pairs of different names pass at several similarities:
models/imports.toml takes SFace's threshold from there. OpenCV is installed into a virtual environment under target/.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from opencv_compare import DETECTOR, EMBEDDER, HERE, assets, opencv_python

try:
    import cv2
    import numpy as np
except ImportError:
    if os.environ.get("FACELATCH_BENCH_VENV"):
        raise
    target = Path(os.environ.get("CARGO_TARGET_DIR") or HERE.parent.parent / "target").resolve()
    python = str(opencv_python(target))
    os.execve(python, [python, *sys.argv], {**os.environ, "FACELATCH_BENCH_VENV": "1"})

# The detector's, as in shared/src/vision/detect.rs.
SCORE_THRESHOLD = 0.7
NMS_THRESHOLD = 0.3
NOT_FOUND = -1.0
# Difference in accuracy that passes: half a point.
AGREEMENT = 0.005


def read_pairs(path):
    """[(first, second, same)] with file names below the image folder."""
    lines = path.read_text().splitlines()
    numbered = lambda name, number: f"{name}/{name}_{int(number):04d}.jpg"
    pairs = []
    for line in lines[1:]:
        match line.split():
            case [name, i, j]:
                pairs.append((numbered(name, i), numbered(name, j), True))
            case [name, i, other, j]:
                pairs.append((numbered(name, i), numbered(other, j), False))
    return pairs


class Eyes:
    def __init__(self, models, images):
        cv2.setNumThreads(1)
        self.detector = cv2.FaceDetectorYN.create(str(models / DETECTOR), "", (250, 250), SCORE_THRESHOLD, NMS_THRESHOLD)
        self.recognizer = cv2.FaceRecognizerSF.create(str(models / EMBEDDER), "")
        self.images = images
        self.known = {}
        self.missing = 0

    def embed(self, name):
        if name not in self.known:
            picture = cv2.imread(str(self.images / name))
            height, width = picture.shape[:2]
            self.detector.setInputSize((width, height))
            _, faces = self.detector.detect(picture)
            if faces is None or len(faces) == 0:
                self.known[name] = None
                self.missing += 1
            else:
                face = max(faces, key=lambda f: weight(f, width, height))
                vector = self.recognizer.feature(self.recognizer.alignCrop(picture, face)).ravel()
                self.known[name] = vector / np.linalg.norm(vector)
        return self.known[name]

    def scores(self, pairs):
        values = []
        for at, (first, second, _) in enumerate(pairs):
            a, b = self.embed(first), self.embed(second)
            values.append(NOT_FOUND if a is None or b is None else float(a @ b))
            if sys.stderr.isatty() and at % 20 == 0:
                print(f"\r{at}/{len(pairs)}", end="", file=sys.stderr)
        return np.array(values), np.array([same for *_, same in pairs])


def weight(face, width, height):
    x, y, w, h = face[:4]
    distance = np.hypot(x + w / 2 - width / 2, y + h / 2 - height / 2) / np.hypot(width / 2, height / 2)
    return np.sqrt(max(w, 0) * max(h, 0)) * (1 - min(distance, 1))


def best_threshold(scores, same):
    """The lowest of the best thresholds halfway between neighbouring scores."""
    order = np.unique(scores)
    candidates = np.concatenate([[order[0] - 1e-3], (order[1:] + order[:-1]) / 2, [order[-1] + 1e-3]])
    accuracy = [np.mean((scores >= t) == same) for t in candidates]
    return candidates[int(np.argmax(accuracy))]


def folds(same, count=10):
    number = np.empty(len(same), int)
    for kind in (True, False):
        where = np.flatnonzero(same == kind)
        number[where] = np.arange(len(where)) * count // len(where)
    return number


def tar_at(scores, same, far):
    impostors = np.sort(scores[~same])[::-1]
    allowed = int(far * len(impostors))
    threshold = impostors[allowed]
    return float(np.mean(scores[same] > threshold))


def facelatch(arguments):
    """What `facelatch evaluate lfw` says about the same pairs."""
    command = [arguments.facelatch, "evaluate", "lfw", "--images", arguments.images, "--pairs", arguments.pairs]
    command += ["--models", arguments.models, "--json"]
    if arguments.calibrate:
        command += ["--calibrate", arguments.calibrate]
    return json.loads(subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout)


def tail(eyes):
    """Shares of pairs that pass, over all pairs of pictures seen so far."""
    names = [name for name, vector in eyes.known.items() if vector is not None]
    vectors = np.array([eyes.known[name] for name in names])
    person = np.array([name.split("/")[0] for name in names])
    upper = np.triu_indices(len(names), 1)
    scores = (vectors @ vectors.T)[upper]
    same = person[upper[0]] == person[upper[1]]
    print(f"{(~same).sum()} pairs of different names, {same.sum()} of one name")
    for threshold in (0.363, 0.40, 0.42, 0.45, 0.48, 0.50, 0.55):
        impostors, genuine = (scores[~same] >= threshold).mean(), (scores[same] >= threshold).mean()
        print(f"similarity {threshold:.3f}: {impostors:.1e} of the former pass, {genuine:.4f} of the latter")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--calibrate", type=Path)
    parser.add_argument("--facelatch", type=Path, metavar="PROGRAM", help="measure with this program too")
    parser.add_argument("--models", type=Path, default=Path("target/models"), help="its model directory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--tail", action="store_true")
    parser.add_argument("--dump", type=Path, help="write first, second, same, similarity of every pair as CSV")
    arguments = parser.parse_args()

    eyes = Eyes(assets() / "models", arguments.images)
    pairs = read_pairs(arguments.pairs)
    scores, same = eyes.scores(pairs)
    number = folds(same)
    if arguments.calibrate:
        fixed = best_threshold(*eyes.scores(read_pairs(arguments.calibrate)))
        thresholds = [fixed] * 10
    else:
        thresholds = [best_threshold(scores[number != k], same[number != k]) for k in range(10)]
    accuracies = [np.mean((scores[number == k] >= t) == same[number == k]) for k, t in enumerate(thresholds)]
    report = {
        "accuracy": float(np.mean(accuracies)),
        "accuracy_std": float(np.std(accuracies)),
        "threshold": float(np.mean(thresholds)),
        "tar_at_far_1e-2": tar_at(scores, same, 1e-2),
        "tar_at_far_1e-3": tar_at(scores, same, 1e-3),
        "faces_not_found": eyes.missing,
        "version": cv2.__version__,
    }
    if arguments.dump:
        with arguments.dump.open("w") as out:
            for (first, second, kind), score in zip(pairs, scores):
                out.write(f"{first},{second},{int(kind)},{score:.6f}\n")
    sides = {"opencv": report}
    if arguments.facelatch:
        sides["facelatch"] = facelatch(arguments)
    print(f"{'':18}" + "".join(f"{name:>12}" for name in sides))
    for key, value in report.items():
        if key != "version":
            print(f"{key:18}" + "".join(f"{side[key]:12.4f}" if isinstance(value, float) else f"{side[key]:12}" for side in sides.values()))
    if arguments.json:
        arguments.json.write_text(json.dumps(sides, indent=2) + "\n")
    if arguments.tail:
        tail(eyes)
    if arguments.facelatch and abs(report["accuracy"] - sides["facelatch"]["accuracy"]) > AGREEMENT:
        sys.exit(f"the accuracies are more than {AGREEMENT * 100} points apart")


if __name__ == "__main__":
    main()
