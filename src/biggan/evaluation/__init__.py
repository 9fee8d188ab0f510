"""Evaluating a generator, or images from elsewhere, against data: figures with their provenance."""

from biggan.evaluation.evaluate import evaluate_generator, evaluate_images
from biggan.evaluation.features import open_extractor
from biggan.evaluation.images import Protocol
from biggan.evaluation.reference import Reference, ReferenceStatistics
from biggan.evaluation.result import Evaluation
from biggan.evaluation.scores import METRICS, MetricName

__all__ = [
    "METRICS",
    "Evaluation",
    "MetricName",
    "Protocol",
    "Reference",
    "ReferenceStatistics",
    "evaluate_generator",
    "evaluate_images",
    "open_extractor",
]
