"""The shapes of a run that starts from loaded weights are those of its sources."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from biggan.errors import InputError
from biggan.fine_tuning.freezing import check_depth
from biggan.models import PRESETS, DiscriminatorConfig, GeneratorConfig, get_preset

_Recipe = TypeVar("_Recipe")  # a TrainConfig, which is built from what is here
_Shape = TypeVar("_Shape", bound=GeneratorConfig | DiscriminatorConfig)
_NETWORKS = ("generator", "discriminator")


def load_source(network: str, source: str) -> Any:
    """The loaded network of a source; see `weights.load`."""
    from biggan.weights.load import load_discriminator, load_generator

    return load_generator(source) if network == "generator" else load_discriminator(source)


def fitted_to_source(recipe: _Recipe, saved: _Recipe | None = None) -> _Recipe:
    """A `TrainConfig` with the sources' shapes, but for the number of classes.

    To be called before the data is loaded, which is decoded at the source's resolution. A network
    that starts from random weights keeps its shape, with the other one's number of image channels.
    If the run has a checkpoint, the shapes are those of its recipe, `saved`: the sources may be
    gone by then.

    Raises:
        InputError: A source cannot be read; the recipe or the other source has another shape; or
            more is to be frozen than there is.
    """
    config: Any = recipe
    tuning, preset = config.fine_tuning, get_preset(config.preset)
    shapes: dict[str, Any] = {}
    for network in _NETWORKS:
        own, default = getattr(config, network), getattr(preset, network)
        shapes[network] = own
        if not (source := getattr(tuning, network)):
            continue
        if saved is None:
            given = source_shape(load_source(network, source).network.config, own)
        else:
            given = replace(getattr(saved, network), num_classes=own.num_classes)
        for field in fields(own):
            asked, value = getattr(own, field.name), getattr(given, field.name)
            if asked not in (value, getattr(default, field.name)):
                asked, value = (list(v) if isinstance(v, tuple) else v for v in (asked, value))
                raise InputError(
                    f"the recipe has {network}.{field.name} = {asked}, but fine_tuning.{network} "
                    f"{source} has {value}: omit it, the shape is the source's"
                )
        shapes[network] = given
    if tuning.sources:
        for network, other in (_NETWORKS, _NETWORKS[::-1]):
            own, default = shapes[network], getattr(preset, network)
            if not getattr(tuning, network) and own.image_channels == default.image_channels:
                channels = shapes[other].image_channels
                shapes[network] = replace(own, image_channels=channels)
        _check_agreement(config, **shapes)
    check_depth(shapes["generator"], tuning.freeze_generator)
    check_depth(shapes["discriminator"], tuning.freeze_discriminator)
    return replace(config, **shapes)


def source_shape(source: _Shape, own: _Shape) -> _Shape:
    """The source's shape, with what the recipe or the training decides."""
    shape: Any = replace(source, num_classes=own.num_classes)
    if isinstance(own, GeneratorConfig):
        # `hub` is a way to read the published tables, and training records tables of its own.
        shape = replace(shape, off_grid="linear")
        if source.num_classes == 0:  # then it does not say how classes would enter
            shape = replace(shape, class_dim=own.class_dim, shared_embedding=own.shared_embedding)
    return shape


def _check_agreement(
    config: Any, generator: GeneratorConfig, discriminator: DiscriminatorConfig
) -> None:
    """The generator can use classes or do without, and the discriminator takes its images."""
    tuning = config.fine_tuning
    if config.unconditional and generator.condition_dim == generator.embedding_dim:
        raise InputError(
            f"fine_tuning.generator {tuning.generator} cannot be trained without classes, because "
            "its layers have no other condition. Leave out unconditional"
        )
    maker, taker = (
        f"fine_tuning.{network} {tuning.sources[network]}"
        if network in tuning.sources
        else f"the recipe's {network} (preset {config.preset})"
        for network in _NETWORKS
    )
    makes, takes = generator.resolution, discriminator.resolution
    if makes != takes:
        resolution = makes if tuning.generator else takes
        fitting = [n for n, preset in PRESETS.items() if preset.generator.resolution == resolution]
        missing = "discriminator" if tuning.generator else "generator"
        way_out = f"give a fine_tuning.{missing} as well"
        if fitting:
            way_out = f"choose a preset of {resolution} px ({', '.join(fitting)}), or {way_out}"
        if len(tuning.sources) == 2:
            way_out = "fine-tune a pair that was trained together"
        raise InputError(
            f"{maker} generates images of {makes} px, {taker} needs {takes} px: {way_out}"
        )
    makes, takes = generator.image_channels, discriminator.image_channels
    if makes != takes:
        raise InputError(
            f"{maker} generates images of {makes} channels, {taker} needs {takes}: leave "
            "image_channels out of the recipe, and fine-tune a pair that was trained together"
        )
