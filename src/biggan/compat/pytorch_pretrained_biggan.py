"""The public names of pytorch_pretrained_biggan 0.1.1, on this package's networks.

    from biggan.compat.pytorch_pretrained_biggan import BigGAN, one_hot_from_names, ...

Programs run unchanged but for the import. What differs, on purpose:

- Weights are frozen, and images come from the folded generator, with gradients to noise and class
  vector. After `model.requires_grad_()`, or where a part of the generator has a hook, another
  `forward` or was replaced, the parts run one by one.
- BatchNorm never takes the statistics of a batch, in training mode neither.
- Five truncations (0.14, 0.28, 0.56, 0.58, 0.94) and all between two rows of the table take the
  statistics that they name. `from_pretrained(..., port_statistics=True)` takes the rows that the
  package took.
- Loading is strict: a missing or unexpected tensor is an error that names it.
- `one_hot_from_names` knows ImageNet's own names and searches in them; it needs neither NLTK nor
  WordNet, and knows no hypernyms.
- `display_in_terminal` needs a terminal with 24-bit colours, and no libsixel.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from biggan.classes import imagenet_classes, resolve_class, search_classes
from biggan.errors import InputError
from biggan.images import to_pil, to_uint8
from biggan.inference.differentiable import differentiable_conv2d
from biggan.inference.engine import Engine
from biggan.inference.folded import FoldedGenerator, check_number
from biggan.latents import truncated_normal
from biggan.models import GeneratorConfig, build_generator
from biggan.models.biggan_deep import BigGANDeepGenerator
from biggan.nn import SelfAttention2d, StandingBatchNorm2d

SelfAttn = SelfAttention2d

_LOG = logging.getLogger("biggan.compat")

PYTORCH_PRETRAINED_BIGGAN_CACHE = os.environ.get("PYTORCH_PRETRAINED_BIGGAN_CACHE")
"""A folder for downloads; None for this package's cache."""

_TWO_PIXELS = "\x1b[38;2;{};{};{};48;2;{};{};{}m\u2580"  # upper half block: two pixels a character
_WIDTH = 64  # characters, at most


@dataclass(repr=False, eq=False)
class BigGANConfig:
    """The shape of a BigGAN-deep generator; the defaults are those of the 128 px model.

    `layers` are (doubles the resolution, input channels, output channels), in `channel_width`.
    """

    output_dim: int = 128
    z_dim: int = 128
    class_embed_dim: int = 128
    channel_width: int = 128
    num_classes: int = 1000
    layers: Any = None
    attention_layer_position: int = 8
    eps: float = 1e-4
    n_stats: int = 51

    def __post_init__(self) -> None:
        self.layers = self.layers or _layers((16, 16, 8, 4, 2, 1))

    @classmethod
    def from_dict(cls, json_object: dict[str, Any]) -> BigGANConfig:
        """The defaults with some values replaced."""
        config = cls()
        vars(config).update(json_object)
        return config

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> BigGANConfig:
        """The values of a JSON file."""
        return cls.from_dict(json.loads(Path(json_file).read_text(encoding="utf-8-sig")))

    def to_dict(self) -> dict[str, Any]:
        """All values, by name."""
        return copy.deepcopy(vars(self))

    def to_json_string(self) -> str:
        """All values as JSON."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def __repr__(self) -> str:
        return self.to_json_string()


def _layers(widths: Sequence[int]) -> list[tuple[bool, int, int]]:
    return [
        layer
        for before, after in pairwise(widths)
        for layer in ((False, before, before), (True, before, after))
    ]


class GenBlock(nn.Module):
    """A block: `layer(x, cond_vector, truncation)`."""

    def __init__(self, block: nn.Module, rows: int) -> None:
        super().__init__()
        self.block = block
        self._rows = rows

    def forward(self, x: Tensor, cond_vector: Tensor, truncation: float) -> Tensor:
        """Map (N, C, H, W) to the block's output."""
        x = x.contiguous(memory_format=torch.channels_last)
        return self.block(x, cond_vector, _row(truncation, self._rows))


class BigGANBatchNorm(nn.Module):
    """The last BatchNorm: `bn(x, truncation)`."""

    def __init__(self, norm: nn.Module, rows: int) -> None:
        super().__init__()
        self.norm = norm
        self._rows = rows

    def forward(self, x: Tensor, truncation: float, condition_vector: None = None) -> Tensor:  # noqa: ARG002
        """Normalize x (N, C, H, W)."""
        return self.norm(x, _row(truncation, self._rows))


