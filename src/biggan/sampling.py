"""Sampling: from a request to provenance, from provenance to noise, from noise to images.

`generate_batches` is the one loop that makes images: for PNG files, the page and metrics, so that
the metrics measure the images that users see.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from biggan._version import __version__
from biggan.devices import describe_out_of_memory, is_out_of_memory
from biggan.errors import InputError, printable, quoted, whole_number
from biggan.images import to_pil, to_uint8
from biggan.inference.engine import Engine
from biggan.inference.folded import check_number, check_rows
from biggan.latents import (
    NoiseKind,
    check_seed,
    check_truncation,
    make_noise,
    statistics_truncation,
)
from biggan.models import Generator
from biggan.provenance import (
    MAX_PICTURES,
    LatentProvenance,
    MorphProvenance,
    Provenance,
    VideoProvenance,
)

if TYPE_CHECKING:
    from biggan.gan import Gan

_LOG = logging.getLogger("biggan.sampling")

_Made = TypeVar("_Made")

_MAX_NOISE = 10 * MAX_PICTURES  # rows that are drawn for one call


def plan_pictures(
    gan: Gan,
    classes: str | int | Sequence[str | int | None] | None,
    num: int,
    truncation: float | None,
    seed: int,
    *,
    noise: NoiseKind = "hub",
) -> list[Provenance]:
    """Plan the pictures of `Gan.sample`: of a class, or of each of several, `num` pictures.

    Raises:
        InputError: An unknown or ambiguous class, or a value out of range.
    """
    num, seed = whole_number(num, "the number of images"), whole_number(seed, "the seed")
    if not 1 <= num <= MAX_PICTURES:
        raise InputError(
            f"the number of images must be at least 1 and at most {MAX_PICTURES}, not {quoted(num)}"
        )
    truncation = check_truncation(truncation, noise)
    check_seed(seed)
    names = gan.class_names
    if to_list := getattr(classes, "tolist", None):  # of arrays and tensors
        classes = to_list()
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        classes = [classes]
    planned = []
    for class_ in classes:
        index = None if class_ is None else gan.class_index(class_)
        for k in range(num):
            label = k % len(names) if index is None and names else index
            planned.append(
                Provenance(
                    model=gan.name,
                    sha256=gan.sha256,
                    class_index=label,
                    class_name=None if label is None else names[label],
                    truncation=truncation,
                    noise=noise,
                    seed=seed,
                    index=k,
                    version=__version__,
                )
            )
    return planned


def plan_latents(
    gan: Gan, z: Tensor, class_vectors: Tensor, truncation: float | None, names: Sequence[str]
) -> list[LatentProvenance]:
    """Plan the pictures of given noise and class vectors, under names (N) for their files.

    Noise is (N, z_dim) or (N, L, z_dim), class vectors likewise; see `LatentSpace.generate`. The
    truncation is that of the BatchNorm statistics.

    Raises:
        InputError: Shapes that do not fit the model or each other, or a truncation out of range.
    """
    truncation = check_truncation(truncation)
    inputs = check_inputs(gan.engine, z, None, class_vectors)
    rows = zip(names, inputs.noise.flatten(1), inputs.classes.flatten(1), strict=True)
    return [
        LatentProvenance(
            model=gan.name,
            sha256=gan.sha256,
            name=name,
            truncation=truncation,
            z=_numbers(noise),
            class_vector=_numbers(vector),
            version=__version__,
        )
        for name, noise, vector in rows
    ]


def _numbers(row: Tensor) -> tuple[float, ...]:
    """Of float32, the shortest numbers that are read as the same."""
    return tuple(float(str(number)) for number in row.float().numpy())


def draw_pictures(
    gan: Gan, pictures: Iterable[Provenance | LatentProvenance]
) -> Iterator[Image.Image]:
    """Make pictures in order; those of another model, or that this one cannot make, are refused."""
    for labels, z, statistics, class_vectors in inputs_of(gan, pictures):
        made = generate_batches(gan.engine, labels, z, statistics, class_vectors=class_vectors)
        for batch in made:
            yield from to_pil(to_uint8(batch.images).cpu())


_PictureInputs = tuple[Tensor | None, Tensor, float | None, Tensor | None]
"""Arguments of `generate_batches`: labels, noise, truncation, class vectors."""


def inputs_of(
    gan: Gan, pictures: Iterable[Provenance | LatentProvenance]
) -> Iterator[_PictureInputs]:
    """What a model makes pictures from, in order, as many at once as share a truncation."""
    for _, group in groupby(pictures, _drawn_together):
        members = list(group)
        for picture in members:
            check_model(gan, picture)
        if latents := [picture for picture in members if isinstance(picture, LatentProvenance)]:
            check_truncation(latents[0].truncation)
            z = _layer_rows([latent.z for latent in latents], gan.config.z_dim)
            vectors = [latent.class_vector for latent in latents]
            class_vectors = _layer_rows(vectors, gan.config.embedding_dim)
            yield None, z, latents[0].truncation, class_vectors
        else:
            planned = [picture for picture in members if isinstance(picture, Provenance)]
            noise = torch.from_numpy(_noise(planned, gan.config.z_dim))
            classes = [picture.class_index or 0 for picture in planned]
            labels = torch.tensor(classes, device="cpu")
            kind = cast(NoiseKind, planned[0].noise)
            yield labels, noise, statistics_truncation(planned[0].truncation, kind), None


def _drawn_together(picture: Provenance | LatentProvenance) -> tuple[Any, ...]:
    if isinstance(picture, LatentProvenance):
        return picture.truncation, len(picture.z), len(picture.class_vector)
    return picture.truncation, picture.noise


def _layer_rows(numbers: Sequence[Sequence[float]], width: int) -> Tensor:
    """(N, width), or (N, L, width) of rows that are as long as several layers'."""
    rows = torch.tensor(numbers, dtype=torch.float32, device="cpu")
    several = width > 0 and rows.shape[1] > width and rows.shape[1] % width == 0
    return rows.unflatten(1, (-1, width)) if several else rows


