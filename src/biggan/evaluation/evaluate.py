"""Evaluating a generator's images, or images from elsewhere, against data."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.atomic_write import make_folder, write_atomically
from biggan.classes import normal_name
from biggan.classifier import ClassifierFeatures
from biggan.data import ImageDataset
from biggan.devices import find_device
from biggan.distributed import is_first, on_any_process, raising_together
from biggan.evaluation.checks import check_enough, check_fit, check_truncations, warn_of_few
from biggan.evaluation.classification_accuracy import classification_accuracy_score, describe_cas
from biggan.evaluation.features import FeatureCollection, ImageSet, extract_features
from biggan.evaluation.generation import (
    Generation,
    Protocol,
    describe_generation,
    labels_in_turn,
)
from biggan.evaluation.reference import (
    Reference,
    ReferenceStatistics,
    dataset_features,
    dataset_images,
    describe_reference,
    in_order_of,
    size_of,
)
from biggan.evaluation.result import Evaluation, describe_extractor, versions
from biggan.evaluation.scores import (
    DEFAULT_METRICS,
    MetricName,
    Scores,
    accuracy,
    compute_scores,
    describe_metrics,
    needs_features,
    operating_points,
    reference_score,
    score_name,
)
from biggan.gan import Gan
from biggan.metrics.extractor import FeatureExtractor

_LOG = logging.getLogger("biggan.evaluation")


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

    The same call resumes after a kill.

    Args:
        gan: The model.
        reference: What its images are compared with, at its resolution.
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
    comparison = _Comparison(
        reference, extractor, metrics, protocol.num, flip, gan.device, progress
    )
    rows: list[dict[str, Any]] = []
    row_files: list[Path] = []
    for truncation in truncations:
        images = Generation(gan, protocol, truncation).image_set(
            comparison.extractor, per_class=comparison.per_class, progress=progress
        )
        row_file = comparison.row_file(images)
        row_files.append(row_file)
        if on_any_process(is_first() and row_file.exists()):
            if is_first():
                rows.append(json.loads(row_file.read_text(encoding="utf-8")))
        else:
            row = comparison.row(images, truncation)
            with raising_together():
                if row is not None:
                    make_folder(row_file.parent)
                    write_atomically(row_file, json.dumps(row).encode())
                    rows.append(row)
        images.cache_file.unlink(missing_ok=True)
    if not is_first():
        return None
    for row_file in row_files:  # the next call is a new evaluation
        row_file.unlink(missing_ok=True)
    subject = {
        "model": gan.name,
        "sha256": gan.sha256,
        "training": dict(gan.description.training),
    }
    return comparison.evaluation(subject, describe_generation(gan, protocol), rows)


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
    """Evaluate images from elsewhere, of the reference's size; see `evaluate_generator`.

    `device` is where the classifier of "cas" is trained.
    """
    check_enough(len(images), f"in {images.source}")
    reference = in_order_of(reference, images.class_names)
    classes, labels = images.class_names, images.labels
    shape = images.images.shape[-1], images.images.shape[1]
    check_fit(metrics, images.source, *shape, classes, labels, reference, extractor)
    comparison = _Comparison(reference, extractor, metrics, len(images), flip, device, progress)
    image_set = dataset_images(images, comparison.extractor, per_class=comparison.per_class)
    row = comparison.row(image_set, None)
    return None if row is None else comparison.evaluation(describe_reference(images), {}, [row])


class _Comparison:
    """The reference with its features, and the settings that all rows of an evaluation share.

    Several processes must use it together. `check_fit` comes before it.

    Attributes:
        extractor: Its description; empty if no features are compared.
        per_class: Whether statistics of every class are wanted.
    """

    def __init__(
        self,
        reference: Reference,
        extractor: FeatureExtractor | None,
        metrics: tuple[MetricName, ...],
        num: int,
        flip: bool,
        device: torch.device | str,
        progress: bool,
    ) -> None:
        self._reference, self._metrics, self._num = reference, metrics, num
        self._flip, self._device, self._progress = flip, find_device(device), progress
        self._extractor = extractor if needs_features(metrics) else None
        self.extractor = describe_extractor(self._extractor) if self._extractor else {}
        self.per_class = "intra-fid" in metrics
        self._num_reference = size_of(reference)["num"]
        warn_of_few(min(num, self._num_reference or num), metrics)
        self._known: FeatureCollection | None = None
        if isinstance(reference, ReferenceStatistics):
            self._known = FeatureCollection(reference.statistics)
        elif self._extractor is not None:
            self._known = dataset_features(
                reference, self._extractor, per_class=self.per_class, progress=progress
            )

    def row_file(self, images: ImageSet) -> Path:
        """Where the row of a truncation is kept until all are done."""
        text = json.dumps([images.key, self._reference.fingerprint, self._metrics, self._flip])
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        return images.cache_file.with_name(f"{name}.json")

    def row(self, images: ImageSet, truncation: float | None) -> dict[str, Any] | None:
        """Compare images; a row of an `Evaluation`, None on all processes but the first."""
        started = time.monotonic()
        made = None
        if self._extractor is not None:
            made = extract_features(images, self._extractor, progress=self._progress)
        scores = Scores({}, {})
        with raising_together():
            if made is not None and self._known is not None and self._extractor is not None:
                scores = compute_scores(made, self._known, self._metrics, self._extractor)
                if "accuracy" in self._metrics:
                    self._add(scores, "accuracy", self._guesses(made), images.labels)
        row: dict[str, Any] = {"truncation": truncation, "scores": scores.values}
        if "cas" in self._metrics:
            began = time.monotonic()
            self._add_cas(scores, images)
            row["cas_seconds"] = round(time.monotonic() - began, 1)
        if scores.per_class:
            row["per_class"] = [
                {"class": label, "name": name}
                | {figure: values.get(label) for figure, values in scores.per_class.items()}
                for label, name in enumerate(self._dataset.class_names)
            ]
        row["seconds"] = round(time.monotonic() - started, 1)
        return row if is_first() else None

    def evaluation(
        self, subject: dict[str, Any], how: dict[str, Any], rows: list[dict[str, Any]]
    ) -> Evaluation:
        """All rows with their provenance, on the first process.

        `subject` describes the images and `how` their making.
        """
        about, points = describe_reference(self._reference), {}
        how = how | describe_metrics(self._metrics, self._num, self._num_reference)
        if "cas" in self._metrics:
            how["cas"] = describe_cas(self._num, self._dataset, flip=self._flip)
        if self._extractor is not None and self._known is not None:
            if "accuracy" in self._metrics:
                guesses = self._guesses(self._known)
                about["accuracy"] = accuracy(guesses, self._dataset.labels)[0]
            if "is" in self._metrics:
                distance, score = (score_name(name, self._extractor) for name in ("fid", "is"))
                of_data = None
                if self._known.logits:
                    of_data = about[score] = reference_score(self._known)
                if len(rows) > 1 and "fid" in self._metrics:
                    points = dict(operating_points(rows, distance, score, of_data))
        return Evaluation(
            subject=subject,
            reference=about,
            extractor=self.extractor,
            protocol=how,
            rows=rows,
            points=points,
            versions=versions(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    @property
    def _dataset(self) -> ImageDataset:
        assert isinstance(self._reference, ImageDataset)  # ensured by `check_fit`
        return self._reference

    def _guesses(self, features: FeatureCollection) -> Tensor:
        """The extractor's most likely classes, int64 (N,), in the data's order of classes."""
        assert isinstance(self._extractor, ClassifierFeatures)  # ensured by `check_fit`
        names = [normal_name(name) for name in self._dataset.class_names]
        number = [names.index(normal_name(name)) for name in self._extractor.class_names]
        return torch.tensor(number)[torch.cat(features.guesses)]

    def _add_cas(self, scores: Scores, images: ImageSet) -> None:
        settings = describe_cas(self._num, self._dataset, flip=self._flip)
        del settings["tested_on"]
        _LOG.info(
            "cas: training a classifier for %d steps on %d images", settings["steps"], self._num
        )
        guesses = classification_accuracy_score(
            images.load(),
            images.labels,
            self._dataset,
            device=self._device,
            progress=self._progress,
            **settings,
        )
        self._add(scores, "cas", guesses, self._dataset.labels)

    def _add(self, scores: Scores, name: str, guesses: Tensor, labels: Tensor) -> None:
        scores.values[name], scores.per_class[name] = accuracy(guesses, labels)
