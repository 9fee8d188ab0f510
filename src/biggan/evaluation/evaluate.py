"""Evaluating a generator's images, or images from elsewhere, against data."""

from __future__ import annotations

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
from biggan.distributed import is_first, num_processes, on_any_process, raising_together
from biggan.errors import InputError, quoted
from biggan.evaluation import scores as figures
from biggan.evaluation.features import (
    FeatureCollection,
    cache_file,
    describe_extractor,
    extract_features,
)
from biggan.evaluation.images import (
    DatasetImages,
    GeneratedImages,
    ImageSet,
    Protocol,
    describe_generation,
    labels_in_turn,
)
from biggan.evaluation.reference import (
    Reference,
    ReferenceStatistics,
    describe_reference,
    in_order_of,
    size_of,
)
from biggan.evaluation.result import Evaluation, versions
from biggan.evaluation.scores import DEFAULT_METRICS, OF_CLASSES, OF_STATISTICS, MetricName, Scores
from biggan.gan import Gan
from biggan.latents import check_truncation
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.statistics import FeatureSource, FeatureStatistics, check_same_source
from biggan.weights.files import cache_dir

FEWEST = 2048  # images of a set for a meaningful Frechet distance
_LEAST = 10  # one for each split of an Inception Score
_LEAST_OF_CLASS = 2  # for the covariance of an intra-class distance
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
    """Evaluate a generator at one truncation or several; None on all processes but the first.

    The same call resumes after a kill. The reference has the model's resolution; without
    `extractor` "cas" is the only metric. A truncation of None is untruncated noise, as in the
    paper's main figures; without `protocol` there are the paper's 50,000 images. With `flip` the
    classifier of "cas" sees one half of the images mirrored: not for letters and digits.

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
        images = GeneratedImages(gan, protocol, truncation)
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
        comparison.forget(images)
    if not is_first():
        return None
    for row_file in row_files:  # the next call is a new evaluation
        row_file.unlink(missing_ok=True)
    subject = {"model": gan.name, "sha256": gan.sha256, "training": dict(gan.description.training)}
    return comparison.evaluation(subject, describe_generation(gan, protocol), rows)


def evaluate_images(
    images: ImageDataset,
    reference: Reference,
    extractor: FeatureExtractor | None,
    metrics: tuple[MetricName, ...] = DEFAULT_METRICS,
    *,
    flip: bool = True,
    device: torch.device | str = "cpu",
) -> Evaluation | None:
    """Evaluate images from elsewhere, of the reference's size; see `evaluate_generator`.

    `device` is where the classifier of "cas" is trained.
    """
    check_enough(len(images), f"in {images.source}")
    reference = in_order_of(reference, images.class_names)
    classes, labels = images.class_names, images.labels
    shape = images.images.shape[-1], images.images.shape[1]
    check_fit(metrics, images.source, *shape, classes, labels, reference, extractor)
    comparison = _Comparison(reference, extractor, metrics, len(images), flip, device)
    row = comparison.row(DatasetImages(images), None)
    return None if row is None else comparison.evaluation(describe_reference(images), {}, [row])


class _Comparison:
    """The reference with its features, and the settings that all rows of an evaluation share.

    Several processes must use it together. `check_fit` comes before it.
    """

    def __init__(
        self,
        reference: Reference,
        extractor: FeatureExtractor | None,
        metrics: tuple[MetricName, ...],
        num: int,
        flip: bool,
        device: torch.device | str,
        progress: bool = True,
    ) -> None:
        self._reference, self._metrics, self._num = reference, metrics, num
        self._flip, self._device, self._progress = flip, find_device(device), progress
        self._extractor = extractor if figures.needs_features(metrics) else None
        self._about = describe_extractor(self._extractor) if self._extractor else {}
        self._per_class = "intra-fid" in metrics
        self._num_reference = size_of(reference)["num"]
        warn_of_few(min(num, self._num_reference or num), metrics)
        self._known: FeatureCollection | None = None
        if isinstance(reference, ReferenceStatistics):
            self._known = FeatureCollection(reference.statistics)
        else:
            self._known = self._features(DatasetImages(reference))

    def _features(self, images: ImageSet) -> FeatureCollection | None:
        if self._extractor is None:
            return None
        return extract_features(
            images, self._extractor, per_class=self._per_class, progress=self._progress
        )

    def row_file(self, images: ImageSet) -> Path:
        """Where the row of a truncation is kept until all are done."""
        name = images.key(self._about, self._reference.fingerprint, self._metrics, self._flip)
        return cache_dir() / "evaluation" / f"{name}.json"

    def forget(self, images: ImageSet) -> None:
        """Delete the features of images whose row is known."""
        if self._extractor is not None:
            file = cache_file(images, self._extractor, per_class=self._per_class)
            file.unlink(missing_ok=True)

    def row(self, images: ImageSet, truncation: float | None) -> dict[str, Any] | None:
        """Compare images; a row of an `Evaluation`, None on all processes but the first."""
        started = time.monotonic()
        made = self._features(images)
        scores = Scores({}, {})
        with raising_together():
            if made is not None and self._known is not None and self._extractor is not None:
                scores = figures.compute_scores(made, self._known, self._metrics, self._extractor)
                if "accuracy" in self._metrics:
                    scores.add("accuracy", self._guesses(made), images.labels)
        row: dict[str, Any] = {"truncation": truncation, "scores": scores.values}
        if "cas" in self._metrics:
            began = time.monotonic()
            scores.add("cas", self._cas_guesses(images), self._dataset.labels)
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
        how = how | figures.describe_metrics(self._metrics, self._num, self._num_reference)
        if "cas" in self._metrics:
            how["cas"] = figures.describe_cas(self._num, self._dataset, flip=self._flip)
        if self._extractor is not None and self._known is not None:
            if "accuracy" in self._metrics:
                guesses = self._guesses(self._known)
                about["accuracy"] = figures.accuracy(guesses, self._dataset.labels)[0]
            if "is" in self._metrics:
                distance, score = (
                    figures.score_name(name, self._extractor) for name in ("fid", "is")
                )
                of_data = None
                if self._known.logits:
                    of_data = about[score] = figures.reference_score(self._known)
                if len(rows) > 1 and "fid" in self._metrics:
                    points = dict(figures.operating_points(rows, distance, score, of_data))
        return Evaluation(
            subject=subject,
            reference=about,
            extractor=self._about,
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

    def _cas_guesses(self, images: ImageSet) -> Tensor:
        """The data's classes, int64 (M,), predicted by a classifier trained on these images."""
        settings = figures.describe_cas(self._num, self._dataset, flip=self._flip)
        del settings["tested_on"]
        _LOG.info(
            "cas: training a classifier for %d steps on %d images", settings["steps"], self._num
        )
        return figures.classification_accuracy_score(
            images.load(progress=self._progress),
            images.labels,
            self._dataset,
            device=self._device,
            progress=self._progress,
            **settings,
        )


