"""Inception Score: is each image clearly of some class, and do the images cover many classes.

Salimans et al. 2016, "Improved Techniques for Training GANs", Section 4,
https://arxiv.org/abs/1606.03498: exp(E[KL(p(y|x) || p(y))]). The name is for the logits of
TF-Inception; of another network's it is that network's classifier score.
"""

from __future__ import annotations

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.metrics.feature_sets import Score, check_features, content_order


@torch.no_grad()
def inception_score(logits: Tensor, splits: int = 10, seed: int = 0) -> Score:
    """Mean and standard deviation over splits, whose scores lie between 1 and K.

    p(y) is the mean within a split, so splits in the order of a dataset's folders would score near
    1 however good the images are. Here the images are sorted by their logits, then shuffled with a
    seed, then split: a permutation of the images changes nothing, not even the last digit.

    Raises:
        InputError: NaN or infinite logits, or fewer images than splits.
    """
    if splits < 1:
        raise InputError(f"splits must be at least 1, not {splits}")
    check_features(logits, "logits", splits, f"an Inception Score over {splits} splits")
    shuffle = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
    order = content_order(logits)[shuffle.to(logits.device)]
    return Score.of_subsets([_score(logits[part]) for part in order.tensor_split(splits)])


def _score(logits: Tensor) -> float:
    """exp(E[KL(p(y|x) || p(y))]) of logits (n, K), as exp(H(p(y)) - E[H(p(y|x))])."""
    conditional = logits.to("cpu", torch.float64).softmax(1)
    entropy_of_mean = torch.special.entr(conditional.mean(0)).sum()
    mean_entropy = torch.special.entr(conditional).sum(1).mean()
    return (entropy_of_mean - mean_entropy).exp().item()
