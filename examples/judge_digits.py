"""Evaluate a model of digits: does an independent classifier recognize them? Are they copies?

    python examples/judge_digits.py [MODEL]

The classifier is a support vector machine on 8x8 pixels, trained on two thirds of the real digits
and tested on the rest. Samples and training images are reduced to 8x8 by averaging. Distances are
Euclidean on these 64 pixels from 0 to 16. A copy would have distance 0.
"""

import sys

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC

import biggan
from biggan.data import load_dataset
from biggan.images import to_pil

PER_CLASS = 100


def to_8x8(picture: Image.Image) -> np.ndarray:
    """Convert an image to the format of scikit-learn: 64 grey levels from 0 to 16."""
    small = picture.convert("L").resize((8, 8), Image.Resampling.BOX)
    return np.asarray(small, dtype=float).ravel() / 255 * 16


def nearest(points: np.ndarray, others: np.ndarray, *, skip: int = 0) -> np.ndarray:
    """Distance of each point to the nearest of the others. skip=1: the others include the point."""
    squares = (points**2).sum(1)[:, None] + (others**2).sum(1) - 2 * points @ others.T
    return np.sqrt(np.sort(np.maximum(squares, 0), axis=1)[:, skip])


def summary(distances: np.ndarray) -> str:
    """Format the median, the 1% quantile and the smallest distance."""
    median, low, smallest = np.quantile(distances, [0.5, 0.01, 0])
    return f"median {median:.1f} (1%: {low:.1f}, smallest {smallest:.1f}) from the nearest"


def main() -> None:
    """Print the accuracy of the samples and their distances to real digits."""
    pixels, digits = load_digits(return_X_y=True)
    held_out = np.arange(len(digits)) % 3 == 0
    classifier = SVC(gamma=0.001, C=10).fit(pixels[~held_out], digits[~held_out])
    accuracy = classifier.score(pixels[held_out], digits[held_out])
    training_images = to_pil(load_dataset("digits", 32, 1).images)
    real = np.stack([to_8x8(picture) for picture in training_images])
    distances = nearest(real, real, skip=1)
    print(f"real: {accuracy:.1%} of the held-out ones recognized; {summary(distances)} other digit")

    gan = biggan.load(*(sys.argv[1:2] or ["digits"]))
    labels = np.repeat(np.arange(10), PER_CLASS)
    for truncation in (0.5, 1.0):
        samples = np.stack(
            [to_8x8(p) for digit in range(10) for p in gan.sample(digit, PER_CLASS, truncation, 0)]
        )
        right = np.mean(classifier.predict(samples) == labels)
        distances = nearest(samples, real)
        print(f"truncation {truncation}: {right:.1%} recognized; {summary(distances)} real digit")


if __name__ == "__main__":
    main()
