#!/usr/bin/env python3
"""Label faces with the points of the face mesh teacher (Apache-2.0), for `facelatch train --recipe fiducials`.

    trainer/tools/mesh_teacher.py --data FOLDER --out NAME.safetensors [--first N] [--full NAME.npz]
    trainer/tools/mesh_teacher.py --scenes FOLDER --out NAME.safetensors

Set-up, once:  .ci/fetch teachers
               python3 -m venv target/teacher-venv
               target/teacher-venv/bin/pip install ai-edge-litert numpy pillow opencv-python-headless

FOLDER is a data set as `facelatch train` reads it: manifest.csv and tar shards of aligned crops, or, with --scenes,
labels.csv and scenes.tar. The mesh is run three times on each face: on a fixed square round the canonical face, then
twice on a square of 1.5 times its own extent with level eyes, which is how it was trained to be shown faces; the points
are the mean of the last two. Rows are done in a shuffled order that depends on nothing, so that --first N is a fair sample.

NAME.safetensors: points [n, 68, 3] (x, y in pixels of the 128 px canvas, or of the scene; z in the same unit, smaller is
nearer), score [n] 0-1 (zero: not labelled), spread [n] (mean distance between the last two runs over the outer eye
distance). NAME.paths: the face of each row, one a line; a scene's face is `image#number` counted from 0 in labels.csv.
--full writes all 468 points of the labelled rows as points [m, 468, 3], rows [m] and score [m] for numpy.
"""

import argparse
import csv
import io
import json
import os
import struct
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

# The usual 68 points (contour, brows, nose, eyes, outer and inner lips, each from the viewer's left) among the mesh's 468.
MESH_68 = [
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,
    168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
]
LEFT_EYE, RIGHT_EYE = 33, 263  # outer corners, of the 468
SIDE = 192
CANVAS = 128
# The five landmarks of the aligned 112 px chip, moved by the canvas's border of 8 px.
CANONICAL = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
                     np.float32) + 8
FIRST_CENTRE, FIRST_EXTENT = (63.5, 66.0), 144.0  # what the mesh's own square is on most canvases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with manifest.csv and shards")
    parser.add_argument("--scenes", type=Path, help="folder with labels.csv and scenes.tar")
    parser.add_argument("--model", type=Path, default=assets() / "models/face_landmark.tflite", help="the mesh")
    parser.add_argument("--out", type=Path, required=True, help="labels to write, .safetensors")
    parser.add_argument("--full", type=Path, help="all 468 points too, .npz")
    parser.add_argument("--first", type=int, help="stop after this many faces")
    args = parser.parse_args()
    if (args.data is None) == (args.scenes is None):
        parser.error("name either --data or --scenes")
    if not args.model.is_file():
        parser.error(f"{args.model} is not there; `.ci/fetch teachers` brings it")
    mesh = Mesh(args.model)
    names, faces = crops(args.data) if args.data else scene_faces(args.scenes)
    order = np.random.default_rng(1).permutation(len(names))[: args.first]
    points = np.zeros((len(names), 68, 3), np.float32)
    score, spread = np.zeros(len(names), np.float32), np.zeros(len(names), np.float32)
    full, begun, skipped = [], time.monotonic(), 0
    for done, row in enumerate(order):
        got = faces(row)
        if got is None:
            skipped += 1
            continue
        all_points, score[row], spread[row] = mesh.label(*got)
        points[row] = all_points[MESH_68]
        if args.full:
            full.append(all_points)
        if done % 2000 == 1999:
            print(f"{done + 1} of {len(order)} faces, {time.monotonic() - begun:.0f} s", flush=True)
    save(args.out, {"points": points, "score": score, "spread": spread})
    args.out.with_suffix(".paths").write_text("".join(n + "\n" for n in names))
    if args.full:
        rows = np.array([r for r in order if score[r] > 0], np.int32)
        beside = args.full.with_suffix(".part.npz")
        np.savez(beside, points=np.array(full, np.float32), rows=rows, score=score[rows])
        os.replace(beside, args.full)
    sure = int((score > 0.5).sum())
    print(f"{len(order) - skipped} faces labelled, {skipped} skipped, {sure} with score > 0.5; "
          f"median spread {np.median(spread[score > 0.5]):.4f}; {args.out}")


def assets():
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FACELATCH_ASSETS") or Path(cache) / "facelatch/assets")


