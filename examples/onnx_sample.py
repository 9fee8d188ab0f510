"""Pictures from an exported model, without biggan and without PyTorch.

    biggan export --truncation dynamic digits.onnx
    python examples/onnx_sample.py digits.onnx CLASS [OUT.png]

Needs numpy, onnxruntime and pillow. CLASS is a part of a class's name, such as "seven".
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def main() -> None:
    """Write a row of five pictures."""
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    num, truncation, rng = 5, 0.4, np.random.default_rng(seed=0)

    z = rng.standard_normal((num, session.get_inputs()[0].shape[1]))
    while (far := abs(z) > 2).any():  # a normal cut at two standard deviations, then scaled
        z[far] = rng.standard_normal(far.sum())
    inputs = {"z": (truncation * z).astype(np.float32)}

    index = next(i for i, name in enumerate(names) if sys.argv[2] in name)
    inputs["class_weights"] = np.eye(len(names), dtype=np.float32)[[index] * num]

    inputs["truncation"] = np.array(truncation, np.float32)
    images = session.run(["images"], inputs)[0]  # (5, C, R, R) in [-1, 1]
    row = np.concatenate(list(images), axis=2).transpose(1, 2, 0)
    pixels = np.clip((row + 1) / 2 * 256, 0, 255).astype(np.uint8)
    Image.fromarray(pixels.squeeze()).save(*sys.argv[3:4] or ["row.png"])


if __name__ == "__main__":
    main()