class _FirstLinear(nn.Module):
    """The first layer, its output in the order of TensorFlow: height, width, channels."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, cond_vector: Tensor) -> Tensor:
        return self.linear(cond_vector).unflatten(1, (-1, 16)).transpose(1, 2).flatten(1)


class Generator(nn.Module):
    """The network behind the class embedding.

    Attributes:
        gen_z, layers, bn, relu, conv_to_rgb, tanh: Its parts, for programs that run them one by
            one: `gen_z` makes (N, 4 * 4 * C), which is viewed as (N, 4, 4, C).
    """

    def __init__(
        self, config: BigGANConfig, network: BigGANDeepGenerator, port_statistics: bool
    ) -> None:
        super().__init__()
        self.config = config
        self._rows = config.n_stats if port_statistics else 0
        self.gen_z = _FirstLinear(network.linear)
        layers: list[nn.Module] = []
        for i, block in enumerate(network.blocks):
            if i == config.attention_layer_position and not isinstance(
                network.attention, nn.Identity
            ):
                layers.append(network.attention)
            layers.append(GenBlock(block, self._rows))
        self.layers = nn.ModuleList(layers)
        self.bn = BigGANBatchNorm(network.head.bn, self._rows)
        self.relu = nn.ReLU()
        self.conv_to_rgb = network.head.conv
        self.tanh = nn.Tanh()
        self._network = [network]  # in a list: its parts are registered above
        self._parts = [*self.modules()]
        self._folded: tuple[object, FoldedGenerator | Engine] | None = None

    def forward(self, cond_vector: Tensor, truncation: float) -> Tensor:
        """Make images from noise and class vector, (N, z_dim + class_embed_dim)."""
        learns = torch.is_grad_enabled()
        if (learns and any(p.requires_grad for p in self.parameters())) or self._is_changed():
            return self._run_parts(cond_vector, truncation)
        config = self._network[0].config
        z, vectors = cond_vector.split([config.z_dim, config.class_dim], dim=1)
        row = _row(truncation, self._rows)
        return self._fold(differentiates=learns).synthesize(z, vectors, row)

    def train(self, mode: bool = True) -> Generator:
        """Set the mode of this module; the statistics stay those of the truncation, always."""
        super().train(mode)
        self._network[0].eval()
        return self

    def _is_changed(self) -> bool:
        """Whether a part has a hook or a method of the caller's, or is a module of the caller's.

        The folded network knows nothing of it. The copies of `DataParallel` are such modules, too.
        """
        return [*self.modules()] != self._parts or any(
            part._forward_hooks
            or part._forward_pre_hooks
            or part._backward_hooks
            or part._backward_pre_hooks
            or "forward" in vars(part)
            for part in self._parts
        )

    def _run_parts(self, cond_vector: Tensor, truncation: float) -> Tensor:
        x = self.gen_z(cond_vector).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)
        for layer in self.layers:
            x = layer(x, cond_vector, truncation) if isinstance(layer, GenBlock) else layer(x)
        x = self.relu(self.bn(x, truncation))
        return self.tanh(self.conv_to_rgb(x)[:, :3])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_folded": None}  # an engine cannot be copied

    def _fold(self, *, differentiates: bool) -> FoldedGenerator | Engine:
        """The network, folded anew where its weights have changed."""
        network = self._network[0]
        tensors = (*network.parameters(), *network.buffers())
        state = (differentiates, *((t.data_ptr(), t._version, t.dtype) for t in tensors))
        if self._folded is None or self._folded[0] != state:
            folded: FoldedGenerator | Engine
            if differentiates or next(network.parameters()).dtype != torch.float32:
                folded = FoldedGenerator(network, differentiable_conv2d)
            else:
                folded = Engine(network)
            self._folded = state, folded
        return self._folded[1]


class BigGAN(nn.Module):
    """DeepMind's BigGAN-deep: `model(z, class_label, truncation)`, class labels as one-hot vectors.

    Args:
        config: The shape; the weights are random.
        network: The network to take instead of one with random weights.
        port_statistics: Whether the truncation takes the rows of statistics that the package took.
    """

    def __init__(
        self,
        config: BigGANConfig,
        network: BigGANDeepGenerator | None = None,
        *,
        port_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        network = _random_network(config) if network is None else network
        network.eval().requires_grad_(False)
        table = network.class_embedding.table
        assert table is not None
        self.embeddings = nn.Linear(config.num_classes, config.class_embed_dim, bias=False)
        self.embeddings.weight = nn.Parameter(table.weight.T.contiguous(), requires_grad=False)
        # Not a part of the generator below: it would stay behind where that is moved or converted.
        network.class_embedding = nn.Identity()  # type: ignore[assignment]
        self.generator = Generator(config, network, port_statistics)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        cache_dir: str | Path | None = None,
        *,
        port_statistics: bool = False,
    ) -> BigGAN:
        """Load "biggan-deep-128", "-256" or "-512", or a folder with `pytorch_model.bin`.

        Every format of `biggan.load` is taken, as long as the network is a BigGAN-deep.

        Raises:
            InputError: Nothing loadable is there, or another network.
        """
        from biggan.weights.load import load_network

        with _cache(cache_dir):
            network = load_network(str(pretrained_model_name_or_path)).network
        if not isinstance(network, BigGANDeepGenerator) or network.config.num_classes == 0:
            raise InputError(
                f"{pretrained_model_name_or_path} is no class-conditional BigGAN-deep: load it "
                "with biggan.load"
            )
        return cls(_config_of(network), network, port_statistics=port_statistics)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state of this class, or of the package's: `torch.load("pytorch_model.bin")`.

        Raises:
            InputError: The package's tensors are not all there, or are of another network.
        """
        if "generator.gen_z.weight_orig" not in state_dict:
            return super().load_state_dict(state_dict, strict, assign)
        from biggan.weights.formats import huggingface
        from biggan.weights.formats.conversion import ForeignTensors

        source = ForeignTensors(state_dict, Path("state_dict", "pytorch_model.bin"))
        tensors = {**huggingface.convert(source).tensors}
        with torch.no_grad():
            self.embeddings.weight.copy_(tensors.pop("class_embedding.table.weight").T)
        return self.generator._network[0].load_state_dict(tensors)

    def forward(self, z: Tensor, class_label: Tensor, truncation: float) -> Tensor:
        """Make images (N, 3, R, R) in [-1, 1].

        Args:
            z: Noise (N, z_dim), truncated by the caller.
            class_label: Class weights (N, num_classes).
            truncation: In (0, 1]; chooses the BatchNorm statistics.

        Raises:
            InputError: Noise or class weights that are no tensors of these shapes.
        """
        assert 0 < truncation <= 1
        _check_rows("z", z, self.config.z_dim)
        if isinstance(self.embeddings, nn.Linear):  # a program may replace it
            _check_rows("class_label", class_label, self.embeddings.in_features)
            check_number("class_label", len(class_label), len(z))
        condition = torch.cat((z, self.embeddings(class_label)), dim=1)
        return self.generator(condition, truncation)


