"""What images are compared with, and in which ways: shared by all rows of an evaluation."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.classes import normal_name
from biggan.data import ImageDataset
from biggan.devices import find_device
from biggan.distributed import gather, is_first, raising_together
from biggan.evaluation.checks import warn_of_few
from biggan.evaluation.collection import FeatureCollection, Task, collect, collection_file
from biggan.evaluation.lesson import describe_lesson, teach
from biggan.evaluation.protocol import describe_extractor, versions
from biggan.evaluation.reference import (
    Reference,
    ReferenceStatistics,
    dataset_task,
    describe_reference,
    num_images,
)
from biggan.evaluation.result import Evaluation
from biggan.evaluation.scores import (
    MetricName,
    Scores,
    accuracy,
    compute_scores,
    describe_metrics,
    needs_features,
    reference_score,
    score_name,
)
from biggan.evaluation.tradeoff import operating_points
from biggan.metrics.classifier import ClassifierFeatures
from biggan.metrics.extractor import FeatureExtractor


class Comparison:
    """What all rows of an evaluation have in common; the reference is looked at once, at first.

    Several processes must use it together.

    Args:
        reference: What images are compared with; `check_fit` has found nothing wrong with it.
        extractor: Whose features are compared; None if "cas" is the only metric.
        metrics: Some of `METRICS`.
        num: Images in each row.
        flip: Whether the classifier of "cas" sees one half of the images mirrored.
        device: Where it is trained.
        progress: Show bars on a terminal.

    Attributes:
        extractor: What the evaluation says of it; empty if no features are compared.
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
        self._eyes = extractor if needs_features(metrics) else None
        self.extractor = describe_extractor(self._eyes) if self._eyes else {}
        self.per_class = "intra-fid" in metrics
        in_reference = num_images(reference)
        warn_of_few(num if in_reference is None else min(num, in_reference), metrics)
        self._known = self._look_at_reference()

    def journal(self, task: Task) -> Path:
        """Where the row of a truncation is kept until all are done."""
        text = json.dumps([task.key, self._reference.fingerprint, self._metrics, self._flip])
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        return collection_file(task).with_name(f"{name}.json")

    def row(
        self, task: Task, images: Callable[[], Tensor], truncation: float | None
    ) -> dict[str, Any] | None:
        """Look at images and compare them.

        Args:
            task: The images, to be looked at.
            images: Gives all of them, uint8 (N, C, R, R), where they are needed together.
            truncation: For the row.

        Returns:
            The row of an `Evaluation`; None on all processes but the first.
        """
        started = time.monotonic()
        made = None
        if self._eyes is not None:
            made = gather_collection(task, self._eyes, progress=self._progress)
        scores = Scores({}, {})
        with raising_together():
            if made is not None and self._known is not None and self._eyes is not None:
                scores = compute_scores(made, self._known, self._metrics, self._eyes)
                if "accuracy" in self._metrics:
                    of_all, of_classes = accuracy(self._guesses(made), task.labels)
                    scores.values["accuracy"] = of_all
                    scores.per_class["accuracy"] = of_classes
        row: dict[str, Any] = {"truncation": truncation, "scores": scores.values}
        if "cas" in self._metrics:
            row["cas_seconds"] = self._add_lesson(scores, images, task.labels)
        if scores.per_class:
            row["per_class"] = _class_table(self._class_names, scores.per_class)
        row["seconds"] = round(time.monotonic() - started, 1)
        return row if is_first() else None

    def evaluation(
        self, subject: dict[str, Any], how: dict[str, Any], rows: list[dict[str, Any]]
    ) -> Evaluation:
        """All rows with what decided them; on the first process.

        Args:
            subject: What the evaluation says of the images.
            how: What it says of their making.
            rows: By `row`.
        """
        about, points = describe_reference(self._reference), {}
        how = how | describe_metrics(self._metrics, self._num, num_images(self._reference))
        if "cas" in self._metrics and isinstance(self._reference, ImageDataset):
            how = how | {"cas": describe_lesson(self._num, self._reference, flip=self._flip)}
        if "accuracy" in self._metrics and self._known is not None:
            assert isinstance(self._reference, ImageDataset)  # `check_fit` saw to it
            about["accuracy"] = accuracy(self._guesses(self._known), self._reference.labels)[0]
        if "is" in self._metrics and self._eyes is not None:
            distance, score = (score_name(name, self._eyes) for name in ("fid", "is"))
            of_data = None
            if self._known is not None and self._known.logits:
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
    def _class_names(self) -> tuple[str, ...]:
        return self._reference.class_names if isinstance(self._reference, ImageDataset) else ()

    def _guesses(self, seen: FeatureCollection) -> Tensor:
        """What a classifier takes images for, int64 (N,), in the data's order of classes."""
        assert isinstance(self._eyes, ClassifierFeatures)  # `check_fit` saw to it
        names = [normal_name(name) for name in self._class_names]
        number = [names.index(normal_name(name)) for name in self._eyes.class_names]
        return torch.tensor(number)[torch.cat(seen.guesses)]

    def _look_at_reference(self) -> FeatureCollection | None:
        if isinstance(self._reference, ReferenceStatistics):
            return FeatureCollection(self._reference.statistics)
        if self._eyes is None:
            return None
        return look_at(
            self._reference, self._eyes, per_class=self.per_class, progress=self._progress
        )

    def _add_lesson(self, scores: Scores, images: Callable[[], Tensor], labels: Tensor) -> float:
        """Add the classification accuracy score; its cost in seconds."""
        assert isinstance(self._reference, ImageDataset)  # `check_fit` saw to it
        started = time.monotonic()
        taught = teach(
            images(),
            labels,
            self._reference,
            flip=self._flip,
            device=self._device,
            progress=self._progress,
        )
        scores.values["cas"] = taught.accuracy
        scores.per_class["cas"] = dict(enumerate(taught.per_class))
        return round(time.monotonic() - started, 1)


def look_at(
    dataset: ImageDataset,
    extractor: FeatureExtractor,
    *,
    per_class: bool = False,
    progress: bool = True,
) -> FeatureCollection | None:
    """What is kept of all images of a dataset; from the cache where they were looked at before.

    Returns:
        None on all processes but the first.
    """
    about = describe_extractor(extractor)
    task = dataset_task(dataset, about, dataset.source, per_class=per_class)
    return gather_collection(task, extractor, progress=progress)


def gather_collection(
    task: Task, extractor: FeatureExtractor, *, progress: bool
) -> FeatureCollection | None:
    """What all processes have kept of a task's images, on the first one."""
    parts = gather(collect(task, extractor, progress=progress))
    if not parts:
        return None
    whole = parts[0]
    for part in parts[1:]:
        whole.merge(part)
    return whole


def _class_table(
    names: Sequence[str], figures: Mapping[str, Mapping[int, float | None]]
) -> list[dict[str, Any]]:
    """A row a class: its number, its name, its figures."""
    return [
        {"class": label, "name": name}
        | {figure: values.get(label) for figure, values in figures.items()}
        for label, name in enumerate(names)
    ]
