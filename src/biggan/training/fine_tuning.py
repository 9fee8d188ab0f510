"""Fine-tuning: training that starts from loaded weights, with other classes.

The source's architecture decides the run's; only the number of classes is the data's. All that does
not depend on it is kept to the last bit, the vectors of spectral normalization and BatchNorm's
moving averages too. What depends on it is made from the source class by class, or anew:

    the shared class embedding          a row for each class
    without one, every BatchNorm        a gain and a bias for each class and channel
    the discriminator's projection      a row for each class

A new class starts as the source's class of the nearest name, as the mean of all of them, or random.
The first layers of either network may stay as they were loaded; of the discriminator this is
FreezeD (Mo et al. 2020, https://arxiv.org/abs/2002.10964).

A run reads its sources once, before its first step. From then on its checkpoints hold everything,
and its resolved recipe the shapes: the sources may be gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from biggan.classes import (
    default_class_names,
    imagenet_classes,
    normal_name,
    resolve_class,
    search_classes,
    wordnet_ids,
)
from biggan.errors import InputError
from biggan.models import (
    PRESETS,
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    get_preset,
)
from biggan.nn import ConditionalBatchNorm2d, SpectralNormEmbedding, SpectralNormLinear
from biggan.training.config import TrainConfig
from biggan.training.settings import ClassTransfer, FineTuningConfig
from biggan.weights.addresses import is_address
from biggan.weights.download import without_secrets
from biggan.weights.files import LoadedDiscriminator, LoadedGenerator
from biggan.weights.registry import find_discriminator, find_generator

_Shape = TypeVar("_Shape", GeneratorConfig, DiscriminatorConfig)

_POWER_ITERATIONS = 50
_LISTED = 20  # classes, and tensors, that the log names one by one
_CHOICES = 5  # classes of the source that a name may mean, in a line of the log

_TABLE = "class_embedding.table.weight"
_PROJECTION = "head.embedding"


# --- the recipe ---


def fitted_to_source(
    config: TrainConfig, saved: TrainConfig | None = None, *, offline: bool = False
) -> TrainConfig:
    """The recipe with the shapes of the networks that it starts from.

    To be called before the data is loaded, which is decoded at the source's resolution.

    Args:
        config: The recipe; returned as it is if it starts from random weights.
        saved: The recipe of the run's newest checkpoint, if there is one: the shapes are taken
            from it, and the sources are not read, which may be gone by then.
        offline: Never touch the network.

    Returns:
        The recipe with the sources' shapes, but for the number of classes (see
        `TrainConfig.fitted`). A network that starts from random weights keeps its shape, with as
        many image channels as the other has.

    Raises:
        InputError: A source cannot be read; the recipe or the other source has another shape; or
            more is to be frozen than there is.
    """
    tuning, preset = config.fine_tuning, get_preset(config.preset)
    generator, discriminator = config.generator, config.discriminator
    if tuning.generator:
        if saved is None:
            source = _read_generator(config, offline).generator.config
            makes = _trained_generator(generator, source)
        else:
            makes = replace(saved.generator, num_classes=generator.num_classes)
        _check_asked("generator", generator, preset.generator, makes, tuning.generator)
        _check_conditioned(config, makes)
        generator = makes
    if tuning.discriminator:
        if saved is None:
            takes = _read_discriminator(config, offline).discriminator.config
        else:
            takes = saved.discriminator
        takes = replace(takes, num_classes=discriminator.num_classes)
        _check_asked(
            "discriminator", discriminator, preset.discriminator, takes, tuning.discriminator
        )
        discriminator = takes
    if tuning.generator and not tuning.discriminator:
        discriminator = _with_channels_of(generator, discriminator, preset.discriminator)
    if tuning.discriminator and not tuning.generator:
        generator = _with_channels_of(discriminator, generator, preset.generator)
    if tuning.generator or tuning.discriminator:
        _check_agreement(config, generator, discriminator)
    _check_depth(generator, tuning.freeze_generator)
    _check_depth(discriminator, tuning.freeze_discriminator)
    return replace(config, generator=generator, discriminator=discriminator)


def _trained_generator(own: GeneratorConfig, source: GeneratorConfig) -> GeneratorConfig:
    """The source's shape, with what the recipe or the training decides."""
    # `hub` is a way to read the published tables, and training records tables of its own.
    shape = replace(source, num_classes=own.num_classes, off_grid="linear")
    if source.num_classes == 0:  # it says nothing of how classes would enter
        shape = replace(shape, class_dim=own.class_dim, shared_embedding=own.shared_embedding)
    return shape


