"""Networks get the weights of their sources, with tables of the new classes.

    the shared class embedding          a row for each class
    without one, every BatchNorm        a gain and a bias for each class and channel
    the discriminator's projection      a row for each class

All else is kept to the last bit, also the vectors of spectral normalization and moving averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from biggan.classes import default_class_names
from biggan.errors import require
from biggan.fine_tuning.classes import ClassOrigin, class_origins, class_rows
from biggan.fine_tuning.freezing import FineTuningConfig, condition_layers, trainable
from biggan.fine_tuning.log import NetworkLog
from biggan.fine_tuning.shapes import load_source, source_shape
from biggan.models import Discriminator, Generator
from biggan.nn import SpectralNormEmbedding, SpectralNormLinear

_TABLE = "class_embedding.table.weight"
_PROJECTION = "head.embedding"


def initialize(
    generator: Generator,
    discriminator: Discriminator,
    tuning: FineTuningConfig,
    class_names: Sequence[str],
) -> list[NetworkLog]:
    """Give networks the weights of their sources; what became of each source.

    Both are random weights in the source's shape (`fitted_to_source`), on any device, and changed
    in place; a `random` class keeps them. Statistics per truncation are left behind: the finished
    model gets its own. The class names are the data's in order, none for an unconditional run.

    Raises:
        InputError: A source cannot be read, or has another shape than the network.
    """
    logs = []
    networks: dict[str, Any] = {"generator": generator, "discriminator": discriminator}
    for name, source in tuning.sources.items():
        network = networks[name]
        assert len(class_names) == network.config.num_classes
        loaded = load_source(name, source)
        require(
            network.config == source_shape(loaded.network.config, network.config),
            f"fine_tuning.{name} {source} does not have the shape of the recipe's {name}: the file "
            "has changed, or the recipe was not fitted to it (fitted_to_source)",
        )
        transfer = _Transfer(network, loaded, class_names, tuning)
        transfer.fill()
        moving = {id(p) for p in trainable(network, getattr(tuning, f"freeze_{name}"))}
        frozen = [n for n, p in network.named_parameters() if id(p) not in moving]
        kept, remade, origins = transfer.kept, transfer.remade, transfer.origins
        logs.append(NetworkLog(name, source, loaded, kept, remade, origins, frozen))
    return logs


class _Transfer:
    """The tensors of a network that are not the source's, and why."""

    def __init__(
        self, network: Any, loaded: Any, class_names: Sequence[str], tuning: FineTuningConfig
    ) -> None:
        self.network = network
        self.own, self.theirs = network.config, loaded.network.config
        self.source: dict[str, Tensor] = loaded.network.state_dict()
        self.fresh = {name: value.cpu() for name, value in network.state_dict().items()}
        self.state: dict[str, Tensor] = {}
        self.remade: dict[str, str] = {}
        self.kept: list[str] = []
        self.stale: list[str] = []
        """Layers whose `u` and `v` are still random."""
        self.origins: list[ClassOrigin] = []
        count = self.theirs.num_classes
        if class_names and count:
            names = loaded.description.class_names or default_class_names(count)
            self.origins = class_origins(class_names, names, tuning.classes)
        same = [origin.index for origin in self.origins] == list(range(count))
        self.keeps_classes = len(class_names) == count and same

    def fill(self) -> None:
        """Fill the network; the tensors that are not remade are the source's."""
        for name, value in self.fresh.items():
            if name.endswith((".table_mean", ".table_var")):
                self._put(name, value, "statistics per truncation, recorded on export")
        if not self.keeps_classes:
            reason = _other_classes(self.own.num_classes, self.theirs.num_classes)
            if isinstance(self.network, Generator):
                self._conditions(reason)
                if self.own.shared_embedding:
                    self._table([_TABLE], reason)
            else:
                self._table([f"{_PROJECTION}.{name}" for name in ("weight", "u", "v")], reason)
        self.kept = [name for name in self.fresh if name not in self.state]
        self.network.load_state_dict(self.state | {name: self.source[name] for name in self.kept})
        for name in self.stale:
            layer = self.network.get_submodule(name)
            assert isinstance(layer, SpectralNormEmbedding | SpectralNormLinear)
            layer.iterate_power(50)

    def _table(self, names: Sequence[str], reason: str) -> None:
        """Remake a table of one row for each class, with its `u` and `v` if it has them."""
        if not self.own.num_classes:
            self.remade |= dict.fromkeys(names, reason)
        elif not self.theirs.num_classes:
            for name in names:
                self._put(name, self.fresh[name], f"{reason}, random")
        else:
            weight = names[0]
            rows = class_rows(self.source[weight], self.fresh[weight], self.origins)
            self._put(weight, rows, reason)
            if len(names) > 1:
                self._renormalize(weight.removesuffix(".weight"), reason)

    def _conditions(self, reason: str) -> None:
        """Remake the matrices whose columns are the condition's: the noise, then the class."""
        own, theirs = self.own, self.theirs
        if own.shared_embedding and own.num_classes and theirs.num_classes:
            return
        noise = own.condition_dim - own.embedding_dim
        for layer, module in condition_layers(self.network):
            name, spectral = f"{layer}.weight", isinstance(module, SpectralNormLinear)
            weight = self.source[name]
            kept = weight[:, :noise]
            if not theirs.num_classes:
                # Every class starts as what the source makes, exactly: zeros change neither the
                # singular values nor `u`.
                zeros = kept.new_zeros(len(kept), own.embedding_dim)
                why = f"{reason}, their columns zero"
                self._put(name, torch.cat([kept, zeros], 1), why)
                if spectral:
                    v = f"{layer}.v"
                    self._put(v, torch.cat([self.source[v], zeros[0]]), why)
                continue
            if own.num_classes:
                fresh = self.fresh[name]
                rows = class_rows(weight[:, noise:].T, fresh[:, noise:].T, self.origins)
                kept = torch.cat([kept, rows.T], 1)
            self._put(name, kept, reason)
            if spectral:
                self._renormalize(layer, reason)

    def _put(self, name: str, value: Tensor, reason: str) -> None:
        self.state[name] = value
        self.remade[name] = reason

    def _renormalize(self, layer: str, reason: str) -> None:
        for name in (f"{layer}.u", f"{layer}.v"):
            self._put(name, self.fresh[name], reason)
        self.stale.append(layer)


def _other_classes(own: int, theirs: int) -> str:
    if not own:
        return "no classes, of which the source has some"
    if not theirs:
        return "classes, of which the source has none"
    if own == theirs:
        return f"{own} classes, others than the source's or in another order"
    return f"{own} classes, not the source's {theirs}"
