#!/usr/bin/env python3
"""How often strangers of one group pass for each other, by sex, age and origin as the data's manifest labels them.

    group_rates.py EMBEDDER.onnx DATA THRESHOLD [SET]

DATA is a folder with manifest.csv (columns path, set, age, gender, race as UTKFace writes them: gender 0 male, 1 female; race 0 White,
1 Black, 2 Asian, 3 Indian, 4 other) and tar shards of aligned 128x128 faces; SET (default utk) has one picture a person, so that any two
pictures count as two people. THRESHOLD is a cosine. Intervals are 95 %, from 200 draws of pictures with replacement.

Needs numpy, onnxruntime and Pillow; says so and exits 77 (skipped) without them.
"""

import csv
import io
import sys
import tarfile

try:
    import numpy as np
    import onnxruntime
    from PIL import Image
except ImportError as missing:
    print(f"SKIPPED: {missing}; pip install numpy onnxruntime pillow", file=sys.stderr)
    sys.exit(77)

SEX = {"0": "male", "1": "female"}
ORIGIN = {"0": "White", "1": "Black", "2": "Asian", "3": "Indian", "4": "other"}
AGES = [(0, 2), (3, 12), (13, 19), (20, 39), (40, 59), (60, 120)]
DRAWS = 200
LEAST = 100


def chips(data, rows):
    """RGB chips [112, 112, 3] of the rows, the middle of each canvas."""
    shards = {}
    for row in rows:
        shard, member = row["path"].split("/", 1)
        if shard not in shards:
            archive = tarfile.open(f"{data}/{shard}")
            shards[shard] = archive, {m.name.removeprefix("./"): m for m in archive.getmembers()}
        archive, members = shards[shard]
        picture = Image.open(io.BytesIO(archive.extractfile(members[member]).read())).convert("RGB")
        if picture.size != (128, 128):
            picture = picture.resize((128, 128), Image.BILINEAR)
        yield np.asarray(picture)[8:120, 8:120]


def embed(model, data, rows):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    vectors = np.zeros((len(rows), 128), np.float32)
    for i, chip in enumerate(chips(data, rows)):
        vectors[i] = session.run(None, {name: chip.astype(np.float32).transpose(2, 0, 1)[None]})[0].ravel()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rate(passing, weights):
    """Share of pairs that pass, each picture counted as often as drawn."""
    total = weights.sum() ** 2 - (weights**2).sum()
    return float(weights[passing[0]] @ weights[passing[1]] * 2 / max(total, 1))


def report(label, vectors, threshold, random):
    n = len(vectors)
    if n < LEAST:
        print(f"{label:<16} {n:>6}  too few")
        return
    passing = np.nonzero(np.triu(vectors @ vectors.T >= threshold, 1))
    here = rate(passing, np.ones(n))
    drawn = sorted(rate(passing, np.bincount(random.integers(0, n, n), minlength=n).astype(float)) for _ in range(DRAWS))
    low, high = drawn[int(0.025 * (DRAWS - 1))], drawn[int(0.975 * (DRAWS - 1))]
    print(f"{label:<16} {n:>6}  {here:.1e}  ({low:.1e} - {high:.1e})")


def main(model, data, threshold, name="utk"):
    rows = [row for row in csv.DictReader(open(f"{data}/manifest.csv")) if row["set"] == name and row["race"] in ORIGIN]
    if not rows:
        sys.exit(f"{data}/manifest.csv has no labelled faces of the set {name}")
    vectors = embed(model, data, rows)
    random = np.random.default_rng(1)
    print(f"{'group':<16} {'faces':>6}  pairs within the group at or above {threshold}")
    groups = [("all", lambda r: True)]
    groups += [(SEX[key], lambda r, key=key: r["gender"] == key) for key in SEX]
    groups += [(f"age {a} to {b}", lambda r, a=a, b=b: r["age"].isdigit() and a <= int(r["age"]) <= b) for a, b in AGES]
    groups += [(ORIGIN[key], lambda r, key=key: r["race"] == key) for key in ORIGIN]
    for label, belongs in groups:
        report(label, vectors[[belongs(row) for row in rows]], threshold, random)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [model, data, threshold, *name] if len(name) < 2:
            main(model, data, float(threshold), *name)
        case _:
            sys.exit(__doc__)
