"""Directions in the noise that change one thing at a time, found without labels.

    sefa    Shen and Zhou 2021 (https://arxiv.org/abs/2007.06600): eigenvectors of A^T A, where A
            holds the weights by which layers read the noise: the noise that changes what they see
            the most, in closed form.
    pca     GANSpace, Haerkoenen et al. 2020 (https://arxiv.org/abs/2004.02546): principal
            components of what a layer makes, and the noise that moves along each of them, by least
            squares.

A direction is a unit vector of the noise. It is added to the noise of some layers only: the early
ones change shape and pose, the late ones colour.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from biggan.errors import InputError, printable, quoted, real_number, whole_number
from biggan.images import make_grid, to_pil, to_uint8
from biggan.latents import make_noise
from biggan.provenance import LatentProvenance, Provenance, file_stem
from biggan.sampling import check_weights, inputs_of, plan_latents, rows_of
from biggan.weights.files import BUNDLED, BUNDLED_FOLDER, load_record, save_record

if TYPE_CHECKING:
    from biggan.gan import Gan

Method = Literal["sefa", "pca"]
METHODS: tuple[Method, ...] = ("sefa", "pca")

_KEY = "directions"  # of the metadata
_TENSORS = ("vectors", "strengths")
_BATCH = 256  # samples at a time
_LOG_EVERY = 10.0  # seconds, where no terminal shows a bar
_TITLE = 13  # pixels above each row of a sheet

_LOG = logging.getLogger("biggan.directions")


@dataclass(frozen=True)
class Directions:
    """Directions of one model, the strongest first.

    Attributes:
        vectors: float32 (K, z_dim), each of length 1.
        strengths: float32 (K,): for `sefa` how much a unit of noise changes what the layers read
            (a singular value of A), for `pca` the standard deviation of the component.
        layers: The layers to whose noise they are added, out of 0 to `conditions` - 1.
        conditions: The number of layers that take noise.
        method: How they were found.
        model: The model's name.
        sha256: Digest of its weights.
        names: What they change, in words; empty strings where nobody said.
        details: Settings of the method: the layer of the activations, samples, seed, class.
    """

    vectors: Tensor
    strengths: Tensor
    layers: tuple[int, ...]
    conditions: int
    method: Method
    model: str
    sha256: str
    names: tuple[str, ...]
    details: Mapping[str, str | int | float | None]

    def __len__(self) -> int:
        return len(self.vectors)

    def index(self, direction: int | str) -> int:
        """The number of a direction given by number or name.

        Raises:
            InputError: There is none.
        """
        if isinstance(direction, str):
            if direction in filter(None, self.names):
                return self.names.index(direction)
            try:
                direction = int(direction)
            except ValueError:
                named = printable(", ".join(filter(None, self.names))[:100]) or "none has a name"
                raise InputError(f"there is no direction {quoted(direction)}: {named}") from None
        number = whole_number(direction, "a direction")
        if not 0 <= number < len(self):
            raise InputError(
                f"there is no direction {quoted(number)}; there are 0 to {len(self) - 1}"
            )
        return number

    def check_model(self, gan: Gan) -> None:
        """Refuse another model than the one that the directions were found for."""
        advice = "find those of this model with biggan directions"
        check_weights(gan, self.model, self.sha256, "the directions are of", advice)

    def apply(self, z: Tensor | NDArray[np.floating], amounts: Mapping[int | str, float]) -> Tensor:
        """Move noise along directions.

        Args:
            z: (N, z_dim), or (N, L, z_dim).
            amounts: How far, by number or name, in standard deviations of untruncated noise.

        Returns:
            (N, L, z_dim): noise for each layer, changed in `layers`.

        Raises:
            InputError: Noise of another shape, an unknown direction, an amount that is not a
                finite number.
        """
        if not isinstance(amounts, Mapping):
            raise InputError(
                "amounts must be a dict of amounts by number or name, such as {0: 2.0}, "
                f"not {quoted(amounts)}"
            )
        z = rows_of("noise", z, self.vectors.shape[1], self.conditions)
        z = z.clone() if z.ndim == 3 else z[:, None].repeat(1, self.conditions, 1)
        for direction, amount in amounts.items():
            if not math.isfinite(real_number(amount, "an amount")):
                raise InputError(f"an amount must be a finite number, not {amount}")
            moved = amount * self.vectors[self.index(direction)].to(z)
            for layer in self.layers:
                z[:, layer] += moved
        return z


def plan_moved(
    gan: Gan,
    pictures: Sequence[Provenance | LatentProvenance],
    moves: Sequence[tuple[Directions, Mapping[int | str, float]]],
) -> list[LatentProvenance]:
    """Plan pictures moved along directions; for the amounts see `Directions.apply`.

    Raises:
        InputError: Pictures or directions of another model, or an unknown direction.
    """
    for directions, _ in moves:
        directions.check_model(gan)
    amounts = [item for _, moved in moves for item in moved.items()]
    suffix = "".join(f"-{direction}{amount:+g}" for direction, amount in amounts)
    names = iter(f"{file_stem(picture)}{suffix}" for picture in pictures)
    planned = []
    for labels, z, truncation, class_vectors in inputs_of(gan, pictures):
        for directions, moved in moves:
            z = directions.apply(z, moved)
        if class_vectors is None:
            class_vectors = z.new_zeros(len(z), 0)
            if labels is not None and gan.class_names:
                class_vectors = gan.embed(labels)
        planned += plan_latents(gan, z, class_vectors, truncation, list(islice(names, len(z))))
    return planned


def find_directions(
    gan: Gan,
    method: Method = "pca",
    num: int = 20,
    *,
    layers: Sequence[int] | None = None,
    activation: str = "linear",
    samples: int = 4000,
    class_: str | int | None = None,
    truncation: float | None = 1.0,
    seed: int = 0,
    progress: bool = True,
) -> Directions:
    """Find directions of a model's noise.

    Args:
        gan: The model.
        method: `sefa` or `pca`.
        num: How many, at most z_dim.
        layers: The layers to whose noise they are added; None for all. For `sefa` also those whose
            weights are taken.
        activation: For `pca` the layer of `Gan.layers` whose output is decomposed.
        samples: For `pca` the number of noises drawn.
        class_: For `pca` the class of all of them; None for the mean of all class vectors.
        truncation: For `pca` that of the noise.
        seed: For `pca` that of the noise.
        progress: For `pca` show a bar on a terminal, or else log lines.

    Raises:
        InputError: No such method, layer or class; too many directions; scikit-learn is needed for
            `pca` and not installed.
    """
    if method not in METHODS:
        raise InputError(f"the method is {' or '.join(METHODS)}, not {quoted(method)}")
    chosen = _checked_layers(gan, layers)
    num = whole_number(num, "the number of directions")
    if not 1 <= num <= gan.config.z_dim:
        raise InputError(f"there are 1 to {gan.config.z_dim} directions to find, not {num}")
    details: dict[str, str | int | float | None] = {}
    if method == "sefa":
        vectors, strengths = _sefa(gan, chosen, num)
    else:
        samples = whole_number(samples, "the number of samples")
        if samples < 2 * num:
            raise InputError(f"{num} components take at least {2 * num} samples, not {samples}")
        details = {
            "activation": activation,
            "samples": samples,
            "class": class_,
            "truncation": truncation,
            "seed": seed,
        }
        z = torch.from_numpy(make_noise(samples, gan.config.z_dim, truncation, seed)).float()
        batches = _activations(gan, z, activation, class_, truncation, progress)
        vectors, strengths = _pca(batches, z, num)
    return Directions(
        vectors.float(),
        strengths.float(),
        chosen,
        gan.conditions,
        method,
        gan.name,
        gan.sha256,
        ("",) * len(vectors),
        details,
    )


def default_directions(gan: Gan) -> Directions:
    """SeFa's directions of the linear layer, all that it reads; with names for a bundled model.

    The page moves along them, and `biggan sample --direction sefa:0=2`.
    """
    return bundled_directions(gan) or find_directions(gan, "sefa", gan.config.chunk_dim, layers=[0])


def bundled_directions(gan: Gan) -> Directions | None:
    """The directions beside a bundled model's weights; None where there are none of these weights.

    docs/research.md has the command that wrote them.
    """
    file = BUNDLED_FOLDER / f"{gan.name}-directions.safetensors"
    if gan.name not in BUNDLED or not file.is_file():
        return None
    found = load_directions(file)
    return found if found.sha256 == gan.sha256 else None


def _checked_layers(gan: Gan, layers: Sequence[int] | None) -> tuple[int, ...]:
    what = f"layers are 0 (the linear one) to {gan.conditions - 1}"
    chosen = set()
    if layers is not None and not isinstance(layers, Iterable):
        raise InputError(f"layers must be a list of numbers, not {quoted(layers)}")
    for layer in range(gan.conditions) if layers is None else layers:
        if not 0 <= whole_number(layer, "a layer") < gan.conditions:
            raise InputError(f"{what}, not {quoted(layer)}")
        chosen.add(int(layer))
    if not chosen:
        raise InputError(f"{what}: give at least one, the first one first")
    return tuple(sorted(chosen))


@torch.no_grad()
def _sefa(gan: Gan, layers: Sequence[int], num: int) -> tuple[Tensor, Tensor]:
    """Eigenvectors of A^T A, and the square roots of their eigenvalues."""
    weights = [gan.engine.folded.noise_weights(layer) for layer in layers]  # each (z_dim, outputs)
    a = torch.cat(weights, dim=1).cpu().double()
    values, vectors = torch.linalg.eigh(a @ a.T)  # ascending
    strongest = vectors.T.flip(0)[:num]
    return _pointing_up(strongest), values.flip(0)[:num].clamp_min(0).sqrt()


_Batches = Callable[[str, int], Iterator[tuple[Tensor, Tensor]]]


def _activations(
    gan: Gan,
    z: Tensor,
    layer: str,
    class_: str | int | None,
    truncation: float | None,
    progress: bool,
) -> _Batches:
    """What gives noise z in batches (n, z_dim), and what the layer makes of it, (n, C * H * W).

    Its arguments are the title of a progress bar and the least n.
    """
    config = gan.config
    vector = z.new_zeros(1, config.embedding_dim)
    if config.num_classes and class_ is None:
        vector = gan.embed(z.new_full((1, config.num_classes), 1 / config.num_classes))
    elif class_ is not None:
        vector = gan.embed(gan.class_index(class_))

    def batches(title: str, least: int) -> Iterator[tuple[Tensor, Tensor]]:
        parts = z.tensor_split(max(1, len(z) // max(_BATCH, least)))
        logs, done, last = progress and not sys.stderr.isatty(), 0, time.monotonic()
        for part in tqdm(parts, title, leave=False, delay=2, disable=None if progress else True):
            vectors = vector.expand(len(part), -1)
            made = gan.features(part, truncation=truncation, layers=layer, class_vectors=vectors)
            yield part, made[layer].flatten(1)
            done += len(part)
            if logs and time.monotonic() - last >= _LOG_EVERY:
                _LOG.info("%s: %d of %d samples", title, done, len(z))
                last = time.monotonic()

    return batches


def _pca(batches: _Batches, z: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The noise that moves along each principal component, and the components' deviations."""
    try:
        from sklearn.decomposition import IncrementalPCA
    except ImportError:
        raise InputError("the method pca needs scikit-learn: pip install 'biggan[train]'") from None
    # More than are wanted: what a part leaves out is lost to those after it.
    most = min(4 * num, len(z) // 2)
    pca = None
    for _, outputs in batches("components", most):
        pca = pca or IncrementalPCA(min(most, outputs.shape[1]))
        pca.partial_fit(outputs.numpy())
    assert pca is not None
    coordinates = [pca.transform(outputs.numpy()) for _, outputs in batches("noise", 1)]
    x = torch.from_numpy(np.concatenate(coordinates)[:, :num]).double()
    z = z.double()
    vectors = torch.linalg.lstsq(x, z - z.mean(0)).solution  # (num, z_dim)
    vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return _pointing_up(vectors), torch.from_numpy(pca.explained_variance_[:num] ** 0.5)


def _pointing_up(vectors: Tensor) -> Tensor:
    """The same, of two opposite ones that whose largest entry is positive."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * largest.sign()


def draw_sheet(
    gan: Gan,
    directions: Directions,
    class_: str | int | None = None,
    truncation: float | None = 0.5,
    seed: int = 0,
    *,
    amounts: Sequence[float] = (-3, -2, -1, 0, 1, 2, 3),
) -> Image.Image:
    """One picture moved along each direction: a row for each, under its number or name.

    Raises:
        InputError: Directions of another model, no such class, a truncation out of range.
    """
    directions.check_model(gan)
    if not isinstance(amounts, Sequence) or not amounts:
        raise InputError(f"amounts must be a list of numbers, not {quoted(amounts)}")
    z = torch.from_numpy(make_noise(1, gan.config.z_dim, truncation, seed)).float()
    labels = None if class_ is None and not gan.class_names else [class_ or 0] * len(amounts)
    rows = []
    bar = tqdm(directions.names, "sheet", unit="row", leave=False, delay=2, disable=None)
    for number, name in enumerate(bar):
        moved = torch.cat([directions.apply(z, {number: amount}) for amount in amounts])
        pictures = to_pil(to_uint8(gan.generate(moved, labels, truncation)))
        strip = make_grid(pictures, len(pictures))
        title = f"{number}  {name}"
        row = Image.new("RGB", (strip.width, strip.height + _TITLE), "white")
        ImageDraw.Draw(row).text((2, 1), title, fill="black")
        row.paste(strip, (0, _TITLE))
        rows.append(row)
    return make_grid(rows, 1)


def save_directions(directions: Directions, path: str | Path) -> None:
    """Write directions as a safetensors file."""
    names = ("method", "layers", "conditions", "model", "sha256", "names")
    about = {name: getattr(directions, name) for name in names}
    about["details"] = dict(directions.details)
    save_record(Path(path), _KEY, about, {name: getattr(directions, name) for name in _TENSORS})


def load_directions(path: str | Path) -> Directions:
    """Read a file of `save_directions`.

    Raises:
        InputError: There is no such file, or it holds no directions.
    """
    return load_record(path, _KEY, _directions_of, "make them with biggan directions")


def _directions_of(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Directions:
    found = Directions(
        tensors["vectors"].float(),
        tensors["strengths"].float(),
        tuple(int(layer) for layer in about["layers"]),
        int(about["conditions"]),
        about["method"],
        str(about["model"]),
        str(about["sha256"]),
        tuple(str(name) for name in about["names"]),
        dict(about["details"]),
    )
    sizes = {len(found.vectors), len(found.strengths), len(found.names)}
    usable = found.vectors.ndim == 2 and len(sizes) == 1 and found.vectors.isfinite().all()
    if not (usable and all(0 <= layer < found.conditions for layer in found.layers)):
        raise ValueError
    return found


def with_names(directions: Directions, names: Mapping[int, str]) -> Directions:
    """The same with some names.

    A name must be of a direction that is there; names differ, are no numbers and have no colon.
    """
    if not isinstance(names, Mapping):
        raise InputError(f"names must be a dict such as {{0: 'turn'}}, not {quoted(names)}")
    renamed = list(directions.names)
    for number, name in names.items():
        renamed[directions.index(number)] = name
    given = [*filter(None, renamed)]
    for name in given:
        if not isinstance(name, str) or name.isdecimal() or ":" in name or given.count(name) > 1:
            raise InputError(
                f"{quoted(name)} cannot be a name: names differ, are no numbers and have no colon"
            )
    return replace(directions, names=tuple(renamed))