def check_model(
    gan: Gan, provenance: Provenance | LatentProvenance | MorphProvenance | VideoProvenance
) -> None:
    """Refuse provenance of another model, to the last bit of its weights."""
    advice = "use the file of that model"
    check_weights(gan, provenance.model, provenance.sha256, "the picture was made by", advice)


def check_weights(gan: Gan, model: str, sha256: str, what: str, advice: str) -> None:
    """Refuse what belongs to other weights; `what` ends in the preposition before the model."""
    if sha256 != gan.sha256:
        raise InputError(
            f"{what} {printable(model[:100])} (sha256 {printable(sha256[:12])}...), not "
            f"{what.rpartition(' ')[2]} {gan.name} ({gan.sha256[:12]}...); {advice}"
        )


def _noise(pictures: Sequence[Provenance], dim: int) -> NDArray[np.float64]:
    """The noise (N, dim) of pictures that share a truncation and its meaning."""
    by_seed: dict[int, list[int]] = {}  # positions among the pictures
    for position, picture in enumerate(pictures):
        by_seed.setdefault(picture.seed, []).append(position)
    needed = {s: 1 + max(pictures[p].index for p in own) for s, own in by_seed.items()}
    if sum(needed.values()) > _MAX_NOISE:
        raise InputError(
            f"the images' seeds and indices need more than {_MAX_NOISE} rows of noise: request "
            "fewer at once"
        )
    first = pictures[0]
    kind = cast(NoiseKind, first.noise)  # make_noise refuses an unknown one
    noise = np.empty((len(pictures), dim))
    for seed, own in by_seed.items():
        rows = make_noise(needed[seed], dim, first.truncation, seed, kind=kind)
        noise[own] = rows[[pictures[position].index for position in own]]
    return noise


class ImageBatch(NamedTuple):
    """A run of images: numbers `start` to `start + len(images) - 1` of all that were asked for."""

    start: int
    images: Tensor
    """float32 (N, C, R, R) in [-1, 1], on the generator's device."""


