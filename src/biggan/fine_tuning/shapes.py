"""The shapes of a run that starts from loaded weights are those of its sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from biggan.errors import require
from biggan.fine_tuning.freezing import check_depth
from biggan.models import PRESETS, DiscriminatorConfig, GeneratorConfig, get_preset

_Recipe = TypeVar("_Recipe")  # a TrainConfig, which is built from what is here
_Shape = TypeVar("_Shape", bound=GeneratorConfig | DiscriminatorConfig)


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
    from biggan.weights.load import load_network

    config: Any = recipe
    tuning, preset = config.fine_tuning, get_preset(config.preset)
    shapes: dict[str, Any] = {"generator": config.generator, "discriminator": config.discriminator}
    for network, source in tuning.sources.items():
        own, default = shapes[network], getattr(preset, network)
        if saved is None:
            given = source_shape(load_network(source, network).network.config, own)
        else:
            given = replace(getattr(saved, network), num_classes=own.num_classes)
        for key, asked in own.to_dict().items():
            value = given.to_dict()[key]
            require(
                asked in (value, default.to_dict()[key]),
                f"the recipe has {network}.{key} = {asked}, but fine_tuning.{network} {source} "
                f"has {value}: set it to the source's with --set, or remove it from the recipe",
            )
        shapes[network] = given
    if len(tuning.sources) == 1:  # the other network follows the channels of the images
        (loaded,) = tuning.sources
        (random,) = shapes.keys() - {loaded}
        if shapes[random].image_channels == getattr(preset, random).image_channels:
            channels = shapes[loaded].image_channels
            shapes[random] = replace(shapes[random], image_channels=channels)
    if tuning.sources:
        _check_agreement(config, shapes)
    for network, shape in shapes.items():
        check_depth(shape, getattr(tuning, f"freeze_{network}"))
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


def _check_agreement(config: Any, shapes: Mapping[str, Any]) -> None:
    """The generator can use classes or do without, and the discriminator takes its images."""
    sources, generator = config.fine_tuning.sources, shapes["generator"]
    require(
        not config.unconditional or generator.condition_dim > generator.embedding_dim,
        f"fine_tuning.generator {sources.get('generator')} cannot be trained without classes, "
        "because its layers have no other condition. Leave out unconditional",
    )
    maker, taker = (
        f"fine_tuning.{network} {sources[network]}"
        if network in sources
        else f"the recipe's {network} (preset {config.preset})"
        for network in shapes
    )
    pair = "fine-tune a pair that was trained together"
    advice = {"px": pair, "channels": f"leave image_channels out of the recipe, and {pair}"}
    if random := [network for network in shapes if network not in sources]:
        (loaded,) = sources
        size, advice["px"] = shapes[loaded].resolution, f"give a fine_tuning.{random[0]} as well"
        fitting = [n for n, preset in PRESETS.items() if preset.generator.resolution == size]
        if fitting:
            advice["px"] = f"choose a preset of {size} px ({', '.join(fitting)}), or {advice['px']}"
    for key, unit in (("resolution", "px"), ("image_channels", "channels")):
        makes, takes = (getattr(shape, key) for shape in shapes.values())
        require(
            makes == takes,
            f"{maker} generates images of {makes} {unit}, {taker} needs {takes}: {advice[unit]}",
        )
