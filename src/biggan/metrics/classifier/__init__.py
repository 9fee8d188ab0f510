"""A classifier trained here on the data at hand, whose features metrics can compare.

For data that ImageNet's classes say little about, and for machines without Inception's weights. Its
file says what it was trained on and how well it does on images that it never saw; its name, which
holds the digest of its weights, stands beside every score that it gives.

network.py is its shape, fitting.py how it is taught, training.py the way from a data set to its
file, features.py what metrics see of it.
"""

from biggan.metrics.classifier.features import ClassifierFeatures
from biggan.metrics.classifier.fitting import (
    ClassifierTraining,
    augment,
    default_steps,
    fit_classifier,
    predict,
)
from biggan.metrics.classifier.network import Classifier, ClassifierConfig, default_width
from biggan.metrics.classifier.training import split_held_out, train_classifier

__all__ = [
    "Classifier",
    "ClassifierConfig",
    "ClassifierFeatures",
    "ClassifierTraining",
    "augment",
    "default_steps",
    "default_width",
    "fit_classifier",
    "predict",
    "split_held_out",
    "train_classifier",
]
