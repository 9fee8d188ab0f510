"""Sample an exported model without biggan and without PyTorch.

    biggan export fruits.onnx
    python examples/onnx_sample.py fruits.onnx CLASS [OUT.png]

Needs numpy, onnxruntime and pillow. CLASS is a class name or a part of one, such as "red-apple".
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def main() -> None:
    """Write a row of five images, or of the file's fixed batch size."""
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    shapes = {entry.name: entry.shape for entry in session.get_inputs()}
    num, dim = shapes["z"]
    num = num if isinstance(num, int) else 5  # "N" for any number
    inputs, rng = {}, np.random.default_rng(seed=0)

    z = rng.standard_normal((num, dim))
    if about["truncation"] != "none":
        truncation = 0.4 if about["truncation"] == "dynamic" else float(about["truncation"])
        while (far := abs(z) > 2).any():  # truncated to two standard deviations, then scaled
            z[far] = rng.standard_normal(far.sum())
        z *= truncation
    inputs["z"] = z.astype(np.float32)
    if "truncation" in shapes:
        inputs["truncation"] = np.array(truncation, np.float32)

    if "class_weights" in shapes:
        names = json.loads(about["class_names"])
        index = next((i for i, name in enumerate(names) if sys.argv[2] in name), None)
        if index is None:
            sys.exit(f"{about['name']} has no class named {sys.argv[2]!r}")
        inputs["class_weights"] = np.eye(len(names), dtype=np.float32)[[index] * num]

    images = session.run(["images"], inputs)[0]  # (num, C, R, R) in [-1, 1]
    row = np.concatenate(list(images), axis=2).transpose(1, 2, 0)
    pixels = np.clip((row + 1) / 2 * 256, 0, 255).astype(np.uint8)
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(
        *sys.argv[3:4] or ["row.png"]
    )


if __name__ == "__main__":
    main()
