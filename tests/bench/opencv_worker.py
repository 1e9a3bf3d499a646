"""The OpenCV side of the comparison: YuNet and SFace by FaceDetectorYN and FaceRecognizerSF. Run by opencv_compare.py in
its virtual environment; not meant to be run by hand.

    opencv_worker.py compose PHOTOS FRAMES                     photographs onto 640x480 frames, as PNG
    opencv_worker.py time DETECTOR EMBEDDER FRAMES REPEATS     medians of each stage as JSON on stdout
"""

import json
import sys
import time
from pathlib import Path
from statistics import median

import cv2
import numpy

FRAME_PX = (640, 480)
NET_PX = (320, 240)  # FaceDetectorYN pads it to 320x256, the size the door's detector runs at
SCORE_MIN, NMS_IOU, TOP_K = 0.6, 0.3, 5000
SUFFIXES = {".jpg", ".jpeg", ".png"}


def compose(photos, frames):
    """Each photograph, as large as it fits, in the middle of a grey 640x480 frame. PNG, so that both sides read the same pixels."""
    frames.mkdir(parents=True, exist_ok=True)
    for old in frames.glob("*.png"):
        old.unlink()
    count = 0
    for path in sorted(p for p in photos.rglob("*") if p.suffix.lower() in SUFFIXES):
        photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if photo is None:
            sys.exit(f"{path} is not a picture OpenCV reads")
        scale = min(FRAME_PX[0] / photo.shape[1], FRAME_PX[1] / photo.shape[0])
        size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
        frame = numpy.full((FRAME_PX[1], FRAME_PX[0], 3), 128, numpy.uint8)
        left, top = (FRAME_PX[0] - size[0]) // 2, (FRAME_PX[1] - size[1]) // 2
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        frame[top:top + size[1], left:left + size[0]] = cv2.resize(photo, size, interpolation=method)
        cv2.imwrite(str(frames / f"{count:02d}-{path.stem}.png"), frame)
        count += 1
    if count == 0:
        sys.exit(f"no photographs under {photos}; run .ci/fetch")
    return count


def measure(detector, embedder, frames, repeats):
    """Median microseconds of each stage over all frames, one thread, the first pass over the frames not counted."""
    cv2.setNumThreads(1)
    detect = cv2.FaceDetectorYN.create(str(detector), "", NET_PX, SCORE_MIN, NMS_IOU, TOP_K)
    embed = cv2.FaceRecognizerSF.create(str(embedder), "")
    pictures = [cv2.imread(str(p)) for p in sorted(frames.glob("*.png"))]
    if not pictures:
        sys.exit(f"no frames in {frames}")
    times = {"detect": [], "align": [], "embed": []}
    faces_found = 0
    for turn in range(repeats + 1):
        for picture in pictures:
            start = time.perf_counter()
            # The door's detect stage takes the 640x480 frame too, so the shrinking counts on both sides.
            _, faces = detect.detect(cv2.resize(picture, NET_PX, interpolation=cv2.INTER_LINEAR))
            detected = time.perf_counter()
            if turn:
                times["detect"].append(detected - start)
            if faces is None:
                continue
            faces_found += turn == 0
            # The largest face, as the door does; back to the frame's own pixels.
            face = max(faces, key=lambda f: f[2] * f[3]).copy()
            face[:14] *= FRAME_PX[0] / NET_PX[0]
            start = time.perf_counter()
            chip = embed.alignCrop(picture, face)
            aligned = time.perf_counter()
            embed.feature(chip)
            done = time.perf_counter()
            if turn:
                times["align"].append(aligned - start)
                times["embed"].append(done - aligned)
    stages = {k: {"median_us": round(median(v) * 1e6, 1), "n": len(v)} for k, v in times.items() if v}
    return {"stages": stages, "frames": len(pictures), "frames_with_face": int(faces_found), "opencv": cv2.__version__}


if __name__ == "__main__":
    if sys.argv[1] == "compose":
        print(compose(Path(sys.argv[2]), Path(sys.argv[3])))
    else:
        paths = [Path(a) for a in sys.argv[2:5]]
        print(json.dumps(measure(*paths, int(sys.argv[5]))))
