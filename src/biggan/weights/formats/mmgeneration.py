"""mmgeneration and mmagic: BigGAN and BigGAN-deep, trained by them or converted for them.

One file holds the generator, the averaged generator and the discriminator, or some of them, and in
`meta` the configuration of its training as Python text. The tensors say the architecture. The
configuration says what they do not: the order of the colours, whether a ReLU is computed in place,
and the epsilon of spectral normalization. Converted files have no configuration; theirs are RGB,
like the weights that they were made of.

Where this differs from ours: the class comes first in BigGAN's conditions; BigGAN-deep's first
linear layer is viewed as (4, 4, C); spectral norms are stored as by torch, and used as they are
stored, or as by ajbrock; images that its own trainings make and judge are BGR.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from biggan.errors import InputError
from biggan.models import DiscriminatorConfig, GeneratorConfig
from biggan.weights.formats.conversion import (
    Converted,
    ForeignTensors,
    Stored,
    add_converged_vectors,
    noise_first,
    reorder_first_linear,
)

ORIGIN = "mmgeneration"
LICENCE = "not established: the code that they come with is Apache-2.0"

_BN_EPS = 1e-5
_SN_EPS = 1e-6
_NETWORKS = {"generator": ("generator_ema.", "generator."), "discriminator": ("discriminator.",)}
MARKS = tuple(
    prefix + name
    for prefix in ("", *_NETWORKS["generator"], *_NETWORKS["discriminator"])
    for name in ("noise2feat.", "conv_blocks.0.", "decision.")
)
_NAMES = (
    (r".*\.table_(mean|var)$", ""),
    (r"^linear\.", "noise2feat."),
    (r"^class_embedding\.table\.", "shared_embedding."),
    (r"(blocks.*\.bn\d)\.running_", r"\1.bn.running_"),
    (r"\.conv(\d)\.", r".conv\1.conv."),
    (r"\.(shortcut|widening)\.", ".shortcut.conv."),
    (r"^attention\.(theta|phi|g|o)\.", r"attention.\1.conv."),
    (r"^head\.bn\.gain$", "output_layer.bn.weight"),
    (r"^head\.bn\.", "output_layer.bn."),
    (r"^head\.conv\.", "output_layer.conv."),
    (r"^stem\.", "input_conv.conv."),
    (r"^head\.linear\.", "decision."),
    (r"^head\.embedding\.", "proj_y."),
)
_TORCH_NORMS = (
    (r"(?<!embedding)(?<!layer\.bn)\.weight$", ".weight_orig"),
    (r"\.([uv])$", r".weight_\1"),
)
_AJBROCK_NORMS = ((r"\.u$", ".u0"), (r".*\.v$", ""))
_TABLE = (r"(\.bn\d\.(gain|bias))\.weight_orig$", r"\1.weight")
_GAIN = "conv_blocks.0.bn1.gain"
_MOST_CHARACTERS = 1 << 20  # of a configuration


def convert(source: ForeignTensors) -> Converted:
    """Convert the network that is asked for, or another one if it is not there."""
    training = _read_configuration(source)
    source = _one_network(source)
    is_generator = source.has_any("noise2feat.", "output_layer.", "conv_blocks.0.bn1.")
    if source.has_any("conv_blocks.0.bn1.bn.weight"):
        raise InputError(f"{source.path} has BatchNorm without conditions, which is not supported")
    has_torch_norms = any(name.endswith("weight_u") for name in source)
    has_norms = any(name.endswith((".gain.u0", ".bias.u0")) for name in source)
    has_tables = f"{_GAIN}.weight" in source and not has_norms
    names = (
        *_NAMES,
        *(_TORCH_NORMS if has_torch_norms else _AJBROCK_NORMS),
        *((_TABLE,) if has_tables else ()),
    )
    layers = source.listed_layers(names, "conv_blocks.{}.", r"(?:theta|phi|g|o|gamma)\b")
    network = _mapping(
        _mapping(training, "model"), "generator" if is_generator else "discriminator"
    )
    sn_eps = network.get("sn_eps", _SN_EPS)
    config: GeneratorConfig | DiscriminatorConfig
    if is_generator:
        table = "shared_embedding.weight"
        bias = _GAIN.replace("gain", "bias")
        places = (f"{_GAIN}.weight", 2, 0), (f"{bias}.weight", 2, 0)
        config = layers.generator_config(
            deep=source.has_any("conv_blocks.0.conv4."),
            embedding=source.shape(table, 2) if table in source else (),
            tables=source.size(*places) if has_tables else 0,
            bn_eps=_BN_EPS,
            sn_eps=sn_eps,
        )
    else:
        deep, act = source.has_any("input_conv."), network.get("act_cfg")
        # The convolutions of deep blocks compute it in place unless they are told not to.
        in_place = isinstance(act, dict) and bool(act.get("inplace", deep))
        config = layers.discriminator_config(
            deep=deep, sn_eps=sn_eps, relu_before_shortcut=in_place
        )
    is_deep = config.family == "biggan-deep"
    class_first = not is_deep and source.has_any("shared_embedding.")
    source.leave(r".*\.(sv0|num_batches_tracked)")

    def stored(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Stored:
        shape, layer = shapes[name], name.rpartition(".")[0]
        if layer.endswith((".gain", ".bias")) and name.endswith((".weight", ".v")):
            if has_tables:
                return shape[::-1], lambda tensor: tensor.T.contiguous()
            if class_first:
                return shape, lambda tensor: noise_first(tensor, config.class_dim)  # type: ignore[union-attr]
        return shape, None

    tensors = source.take_network(config, layers.foreign_name, stored)
    if is_generator and is_deep:
        reorder_first_linear(tensors)
    if _is_bgr(training):
        _reverse_colours(tensors)
    if not has_torch_norms:
        add_converged_vectors(tensors, sn_eps)
    return Converted(config, tensors)


def _one_network(source: ForeignTensors) -> ForeignTensors:
    """The tensors of one network of a file, without the prefix that tells it from the others."""
    kinds = sorted(_NETWORKS, key=lambda kind: kind != source.kind)
    prefixes = [prefix for kind in kinds for prefix in _NETWORKS[kind]]
    chosen = next((prefix for prefix in prefixes if source.has_any(prefix)), "")
    others = tuple(prefix for prefix in prefixes if prefix != chosen)
    tensors = {
        name.removeprefix(chosen): tensor
        for name, tensor in source.tensors.items()
        if not name.startswith(others)
    }
    return ForeignTensors(tensors, source.path, source.epsilons)


def _reverse_colours(tensors: dict[str, Tensor]) -> None:
    """Make a generator of BGR images one of RGB images, and likewise a discriminator."""
    if "head.conv.weight" in tensors:
        for name in ("weight", "bias", "u"):
            tensors[f"head.conv.{name}"] = tensors[f"head.conv.{name}"].flip(0)
        return
    for layer in ("stem", "blocks.0.conv1", "blocks.0.shortcut"):
        weight = tensors.get(f"{layer}.weight")
        if weight is None or (layer != "stem" and "stem.weight" in tensors):
            continue
        tensors[f"{layer}.weight"] = weight.flip(1)
        if (v := tensors.get(f"{layer}.v")) is not None:
            tensors[f"{layer}.v"] = v.unflatten(0, (weight.shape[1], -1)).flip(0).flatten()


# --- the configuration of a training ---


def _read_configuration(source: ForeignTensors) -> dict[str, Any]:
    """What a file says of its training; empty if nothing. It is parsed, not run."""
    meta = source.beside.get("meta")
    found = [meta.get("config"), meta.get("cfg")] if isinstance(meta, Mapping) else []
    text = next((text for text in found if isinstance(text, str)), "")
    if len(text) > _MOST_CHARACTERS:
        raise InputError(f"{source.path}: the configuration in its meta is too long")
    try:
        statements = ast.parse(text).body
        return {
            target.id: _value(statement.value)
            for statement in statements
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(
            f"{source.path}: the configuration in its meta cannot be read, which says the order of "
            "its colours"
        ) from None


def _value(node: ast.expr) -> Any:
    """The value of an expression of constants, lists and dicts; None for any other."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {str(key.value): _value(v) for key, v in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg}
    return None


def _mapping(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, dict) else {}


def _is_bgr(training: Mapping[str, Any]) -> bool:
    """Whether a network makes or judges BGR images.

    Its readers of files give BGR, its data sets of arrays RGB; `to_rgb` exchanges the two.
    """
    if not training or _mapping(_mapping(training, "model"), "generator").get("rgb2bgr") is True:
        return False
    pipeline = training.get("train_pipeline")
    if not isinstance(pipeline, list):
        return True
    steps = [step for step in pipeline if isinstance(step, dict)]
    reads_files = any(step.get("type") == "LoadImageFromFile" for step in steps)
    return reads_files != any(step.get("to_rgb") is True for step in steps)
