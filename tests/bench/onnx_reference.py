#!/usr/bin/env python3
"""What onnxruntime answers for a model, as the reference for `facelatch models import`.

    onnx_reference.py golden ORIGINAL.onnx WIDTH HEIGHT
        runs the unchanged file on the fixed picture of trainer/src/import/verify.rs and prints the golden figures
        for models/imports.toml
    onnx_reference.py compare ORIGINAL.onnx IMPORTED.onnx WIDTH HEIGHT
        runs both files on that picture and on noise, and fails when an output differs by more than 1e-4 of its peak
    onnx_reference.py forms WIDTH HEIGHT CHIPS.f32 FLOAT.onnx OTHER.onnx [OTHER.onnx ...]
        checks every file with onnx's full checker, runs all on the chips (raw float32 [n, 3, HEIGHT, WIDTH]) and prints the least
        cosine of each to the first

Needs numpy, onnx and onnxruntime; says so and exits 77 (skipped) without them.
"""

import sys

try:
    import numpy as np
    import onnx
    import onnxruntime
except ImportError as missing:
    print(f"SKIPPED: {missing}; pip install numpy onnx onnxruntime", file=sys.stderr)
    sys.exit(77)

SAMPLES = 16
TOLERANCE = 1e-4


def picture(width, height):
    plane, y, x = np.meshgrid(np.arange(3), np.arange(height), np.arange(width), indexing="ij")
    values = (x // 8 * 73 + y // 8 * 151 + plane * 57 + x * y % 32) % 256
    return values.astype(np.float32)[None]


def session(path, width, height, fast=False):
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    used = {name for node in model.graph.node for name in node.input}
    # SFace lists its former float weights as inputs, which nothing reads and onnxruntime would demand.
    inputs = [value for value in model.graph.input if value.name in used and value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, [1, 3, height, width]):
            dim.Clear()
            dim.dim_value = size
    for node in model.graph.node:
        # One block that spans the whole tensor is one scale for the tensor, which onnxruntime takes without block_size only.
        if node.op_type == "DequantizeLinear" and list(constants[node.input[1]].dims) == [1]:
            kept = [attribute for attribute in node.attribute if attribute.name != "block_size"]
            del node.attribute[:]
            node.attribute.extend(kept)
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not fast:
        # No fusion that could round otherwise than the file says.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def answers(path, width, height, *pictures):
    running = session(path, width, height)
    name = running.get_inputs()[0].name
    names = [output.name for output in running.get_outputs()]
    return names, [running.run(names, {name: values}) for values in pictures]


def golden(path, width, height):
    names, [outputs] = answers(path, width, height, picture(width, height))
    for name, output in zip(names, outputs):
        flat = output.ravel()
        samples = [flat[i * flat.size // SAMPLES] for i in range(SAMPLES)]
        print("[[models.golden]]")
        print(f'name = "{name}"')
        print(f"elements = {flat.size}")
        print(f"norm = {np.linalg.norm(flat.astype(np.float64)):.6g}")
        print(f"samples = [{', '.join(f'{v:.6g}' if '.' in f'{v:.6g}' or 'e' in f'{v:.6g}' else f'{v:.1f}' for v in samples)}]")


def compare(original, imported, width, height):
    noise = np.random.default_rng(1).integers(0, 256, (1, 3, height, width)).astype(np.float32)
    names, before = answers(original, width, height, picture(width, height), noise)
    after_names, after = answers(imported, width, height, picture(width, height), noise)
    if names != after_names:
        sys.exit(f"outputs {after_names} where the original has {names}")
    worst = 0.0
    for a, b in zip(sum(before, []), sum(after, [])):
        worst = max(worst, float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-6)))
    print(f"largest difference {worst:.2e} of the peak, {len(names)} outputs, 2 pictures")
    if worst > TOLERANCE:
        sys.exit(f"more than {TOLERANCE:.0e}")


def forms(width, height, chips, paths):
    chips = np.fromfile(chips, np.float32).reshape(-1, 1, 3, height, width)
    first = None
    for path in paths:
        onnx.checker.check_model(onnx.load(path), full_check=True)
        options = onnxruntime.SessionOptions()
        # Integer kernels of hosts without VNNI saturate for unsigned inputs only; these files are signed throughout.
        running = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = running.get_inputs()[0].name
        vectors = np.stack([running.run(None, {name: chip})[0].ravel() for chip in chips])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors.astype(np.float32).tofile(f"{path}.vectors")
        first = vectors if first is None else first
        print(f"{path}: {(vectors * first).sum(axis=1).min():.6f}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["golden", path, width, height]:
            golden(path, int(width), int(height))
        case ["compare", original, imported, width, height]:
            compare(original, imported, int(width), int(height))
        case ["forms", width, height, chips, *paths] if paths:
            forms(int(width), int(height), chips, paths)
        case _:
            sys.exit(__doc__)