def _check_rows(what: str, rows: object, width: int) -> None:
    if isinstance(rows, Tensor) and rows.ndim == 2 and rows.shape[1] == width:
        return
    given = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
    raise InputError(
        f"{what} must be a tensor (N, {width}), not {given}: one_hot_from_int and "
        "truncated_noise_sample make arrays, and torch.from_numpy makes tensors of them"
    )


def _random_network(config: BigGANConfig) -> BigGANDeepGenerator:
    widths = [config.layers[0][1], *(layer[2] for layer in config.layers if layer[0])]
    shape = GeneratorConfig(
        family="biggan-deep",
        resolution=config.output_dim,
        channels=config.channel_width,
        widths=tuple(widths),
        z_dim=config.z_dim,
        class_dim=config.class_embed_dim,
        num_classes=config.num_classes,
        attention_resolution=4 * 2 ** (config.attention_layer_position // 2),
        rgb_channels=config.channel_width * widths[-1],
        bn_eps=config.eps,
        sn_eps=config.eps,
    )
    network = cast(BigGANDeepGenerator, build_generator(shape))
    grid = [round(i / (config.n_stats - 1), 6) for i in range(config.n_stats)]
    for module in network.modules():
        if isinstance(module, StandingBatchNorm2d):
            module.set_grid(grid)
    return network


def _config_of(network: BigGANDeepGenerator) -> BigGANConfig:
    shape = network.config
    unit = shape.channels * min(shape.widths)
    widths = [shape.channels * width // unit for width in shape.widths]
    places = [2 * (i + 1) for i, r in enumerate(shape.stage_resolutions)]
    attention = dict(zip(shape.stage_resolutions, places, strict=True))
    return BigGANConfig(
        shape.resolution,
        shape.z_dim,
        shape.class_dim,
        unit,
        shape.num_classes,
        _layers(widths),
        attention.get(shape.attention_resolution, -1),
        shape.bn_eps,
        len(network.head.bn.grid) or 51,
    )


def _row(truncation: float, rows: int) -> float:
    """The truncation whose statistics are right for what the package takes at `truncation`.

    It counts in float64, where t / 0.02 is below the whole number for five values of its table, and
    between two rows it gives each the weight of the other. Without `rows` of its table the
    statistics are the right ones.
    """
    if rows == 0:
        return truncation
    step = 1.0 / (rows - 1)
    weight, row = math.modf(truncation / step)
    return truncation if weight == 0 else (row + 1 - weight) * step


@contextlib.contextmanager
def _cache(folder: str | Path | None) -> Iterator[None]:
    """Take this folder for downloads, if one is given here or in the environment."""
    chosen, before = folder or PYTORCH_PRETRAINED_BIGGAN_CACHE, os.environ.get("BIGGAN_CACHE")
    if chosen is not None:
        os.environ["BIGGAN_CACHE"] = str(chosen)
    try:
        yield
    finally:
        os.environ.pop("BIGGAN_CACHE", None)
        if before is not None:
            os.environ["BIGGAN_CACHE"] = before


def cached_path(url_or_filename: str | Path, cache_dir: str | Path | None = None) -> str:
    """A file as it is; the download of an address, kept in the cache.

    Raises:
        OSError: There is no such file.
        InputError: The address cannot be fetched.
    """
    name = str(url_or_filename)
    if "://" in name:
        from biggan.weights.download import obtain_address

        with _cache(cache_dir):
            return str(obtain_address(name))
    if not Path(name).exists():
        raise OSError(f"file {name} not found")
    return name


def truncated_noise_sample(
    batch_size: int = 1, dim_z: int = 128, truncation: float = 1.0, seed: int | None = None
) -> NDArray[np.float32]:
    """Noise, float32 (batch_size, dim_z): a normal cut at plus and minus 2, times the truncation.

    Without a seed it comes from numpy's global state.
    """
    state = np.random if seed is None else np.random.RandomState(seed)
    values = truncated_normal(state.uniform(size=(batch_size, dim_z)), 2.0)
    return truncation * values.astype(np.float32)


def convert_to_images(obj: Tensor | NDArray[np.floating]) -> list[Image.Image]:
    """Images (N, 3, H, W) in [-1, 1] as pictures."""
    return to_pil(to_uint8(torch.as_tensor(obj).detach().cpu().float()))


def save_as_images(obj: Tensor | NDArray[np.floating], file_name: str = "output") -> None:
    """Write images as PNG files: `file_name`, an underscore, and their number."""
    for i, image in enumerate(convert_to_images(obj)):
        image.save(f"{file_name}_{i}.png")


def display_in_terminal(obj: Tensor | NDArray[np.floating]) -> None:
    """Print images in a terminal that has 24-bit colours."""
    for image in convert_to_images(obj):
        width = min(_WIDTH, image.width)
        small = np.asarray(image.convert("RGB").resize((width, width // 2 * 2)))
        for upper, lower in zip(small[::2], small[1::2], strict=True):
            pixels = zip(upper.tolist(), lower.tolist(), strict=True)
            print("".join(_TWO_PIXELS.format(*a, *b) for a, b in pixels) + "\x1b[0m")


def one_hot_from_int(int_or_list: int | Sequence[int], batch_size: int = 1) -> NDArray[np.float32]:
    """One-hot vectors of classes, float32 (batch_size, 1000); one class is taken for all."""
    classes = [int_or_list] if isinstance(int_or_list, int | np.integer) else list(int_or_list)
    if len(classes) == 1:
        classes *= batch_size
    assert batch_size == len(classes)
    vectors = np.zeros((batch_size, len(imagenet_classes())), np.float32)
    vectors[np.arange(batch_size), classes] = 1
    return vectors


def one_hot_from_names(
    class_name_or_list: str | Sequence[str], batch_size: int = 1
) -> NDArray[np.float32] | None:
    """One-hot vectors of ImageNet's classes by name, float32 (batch_size, 1000).

    A name that several classes share is that of the first; a name that no class has is that of the
    class that resembles it most, with a warning. None if there is none.
    """
    several = not isinstance(class_name_or_list, str)
    names = list(class_name_or_list) if several else [cast(str, class_name_or_list)]
    found = [_class_called(name) for name in names]
    if None in found:
        return None
    return one_hot_from_int(
        cast("list[int]", found), max(batch_size, len(names)) if several else batch_size
    )


def _class_called(name: str) -> int | None:
    classes, words = imagenet_classes(), name.replace("_", " ").split()
    with contextlib.suppress(InputError):
        return resolve_class(" ".join(words), classes)
    for i in range(len(words)):  # the last words say what it is: a soap bubble is a bubble
        if found := search_classes(" ".join(words[i:]), classes):
            _LOG.warning("%r is taken for %r", name, classes[found[0]])
            return found[0]
    return None
