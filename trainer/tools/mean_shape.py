#!/usr/bin/env python3
"""Derive the generic 3D face of `shared/src/align/` from the face mesh teacher's points.

    trainer/tools/mesh_teacher.py --data FOLDER --out NAME.safetensors --first 3000 --full mesh.npz
    trainer/tools/mean_shape.py --full mesh.npz --out shared/src/align/shape_data.rs

Set-up as for mesh_teacher.py, and `pip install scipy` into the same environment (for the triangulation).

The 468 points of each face are reduced to the 68 fiducials and to thirteen more (forehead, cheeks, sides of the nose), and brought together by
generalized Procrustes analysis (rotation, uniform scale and shift in 3D; every face also as its mirror image, which makes the
mean symmetric). Pose zero is the average pose of the pictures. The mean is scaled and placed as its points lie on
average on the canonical chip of 112 px. What is left is described by its first principal modes and, beyond them, by one
standard deviation for each point and axis. A ring of anchors far outside the face carries the background. The mesh is the
Delaunay triangulation of one half of the frontal view and its mirror image.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.spatial import Delaunay

from mesh_teacher import MESH_68

MIRROR_68 = ([16 - i for i in range(17)] + [43 - i for i in range(17, 27)] + [27, 28, 29, 30, 35, 34, 33, 32, 31]
             + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
             + [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65])
# Of the 468: forehead, cheekbones, cheeks and sides of the nose, so ordered that the list reversed is its mirror image.
EXTRA = [21, 54, 67, 50, 205, 129, 10, 358, 425, 280, 297, 284, 251]
FACE = 68 + len(EXTRA)
MIRROR = np.array(MIRROR_68 + list(range(FACE - 1, 67, -1)))
BORDER = 8  # px of canvas round the chip
LEFT_OUT = 66  # the lower lip's inner middle: see fiducials.rs
MODES = 6
# Half of the ring, from the top of the midline to its bottom, in px of the chip from the midline: far outside any chip.
RING = [(0, -70), (-70, -70), (-110, -10), (-110, 60), (-110, 130), (-70, 190), (0, 190)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=Path, required=True, help="the teacher's 468 points, .npz")
    parser.add_argument("--out", type=Path, required=True, help="Rust table to write")
    args = parser.parse_args()
    data = np.load(args.full)
    points = data["points"][data["score"] > 0.99][:, MESH_68 + EXTRA].astype(np.float64)
    points = points[np.isfinite(points).all((1, 2))]
    both = np.concatenate([points, mirror(points)])
    mean, aligned, rotations = procrustes(both)
    kept = worst_apart(mean, aligned)
    mean, aligned, rotations = procrustes(both[np.tile(kept[: len(points)] & kept[len(points):], 2)])
    mean = (mean + mirror(mean)) / 2
    # A face turns from pose zero by its rotation; the pictures' average pitch becomes zero.
    pitch = np.median(np.arctan2(rotations[:, 2, 1], rotations[:, 2, 2]))
    zero = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    mean, aligned = mean @ zero.T, aligned @ zero.T
    scale, shift, midline = placement(mean, points[kept[:len(points)]])
    mean, residual = mean * scale + shift, (aligned * scale + shift) - (mean * scale + shift)
    mean[:, 2] -= mean[:68, 2].mean()
    modes, sigma, explained = principal(residual)
    mean = (mean + mirror(mean)) / 2
    ring = whole_ring(mean)
    vertices = np.concatenate([mean, ring])
    pairs = np.concatenate([MIRROR, FACE + ring_mirror()])
    triangles = mesh(vertices, pairs)
    normals = vertex_normals(vertices, triangles)
    write(args.out, vertices, pairs, triangles, normals, modes, sigma, midline)
    print(f"{kept.sum() // 2} faces, {len(triangles)} triangles, {len(vertices)} vertices; the modes explain {explained:.0%}; "
          f"eyes {np.linalg.norm(mean[36:42].mean(0) - mean[42:48].mean(0)):.2f} px apart; median pitch {np.degrees(pitch):.1f} degrees")


def mirror(points):
    return points[..., MIRROR, :] * [-1, 1, 1]


def procrustes(shapes, rounds=8):
    """Mean, shapes brought to it, and the rotations that turn the mean into each shape."""
    centred = shapes - shapes.mean(1, keepdims=True)
    centred /= np.sqrt((centred**2).sum((1, 2), keepdims=True))
    mean = (centred[0] + mirror(centred[0])) / 2
    for _ in range(rounds):
        u, s, vt = np.linalg.svd(np.einsum("nki,kj->nij", centred, mean))
        flip = np.sign(np.linalg.det(u @ vt))
        u[:, :, 2] *= flip[:, None]
        rotations = u @ vt  # shape = rotation @ mean
        s[:, 2] *= flip
        aligned = np.einsum("nki,nij->nkj", centred, rotations) * s.sum(1)[:, None, None] / (mean**2).sum() ** 0.5
        mean = aligned.mean(0)
        mean /= np.sqrt((mean**2).sum())
    aligned = np.einsum("nki,nij->nkj", centred, rotations)
    aligned *= ((aligned * mean).sum((1, 2)) / (aligned**2).sum((1, 2)))[:, None, None]
    return mean, aligned, rotations


def worst_apart(mean, aligned):
    """All but the 3 % of faces farthest from the mean: wrong labels."""
    away = ((aligned - mean) ** 2).sum((1, 2))
    return away < np.quantile(away, 0.97)


def placement(mean, faces):
    """Scale and shift (the midline stays at x = 0) that bring the mean nearest to where the points lie on average on the crops,
    which were aligned to the canonical chip by a detector's five landmarks."""
    target = faces[:, :68, :2].mean(0) - BORDER
    rows = np.concatenate([np.stack([mean[:68, 0], np.ones(68), np.zeros(68)], 1),
                           np.stack([mean[:68, 1], np.zeros(68), np.ones(68)], 1)])
    (scale, midline, down), *_ = np.linalg.lstsq(rows, np.concatenate([target[:, 0], target[:, 1]]), rcond=None)
    return scale, np.array([0, down, 0]), midline


