"""Images made or read, looked at, and compared with data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from biggan.atomic_write import make_folder, write_atomically
from biggan.data import ImageDataset
from biggan.distributed import is_first, on_any_process, raising_together
from biggan.evaluation.checks import check_enough, check_fit, check_truncations
from biggan.evaluation.collection import collection_file
from biggan.evaluation.comparison import Comparison
from biggan.evaluation.generation import Generation, describe_generation, labels_in_turn
from biggan.evaluation.protocol import Protocol
from biggan.evaluation.reference import Reference, dataset_task, describe_dataset, in_order_of
from biggan.evaluation.result import Evaluation
from biggan.evaluation.scores import DEFAULT_METRICS, MetricName
from biggan.gan import Gan
from biggan.metrics.extractor import FeatureExtractor


def evaluate_generator(
    gan: Gan,
    reference: Reference,
    extractor: FeatureExtractor | None,
    truncations: Sequence[float | None] = (None,),
    metrics: tuple[MetricName, ...] = DEFAULT_METRICS,
    protocol: Protocol | None = None,
    *,
    flip: bool = True,
    progress: bool = True,
) -> Evaluation | None:
    """Evaluate a generator at one truncation or several.

    Whatever was finished by an earlier call with the same arguments, and killed, is not done again.

    Args:
        gan: What makes the images.
        reference: What they are compared with, at the generator's resolution.
        extractor: Whose features are compared; None if "cas" is the only metric.
        truncations: None for untruncated noise, as the paper's main figures.
        metrics: Some of `METRICS`.
        protocol: How many images, of what noise; the paper's 50,000 if left out.
        flip: Whether the classifier of "cas" sees one half of the images mirrored. Not for letters
            and digits.
        progress: Show bars on a terminal.

    Returns:
        The figures; None on all processes but the first.

    Raises:
        InputError: Settings that do not fit each other; too few images for a metric; images that
            are NaN.
    """
    protocol = protocol or Protocol()
    check_truncations(truncations, protocol)
    reference = in_order_of(reference, gan.class_names)
    classes, labels = gan.class_names, labels_in_turn(len(gan.class_names), protocol.num)
    shape = gan.config.resolution, gan.config.image_channels
    check_fit(metrics, gan.name, *shape, classes, labels, reference, extractor)
    against = Comparison(reference, extractor, metrics, protocol.num, flip, gan.device, progress)
    rows: list[dict[str, Any]] = []
    journals: list[Path] = []
    for truncation in truncations:
        generation = Generation(gan, protocol, truncation)
        task = generation.task(against.extractor, per_class=against.per_class)
        journal = against.journal(task)
        journals.append(journal)
        if on_any_process(is_first() and journal.exists()):
            if is_first():
                rows.append(json.loads(journal.read_text(encoding="utf-8")))
        else:
            made = partial(generation.all_images, progress=progress)
            row = against.row(task, made, truncation)
            with raising_together():
                if row is not None:
                    make_folder(journal.parent)
                    write_atomically(journal, json.dumps(row).encode())
                    rows.append(row)
        collection_file(task).unlink(missing_ok=True)
    if not is_first():
        return None
    for journal in journals:  # all is done: the next call is a new evaluation
        journal.unlink(missing_ok=True)
    subject = {
        "model": gan.name,
        "sha256": gan.sha256,
        "training": dict(gan.description.training),
    }
    return against.evaluation(subject, describe_generation(gan, protocol), rows)


def evaluate_images(
    images: ImageDataset,
    reference: Reference,
    extractor: FeatureExtractor | None,
    metrics: tuple[MetricName, ...] = DEFAULT_METRICS,
    *,
    flip: bool = True,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Evaluation | None:
    """Evaluate images from elsewhere against data; see `evaluate_generator`.

    Args:
        images: Of the size and the channels of the reference.
        reference: What they are compared with.
        extractor: Whose features are compared; None if "cas" is the only metric.
        metrics: Some of `METRICS`.
        flip: Whether the classifier of "cas" sees one half of the images mirrored.
        device: Where that classifier is trained.
        progress: Show bars on a terminal.
    """
    check_enough(len(images), f"in {images.source}")
    reference = in_order_of(reference, images.class_names)
    classes, labels = images.class_names, images.labels
    shape = images.images.shape[-1], images.images.shape[1]
    check_fit(metrics, images.source, *shape, classes, labels, reference, extractor)
    against = Comparison(reference, extractor, metrics, len(images), flip, device, progress)
    task = dataset_task(images, against.extractor, images.source, per_class=against.per_class)
    row = against.row(task, lambda: images.images, None)
    if row is None:
        return None
    return against.evaluation(describe_dataset(images), {}, [row])
