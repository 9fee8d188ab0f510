"""The generator as an instrument: class vectors, conditions per layer, activations, gradients.

Every BatchNorm of a generator sees noise and class, and each layer may be given its own. In the
shapes below L is the number of layers that take a condition: the linear one, then the blocks.

The functions are methods of `biggan.Gan`. All but `differentiable` run on the model's engine, in
batches, without gradients, and return float32 on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biggan.errors import InputError, quoted
from biggan.inference import Precision
from biggan.inference.convolution import FrozenConv2d, MakeConvolution
from biggan.inference.folded import FoldedGenerator
from biggan.latents import check_truncation
from biggan.sampling import Inputs, as_numbers, check_inputs, generate_batches, in_batches

if TYPE_CHECKING:
    from biggan.directions import Directions
    from biggan.gan import Gan

Labels = Tensor | NDArray[np.number] | Sequence[str | int] | str | int
Values = Tensor | NDArray[np.floating]


def layers(gan: Gan) -> tuple[str, ...]:
    """Names of the layers of `features` and `generate_from`, in the order in which they run."""
    return tuple(gan.engine.folded.layers)


def conditions(gan: Gan) -> int:
    """L, the number of layers that take noise and class: the linear one and the blocks."""
    return gan.engine.folded.conditions


def embed(gan: Gan, labels: Labels) -> Tensor:
    """Class vectors for classes.

    Args:
        labels: A name or an index, or N of them; or class weights (N, num_classes), to mix
            classes.

    Returns:
        (N, class_dim); for a model without a shared embedding the class weights themselves.

    Raises:
        InputError: The model has no such class, or no classes.
    """
    if not gan.class_names:
        raise InputError(f"{gan.name} is unconditional: it has no class vectors")
    labels = as_numbers(_numbered(gan, labels), "labels")
    if labels.ndim == 0:
        raise InputError(
            "labels must be names or indices, or rows of class weights, not one number"
        )
    z = torch.zeros(len(labels), gan.config.z_dim, device="cpu")
    inputs = check_inputs(gan.engine, z, labels)
    # A copy, which gradients may be asked of: the engine's own are of inference mode.
    return inputs.batch(gan.engine, slice(None))[1].cpu().clone()


def generate(
    gan: Gan,
    z: Values,
    labels: Labels | None = None,
    truncation: float | None = None,
    *,
    class_vectors: Values | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Make images from noise and labels, or class vectors, of your own.

    Args:
        z: (N, z_dim), or (N, L, z_dim), for each layer its own; used as given: scale or cut it
            yourself.
        labels: int64 (N,), or N names; or class weights (N, num_classes), to mix classes.
        truncation: Chooses the BatchNorm statistics only, those of hub noise at this value;
            None for those of untruncated noise.
        class_vectors: Instead of labels: (N, class_dim), or (N, L, class_dim).
        batch_size: Images at once; None for what suits the device.

    Returns:
        (N, image_channels, resolution, resolution) in [-1, 1].

    Raises:
        InputError: Shapes that do not fit the model or each other; labels or truncation out of
            range.
    """
    check_truncation(truncation)
    made = generate_batches(
        gan.engine,
        _numbered(gan, labels),
        z,
        truncation,
        batch_size,
        class_vectors=class_vectors,
    )
    shape = 0, gan.config.image_channels, *[gan.config.resolution] * 2
    # Torch's defaults may be others.
    empty = torch.empty(shape, dtype=torch.float32, device="cpu")
    return torch.cat([empty, *(batch.images.cpu() for batch in made)])


