"""Networks get the weights of their sources, with tables of the new classes.

    the shared class embedding          a row for each class
    without one, every BatchNorm        a gain and a bias for each class and channel
    the discriminator's projection      a row for each class

All else is kept to the last bit, also the vectors of spectral normalization and moving averages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from biggan.classes import (
    default_class_names,
    imagenet_classes,
    normal_name,
    resolve_class,
    search_classes,
    wordnet_ids,
)
from biggan.errors import InputError, require
from biggan.fine_tuning.freezing import ClassTransfer, FineTuningConfig, condition_layers, trainable
from biggan.fine_tuning.shapes import source_shape
from biggan.models import Discriminator, Generator
from biggan.weights.download import without_folder
from biggan.weights.files import Kind
from biggan.weights.load import load_network

_LISTED = 20  # classes that the log names one by one
_CHOICES = 5  # classes of the source that a name may mean, in a line of the log


def initialize(
    generator: Generator,
    discriminator: Discriminator,
    tuning: FineTuningConfig,
    class_names: Sequence[str],
) -> list[Transfer]:
    """Give networks the weights of their sources; what became of each source.

    Both are random weights in the source's shape (`fitted_to_source`), on any device, and changed
    in place; a `random` class keeps them. Statistics per truncation are left behind: the finished
    model gets its own. The class names are the data's in order, none for an unconditional run.

    Raises:
        InputError: A source cannot be read, or has another shape than the network.
    """
    networks: dict[Kind, Any] = {"generator": generator, "discriminator": discriminator}
    return [Transfer(name, networks[name], tuning, class_names) for name in tuning.sources]


class Transfer:
    """A network gets the tensors of its source, but for those that are remade.

    Attributes:
        kept: Tensors that are the source's to the last bit.
        remade: Why the other tensors are not, by name; also those that the source alone has.
        classes: What each class starts as; empty without classes, or if the source has none.
        frozen: Parameters that training will not move.
    """

    def __init__(
        self, name: Kind, network: Any, tuning: FineTuningConfig, class_names: Sequence[str]
    ) -> None:
        self.name, self.origin = name, tuning.sources[name]
        self.loaded = load_network(self.origin, name)
        self._network, theirs = network, self.loaded.network
        self._own, self._theirs = network.config.num_classes, theirs.config.num_classes
        assert len(class_names) == self._own
        require(
            network.config == source_shape(theirs.config, network.config),
            f"fine_tuning.{name} {self.origin} does not have the shape of the recipe's {name}: the "
            "file has changed, or the recipe was not fitted to it (fitted_to_source)",
        )
        self.classes: list[ClassOrigin] = []
        if self._own and self._theirs:
            names = self.loaded.description.class_names or default_class_names(self._theirs)
            self.classes = class_origins(class_names, names, tuning.classes)
        self._source: dict[str, Tensor] = theirs.state_dict()
        self._fresh = {key: value.cpu() for key, value in network.state_dict().items()}
        self._state = {key: self._source.get(key, value) for key, value in self._fresh.items()}
        self.remade: dict[str, str] = {}
        self._stale: list[str] = []  # layers whose `u` and `v` are random
        self._fill()
        self.kept = [key for key in self._fresh if key not in self.remade]
        moving = {id(p) for p in trainable(network, getattr(tuning, f"freeze_{name}"))}
        self.frozen = [key for key, p in network.named_parameters() if id(p) not in moving]

    def _fill(self) -> None:
        for name, value in self._fresh.items():
            if name.endswith((".table_mean", ".table_var")):
                self._put(name, value, "statistics per truncation, recorded on export")
        same = [origin.index for origin in self.classes] == list(range(self._theirs))
        if self._own != self._theirs or not same:
            if isinstance(self._network, Generator):
                for layer, _ in condition_layers(self._network):
                    self._columns(layer)
            for layer in ("class_embedding.table", "head.embedding"):
                self._rows(layer)
        self._network.load_state_dict(self._state)
        for layer in self._stale:
            self._network.get_submodule(layer).iterate_power(50)

    def _rows(self, layer: str) -> None:
        """Remake a table with a row for each class, if the network or the source has it."""
        weight, reason = f"{layer}.weight", self._other_classes()
        names = [name for name in self._source | self._fresh if name.startswith(f"{layer}.")]
        if self._own and self._theirs and names:
            rows = class_rows(self._source[weight], self._fresh[weight], self.classes)
            self._put_weight(layer, rows)
        elif self._own:
            for name in names:
                self._put(name, self._fresh[name], f"{reason}, random")
        else:
            self.remade |= dict.fromkeys(names, reason)

    def _columns(self, layer: str) -> None:
        """Remake a matrix whose columns are the condition's: the noise, then the class."""
        config, name = self._network.config, f"{layer}.weight"
        if config.shared_embedding and self._own and self._theirs:
            return
        weight, noise = self._source[name], config.condition_dim - config.embedding_dim
        kept, of_classes = weight[:, :noise], weight[:, noise:]
        if self._own and not self._theirs:
            # Every class starts as what the source makes, exactly: zeros change neither the
            # singular values nor `u`.
            zeros = kept.new_zeros(len(kept), config.embedding_dim)
            reason = f"{self._other_classes()}, their columns zero"
            self._put(name, torch.cat([kept, zeros], 1), reason)
            if (v := f"{layer}.v") in self._fresh:
                self._put(v, torch.cat([self._source[v], zeros[0]]), reason)
            return
        if self._own:
            rows = class_rows(of_classes.T, self._fresh[name][:, noise:].T, self.classes)
            kept = torch.cat([kept, rows.T], 1)
        self._put_weight(layer, kept)

    def _put_weight(self, layer: str, weight: Tensor) -> None:
        """Replace a weight; the layer's `u` and `v`, if it has them, are random then."""
        self._put(f"{layer}.weight", weight, self._other_classes())
        if f"{layer}.u" in self._fresh:
            self._stale.append(layer)
            for name in (f"{layer}.u", f"{layer}.v"):
                self._put(name, self._fresh[name], self._other_classes())

    def _put(self, name: str, value: Tensor, reason: str) -> None:
        self._state[name], self.remade[name] = value, reason

    def _other_classes(self) -> str:
        if not self._own:
            return "no classes, of which the source has some"
        if not self._theirs:
            return "classes, of which the source has none"
        if self._own == self._theirs:
            return f"{self._own} classes, others than the source's or in another order"
        return f"{self._own} classes, not the source's {self._theirs}"

    def card(self) -> dict[str, Any]:
        """What a model's card says of it, as JSON can hold it."""
        return {
            "source": without_folder(self.origin),
            "name": self.loaded.description.name,
            "sha256": self.loaded.sha256,
            "licence": self.loaded.description.licence,
            "tensors_kept": len(self.kept),
            "tensors_remade": self._by_reason(),
            "classes": [str(origin) for origin in self.classes],
            "parameters_frozen": len(self.frozen),
        }

    def lines(self, before: Transfer | None) -> list[str]:
        """For the log; classes that start as in `before` are not listed again."""
        about, sha256 = self.loaded.description, self.loaded.sha256
        licence = f"; licence: {about.licence}" if about.licence else ""
        lines = [
            f"from {self.origin} ({about.name}, sha256 {sha256[:12]}...{licence})",
            f"{len(self.kept)} tensors kept",
            *(f"{reason}: {names}" for reason, names in self._by_reason().items()),
        ]
        if self.frozen:
            lines.append(f"{len(self.frozen)} parameters frozen: {_some(self.frozen)}")
        if before is not None and self.classes and self.classes == before.classes:
            lines.append(f"classes start as those of the {before.name}")
        else:
            # Classes that were not found first: there a better name may help.
            ordered = sorted(self.classes, key=lambda origin: not origin.reason)
            lines += [f"class {origin}" for origin in ordered[:_LISTED]]
            if len(ordered) > _LISTED:
                lines.append(f"and {len(ordered) - _LISTED} more classes")
        return [f"{self.name}: {line}" for line in lines]

    def _by_reason(self) -> dict[str, str]:
        reasons: dict[str, list[str]] = {}
        for name, reason in self.remade.items():
            reasons.setdefault(reason, []).append(name)
        return {reason: _some(names) for reason, names in reasons.items()}


def _some(names: Sequence[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


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
