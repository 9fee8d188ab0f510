"""Samples, an interpolation and a mix of classes.

python examples/sample_and_morph.py [OUT_FOLDER]
"""

import sys
from pathlib import Path

import torch

import biggan
from biggan.images import make_grid, to_pil, to_uint8


def main() -> None:
    """Write three PNG files."""
    out = Path(*sys.argv[1:2])
    out.mkdir(parents=True, exist_ok=True)
    gan = biggan.load()

    apples = gan.sample("red apple", num=10, truncation=0.4, seed=0)
    make_grid(apples, columns=5).save(out / "apples.png")

    rows = gan.interpolate("red apple", "banana", steps=8, num=3, truncation=0.4)
    make_grid([picture for row in rows for picture in row], columns=8).save(out / "morph.png")

    # Your own noise and class weights: half apple, half banana.
    z = biggan.truncated_noise(4, gan.config.z_dim, 0.4, seed=1)
    weights = torch.zeros(4, len(gan.class_names))
    weights[:, [gan.class_names.index(name) for name in ("red-apple", "banana")]] = 0.5
    mixed = gan.generate(z, weights, truncation=0.4)  # (4, 3, 64, 64) in [-1, 1]
    make_grid(to_pil(to_uint8(mixed)), columns=4).save(out / "mixed.png")


if __name__ == "__main__":
    main()