# --- checks before any image is made, of what could not be compared at the end ---


def check_truncations(truncations: Sequence[float | None], protocol: Protocol) -> None:
    """Refuse a sweep of no truncation, one out of range or twice, or too few images."""
    if not truncations:
        raise InputError("name at least one truncation")
    for truncation in truncations:
        check_truncation(truncation, protocol.noise)
    if len(set(truncations)) < len(truncations):
        raise InputError("name every truncation only once")
    check_enough(protocol.num, "asked for")


def check_enough(num: int | None, whose: str) -> None:
    """Refuse too few images; None is an unknown number."""
    if num is not None and num < _LEAST:
        raise InputError(f"metrics need at least {_LEAST} images, and {num} are {whose}")


def warn_of_few(num: int | None, metrics: tuple[MetricName, ...]) -> None:
    """Warn of a Frechet distance of too few images; None is an unknown number."""
    if num is not None and "fid" in metrics and num < FEWEST:
        _LOG.warning(
            "warning: a Frechet distance of %d images is far too large and not comparable: use at "
            "least %d, and 50,000 for published figures",
            num,
            FEWEST,
        )


def check_fit(
    metrics: tuple[MetricName, ...],
    name: str,
    resolution: int,
    channels: int,
    class_names: tuple[str, ...],
    labels: Tensor,
    reference: Reference,
    extractor: FeatureExtractor | None,
) -> None:
    """Refuse images, called by `name` in messages, that these metrics cannot compare."""
    if not metrics or not {*metrics} <= {*figures.METRICS}:
        raise InputError(f"metrics are some of {figures.METRICS}, not {quoted(metrics)}")
    if extractor is None and figures.needs_features(metrics):
        raise InputError(f"{', '.join(metrics)} need an extractor")
    if isinstance(extractor, str) or isinstance(reference, str):
        raise InputError(
            "open the extractor with open_extractor and the reference with load_dataset first"
        )
    if "cas" in metrics and num_processes() > 1:
        raise InputError("cas trains a classifier on one process: run it without torchrun")
    size = size_of(reference)
    if size["resolution"] not in (None, resolution):
        raise InputError(
            f"the images have {resolution} pixels a side and {reference.source} has "
            f"{size['resolution']}: figures of different resolutions are not comparable"
        )
    if size["channels"] not in (None, channels):
        raise InputError(
            f"the images have {channels} channels and {reference.source} has "
            f"{size['channels']}: colour and grey are not comparable; save the statistics with "
            "--model"
        )
    check_enough(size["num"], f"in {reference.source}")
    if not isinstance(reference, ImageDataset):
        _check_statistics(metrics, reference, extractor)
        return
    own, theirs = ([*map(normal_name, names)] for names in (class_names, reference.class_names))
    if metric := next((metric for metric in metrics if metric in OF_CLASSES), None):
        if not own:
            raise InputError(f"{name} has no classes for {metric}: omit it")
        if own != theirs:
            raise InputError(
                f"{metric} needs the same classes, and {name} has other classes than "
                f"{reference.source}: give the same names to the class folders, or to the labels "
                "of a .npz, or omit it"
            )
    if "accuracy" in metrics:
        known = extractor.class_names if isinstance(extractor, ClassifierFeatures) else ()
        if sorted(map(normal_name, known)) != sorted(own):
            raise InputError(
                f"accuracy needs a classifier of the classes of {name}: train one on real images "
                "with biggan classifier, and give it as --extractor"
            )
    if "intra-fid" in metrics:
        for source, those in ((name, labels), (reference.source, reference.labels)):
            counts = those.bincount(minlength=len(class_names))
            if (fewest := int(counts.min())) < _LEAST_OF_CLASS:
                raise InputError(
                    f"intra-fid needs at least {_LEAST_OF_CLASS} images of every class, and "
                    f"{source} has {fewest} of {class_names[int(counts.argmin())]}: use more, or "
                    "omit it"
                )


def _check_statistics(
    metrics: tuple[MetricName, ...],
    reference: ReferenceStatistics,
    extractor: FeatureExtractor | None,
) -> None:
    if others := [metric for metric in metrics if metric not in OF_STATISTICS]:
        raise InputError(
            f"{reference.source} contains statistics, which are not enough for "
            f"{', '.join(others)}: give images as --data, or use --metrics fid,is"
        )
    assert extractor is not None  # fid and is need one
    own = FeatureSource(extractor.name, extractor.sha256, extractor.resize)
    try:
        check_same_source(FeatureStatistics(extractor.dim, own), reference.statistics)
    except InputError as error:
        raise InputError(f"{reference.source} does not fit --extractor: {error}") from None
    if reference.statistics.source is None:
        _LOG.warning(
            "warning: %s does not state the network and resize of its statistics; the figures are "
            "valid only for %s, resize %s",
            reference.source,
            extractor.name,
            extractor.resize,
        )
