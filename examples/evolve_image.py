"""CMA-ES towards a classifier's unit: a search without gradients, as for neurons.

    python examples/evolve_image.py [DIGIT] [PICTURE]

The unit is the log-probability of a digit under a logistic regression on 8x8 pixels, trained on
real digits. Any other function of images can take its place, such as the response of a neuron. The
search moves noise and class vector together and sees only the unit's values.

The algorithm is that of Hansen, "The CMA Evolution Strategy: A Tutorial"
(https://arxiv.org/abs/1604.00772), with the default settings of its Table 1.
"""

import sys
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import biggan
from biggan.images import make_grid, to_pil, to_uint8

GENERATIONS = 20
TRUNCATION = 0.5


class CMAES:
    """Maximizes a function of x, with weighted recombination of the better half of each sample.

    Args:
        mean: Where to start, (dim,).
        sigma: Standard deviation of the first sample.
        seed: Of the samples.
    """

    def __init__(self, mean: np.ndarray, sigma: float, seed: int = 0) -> None:
        self.mean, self.sigma, n = mean.astype(float), sigma, len(mean)
        self.num = 4 + int(3 * np.log(n))
        weights = np.log((self.num + 1) / 2) - np.log(np.arange(1, self.num // 2 + 1))
        self.weights = weights / weights.sum()
        mu = 1 / (self.weights**2).sum()
        self.c_sigma = (mu + 2) / (n + mu + 5)
        self.d_sigma = 1 + 2 * max(0, np.sqrt((mu - 1) / (n + 1)) - 1) + self.c_sigma
        self.c_c = (4 + mu / n) / (n + 4 + 2 * mu / n)
        self.c_1 = 2 / ((n + 1.3) ** 2 + mu)
        self.c_mu = min(1 - self.c_1, 2 * (mu - 2 + 1 / mu) / ((n + 2) ** 2 + mu))
        self.length = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))  # of a normal vector
        self.mu, self.covariance = mu, np.eye(n)
        self.path_sigma, self.path_c = np.zeros(n), np.zeros(n)
        self.random, self.generation = np.random.default_rng(seed), 0

    def ask(self) -> np.ndarray:
        """Points to evaluate, (num, dim)."""
        values, self.axes = np.linalg.eigh(self.covariance)
        self.scales = np.sqrt(np.maximum(values, 1e-12))
        normal = self.random.standard_normal((self.num, len(self.mean)))
        self.steps = normal * self.scales @ self.axes.T
        return self.mean + self.sigma * self.steps

    def tell(self, values: np.ndarray) -> None:
        """Take the values of the points of `ask`."""
        self.generation += 1
        best = self.steps[np.argsort(-values)[: len(self.weights)]]
        step = self.weights @ best
        self.mean = self.mean + self.sigma * step
        white = self.axes @ ((self.axes.T @ step) / self.scales)
        c = self.c_sigma
        self.path_sigma = (1 - c) * self.path_sigma + np.sqrt(c * (2 - c) * self.mu) * white
        ratio = np.linalg.norm(self.path_sigma) / self.length
        straight = ratio / np.sqrt(1 - (1 - c) ** (2 * self.generation)) < 1.4 + 2 / (len(step) + 1)
        c = self.c_c
        self.path_c = (1 - c) * self.path_c + straight * np.sqrt(c * (2 - c) * self.mu) * step
        kept = 1 - self.c_1 - self.c_mu + (not straight) * self.c_1 * c * (2 - c)
        self.covariance = (
            kept * self.covariance
            + self.c_1 * np.outer(self.path_c, self.path_c)
            + self.c_mu * (best.T * self.weights) @ best
        )
        self.sigma *= np.exp(self.c_sigma / self.d_sigma * (ratio - 1))


def digit_unit(digit: int):
    """A function of images (N, 1, R, R) in [-1, 1]: log p(digit)."""
    pixels, labels = load_digits(return_X_y=True)
    classifier = LogisticRegression(max_iter=2000).fit(pixels, labels)

    def unit(images: torch.Tensor) -> np.ndarray:
        small = torch.nn.functional.adaptive_avg_pool2d((images + 1) / 2, 8) * 16
        return classifier.predict_log_proba(small.flatten(1).numpy())[:, digit]

    return unit


def evolve(gan: biggan.Gan, unit, generations: int) -> Iterator[tuple[float, torch.Tensor]]:
    """The best value of each generation, and its image."""
    vectors = gan.embed(range(len(gan.class_names)))
    spread = vectors.std()  # so that a step is as large in class vectors as in noise
    start = np.concatenate([np.zeros(gan.config.z_dim), vectors.mean(0) / spread])
    search = CMAES(start, sigma=0.5)
    for _ in range(generations):
        points = torch.from_numpy(search.ask()).float()
        z, vector = points[:, : gan.config.z_dim], points[:, gan.config.z_dim :] * spread
        images = gan.generate(z, class_vectors=vector, truncation=TRUNCATION)
        values = unit(images)
        search.tell(values)
        yield values.max(), images[values.argmax()]


def main() -> None:
    """Print the unit's values, and write the best image of every second generation."""
    digit = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    gan = biggan.load("digits")
    found = list(evolve(gan, digit_unit(digit), GENERATIONS))
    for generation, (value, _) in enumerate(found):
        print(f"generation {generation}: {value:.5f}")
    shown = torch.stack([image for _, image in found[::2]])
    make_grid(to_pil(to_uint8(shown)), len(shown)).save(
        sys.argv[2] if len(sys.argv) > 2 else "evolved.png"
    )


if __name__ == "__main__":
    main()
