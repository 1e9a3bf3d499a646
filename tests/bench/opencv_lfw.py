#!/usr/bin/env python3
"""LFW pairs through OpenCV's own YuNet and SFace, as the reference for `facelatch evaluate lfw`.

    opencv_lfw.py --images DIR --pairs FILE [--calibrate FILE] [--assets DIR] [--json] [--dump FILE] [--tail]

FaceDetectorYN, FaceRecognizerSF.alignCrop and .feature on the unchanged 250×250 images, with the files as published (OpenCV
runs the block-quantized ones). The rules are those of trainer/src/evaluate: of several faces the one with the largest
side × closeness to the centre, pairs with a face not found count as similarity -1, the threshold comes from --calibrate or else
from the other nine folds. --tail compares every picture of both files with every other one and prints how many pairs of different
names pass at several similarities: where models/imports.toml takes its threshold from. Needs opencv-python-headless and numpy; says so and exits 77 (skipped) without them.
"""

import argparse
import json
import os
import sys
from pathlib import Path

try:
    import cv2
    import numpy as np
except ImportError as missing:
    print(f"SKIPPED: {missing}; pip install numpy opencv-python-headless", file=sys.stderr)
    sys.exit(77)

DETECTOR = "face_detection_yunet_2023mar_int8bq.onnx"
EMBEDDER = "face_recognition_sface_2021dec_int8bq.onnx"
SCORE_THRESHOLD = 0.6
NMS_THRESHOLD = 0.3
NOT_FOUND = -1.0


def assets():
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FACELATCH_ASSETS") or Path(cache) / "facelatch/assets") / "models"


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
    """The middle of the widest best interval's lower end: candidates lie halfway between neighbouring scores."""
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
    parser.add_argument("--assets", type=Path, default=assets(), help="folder with the two published .onnx files")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tail", action="store_true")
    parser.add_argument("--dump", type=Path, help="write first, second, same, similarity of every pair as CSV")
    arguments = parser.parse_args()

    eyes = Eyes(arguments.assets, arguments.images)
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
        "accuracy": float(np.mean((scores >= np.array(thresholds)[number]) == same)),
        "accuracy_std": float(np.std(accuracies)),
        "threshold": float(np.mean(thresholds)),
        "tar_at_far_1e-2": tar_at(scores, same, 1e-2),
        "tar_at_far_1e-3": tar_at(scores, same, 1e-3),
        "faces_not_found": eyes.missing,
        "images": len(eyes.known),
        "opencv": cv2.__version__,
    }
    if arguments.dump:
        with arguments.dump.open("w") as out:
            for (first, second, kind), score in zip(pairs, scores):
                out.write(f"{first},{second},{int(kind)},{score:.6f}\n")
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        for key, value in report.items():
            print(f"{key:>16}: {value:.4f}" if isinstance(value, float) else f"{key:>16}: {value}")
    if arguments.tail:
        tail(eyes)


if __name__ == "__main__":
    main()
