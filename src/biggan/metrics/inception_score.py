"""Inception Score: are images clearly of some class, and of many classes in all.

Salimans et al. 2016, "Improved Techniques for Training GANs", Section 4,
https://arxiv.org/abs/1606.03498: exp(E[KL(p(y|x) || p(y))]). The name is for the logits of
TF-Inception; of another network's it is that network's classifier score.
"""

from __future__ import annotations

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.metrics.feature_sets import check_features
from biggan.metrics.subsets import Score, random_order


@torch.no_grad()
def inception_score(logits: Tensor, splits: int = 10, seed: int = 0) -> Score:
    """The score of images by what a classifier says of them.

    p(y) is the mean within a split, so splits in the order of generation or of a data set's folders
    are a trap: a split of one class out of ten scores near 1 however good the images are. Here the
    images are sorted by their logits, lexicographically, then shuffled with a seed, then split. The
    split of an image thus depends on its logits and on the others', not on where it stands, and a
    permutation of the images changes nothing, not even the last digit.

    Args:
        logits: Real numbers (N, K), of which the softmax is p(y|x).
        splits: Parts whose scores are averaged, as even as possible. Larger parts score higher.
        seed: Of the shuffle.

    Returns:
        Mean and standard deviation over the splits, whose scores lie between 1 and K.

    Raises:
        InputError: NaN or infinite logits, or fewer images than splits.
    """
    if splits < 1:
        raise InputError(f"splits must be at least 1, not {splits}")
    check_features(logits, "logits", splits, f"an Inception Score over {splits} splits")
    order = random_order(logits, torch.Generator().manual_seed(seed))
    return Score.of_parts([_score(logits[part]) for part in order.tensor_split(splits)])


def _score(logits: Tensor) -> float:
    """exp(E[KL(p(y|x) || p(y))]) of logits (n, K), as exp(H(p(y)) - E[H(p(y|x))])."""
    conditional = logits.to("cpu", torch.float64).softmax(1)
    entropy_of_mean = torch.special.entr(conditional.mean(0)).sum()
    mean_entropy = torch.special.entr(conditional).sum(1).mean()
    return (entropy_of_mean - mean_entropy).exp().item()
