"""PyTorch-StudioGAN: `model=G_ema-best-weights-step=*.pth`, and likewise G and D.

BigGAN (its `big_resnet`), BigGAN-deep (`big_resnet_deep_legacy`) and SA-GAN (`resnet`), of any
size. The tensors say all but the epsilons, which are fixed, and, of a discriminator, which blocks
halve the resolution.

Where this differs from ours: the class comes first in every condition; the ReLU is computed in
place, so that a discriminator's shortcuts get ReLU(x); its evaluation goes on with the power
iteration, so that the norms are those of the weights, whatever the file says; SA-GAN's tables of
gains and biases have spectral norms, which are divided out here.

The generators of its other GANs with these networks (ContraGAN, ReACGAN, BigGAN with ADA, ...) are
the same; their discriminators are so only with a projection head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.models import DiscriminatorConfig, GeneratorConfig
from biggan.weights.formats.conversion import (
    Converted,
    ForeignTensors,
    Layers,
    Stored,
    add_leading_vectors,
    noise_first,
)

ORIGIN = "PyTorch-StudioGAN"
LICENCE = "not established: the code that they come with is MIT"
MARKS = ("linear0.", "linear1.", "blocks.0.0.conv2d1.")

_BN_EPS = 1e-4
_SN_EPS = 1e-6
_NAMES = (
    (r".*\.table_(mean|var)$", ""),
    (r"(?<!table)\.weight$", ".weight_orig"),
    (r"\.([uv])$", r".weight_\1"),
    (r"^linear\.", "linear0."),
    (r"^class_embedding\.table\.", "shared."),
    (r"(blocks.*\.bn\d)\.running_", r"\1.bn.running_"),
    (r"\.conv(\d)\.", r".conv2d\1."),
    (r"\.(shortcut|widening)\.", ".conv2d0."),
    (r"^attention\.gamma$", "attention.sigma"),
    (r"^attention\.(theta|phi|g)\.", r"attention.conv1x1_\1."),
    (r"^attention\.o\.", "attention.conv1x1_attn."),
    (r"^head\.bn\.gain$", "bn4.weight"),
    (r"^head\.bn\.", "bn4."),
    (r"^head\.conv\.", "conv2d5."),
    (r"^stem\.", "input_conv."),
    (r"^head\.linear\.", "linear1."),
    (r"^head\.embedding\.", "embedding."),
)
# Beginnings of names that only other networks have.
_OTHERS = {
    r"info_": "InfoGAN's layers",
    r"linear_mi\.": "TAC-GAN's second classifier",
    r"linear2\.": "a head that classifies or embeds (AC-GAN, ContraGAN, ReACGAN, ...)",
    r"blocks\.0\.0\.(deconv0|conv1)\.": "the deep_conv backbone (DCGAN)",
    r"linear[01]\.weight$": "layers without spectral normalization",
    r"blocks\.0\.0\.bn1\.weight$": "BatchNorm without conditions (unconditional SNGAN or SAGAN)",
}


def convert(source: ForeignTensors) -> Converted:
    """Convert a generator or a discriminator."""
    is_generator = source.has_any("linear0.", "conv2d5.")
    for beginning, what in _OTHERS.items():
        if any(re.match(beginning, name) for name in source):
            raise _unsupported(source, what)
    layers = source.listed_layers(_NAMES, "blocks.{}.0.", "(?:conv1x1_|sigma$)")
    find_config = _generator_config if is_generator else _discriminator_config
    config = find_config(layers)
    is_deep = config.family == "biggan-deep"
    source.leave(r".*\.num_batches_tracked")
    tables: dict[str, tuple[Tensor, Tensor]] = {}  # vectors of their spectral norms

    def stored(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Stored:
        shape, layer = shapes[name], name.rpartition(".")[0]
        if layer.endswith((".gain", ".bias")) or (layer == "linear" and is_deep):
            if f"{layer}.u" not in shapes:
                u, v = (layers.foreign_name(f"{layer}.{vector}") for vector in "uv")
                tables[name] = source.take(u, shape[0]), source.take(v, shape[1])
            elif source.has_any("shared.") and name.endswith((".weight", ".v")):
                return shape, lambda tensor: noise_first(tensor, config.class_dim)  # type: ignore[union-attr]
        return shape, None

    tensors = source.take_network(config, layers.foreign_name, stored)
    add_leading_vectors(tensors)
    for name, (u, _) in tables.items():
        layer = {".weight": tensors[name], ".u": u}
        add_leading_vectors(layer)
        sigma = torch.dot(layer[".u"], tensors[name] @ layer[".v"])
        tensors[name] = tensors[name] / (sigma + (sigma == 0))
    return Converted(config, tensors)


def _generator_config(layers: Layers) -> GeneratorConfig:
    source = layers.source
    if source.has_any("blocks.0.0.conv2d4.") and source.has_any("blocks.0.0.conv2d0."):
        raise _unsupported(source, "the big_resnet_deep_studiogan backbone")
    condition = layers.inputs("blocks.0.bn1.gain", "blocks.0.bn1.bias", axes=2)
    inputs = source.size(("linear0.weight_orig", 2, 1), ("linear0.weight_v", 1, 0))
    is_shared = "shared.weight" in source
    return layers.generator_config(
        deep=source.has_any("blocks.0.0.conv2d4."),
        embedding=source.shape("shared.weight", 2) if is_shared else (),
        tables=0 if is_shared or condition == inputs else condition,
        bn_eps=_BN_EPS,
        sn_eps=_SN_EPS,
    )


def _discriminator_config(layers: Layers) -> DiscriminatorConfig:
    source = layers.source
    outputs = layers.outputs("head.linear", 2)
    if outputs != 1:
        raise _unsupported(source, f"a head of {outputs} outputs (one for each class)")
    deep = source.has_any("input_conv.")
    config = layers.discriminator_config(deep=deep, sn_eps=_SN_EPS, relu_before_shortcut=True)
    for block in range(layers.blocks) if deep else ():
        shortcut = layers.foreign_name(f"blocks.{block}.widening.weight")
        last = layers.outputs(f"blocks.{block}.conv4")
        if shortcut in source and len(source.tensors[shortcut]) == last:
            raise _unsupported(source, "the big_resnet_deep_studiogan backbone")
    return config


def _unsupported(source: ForeignTensors, what: str) -> InputError:
    return InputError(f"{source.path} is a network of StudioGAN with {what}: not supported")
