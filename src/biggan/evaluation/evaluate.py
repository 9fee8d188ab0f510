"""Images made or read, looked at, and compared with data."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.atomic_write import write_atomically
from biggan.data import ImageDataset
from biggan.distributed import gather, is_first, on_any_process, raising_together
from biggan.errors import InputError
from biggan.evaluation.collection import FeatureCollection, Task, collect, collection_file
from biggan.evaluation.protocol import Protocol, describe_extractor, versions
from biggan.evaluation.reference import describe_dataset, reference_task
from biggan.evaluation.scores import (
    DEFAULT_METRICS,
    MetricName,
    compute_scores,
    reference_score,
    score_name,
)
from biggan.evaluation.tradeoff import operating_points
from biggan.gan import Gan
from biggan.images import to_uint8
from biggan.latents import check_truncation, make_noise, statistics_truncation
from biggan.metrics.extractor import FeatureExtractor
from biggan.sampling import generate_batches

FEWEST = 2048  # images of a set, below which a Frechet distance says little
_LEAST = 10  # one for each split of an Inception Score
_LOG = logging.getLogger("biggan.evaluation")


@dataclass(frozen=True)
class Evaluation:
    """Figures, and everything that decided them.

    Attributes:
        subject: The model or the images that were evaluated.
        reference: The data that they were compared with.
        extractor: The network whose features were compared.
        protocol: How many images were made, and how; empty for images that were read.
        rows: For each truncation {"truncation": t, "scores": {...}, "seconds": s}.
        points: The rows of the paper's Table 2, by name; empty unless several truncations were
            measured.
        versions: The software that took part.
        date: UTC, ISO 8601.
    """

    subject: dict[str, Any]
    reference: dict[str, Any]
    extractor: dict[str, Any]
    protocol: dict[str, Any]
    rows: list[dict[str, Any]]
    points: dict[str, Any]
    versions: dict[str, str]
    date: str

    def to_json(self) -> str:
        """All of it, as text that people can read."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def evaluate_generator(
    gan: Gan,
    dataset: ImageDataset,
    extractor: FeatureExtractor,
    truncations: Sequence[float | None] = (None,),
    metrics: tuple[MetricName, ...] = DEFAULT_METRICS,
    protocol: Protocol | None = None,
    *,
    progress: bool = True,
) -> Evaluation | None:
    """Evaluate a generator at one truncation or several.

    Whatever was finished by an earlier call with the same arguments, and killed, is not done again.

    Args:
        gan: What makes the images.
        dataset: What they are compared with, at the generator's resolution.
        extractor: Whose features are compared.
        truncations: None for untruncated noise, as the paper's main figures.
        metrics: Some of `METRICS`.
        protocol: How many images, of what noise; the paper's 50,000 if left out.
        progress: Show bars on a terminal.

    Returns:
        The figures; None on all processes but the first.

    Raises:
        InputError: Settings that do not fit each other; too few images for a metric.
    """
    protocol = protocol or Protocol()
    check_truncations(truncations, protocol)
    _check_enough(len(dataset), f"in {dataset.source}")
    _check_sizes(gan.config.resolution, dataset)
    _check_classes(metrics, gan.name, gan.class_names, dataset)
    _warn_of_few(min(protocol.num, len(dataset)), metrics)
    about_extractor = describe_extractor(extractor)
    per_class = "intra-fid" in metrics
    reference = _together(
        reference_task(dataset, about_extractor, dataset.source, per_class=per_class),
        extractor,
        progress=progress,
    )
    how = describe_generation(gan, protocol)
    rows: list[dict[str, Any]] = []
    journals: list[Path] = []
    for truncation in truncations:
        task = _generation_task(gan, protocol, truncation, about_extractor, per_class=per_class)
        journal = collection_file(task).with_name(
            f"{task.key}-{dataset.fingerprint[:16]}-{'-'.join(metrics)}.json"
        )
        journals.append(journal)
        if on_any_process(is_first() and journal.exists()):
            if is_first():
                rows.append(json.loads(journal.read_text(encoding="utf-8")))
            collection_file(task).unlink(missing_ok=True)
            continue
        started = time.monotonic()
        images = _together(task, extractor, progress=progress)
        with raising_together():
            if images is not None and reference is not None:
                scores = compute_scores(images, reference, metrics, extractor)
                row = {
                    "truncation": truncation,
                    "scores": scores,
                    "seconds": round(time.monotonic() - started, 1),
                }
                write_atomically(journal, json.dumps(row).encode())
                rows.append(row)
        collection_file(task).unlink(missing_ok=True)
    if reference is None:
        return None
    for journal in journals:  # all is done: the next call is a new evaluation
        journal.unlink(missing_ok=True)
    return Evaluation(
        subject={
            "model": gan.name,
            "sha256": gan.sha256,
            "training": dict(gan.description.training),
        },
        reference=_describe_reference(dataset, reference, metrics, extractor),
        extractor=about_extractor,
        protocol=how,
        rows=rows,
        points=_points(rows, metrics, extractor, reference),
        versions=versions(),
        date=_now(),
    )