def as_numbers(values: object, what: str) -> Tensor:
    """Somebody's values as a tensor of finite real numbers, or InputError."""
    try:
        # Not on torch's default device: what follows may need values of the CPU.
        tensor = values if isinstance(values, Tensor) else torch.as_tensor(values, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(f"{what} must be an array of numbers, not {quoted(values)}") from None
    if tensor.is_complex():
        raise InputError(f"{what} must be real numbers, not complex ones")
    without_values = tensor.is_meta or tensor.is_quantized or tensor.is_nested
    if without_values or tensor.layout != torch.strided:
        raise InputError(f"{what} must be a dense tensor with values")
    if not tensor.float().isfinite().all():
        raise InputError(f"{what} must be finite numbers, without NaN and infinity, in float32")
    return tensor


class Inputs(NamedTuple):
    """Checked inputs of a generator, on any device."""

    noise: Tensor
    """float32 (N, z_dim), or (N, layers, z_dim) with noise for each layer."""
    classes: Tensor
    """int64 labels (N,), or float32: class weights (N, num_classes), or class vectors."""
    are_vectors: bool

    def batch(self, engine: Engine, rows: slice) -> tuple[Tensor, Tensor]:
        """Noise and class vectors of some rows, on the engine's device."""
        classes = self.classes[rows].to(engine.device)
        vectors = classes if self.are_vectors else engine.embed(classes)
        return self.noise[rows].to(engine.device, torch.float32), vectors


def check_inputs(
    engine: Engine, noise: object, labels: object, class_vectors: object = None
) -> Inputs:
    """Noise and labels, or class vectors, of a caller; refused if they do not fit the generator."""
    config = engine.config
    noise = rows_of("noise", noise, config.z_dim, engine.folded.conditions)
    if labels is None and class_vectors is None and config.num_classes == 0:
        labels = torch.zeros(len(noise), dtype=torch.int64, device="cpu")
    if (labels is None) == (class_vectors is None):
        raise InputError("give labels, or class_vectors instead of them")
    what, layers = "label", engine.folded.conditions
    if labels is None:
        what, width = "class vector", config.embedding_dim
        classes = rows_of("class vectors", class_vectors, width, layers)
    else:
        classes = as_numbers(labels, "labels")
    check_number(what, len(classes) if classes.ndim else 1, len(noise))
    is_empty = classes.shape == (0,)  # of an empty list, whose type says nothing
    classes = classes.float() if classes.is_floating_point() and not is_empty else classes.long()
    if labels is not None:
        _check_labels(classes, config.num_classes)
    return Inputs(noise, classes, labels is None)


def rows_of(what: str, values: object, width: int, layers: int) -> Tensor:
    """Somebody's values as (N, width), or (N, layers, width) with a row for each layer."""
    rows = as_numbers(values, what)
    check_rows(what, rows, width, layers)
    return rows if rows.is_floating_point() else rows.float()


@torch.inference_mode()
def generate_batches(
    generator: Generator | Engine,
    labels: object,
    noise: object,
    truncation: float | None,
    batch_size: int | None = None,
    *,
    class_vectors: object = None,
) -> Iterator[ImageBatch]:
    """Make images, batch by batch; image k does not depend on the batch size.

    Where a batch exceeds the device's memory, it is made in halves, and so are those after it.

    Args:
        generator: In eval mode, or an engine, which takes as long to build as a few images.
        labels: int64 (N,), or class weights (N, num_classes); ignored if unconditional.
        noise: (N, z_dim), or (N, layers, z_dim), for each layer its own; used as it is.
        truncation: Chooses the BatchNorm statistics only.
        batch_size: Images at once; None for what suits the device.
        class_vectors: Instead of labels (None): (N, class_dim), or (N, layers, class_dim).
    """
    engine = generator if isinstance(generator, Engine) else Engine(generator)
    inputs = check_inputs(engine, noise, labels, class_vectors)

    def make(rows: slice) -> Tensor:
        return engine.synthesize(*inputs.batch(engine, rows), truncation)

    for rows, images in in_batches(engine, len(inputs.noise), batch_size, make):
        yield ImageBatch(rows.start, images)


def in_batches(
    engine: Engine, num: int, batch_size: int | None, make: Callable[[slice], _Made]
) -> Iterator[tuple[slice, _Made]]:
    """Call `make` for slices of `num` rows; for memory see `generate_batches`."""
    if batch_size is not None and whole_number(batch_size, "batch_size") < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    size = engine.batch_size if batch_size is None else batch_size
    start = 0
    while start < num:
        rows = slice(start, min(start + size, num))
        try:
            made = make(rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            fault = describe_out_of_memory(error, engine.device)
        else:
            yield rows, made
            start = rows.stop
            continue
        # The error held the memory of what was made so far until here.
        size = rows.stop - rows.start
        if size == 1:
            lower = ", choose a lower precision" if engine.device.type != "cpu" else ""
            raise InputError(
                f"{fault}; not even one image of {engine.config.resolution} pixels fits: close "
                f"other programs on the device{lower}, or choose another device"
            )
        _LOG.warning("%s; continuing with %d images at once instead of %d", fault, size // 2, size)
        size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _check_labels(labels: Tensor, num_classes: int) -> None:
    if num_classes == 0:
        return
    if labels.is_floating_point():
        if labels.ndim != 2 or labels.shape[1] != num_classes:
            raise InputError(f"class weights must be (N, {num_classes}), not {tuple(labels.shape)}")
    elif labels.ndim != 1:
        raise InputError(
            f"labels must be (N,), not {tuple(labels.shape)}: class weights, one-hot vectors too, "
            "are floating-point numbers"
        )
    elif len(wrong := labels[(labels < 0) | (labels >= num_classes)]):
        raise InputError(f"labels must be between 0 and {num_classes - 1}, not {int(wrong[0])}")