def _check_asked(network: str, own: _Shape, preset: _Shape, given: _Shape, source: str) -> None:
    """Make sure that a recipe asks for no other shape than it is given."""
    for field in fields(own):
        asked, value = getattr(own, field.name), getattr(given, field.name)
        if asked not in (value, getattr(preset, field.name)):
            raise InputError(
                f"the recipe has {network}.{field.name} = {_written(asked)}, but "
                f"fine_tuning.{network} {source} has {_written(value)}: leave it out, the shape "
                "is the source's"
            )


def _check_conditioned(config: TrainConfig, generator: GeneratorConfig) -> None:
    if config.unconditional and generator.condition_dim == generator.embedding_dim:
        raise InputError(
            f"fine_tuning.generator {config.fine_tuning.generator} cannot be trained without "
            "classes: nothing but the class conditions its layers. Leave out unconditional"
        )


def _with_channels_of(
    source: GeneratorConfig | DiscriminatorConfig, own: _Shape, preset: _Shape
) -> _Shape:
    """A network from random weights, for images like those of the other one."""
    if own.image_channels != preset.image_channels:  # the recipe insists
        return own
    return replace(own, image_channels=source.image_channels)


def _check_agreement(
    config: TrainConfig, generator: GeneratorConfig, discriminator: DiscriminatorConfig
) -> None:
    tuning = config.fine_tuning
    makes, takes = generator.resolution, discriminator.resolution
    if makes != takes:
        resolution = makes if tuning.generator else takes
        raise InputError(
            f"{_called('generator', tuning.generator, config)} makes images of {makes} px, "
            f"{_called('discriminator', tuning.discriminator, config)} takes {takes} px: "
            f"{_way_out(config, resolution)}"
        )
    colours = generator.image_channels, discriminator.image_channels
    if colours[0] != colours[1]:
        raise InputError(
            f"{_called('generator', tuning.generator, config)} makes images of {colours[0]} "
            f"channels, {_called('discriminator', tuning.discriminator, config)} takes "
            f"{colours[1]}: leave image_channels out of the recipe, and fine-tune a pair that was "
            "trained together"
        )


def _called(network: str, source: str, config: TrainConfig) -> str:
    if source:
        return f"fine_tuning.{network} {source}"
    return f"the recipe's {network} (preset {config.preset})"


def _way_out(config: TrainConfig, resolution: int) -> str:
    tuning = config.fine_tuning
    if tuning.generator and tuning.discriminator:
        return "fine-tune a pair that was trained together"
    fitting = [
        name for name, preset in PRESETS.items() if preset.generator.resolution == resolution
    ]
    missing = "discriminator" if tuning.generator else "generator"
    choice = f"choose a preset of {resolution} px ({', '.join(fitting)}), or " if fitting else ""
    return f"{choice}give a fine_tuning.{missing} as well"


def _written(value: object) -> str:
    return str(list(value) if isinstance(value, tuple) else value)


def _read_generator(config: TrainConfig, offline: bool) -> LoadedGenerator:
    return find_generator(config.fine_tuning.generator, offline=offline)


def _read_discriminator(config: TrainConfig, offline: bool) -> LoadedDiscriminator:
    return find_discriminator(config.fine_tuning.discriminator, offline=offline)


# --- freezing ---


def trainable(network: Generator | Discriminator, frozen: int) -> list[nn.Parameter]:
    """The parameters that training moves, in the network's order.

    Without a shared embedding the class tables of frozen stages are among them: they are not the
    stage's, but the classes', and those of new classes have to be learned.

    Args:
        network: The bare network, not what wraps it.
        frozen: Of a generator, how many stages from the noise on stay as they are, the first linear
            layer with the first of them; of a discriminator, how many blocks (BigGAN-deep: pairs)
            from the image on, the stem with the first of them. Attention belongs to the stage or
            block that it follows.

    Raises:
        InputError: There are not so many.
    """
    _check_depth(network.config, frozen)
    fixed = {id(p) for layer in _first_layers(network, frozen) for p in layer.parameters()}
    if _has_class_tables(network.config):
        fixed -= {id(layer.weight) for _, layer in _condition_layers(network)}
    return [parameter for parameter in network.parameters() if id(parameter) not in fixed]