def principal(residual):
    """Modes in px for one standard deviation [MODES, FACE, 3], what they leave [FACE, 3], share of variance explained."""
    flat = residual.reshape(len(residual), -1)
    flat = flat - flat.mean(0)
    _, s, vt = np.linalg.svd(flat, full_matrices=False)
    scaled = vt[:MODES] * (s[:MODES] / np.sqrt(len(flat)))[:, None]
    rest = flat - flat @ vt[:MODES].T @ vt[:MODES]
    sigma = rest.std(0).reshape(FACE, 3)
    return scaled.reshape(MODES, FACE, 3), sigma, (s[:MODES] ** 2).sum() / (s**2).sum()


def whole_ring(mean):
    """Clockwise from the top, at the depth of the ears."""
    half = RING + [(-x, y) for x, y in RING[-2:0:-1]]
    ears = mean[[0, 1, 15, 16], 2].mean()
    return np.array([(x, y, ears) for x, y in half], np.float64)


def ring_mirror():
    count = 2 * (len(RING) - 1)
    return np.array([-i % count for i in range(count)])


def mesh(vertices, pairs):
    half = [i for i in range(len(vertices)) if vertices[i, 0] <= 1e-9 and i != LEFT_OUT]
    flat = vertices[half, :2].copy()
    flat[np.abs(flat[:, 0]) < 1e-6, 0] = 0
    found = []
    for a, b, c in Delaunay(flat).simplices:
        p, q, r = flat[[a, b, c]]
        area = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
        if abs(area) > 1e-6:
            a, b, c = half[a], half[b], half[c]
            found.append((a, b, c) if area > 0 else (a, c, b))
    return found + [(pairs[a], pairs[c], pairs[b]) for a, b, c in found]


def vertex_normals(vertices, triangles):
    """Outwards, length one; the ring looks sideways, so that background belongs to the side that it is on."""
    normals = np.zeros_like(vertices)
    for t in triangles:
        if max(t) < FACE:
            p, q, r = vertices[list(t)]
            n = np.cross(q - p, r - p)
            normals[list(t)] += n if n[2] < 0 else -n
    normals[LEFT_OUT] = normals[57]
    for i in range(FACE, len(vertices)):
        normals[i] = [np.sign(vertices[i, 0]), 0, -1]
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def write(path, vertices, pairs, triangles, normals, modes, sigma, midline):
    def rows(values, digits, in_line=4):
        cells = [f"[{', '.join(f'{v + 0.0:.{digits}f}' for v in row)}]," for row in np.round(values, digits)]
        return "".join("    " + " ".join(cells[i:i + in_line]) + "\n" for i in range(0, len(cells), in_line))

    text = f"""//! Made by trainer/tools/mean_shape.py, which says how; see [`super::shape`]. Not edited by hand.

/// Points of the face: the 68 fiducials and {len(EXTRA)} more on forehead, cheeks and nose.
pub const FACE: usize = {FACE};
/// Vertices of the mesh: the face's points and a ring of anchors round it.
pub const VERTICES: usize = {len(vertices)};
/// Triangles of the mesh.
pub const TRIANGLES: usize = {len(triangles)};
/// Principal modes of deformation.
pub const MODES: usize = {len(modes)};

/// Column of the midline on the 112 px chip.
pub const MIDLINE_PX: f32 = {midline:.3f};

/// Vertices in pixels of the 112 px chip: x from the midline to the viewer's right, y downwards from the chip's upper edge, z away
/// from the camera.
#[rustfmt::skip]
pub(super) static POSITIONS: [[f32; 3]; VERTICES] = [
{rows(vertices, 3)}];

/// Outward normals at the vertices, length one.
#[rustfmt::skip]
pub(super) static NORMALS: [[f32; 3]; VERTICES] = [
{rows(normals, 3)}];

/// What one standard deviation of each mode moves the face's points by, in the same pixels.
#[rustfmt::skip]
pub(super) static DEFORMATIONS: [[[f32; 3]; FACE]; MODES] = [
{"".join("    [" + chr(10) + rows(mode, 3) + "    ]," + chr(10) for mode in modes)}];

/// Standard deviation that the modes leave to each point and axis, in the same pixels.
#[rustfmt::skip]
pub(super) static SPREAD: [[f32; 3]; FACE] = [
{rows(sigma, 3)}];

/// For each vertex, the one on the other side of the face.
#[rustfmt::skip]
pub(super) static MIRROR: [u8; VERTICES] = [
{"".join("    " + ", ".join(map(str, pairs[i:i + 20])) + "," + chr(10) for i in range(0, len(pairs), 20))}];

/// Corners, clockwise in the frontal view. Triangle i + TRIANGLES / 2 is the mirror image of triangle i.
#[rustfmt::skip]
pub(super) static MESH: [[u8; 3]; TRIANGLES] = [
{rows(triangles, 0, 8)}];
"""
    path.write_text(text)


if __name__ == "__main__":
    main()