def evaluate_images(
    images: ImageDataset,
    dataset: ImageDataset,
    extractor: FeatureExtractor,
    metrics: tuple[MetricName, ...] = DEFAULT_METRICS,
    *,
    progress: bool = True,
) -> Evaluation | None:
    """Evaluate images from elsewhere against data; see `evaluate_generator`."""
    for each in (images, dataset):
        _check_enough(len(each), f"in {each.source}")
    _check_sizes(images.images.shape[-1], dataset)
    _check_classes(metrics, images.source, images.class_names, dataset)
    _warn_of_few(min(len(images), len(dataset)), metrics)
    about_extractor, per_class = describe_extractor(extractor), "intra-fid" in metrics
    started = time.monotonic()
    reference, made = (
        _together(
            reference_task(each, about_extractor, each.source, per_class=per_class),
            extractor,
            progress=progress,
        )
        for each in (dataset, images)
    )
    if reference is None or made is None:
        return None
    scores = compute_scores(made, reference, metrics, extractor)
    seconds = round(time.monotonic() - started, 1)
    return Evaluation(
        subject=describe_dataset(images),
        reference=_describe_reference(dataset, reference, metrics, extractor),
        extractor=about_extractor,
        protocol={},
        rows=[{"truncation": None, "scores": scores, "seconds": seconds}],
        points={},
        versions=versions(),
        date=_now(),
    )


def check_truncations(truncations: Sequence[float | None], protocol: Protocol) -> None:
    """Refuse a sweep that cannot be made, before anything is loaded.

    Raises:
        InputError: No truncation, one out of range or twice, or too few images.
    """
    if not truncations:
        raise InputError("name at least one truncation")
    for truncation in truncations:
        check_truncation(truncation, protocol.noise)
    if len(set(truncations)) < len(truncations):
        raise InputError("every truncation is to be named once")
    _check_enough(protocol.num, "asked for")


def describe_generation(gan: Gan, protocol: Protocol) -> dict[str, Any]:
    """All that decides which images a generator makes for an evaluation, but the truncation."""
    return {
        "num": protocol.num,
        "classes": "in turn" if gan.class_names else "none",
        "seed": protocol.seed,
        "noise": protocol.noise,
        "batch_norm": "statistics recorded for the truncation",
        "weights": "EMA" if gan.description.training else "as published",
        "engine": gan.engine.name,
        "precision": gan.engine.precision,
        "device": str(gan.device),
        "pixels": "uint8",
    }


def _generation_task(
    gan: Gan,
    protocol: Protocol,
    truncation: float | None,
    extractor: dict[str, Any],
    *,
    per_class: bool,
) -> Task:
    noise = make_noise(
        protocol.num, gan.config.z_dim, truncation, protocol.seed, kind=protocol.noise
    )
    labels = torch.arange(protocol.num) % max(1, len(gan.class_names))
    statistics = statistics_truncation(truncation, protocol.noise)

    def batches(numbers: range) -> Iterator[tuple[int, Tensor]]:
        part = slice(numbers.start, numbers.stop)
        made = generate_batches(
            gan.engine, labels[part], noise[part], statistics, protocol.batch_size
        )
        for batch in made:
            yield numbers.start + batch.start, to_uint8(batch.images)

    named = "untruncated" if truncation is None else f"truncation {truncation:g}"
    about = describe_generation(gan, protocol) | {
        "model": gan.sha256,
        "truncation": truncation,
        "extractor": extractor,
        "versions": versions(),
    }
    return Task(protocol.num, labels, batches, about, f"{gan.name}, {named}", per_class)


def _together(
    task: Task, extractor: FeatureExtractor, *, progress: bool
) -> FeatureCollection | None:
    """What all processes have kept, on the first one."""
    parts = gather(collect(task, extractor, progress=progress))
    if not parts:
        return None
    whole = parts[0]
    for part in parts[1:]:
        whole.merge(part)
    return whole


def _describe_reference(
    dataset: ImageDataset,
    reference: FeatureCollection,
    metrics: tuple[MetricName, ...],
    extractor: FeatureExtractor,
) -> dict[str, Any]:
    about = describe_dataset(dataset)
    if "is" in metrics:
        about[score_name("is", extractor)] = reference_score(reference)
    return about


def _points(
    rows: list[dict[str, Any]],
    metrics: tuple[MetricName, ...],
    extractor: FeatureExtractor,
    reference: FeatureCollection,
) -> dict[str, Any]:
    if len(rows) < 2 or not {"fid", "is"} <= set(metrics):
        return {}
    names = score_name("fid", extractor), score_name("is", extractor)
    return dict(operating_points(rows, *names, reference_score(reference)))


def _check_sizes(resolution: int, dataset: ImageDataset) -> None:
    size = dataset.images.shape[-1]
    if size != resolution:
        raise InputError(
            f"the images have {resolution} pixels a side and {dataset.source} has {size}: "
            "figures of two resolutions do not compare"
        )


def _check_classes(
    metrics: tuple[MetricName, ...],
    name: str,
    class_names: tuple[str, ...],
    dataset: ImageDataset,
) -> None:
    if "intra-fid" in metrics and class_names != dataset.class_names:
        raise InputError(
            f"intra-fid compares class with class, and {name} has other classes than "
            f"{dataset.source}: leave it out"
        )


def _check_enough(num: int, whose: str) -> None:
    """Refuse what a metric would refuse after all the work."""
    if num < _LEAST:
        raise InputError(f"figures need at least {_LEAST} images, and {num} are {whose}")


def _warn_of_few(num: int, metrics: tuple[MetricName, ...]) -> None:
    if "fid" in metrics and num < FEWEST:
        _LOG.warning(
            "warning: a Frechet distance of %d images is far too large and compares with no "
            "other: take at least %d, and 50,000 for figures to publish",
            num,
            FEWEST,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