def _has_class_tables(config: GeneratorConfig | DiscriminatorConfig) -> bool:
    """Whether the layers of a generator have tables of classes of their own."""
    if not isinstance(config, GeneratorConfig):
        return False
    return config.num_classes > 0 and not config.shared_embedding


def require_gradients(network: Generator | Discriminator, frozen: int) -> None:
    """Let gradients flow into what training moves, and into nothing else.

    Args:
        network: See `trainable`.
        frozen: Likewise.
    """
    network.requires_grad_(False)
    for parameter in trainable(network, frozen):
        parameter.requires_grad_(True)


def _first_layers(network: Generator | Discriminator, frozen: int) -> Iterator[nn.Module]:
    if frozen == 0:
        return
    config = network.config
    if isinstance(config, GeneratorConfig):
        yield network.get_submodule("linear")
        resolutions = config.stage_resolutions
    else:
        if config.family == "biggan-deep":
            yield network.get_submodule("stem")
        resolutions = config.down_resolutions
    blocks = frozen * (2 if config.family == "biggan-deep" else 1)
    yield from list(network.blocks)[:blocks]
    if config.attention_resolution in resolutions[:frozen]:
        yield network.attention


def _check_depth(config: GeneratorConfig | DiscriminatorConfig, frozen: int) -> None:
    if isinstance(config, GeneratorConfig):
        network, parts, number = "generator", "stages", len(config.stage_resolutions)
    else:
        network, parts, number = "discriminator", "blocks", config.num_blocks
    if frozen > number:
        raise InputError(
            f"fine_tuning.freeze_{network} is {frozen}, but the {network} has {number} {parts}"
        )


# --- the report ---


@dataclass(frozen=True)
class ClassOrigin:
    """What a class starts as."""

    name: str
    """The new class."""
    start: str
    """The source's class by its name, or "the mean of ...", or "random"."""
    index: int | None = None
    """The source's class; None for no single one."""
    reason: str = ""
    """Why it is not a class of the source, where that was wanted."""

    def __str__(self) -> str:
        """One line."""
        return f"{self.name} <- {self.start}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True)
class NetworkReport:
    """What became of one network's source."""

    network: str
    """`generator` or `discriminator`."""
    source: str
    """What the recipe calls it."""
    name: str
    """What it calls itself."""
    sha256: str
    """Digest of its weights."""
    licence: str
    """What may be done with them."""
    kept: tuple[str, ...]
    """Tensors that are the source's to the last bit."""
    remade: Mapping[str, str]
    """Why the other tensors are not, by name; those that the source alone has are among them."""
    classes: tuple[ClassOrigin, ...] = ()
    """What each class starts as; empty without classes, or if the source has none."""
    frozen: tuple[str, ...] = ()
    """Parameters that training will not move."""

    def to_dict(self) -> dict[str, Any]:
        """What a model's card says of it, as JSON can hold it."""
        return {
            "source": without_folder(self.source),
            "name": self.name,
            "sha256": self.sha256,
            "licence": self.licence,
            "tensors_kept": len(self.kept),
            "tensors_remade": self._by_reason(),
            "classes": [str(origin) for origin in self.classes],
            "parameters_frozen": len(self.frozen),
        }

    def lines(self, before: NetworkReport | None = None) -> list[str]:
        """For the log; classes that start as in the report `before` are not listed again."""
        licence = f"; licence: {self.licence}" if self.licence else ""
        lines = [f"from {self.source} ({self.name}, sha256 {self.sha256[:12]}...{licence})"]
        lines.append(f"{len(self.kept)} tensors kept")
        lines += [f"{reason}: {names}" for reason, names in self._by_reason().items()]
        if self.frozen:
            lines.append(f"{len(self.frozen)} parameters frozen: {_some(self.frozen)}")
        if before is not None and self.classes and self.classes == before.classes:
            lines.append(f"classes start as those of the {before.network}")
        else:
            # What found no class first: there a better name may help.
            ordered = sorted(self.classes, key=lambda origin: not origin.reason)
            lines += [f"class {origin}" for origin in ordered[:_LISTED]]
            if len(ordered) > _LISTED:
                lines.append(f"and {len(ordered) - _LISTED} more classes")
        return [f"{self.network}: {line}" for line in lines]

    def _by_reason(self) -> dict[str, str]:
        """The tensors that were made anew, some of them by name."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.remade.items():
            reasons.setdefault(reason, []).append(name)
        return {reason: _some(names) for reason, names in reasons.items()}


@dataclass(frozen=True)
class Report:
    """What became of the sources of a run; empty if it starts from random weights."""

    networks: tuple[NetworkReport, ...] = ()

    def lines(self) -> list[str]:
        """For the log."""
        befores = (None, *self.networks)
        return [
            line
            for network, before in zip(self.networks, befores, strict=False)
            for line in network.lines(before)
        ]

    def to_dict(self) -> dict[str, Any]:
        """For the model's card, as JSON can hold it: by network."""
        return {network.network: network.to_dict() for network in self.networks}