def edit(
    gan: Gan,
    z: Values,
    directions: Directions,
    amounts: Mapping[int | str, float],
    labels: Labels | None = None,
    truncation: float | None = None,
    *,
    class_vectors: Values | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Make images from noise moved along directions of `biggan.directions`.

    For the `amounts` see `Directions.apply`, for the other arguments `generate`.

    Raises:
        InputError: Directions of another model, or an unknown one; as `generate`.
    """
    from biggan.directions import Directions

    if not isinstance(directions, Directions):
        raise InputError(
            "directions must be what find_directions or load_directions of biggan.directions "
            f"returns, not {quoted(directions)}"
        )
    directions.check_model(gan)
    moved = directions.apply(z, amounts)
    return generate(
        gan, moved, labels, truncation, class_vectors=class_vectors, batch_size=batch_size
    )


def features(
    gan: Gan,
    z: Values,
    labels: Labels | None = None,
    truncation: float | None = None,
    *,
    layers: str | Iterable[str],
    class_vectors: Values | None = None,
    batch_size: int | None = None,
) -> dict[str, Tensor]:
    """What some `layers` make on the way to the images; for the arguments see `generate`.

    Returns:
        For each layer (N, C, H, W).

    Raises:
        InputError: There is no such layer; the engine keeps no layers; as `generate`.
    """
    names, inputs = _layer_inputs(gan, layers, z, labels, truncation, class_vectors)
    engine = gan.engine

    def make(rows: slice) -> dict[str, Tensor]:
        activations = partial(engine.folded.activations, names)
        made = engine.run(activations, *inputs.batch(engine, rows), truncation)
        return {name: activation.float().cpu() for name, activation in made.items()}

    parts = [made for _, made in in_batches(engine, len(inputs.noise), batch_size, make)]
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def generate_from(
    gan: Gan,
    activation: Tensor,
    layer: str,
    z: Values,
    labels: Labels | None = None,
    truncation: float | None = None,
    *,
    class_vectors: Values | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Run the network from behind a `layer` on, with an activation of your own.

    The activation of `features`, unchanged, gives the images of `generate`; for the other
    arguments see there. The activation is (N, C, H, W), C the layer's number of channels. More
    pixels than the layer makes give a larger image: two grids of the linear layer side by side
    give a wide one. Attention then compares more positions than in training.

    Raises:
        InputError: There is no such layer, or the activation has another shape; as `features`.
    """
    [layer], inputs = _layer_inputs(gan, [layer], z, labels, truncation, class_vectors)
    engine = gan.engine
    activation = as_numbers(activation, "the activation")
    shape = len(inputs.noise), engine.folded.layers[layer]
    if activation.ndim != 4 or activation.shape[:2] != shape or activation.numel() == 0:
        raise InputError(
            f"{layer} makes ({shape[0]}, {shape[1]}, H, W), not {tuple(activation.shape)}"
        )

    def make(rows: slice) -> Tensor:
        start = activation[rows].to(engine.device, torch.float32)
        render = partial(engine.folded.render_from, layer, start)
        return engine.run(render, *inputs.batch(engine, rows), truncation).cpu()

    made = in_batches(engine, len(inputs.noise), batch_size, make)
    return torch.cat([images for _, images in made])


def differentiable(
    gan: Gan, *, padding: Literal["zeros", "circular"] = "zeros", precision: Precision = "float32"
) -> FoldedGenerator:
    """The folded generator, for gradients of noise, class vectors and activations.

    Its weights are frozen: those of `generator` at the time of the call. On a CPU both passes
    use packed convolutions, except in float64. All operations have second derivatives.

    Args:
        padding: What lies around the activations: "zeros" as trained, or "circular", the
            opposite border, for images that can be tiled.
        precision: Of the convolutions and their gradients: "float32", that of the generator;
            faster are "bfloat16" on GPUs and many CPUs, and "float16" on GPUs.

    Returns:
        `network(z, labels, truncation)` and `network.synthesize(z, class_vectors, truncation)`
        give images on the model's device. For float64 convert the generator before the call.
    """
    from biggan.inference.differentiable import differentiable_conv2d
    from biggan.inference.engine import check_precision

    check_precision(precision, next(gan.generator.parameters()).device)
    dtype = getattr(torch, precision)
    forms: dict[str, MakeConvolution] = {
        "zeros": partial(differentiable_conv2d, dtype=dtype),
        "circular": partial(FrozenConv2d, circular=True),
    }
    if padding not in forms:
        raise InputError(f"the padding must be zeros or circular, not {quoted(padding)}")
    network = FoldedGenerator(gan.generator, forms[padding]).eval()
    if precision != "float32":
        network.convolve_in(dtype)
    return network


def _numbered(gan: Gan, labels: Labels | None) -> Any:
    """The same labels, with indices instead of names."""
    if isinstance(labels, str | int) or getattr(labels, "ndim", None) == 0:
        labels = [cast(int, labels)]
    if isinstance(labels, Sequence) and any(isinstance(label, str) for label in labels):
        return [gan.class_index(label) for label in labels]
    return labels


def _layer_inputs(
    gan: Gan,
    layers: str | Iterable[str],
    z: Values,
    labels: Labels | None,
    truncation: float | None,
    class_vectors: Values | None,
) -> tuple[list[str], Inputs]:
    """The layers and inputs of what runs up to them, or behind one; at least one row."""
    check_truncation(truncation)
    if not gan.engine.folded.layers:
        raise InputError(
            f"the {gan.engine.name} engine keeps no layers: load the model with engine='pytorch'"
        )
    names = gan.engine.folded.chosen_layers(layers)
    inputs = check_inputs(gan.engine, z, _numbered(gan, labels), class_vectors)
    if len(inputs.noise) == 0:
        raise InputError("give at least one row of noise")
    return names, inputs
