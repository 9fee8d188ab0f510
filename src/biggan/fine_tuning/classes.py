"""What a new class starts as: a class of the source by its name, the mean of all, or random."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from biggan.classes import imagenet_classes, normal_name, resolve_class, search_classes, wordnet_ids
from biggan.errors import InputError
from biggan.fine_tuning.freezing import ClassTransfer

_CHOICES = 5  # classes of the source that a name may mean, in a line of the log


@dataclass(frozen=True)
class ClassOrigin:
    """What a class starts as."""

    name: str
    start: str
    """The source's class by its name, or "the mean of ...", or "random"."""
    index: int | None = None
    """The source's class; None for no single one."""
    reason: str = ""
    """Why it is not a class of the source, where that was wanted."""

    def __str__(self) -> str:
        return f"{self.name} <- {self.start}" + (f" ({self.reason})" if self.reason else "")


def class_origins(
    names: Sequence[str], source_names: Sequence[str], transfer: ClassTransfer
) -> list[ClassOrigin]:
    """What each class starts as.

    With `nearest` a name means the source's class that `biggan.classes.resolve_class` finds; a
    WordNet id, on either side, the ImageNet class; and if nothing is called so, the only similar
    name. A name that means several classes or none, or only shares words with some, gets the mean.
    A number is no index.
    """
    mean = f"the mean of the source's {len(source_names)} classes"
    if transfer != "nearest":
        return [ClassOrigin(name, mean if transfer == "mean" else "random") for name in names]
    if tuple(names) == tuple(source_names):  # names that two of them share would be ambiguous
        return [ClassOrigin(name, name, index) for index, name in enumerate(names)]
    in_words = [_in_words(name) for name in source_names]
    found = [(name, *_find(name, in_words)) for name in names]
    return [ClassOrigin(n, mean if i is None else source_names[i], i, why) for n, i, why in found]


def class_rows(source: Tensor, fresh: Tensor, origins: Sequence[ClassOrigin]) -> Tensor:
    """A table (classes, D): of each class the source's row, the mean of all, or the fresh one."""
    mean = source.double().mean(dim=0).to(source.dtype)
    rows = [mean if origin.index is None else source[origin.index] for origin in origins]
    is_random = torch.tensor([[origin.start == "random"] for origin in origins])
    return torch.where(is_random, fresh, torch.stack(rows))


def _in_words(name: str) -> str:
    """A name, with ImageNet's after it if it is a WordNet id."""
    ids = wordnet_ids()
    return f"{name}, {imagenet_classes()[ids.index(name)]}" if name in ids else name


def _words(name: str) -> list[str]:
    """The words of a name that may tell a class from others: not "of", nor numbers."""
    return re.findall(r"[^\W\d_]{3,}", normal_name(name).casefold())


def _find(name: str, source_names: Sequence[str]) -> tuple[int | None, str]:
    """The source's class of a name, or None and why."""
    wanted = normal_name(name).casefold()
    whole = [i for i, own in enumerate(source_names) if normal_name(own).casefold() == wanted]
    if len(whole) == 1:
        return whole[0], ""
    if re.match(r"\s*-?\d+\s*(\)|$)", name):
        return None, "a number is not a class name"
    nothing = "the source has no class with this name"
    if not re.search(r"\w", name):
        return None, nothing
    for query in dict.fromkeys([name, *_in_words(name).split(", ")]):
        try:
            return resolve_class(query, source_names), ""
        except InputError:  # several, or none
            continue
    found = search_classes(name, source_names)
    if len(found) == 1:
        return found[0], ""
    words = set(_words(name))
    found = found or [i for i, own in enumerate(source_names) if words & set(_words(own))]
    if not found:
        return None, nothing
    more = f"; and {len(found) - _CHOICES} more" if len(found) > _CHOICES else ""
    return None, f"candidates: {'; '.join(source_names[i] for i in found[:_CHOICES])}{more}"