def without_folder(source: str) -> str:
    """A source of weights as a model that is given away may name it: not where a file was kept.

    Args:
        source: What the recipe calls it.

    Returns:
        Of a file or folder here, its own name; an address or a published name as it is, but for
        what the address holds of secrets.
    """
    if not source:
        return ""
    if is_address(source) and not source.lower().startswith("file:"):
        return without_secrets(source)
    return Path(source).expanduser().resolve().name


def card_table(tuning: FineTuningConfig) -> dict[str, Any]:
    """A recipe's table [fine_tuning] as the model's card has it: its sources `without_folder`."""
    return asdict(tuning) | {
        "generator": without_folder(tuning.generator),
        "discriminator": without_folder(tuning.discriminator),
    }


def _some(names: Sequence[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


# --- the classes ---


def class_origins(
    names: Sequence[str], source_names: Sequence[str], transfer: ClassTransfer
) -> tuple[ClassOrigin, ...]:
    """What each class starts as.

    With `nearest` a name means the source's class that `biggan.classes.resolve_class` finds; a
    WordNet id, on either side, the ImageNet class; and if nothing is called so, the only similar
    name. A name that means several classes or none gets the mean. A number is a name like others,
    not an index.

    Args:
        names: The new classes, in order.
        source_names: The source's, at least one; a name may hold synonyms after commas.
        transfer: See `FineTuningConfig.classes`.
    """
    mean = f"the mean of the source's {len(source_names)} classes"
    if transfer == "random":
        return tuple(ClassOrigin(name, "random") for name in names)
    if transfer == "mean":
        return tuple(ClassOrigin(name, mean) for name in names)
    if tuple(names) == tuple(source_names):  # names that two of them share would be ambiguous
        return tuple(ClassOrigin(name, name, index) for index, name in enumerate(names))
    in_words = [_in_words(name) for name in source_names]
    origins = []
    for name in names:
        found = _find(name, in_words)
        if isinstance(found, int):
            origins.append(ClassOrigin(name, source_names[found], found))
        else:
            origins.append(ClassOrigin(name, mean, reason=found))
    return tuple(origins)


def _in_words(name: str) -> str:
    """A name, with ImageNet's after it if it is a WordNet id."""
    ids = wordnet_ids()
    return f"{name}, {imagenet_classes()[ids.index(name)]}" if name in ids else name


def _find(name: str, source_names: Sequence[str]) -> int | str:
    """The source's class of a name, or why there is none."""
    wanted = normal_name(name).casefold()
    whole = [i for i, own in enumerate(source_names) if normal_name(own).casefold() == wanted]
    if len(whole) == 1:
        return whole[0]
    if re.match(r"\s*-?\d+\s*(\)|$)", name):
        return "a number names no class"
    nothing = "no class of the source is called so"
    if not re.search(r"\w", name):
        return nothing
    for query in dict.fromkeys([name, *_in_words(name).split(", ")]):
        try:
            return resolve_class(query, source_names)
        except InputError:  # several, or none
            continue
    found = search_classes(name, source_names)
    if len(found) == 1:
        return found[0]
    if not found:
        return nothing
    more = f"; and {len(found) - _CHOICES} more" if len(found) > _CHOICES else ""
    listed = "; ".join(source_names[index] for index in found[:_CHOICES])
    return f"it may be any of {listed}{more}"


def _rows(source: Tensor, fresh: Tensor, origins: Sequence[ClassOrigin]) -> Tensor:
    """A table (classes, D): of each class the source's row, the mean of all, or the fresh one."""
    mean = source.double().mean(dim=0).to(source.dtype)
    rows = []
    for origin, random in zip(origins, fresh, strict=True):
        if origin.index is not None:
            rows.append(source[origin.index])
        else:
            rows.append(random if origin.start == "random" else mean)
    return torch.stack(rows)


def _is_unchanged(origins: Sequence[ClassOrigin], num_classes: int) -> bool:
    return [origin.index for origin in origins] == list(range(num_classes))


# --- the weights ---


def initialize(
    generator: Generator,
    discriminator: Discriminator,
    config: TrainConfig,
    class_names: Sequence[str],
    *,
    offline: bool = False,
) -> Report:
    """Give networks the weights that the recipe's `[fine_tuning]` names.

    Statistics per truncation are left behind: the finished model gets its own.

    Args:
        generator: Random weights, on any device; changed in place. A `random` class keeps them.
        discriminator: Likewise.
        config: The recipe, fitted to the sources (`fitted_to_source`) and to the data.
        class_names: The data's classes in order; empty for an unconditional run.
        offline: Never touch the network.

    Returns:
        What became of the sources.

    Raises:
        InputError: A source cannot be read, or is not the one that the recipe was fitted to.
    """
    assert len(class_names) == config.generator.num_classes == config.discriminator.num_classes
    tuning, reports = config.fine_tuning, []
    if tuning.generator:
        loaded = _read_generator(config, offline)
        makes = _trained_generator(config.generator, loaded.generator.config)
        _check_shape("generator", config.generator, makes, tuning.generator)
        transfer = _Transfer(generator, loaded, class_names, tuning.classes)
        _transfer_generator(transfer, generator, loaded.generator)
        reports.append(transfer.report("generator", tuning.generator, tuning.freeze_generator))
    if tuning.discriminator:
        judge = _read_discriminator(config, offline)
        takes = replace(judge.discriminator.config, num_classes=config.discriminator.num_classes)
        _check_shape("discriminator", config.discriminator, takes, tuning.discriminator)
        transfer = _Transfer(discriminator, judge, class_names, tuning.classes)
        _transfer_discriminator(transfer, discriminator, judge.discriminator)
        reports.append(
            transfer.report("discriminator", tuning.discriminator, tuning.freeze_discriminator)
        )
    return Report(tuple(reports))


def _check_shape(network: str, own: _Shape, given: _Shape, name: str) -> None:
    if own != given:
        raise InputError(
            f"fine_tuning.{network} {name} has another shape than the recipe's {network}: the file "
            "has changed, or the recipe was not fitted to it (fitted_to_source)"
        )


class _Transfer:
    """The state of a network on its way from the source's, and the account of it.

    Args:
        network: The network, with random weights.
        loaded: The source.
        class_names: The new classes.
        transfer: What they start as.
    """

    def __init__(
        self,
        network: Generator | Discriminator,
        loaded: LoadedGenerator | LoadedDiscriminator,
        class_names: Sequence[str],
        transfer: ClassTransfer,
    ) -> None:
        self.network = network
        self.loaded = loaded
        self.source = loaded.network.state_dict()
        self.fresh = {name: value.cpu() for name, value in network.state_dict().items()}
        self.state: dict[str, Tensor] = {}
        self.remade: dict[str, str] = {}
        self.stale: list[str] = []
        """Layers whose `u` and `v` are still those of another weight."""
        self.origins: tuple[ClassOrigin, ...] = ()
        num_classes = loaded.network.config.num_classes
        if class_names and num_classes:
            named = loaded.description.class_names or default_class_names(num_classes)
            self.origins = class_origins(class_names, named, transfer)
        self.keeps_classes = len(class_names) == num_classes and _is_unchanged(
            self.origins, num_classes
        )

    def put(self, name: str, value: Tensor, reason: str) -> None:
        """Set a tensor that is not the source's."""
        self.state[name] = value
        self.remade[name] = reason

    def leave(self, names: Sequence[str], reason: str) -> None:
        """Account for tensors that the source alone has."""
        self.remade |= dict.fromkeys(names, reason)

    def put_table(self, name: str, reason: str) -> None:
        """Set a table of one row for each class."""
        self.put(name, _rows(self.source[name], self.fresh[name], self.origins), reason)

    def renormalize(self, layer: str, reason: str) -> None:
        """Have `u` and `v` made anew, from a random direction."""
        for name in ("u", "v"):
            self.put(f"{layer}.{name}", self.fresh[f"{layer}.{name}"], reason)
        self.stale.append(layer)

    def finish(self) -> None:
        """Take all that was not set from the source, and fill the network."""
        for name in self.fresh:
            if name not in self.state:
                self.state[name] = self.source[name]
        self.network.load_state_dict(self.state)
        for name in self.stale:
            layer = self.network.get_submodule(name)
            assert isinstance(layer, SpectralNormEmbedding | SpectralNormLinear)
            layer.iterate_power(_POWER_ITERATIONS)

    def report(self, network: str, source: str, frozen: int) -> NetworkReport:
        moving = {id(parameter) for parameter in trainable(self.network, frozen)}
        return NetworkReport(
            network=network,
            source=source,
            name=self.loaded.description.name,
            sha256=self.loaded.sha256,
            licence=self.loaded.description.licence,
            kept=tuple(name for name in self.state if name not in self.remade),
            remade=self.remade,
            classes=self.origins,
            frozen=tuple(
                name for name, p in self.network.named_parameters() if id(p) not in moving
            ),
        )


def _transfer_generator(transfer: _Transfer, generator: Generator, source: Generator) -> None:
    own, theirs = generator.config, source.config
    for name, value in transfer.fresh.items():
        if name.endswith((".table_mean", ".table_var")):
            transfer.put(name, value, "statistics per truncation, recorded on export")
    if not transfer.keeps_classes:
        _transfer_conditions(transfer, generator)
        reason = _other_classes(own, theirs)
        if own.shared_embedding and not own.num_classes:
            transfer.leave([_TABLE], reason)
        elif own.shared_embedding and not theirs.num_classes:
            transfer.put(_TABLE, transfer.fresh[_TABLE], f"{reason}, random")
        elif own.shared_embedding:
            transfer.put_table(_TABLE, reason)
    transfer.finish()


def _transfer_conditions(transfer: _Transfer, generator: Generator) -> None:
    """The matrices whose columns are the condition's: the noise, then the class."""
    own, theirs = generator.config, transfer.loaded.network.config
    assert isinstance(theirs, GeneratorConfig)
    if own.shared_embedding and own.num_classes and theirs.num_classes:
        return
    reason = _other_classes(own, theirs)
    noise = own.condition_dim - own.embedding_dim
    for layer, module in _condition_layers(generator):
        weight = transfer.source[f"{layer}.weight"]
        is_spectral = isinstance(module, SpectralNormLinear)
        kept = weight[:, :noise]
        if not theirs.num_classes:
            # Columns of zeros: every class starts as what the source makes, exactly, for neither
            # the singular values nor `u` feel them.
            zeros = kept.new_zeros(len(kept), own.embedding_dim)
            transfer.put(
                f"{layer}.weight", torch.cat([kept, zeros], 1), f"{reason}, their columns zero"
            )
            if is_spectral:
                v = transfer.source[f"{layer}.v"]
                transfer.put(
                    f"{layer}.v", torch.cat([v, zeros[0]]), f"{reason}, their columns zero"
                )
            continue
        if own.num_classes:
            fresh = transfer.fresh[f"{layer}.weight"]
            rows = _rows(weight[:, noise:].T, fresh[:, noise:].T, transfer.origins)
            kept = torch.cat([kept, rows.T], 1)
        transfer.put(f"{layer}.weight", kept, reason)
        if is_spectral:
            transfer.renormalize(layer, reason)


def _transfer_discriminator(
    transfer: _Transfer, discriminator: Discriminator, source: Discriminator
) -> None:
    own, theirs = discriminator.config, source.config
    if not transfer.keeps_classes:
        reason = _other_classes(own, theirs)
        names = [f"{_PROJECTION}.{name}" for name in ("weight", "u", "v")]
        if not own.num_classes:
            transfer.leave(names, reason)
        elif not theirs.num_classes:
            for name in names:
                transfer.put(name, transfer.fresh[name], f"{reason}, random")
        else:
            transfer.put_table(names[0], reason)
            transfer.renormalize(_PROJECTION, reason)
    transfer.finish()


def _other_classes(
    own: GeneratorConfig | DiscriminatorConfig, theirs: GeneratorConfig | DiscriminatorConfig
) -> str:
    if not own.num_classes:
        return "no classes, of which the source has some"
    if not theirs.num_classes:
        return "classes, of which the source has none"
    if own.num_classes == theirs.num_classes:
        return f"{own.num_classes} classes, others than the source's or in another order"
    return f"{own.num_classes} classes, not the source's {theirs.num_classes}"


def _condition_layers(generator: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The layers that see a condition, by name."""
    for name, module in generator.named_modules():
        if isinstance(module, ConditionalBatchNorm2d):
            yield f"{name}.gain", module.gain
            yield f"{name}.bias", module.bias
    config = generator.config
    if isinstance(config, GeneratorConfig) and config.family == "biggan-deep":
        linear = generator.get_submodule("linear")
        assert isinstance(linear, SpectralNormLinear)
        yield "linear", linear