class Mesh:
    def __init__(self, path):
        self.net = Interpreter(str(path), num_threads=1)
        self.net.allocate_tensors()
        self.input = self.net.get_input_details()[0]["index"]
        outputs = {int(np.prod(d["shape"])): d["index"] for d in self.net.get_output_details()}
        self.points, self.flag = outputs[468 * 3], outputs[1]

    def run(self, picture, to_picture):
        """468 points in pixels of `picture` seen through `to_picture` (2x3, crop to picture), and the score's logit."""
        crop = cv2.warpAffine(picture, to_picture, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                              borderMode=cv2.BORDER_REPLICATE)
        self.net.set_tensor(self.input, (crop.astype(np.float32) / 255)[None])
        self.net.invoke()
        found = self.net.get_tensor(self.points).reshape(468, 3).copy()
        found[:, :2] -= 0.5  # the mesh counts from the crop's edge, we count pixel centres
        scale = np.linalg.norm(to_picture[:, 0])
        flat = found[:, :2] @ to_picture[:, :2].T + to_picture[:, 2]
        return np.column_stack([flat, found[:, 2] * scale]), float(self.net.get_tensor(self.flag).ravel()[0])

    def label(self, picture, to_picture):
        """Points, score and spread of one face; `to_picture` maps the first look's square."""
        looks = [self.run(picture, to_picture)]
        for _ in range(2):
            looks.append(self.run(picture, own_square(looks[-1][0])))
        (a, _), (b, flag) = looks[1:]
        apart = np.linalg.norm(a[MESH_68, :2] - b[MESH_68, :2], axis=1).mean()
        eyes = max(np.linalg.norm(b[LEFT_EYE, :2] - b[RIGHT_EYE, :2]), 1e-3)
        return (a + b) / 2, 1 / (1 + np.exp(-np.clip(flag, -30, 30))), apart / eyes


def square(centre, extent, angle=0.0):
    """2x3 map from the crop's pixels to the picture's."""
    s = extent / SIDE
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * s
    return np.column_stack([turn, np.asarray(centre) - turn @ np.full(2, (SIDE - 1) / 2)]).astype(np.float32)


def own_square(points):
    flat = points[:, :2]
    low, high = flat.min(0), flat.max(0)
    across = flat[RIGHT_EYE] - flat[LEFT_EYE]
    return square((low + high) / 2, 1.5 * max(high - low), np.arctan2(across[1], across[0]))


def crops(folder):
    rows = list(csv.DictReader(open(folder / "manifest.csv", newline="")))
    shards, first = {}, square(FIRST_CENTRE, FIRST_EXTENT)

    def face(row):
        shard, member = rows[row]["path"].split("/", 1)
        if shard not in shards:
            box = tarfile.open(folder / shard)
            shards[shard] = box, {m.name.removeprefix("./"): m for m in box.getmembers()}
        picture = decode(shards[shard], member)
        if picture is not None and picture.shape[:2] != (CANVAS, CANVAS):
            picture = cv2.resize(picture, (CANVAS, CANVAS), interpolation=cv2.INTER_LINEAR)
        return None if picture is None else (picture, first)

    return [r["path"] for r in rows], face


def scene_faces(folder):
    rows = [r for r in csv.DictReader(open(folder / "labels.csv", newline="")) if r["x"]]
    box = tarfile.open(folder / "scenes.tar")
    members = box, {m.name.removeprefix("./"): m for m in box.getmembers()}
    count, names = {}, []
    for row in rows:
        number = count.get(row["image"], 0)
        count[row["image"]] = number + 1
        names.append(f"{row['image']}#{number}")

    def face(row):
        label = rows[row]
        picture = decode(members, label["image"])
        marks = np.array([[float(label[f"lm{k}{a}"]) for a in "xy"] for k in range(1, 6)], np.float32)
        similarity, _ = cv2.estimateAffinePartial2D(CANONICAL, marks, method=cv2.LMEDS)
        if picture is None or similarity is None:
            return None
        whole = np.vstack([square(FIRST_CENTRE, FIRST_EXTENT), [0, 0, 1]])
        return picture, (similarity @ whole).astype(np.float32)

    return names, face


def decode(shard, member):
    box, members = shard
    if member not in members:
        return None
    try:
        return np.array(Image.open(io.BytesIO(box.extractfile(members[member]).read())).convert("RGB"))
    except OSError:
        return None


def save(path, tensors):
    """The safetensors format: length of the header, header, data in order."""
    header, offset = {}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    beside = path.with_suffix(".part")
    with open(beside, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            file.write(np.ascontiguousarray(value, "<f4").tobytes())
    os.replace(beside, path)


if __name__ == "__main__":
    main()
