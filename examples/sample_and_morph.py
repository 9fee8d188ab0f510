"""Pictures, a morph and a mix of classes in a dozen lines.

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

    sevens = gan.sample("seven", num=10, truncation=0.4, seed=0)
    make_grid(sevens, columns=5).save(out / "sevens.png")

    rows = gan.interpolate("three", "eight", steps=8, num=3, truncation=0.4)
    make_grid([picture for row in rows for picture in row], columns=8).save(out / "morph.png")

    # Noise and class weights of your own: half a three, half an eight.
    z = biggan.truncated_noise(4, gan.config.z_dim, 0.4, seed=1)
    weights = torch.zeros(4, 10)
    weights[:, [3, 8]] = 0.5
    mixed = gan.generate(z, weights, truncation=0.4)  # (4, 1, 32, 32) in [-1, 1]
    make_grid(to_pil(to_uint8(mixed)), columns=4).save(out / "mixed.png")


if __name__ == "__main__":
    main()
