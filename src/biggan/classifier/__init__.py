"""A classifier trained on the data at hand, whose features metrics can compare.

For data that ImageNet's classes say little about, and for machines without Inception's weights. Its
file says what it was trained on and how accurate it is on held-out images.
"""

from biggan.classifier.network import (
    Classifier,
    ClassifierConfig,
    ClassifierFeatures,
    default_width,
)
from biggan.classifier.training import (
    ClassifierTraining,
    default_steps,
    fit_classifier,
    predict,
    train_classifier,
)

__all__ = [
    "Classifier",
    "ClassifierConfig",
    "ClassifierFeatures",
    "ClassifierTraining",
    "default_steps",
    "default_width",
    "fit_classifier",
    "predict",
    "train_classifier",
]
