"""Evaluation during training: on schedule, of the averaged generator, the best one kept.

    evaluations/step-00010000.json   the figures with their provenance, as of `biggan evaluate`
    best.safetensors                 the generator with the smallest Frechet distance of those
                                     measured in the same way
    generators/step-00010000.safetensors    the next best, as many as the recipe asks for

Nothing of it enters the training: with and without, the weights are the same.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.atomic_write import make_folder, write_atomically
from biggan.data import ImageDataset
from biggan.distributed import is_first, on_any_process, raising_together
from biggan.errors import InputError
from biggan.supervision.log import parse_object
from biggan.training.run import Exported, Run
from biggan.weights.files import RUN_BEST, kept_generator, network_sha256, save_network

if TYPE_CHECKING:
    from biggan.evaluation import Evaluation, Reference
    from biggan.gan import Gan

_LOG = logging.getLogger("biggan.training")


class ScheduledEvaluation:
    """What a run's evaluations share: the features' network and the data.

    Several processes must use it together.

    Raises:
        InputError: The extractor or the data cannot be had.
    """

    def __init__(self, run: Run) -> None:
        from biggan.evaluation.evaluate import check_fit
        from biggan.evaluation.features import open_extractor
        from biggan.evaluation.images import labels_in_turn
        from biggan.evaluation.reference import in_order_of, open_reference
        from biggan.evaluation.scores import check_metrics, needs_classes

        self._config, self._settings = run.config, run.config.evaluation
        self._progress = run.progress
        self._folder = run.folder / "evaluations"
        self._best = run.folder / RUN_BEST
        self._metrics = check_metrics(self._settings.metrics)
        shape, dataset = run.config.generator, run.dataset
        with raising_together():
            self._extractor = open_extractor(self._settings.extractor, device=run.device)
            if self._settings.data:
                self._reference: Reference = open_reference(
                    self._settings.data,
                    shape.resolution,
                    shape.image_channels,
                    with_classes=needs_classes(self._metrics),
                    label_column=run.config.label_column or None,
                    resize=run.config.resize,
                )
            elif isinstance(dataset, ImageDataset):
                self._reference = dataset
            else:
                raise InputError(
                    "a stream cannot be the reference of an evaluation: give images or statistics "
                    "as evaluation.data"
                )
            self._reference = in_order_of(self._reference, dataset.class_names)
            check_fit(
                self._metrics,
                "this run",
                shape.resolution,
                shape.image_channels,
                dataset.class_names,
                labels_in_turn(len(dataset.class_names), self._settings.num),
                self._reference,
                self._extractor,
            )

    def is_missing(self, step: int) -> bool:
        """Whether the generator of a step is to be evaluated, and was not yet."""
        due = step % self._settings.every == 0 or step == self._config.total_steps
        return due and step > 0 and on_any_process(is_first() and _read(self._file(step)) is None)

    def distances(self, step: int) -> list[tuple[int, float]]:
        """The Frechet distances of this attempt up to a step, oldest first.

        Only those that were measured as the newest one was: a schedule may change within a run.

        Returns:
            Steps and distances; nothing on all processes but the first.
        """
        if not is_first():
            return []
        files = sorted(self._folder.glob("step-*.json"))  # those of attempts before are below
        found = [
            (int(at), measured)
            for file in files
            if (at := file.stem.removeprefix("step-")).isdecimal() and int(at) <= step
            if (measured := _read(file))
        ]
        alike = [(at, distance) for at, (how, distance) in found if how == found[-1][1][0]]
        return [(at, distance) for at, distance in alike if distance is not None]

    def run(self, exported: Exported, step: int) -> dict[str, float]:
        """Evaluate the generator of a step and keep it if it is the best so far.

        The figures; none on all processes but the first.
        """
        from biggan.evaluation import Protocol, evaluate_generator
        from biggan.gan import Gan

        gan = Gan(*exported, network_sha256(*exported))
        if is_first() and not sys.stderr.isatty():  # a terminal has a bar
            _LOG.info("step %d: evaluating %d images", step, self._settings.num)
        evaluation = evaluate_generator(
            gan,
            self._reference,
            self._extractor,
            (None,),
            self._metrics,
            Protocol(num=self._settings.num),
            flip=self._config.flip,
            progress=self._progress,
        )
        with raising_together():
            if evaluation is None:
                return {}
            self._keep(gan, evaluation, step)
        scores: dict[str, float] = evaluation.rows[0]["scores"]
        return scores

    def _keep(self, gan: Gan, evaluation: Evaluation, step: int) -> None:
        make_folder(self._folder)
        distance = _distance(evaluation.rows[0]["scores"])
        # Those of attempts that were left are in folders below.
        files = self._folder.rglob("step-*.json")
        before = [
            other[1]
            for file in files
            if (other := _read(file)) and other[0] == _yardstick(vars(evaluation))
        ]
        if distance is not None and all(other is None or distance < other for other in before):
            measured = {
                "scores": evaluation.rows[0]["scores"],
                "extractor": evaluation.extractor,
                "reference": evaluation.reference,
                "num": self._settings.num,
            }
            description = dataclasses.replace(
                gan.description, training={**gan.description.training, "evaluation": measured}
            )
            save_network(self._best, gan.generator, description)
        if self._settings.keep_best and distance is not None:
            self._keep_best(gan, step, distance)
        # Last: it says that all is done.
        write_atomically(self._file(step), evaluation.to_json().encode())

    def _keep_best(self, gan: Gan, step: int, distance: float) -> None:
        """Keep the generator of a step if it is among the best, and drop those that are no more."""
        found = dict(self.distances(step)) | {step: distance}
        best = sorted(found, key=lambda each: found[each])[: self._settings.keep_best]
        run = self._best.parent
        if step in best:
            make_folder(kept_generator(run, step).parent)
            save_network(kept_generator(run, step), gan.generator, gan.description)
        for other in found:
            if other not in best and other % self._config.kept_interval:
                kept_generator(run, other).unlink(missing_ok=True)

    def _file(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}.json"


def _read(file: Path) -> tuple[tuple[Any, ...], float | None] | None:
    """The yardstick and the Frechet distance of an evaluation; None if it is damaged or missing."""
    try:
        evaluation = parse_object(file.read_text(encoding="utf-8"))
        distance = _distance(evaluation["rows"][0]["scores"])
        if distance is not None and not math.isfinite(distance):
            distance = None
        return _yardstick(evaluation), distance
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None


def _distance(scores: dict[str, float]) -> float | None:
    return next((scores[name] for name in ("fid", "frechet_distance") if name in scores), None)


def _yardstick(evaluation: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be the same for two distances to compare."""
    extractor = evaluation["extractor"]
    return (
        extractor.get("sha256"),
        extractor.get("resize"),
        evaluation["reference"]["fingerprint"],
        evaluation["protocol"]["num"],
    )
