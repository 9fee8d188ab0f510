"""Fine-tune a bundled model on two classes with few images.

python examples/fine_tune.py OUT_FOLDER [STEPS]

The images are drawn: bars, similar to the class "one" of the bundled digits, and crosses.
"""

import logging
import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw

import biggan
from biggan.data import load_dataset
from biggan.fine_tuning import fitted_to_source
from biggan.images import make_grid
from biggan.training import load_recipe, train


def main() -> None:
    """Draw the images, train, and write samples."""
    out = Path(sys.argv[1])
    steps = sys.argv[2] if len(sys.argv) > 2 else 200
    for name, lines in {
        "one": [(16, 5, 16, 27)],
        "cross": [(5, 5, 27, 27), (5, 27, 27, 5)],
    }.items():
        (out / "data" / name).mkdir(parents=True, exist_ok=True)
        for i in range(20):
            picture = Image.new("L", (32, 32))
            for line in lines:
                ImageDraw.Draw(picture).line(line, fill=255, width=2 + i % 4)
            picture.rotate(2 * i - 20).save(out / "data" / name / f"{i}.png")

    logging.basicConfig(level=logging.INFO, format="%(message)s")  # the source of each class
    changes = ["fine_tuning.generator=digits", "batch_size=8", f"total_steps={steps}"]
    recipe = load_recipe("digits", changes, data=str(out / "data"))
    recipe = fitted_to_source(recipe)  # the shapes of the loaded weights
    dataset = load_dataset(recipe.data, recipe.generator.resolution, 1)
    config = recipe.fitted(dataset.num_classes)
    train(config, dataset, out / "run", device=torch.device("cpu"))
    samples = biggan.load(out / "run").sample("cross", num=10, truncation=0.5)
    make_grid(samples, columns=5).save(out / "crosses.png")


if __name__ == "__main__":
    main()
