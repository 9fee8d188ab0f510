"""The generator as inference runs it: the same function, with all algebra done beforehand.

Of a finished generator nothing changes but noise, classes and truncation, so most of what a forward
in training computes can be computed once:

- a spectral norm is folded into its weight;
- a conditional BatchNorm is one scale and one shift per channel, and those of all layers come from
  one matrix product with noise and class embedding; the truncation's statistics enter behind it;
- the bias of a convolution before a BatchNorm is folded into the mean;
- upsampling is fused with the convolution behind it, 1x1 shortcuts run on the small side, and of
  the last convolution the channels of the image alone are computed: DeepMind's deep generators
  carry 128 and keep 3;
- attention's three projections are one convolution, and gamma is folded into the fourth.

The result equals the generator's to rounding.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.errors import InputError, quoted, real_number
from biggan.inference.convolution import (
    FrozenConv2d,
    FrozenConvolution,
    MakeConvolution,
    channels_last,
)
from biggan.models import Generator, GeneratorConfig
from biggan.models.shared import as_grid
from biggan.nn import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    SelfAttention2d,
    SpectralNormConv2d,
    SpectralNormLinear,
    StandingBatchNorm2d,
    upsample,
)
from biggan.nn.attention import attend
from biggan.nn.matrix_product import affine

if TYPE_CHECKING:
    from biggan.models.biggan import GeneratorBlock
    from biggan.models.biggan_deep import DeepGeneratorBlock

LINEAR, ATTENTION = "linear", "attention"
"""Names of layers; the others are blocks.0, blocks.1, ..."""

_LARGE = 1 << 22  # values of a tensor; larger ones are made in strips
_LARGEST = 1 << 23  # values of a strip's tensors; what is larger, the C library returns at once
_STRIP = 64  # rows at a time, or half as many until a strip is no larger than that
_MARGIN = 2  # rows beyond a strip's that a block's result depends on, and the last convolution's
_MOST_IN_STRIPS = 2  # blocks
_HIGHEST = 1 + 1e-6  # truncation: 1, and what rounds to it


class FoldedGenerator(nn.Module):
    """A finished generator, folded; called as the generator is.

    Differentiable in noise and class embedding if its convolutions are (`FrozenConv2d`).

    Args:
        generator: In eval mode; not changed. Later changes of its weights do not reach this one.
        make_convolution: The form of the convolutions: `FrozenConv2d` for any device, gradients and
            export; `packed_conv2d` for speed on a CPU.

    Attributes:
        config: The generator's shape.
        dtype: The precision of the convolutions.
        layers: The names of the layers but the last one, in the order in which they run, and the
            channels of what they make.
    """

    linear_weight: Tensor
    linear_bias: Tensor

    @torch.inference_mode(mode=False)  # what is kept must serve callers in any mode
    @torch.no_grad()
    def __init__(
        self,
        generator: Generator,
        make_convolution: MakeConvolution = FrozenConv2d,
    ) -> None:
        super().__init__()
        if generator.training:
            raise ValueError("the generator is in training mode; call eval() first")
        self.config = generator.config
        self.dtype = generator.linear.bias.dtype
        with torch.autocast(generator.linear.bias.device.type, enabled=False):
            self._fold(generator, make_convolution)

    def _fold(self, generator: Generator, make_convolution: MakeConvolution) -> None:
        self.class_embedding = copy.deepcopy(generator.class_embedding).requires_grad_(False)
        # (in, out): for one image the product reads it once, row by row.
        self.register_buffer("linear_weight", generator.linear.normalized_weight().T.contiguous())
        self.register_buffer("linear_bias", generator.linear.bias.detach().clone())
        norms: list[_Norm] = []
        self.blocks = nn.ModuleList()
        resolution = 4
        fold: Any = _Block if self.config.family == "biggan" else _DeepBlock
        for i, block in enumerate(generator.blocks):
            folded = fold(block, resolution, make_convolution)
            self.blocks.append(folded)
            resolution = folded.reaches or resolution
            behind = (None, *(getattr(block, f"conv{k}") for k in range(1, fold.norms)))
            norms += [_Norm(getattr(block, f"bn{k}"), i, c) for k, c in enumerate(behind, 1)]
        norms.append(_Norm(generator.head.bn, len(self.blocks)))
        self.modulation = _Modulation(self.config, norms)
        self.attention: _Attention | None = None
        if isinstance(generator.attention, SelfAttention2d):
            self.attention = _Attention(
                generator.attention, self.config.attention_resolution, make_convolution
            )
        kept, last = generator.head.image_channels, generator.head.conv
        bias = None if last.bias is None else last.bias[:kept]
        self.rgb = make_convolution(last.normalized_weight()[:kept], bias, resolution)
        self.layers = {LINEAR: len(self.linear_bias) // 16}  # of 4x4 pixels
        for i, block in enumerate(cast("Iterable[_Block | _DeepBlock]", self.blocks)):
            self.layers[f"blocks.{i}"] = block.out_channels
            if self._attends(block):
                self.layers[ATTENTION] = block.out_channels

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FoldedGenerator:
        """Move the tensors; packed kernels cannot be converted to another precision.

        Raises:
            InputError: `fn` changes the precision.
        """
        if fn(self.linear_bias).dtype != self.linear_bias.dtype:
            raise InputError(
                "a folded generator keeps its precision: convert the generator before it is "
                "folded, such as gan.generator.double() before gan.differentiable()"
            )
        return cast("FoldedGenerator", super()._apply(fn, recurse))

    def embed(self, labels: Tensor) -> Tensor:
        """Class vectors for labels; see `Generator.embed`."""
        if not isinstance(labels, Tensor):
            raise InputError(
                "labels must be a tensor of indices or class weights, not "
                f"{quoted(labels)}: gan.embed makes class vectors of names, for synthesize"
            )
        num = self.config.num_classes
        if num and labels.is_floating_point() and labels.shape[-1:] != (num,):
            raise InputError(
                f"class weights are (N, {num}), and labels int64: not {quoted(labels)}"
            )
        try:
            return self.class_embedding(labels)
        except IndexError:
            raise InputError(f"labels are 0 to {num - 1}, not {quoted(labels)}") from None

    def forward(self, z: Tensor, labels: Tensor, truncation: float | None = None) -> Tensor:
        """Make images; see `Generator.forward`."""
        return self.synthesize(z, self.embed(labels), truncation)

    def synthesize(
        self, z: Tensor, class_embedding: Tensor, truncation: float | None = None
    ) -> Tensor:
        """Make images from class vectors (N, class_dim), which may lie between classes.

        Noise or class vectors may also be (N, layers, ...), for each layer its own: the first one
        for the linear layer, the others for the blocks.
        """
        return self.render(*self.prepare(z, class_embedding, truncation))

    def prepare(
        self, z: Tensor, class_embedding: Tensor, truncation: float | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The part of `synthesize` that knows of noise, classes and truncation: hardly any work.

        Returns:
            What `render` takes.

        Raises:
            InputError: Rows of another width, or for another number of layers or images, or in
                another precision; a truncation out of range.
        """
        # Where a network is traced, sizes are no numbers.
        if not torch.jit.is_tracing():  # type: ignore[attr-defined]
            check_rows("noise", z, self.config.z_dim, self.conditions)
            check_rows("class vectors", class_embedding, self.config.embedding_dim, self.conditions)
            # No len(): torch.export would take the number for a constant.
            check_number("class vector", class_embedding.shape[0], z.shape[0])
            _check_truncation(truncation)
        if z.ndim != class_embedding.ndim:
            z, class_embedding = (
                v if v.ndim == 3 else v[:, None].expand(-1, self.conditions, -1)
                for v in (z, class_embedding)
            )
        condition = torch.cat([z, class_embedding], dim=-1)
        _check_dtype(condition, self.linear_bias.dtype)
        first, of_blocks = condition, condition
        if condition.ndim == 3:
            first, of_blocks = condition[:, 0], condition[:, 1:]
        if self.config.family != "biggan-deep":
            first = first[:, : self.config.chunk_dim]
        grid = as_grid(affine(self.linear_bias, first, self.linear_weight))
        return grid, *self.modulation(of_blocks, truncation)

    def render(self, grid: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """The part of `synthesize` that does the work: a convolutional network, and no more.

        It takes what the first layer makes, (N, C, 4, 4), and what all BatchNorms multiply by and
        then add, in the order in which they run, each (N, T).
        """
        stages, norm = self._stages(scale, shift)
        x = grid.to(self.dtype, copy=True)  # what follows may work in place
        on_cpu = x.device.type == "cpu"
        in_strips = self._blocks_in_strips if on_cpu and _can_write_over() else 0
        for stage in stages[: len(stages) - in_strips]:
            x = stage.run(x)
        last = stages[len(stages) - in_strips :]
        return self._finish_in_strips(x, last, norm) if last else self._finish(x, last, norm)

    def chosen_layers(self, layers: str | Iterable[str]) -> list[str]:
        """One name of `layers` or several, as a list.

        Raises:
            InputError: There is no such layer.
        """
        several = isinstance(layers, Iterable) and not isinstance(layers, str)
        names = [*layers] if several else [cast("str", layers)]
        for name in names:
            if name not in [*self.layers]:  # a list: `name` may be of a type without a hash
                raise InputError(
                    f"there is no layer {quoted(name)}; there are {', '.join(self.layers)}"
                )
        return names

    def activations(
        self, layers: str | Iterable[str], grid: Tensor, scale: Tensor, shift: Tensor
    ) -> dict[str, Tensor]:
        """What some of `layers` make of `render`'s arguments, each (N, C, H, W).

        Raises:
            InputError: There is no such layer.
        """
        layers = {*self.chosen_layers(layers)}
        found = {}
        x = grid.to(self.dtype, copy=True)
        stages, _ = self._stages(scale, shift)
        for stage in (_Stage(LINEAR, lambda x: x), *stages):
            x = stage.run(x)
            if stage.name in layers:
                found[stage.name] = x.clone()  # the next layer may write over it
                if len(found) == len(layers):
                    break
        return found

    def render_from(
        self, layer: str, activation: Tensor, grid: Tensor, scale: Tensor, shift: Tensor
    ) -> Tensor:
        """The rest of `render` behind a layer, from what that layer makes, (N, C, H, W).

        Of `grid`, what the first layer makes, nothing is used.

        Raises:
            InputError: There is no such layer, or it makes something of another shape.
        """
        del grid
        [layer] = self.chosen_layers([layer])
        shape, num = tuple(activation.shape), len(scale)
        fits = len(shape) == 4 and shape[1] == self.layers[layer]
        if not fits or (shape[0] != num and 1 not in (shape[0], num)):
            raise InputError(f"{layer} makes ({num}, {self.layers[layer]}, H, W), not {shape}")
        stages, norm = self._stages(scale, shift)
        x = channels_last(activation.to(self.dtype, copy=True))
        for stage in stages[list(self.layers).index(layer) :]:
            x = stage.run(x)
        return self._finish(x, (), norm)

    def noise_weights(self, layer: int) -> Tensor:
        """The weights by which a layer with a condition reads the noise, (z_dim, outputs).

        The linear layer's (0), or those of the gains and biases of a block's BatchNorms.
        """
        z_dim = self.config.z_dim
        if layer == 0:
            weights = self.linear_weight.new_zeros(z_dim, len(self.linear_bias))
            own = self.linear_weight[:z_dim]  # of a chunk alone, or with the class vector's
            weights[: len(own)] = own
            return weights
        columns = [
            half.split(self.modulation.blocks, dim=1)
            for half in self.modulation.slope.chunk(2, dim=1)
        ]
        return torch.cat([half[layer - 1][:z_dim] for half in columns], dim=1)

    @property
    def conditions(self) -> int:
        """Layers with noise and class of their own: the linear one and the blocks."""
        return len(self.modulation.blocks)

    def _stages(self, scale: Tensor, shift: Tensor) -> tuple[list[_Stage], ScaleShift]:
        """All layers between the linear one and the last one, and the last one's BatchNorm."""
        channels = self.modulation.channels
        scales = scale.to(self.dtype)[..., None, None].split(channels, dim=1)
        shifts = shift.to(self.dtype)[..., None, None].split(channels, dim=1)
        norms = (ScaleShift(*pair) for pair in zip(scales, shifts, strict=True))
        stages = []
        for i, block in enumerate(cast("Iterable[_Block | _DeepBlock]", self.blocks)):
            run = partial(block, norms=[next(norms) for _ in range(block.norms)])
            stages.append(_Stage(f"blocks.{i}", run))
            if self._attends(block):
                stages.append(_Stage(ATTENTION, cast("_Attention", self.attention)))
        return stages, next(norms)

    def _attends(self, block: _Block | _DeepBlock) -> bool:
        return self.attention is not None and block.reaches == self.attention.resolution

    def _finish(self, x: Tensor, last: Sequence[_Stage], norm: ScaleShift) -> Tensor:
        for stage in last:
            x = stage.run(x)
        x = _convolve(self.rgb, x, norm)
        return torch.tanh(x if x.dtype == torch.float64 else x.float())

    def _finish_in_strips(self, x: Tensor, last: Sequence[_Stage], norm: ScaleShift) -> Tensor:
        """The last blocks on a few rows of the image at a time, with a margin that is cut off.

        Tensors of this size are handed to and fro between process and system, which clears them
        page by page: for one image of 512 pixels that is a quarter of the time.
        """
        height, width = x.shape[2:]
        factor = self.config.resolution // height
        shape = len(x), self.rgb.out_channels, factor * height, factor * width
        images = x.new_empty(shape, dtype=torch.promote_types(x.dtype, torch.float32))
        margin = len(last) * _MARGIN
        values = cast("_Block | _DeepBlock", self.blocks[-1]).values // height  # of a row
        tall = _STRIP
        while (tall + 2 * margin) * values > _LARGEST and tall > 4:
            tall //= 2
        for top in range(0, height, tall):
            bottom = min(top + tall, height)
            above, below = max(0, top - margin), min(height, bottom + margin)
            strip = x[:, :, above:below].clone(memory_format=torch.channels_last)
            rows = slice(factor * (top - above), factor * (bottom - above))
            made = self._finish(strip, last, norm)[:, :, rows]
            images[:, :, factor * top : factor * bottom] = made
        return images

    @property
    def _blocks_in_strips(self) -> int:
        """How many blocks at the end make large tensors, with no attention among them."""
        large = 0
        for block in reversed(cast("Sequence[_Block | _DeepBlock]", self.blocks)):
            if (
                self._attends(block)
                or large == _MOST_IN_STRIPS
                or block.values < (1 + large) * _LARGE
            ):
                break
            large += 1
        return large

    def convolve_in(self, dtype: torch.dtype) -> None:
        """Run convolutions and attention in another precision; noise and images stay float32."""
        self.dtype = dtype
        for module in self.modules():
            if isinstance(module, FrozenConvolution):
                module.to(dtype)  # a packed kernel was made in it

    @property
    def operations(self) -> int:
        """Floating-point operations of convolutions and attention for an image."""
        convolutions = sum(m.operations for m in self.modules() if isinstance(m, FrozenConvolution))
        return convolutions + (0 if self.attention is None else self.attention.operations)


def check_rows(what: str, rows: Tensor, width: int, layers: int) -> None:
    """Refuse what is neither (N, width) nor (N, layers, width), a row for each layer.

    Raises:
        InputError: With the shapes that are expected.
    """
    is_tensor = isinstance(rows, Tensor)
    shape = tuple(rows.shape) if is_tensor else ()
    if len(shape) not in (2, 3) or shape[1:] not in {(width,), (layers, width)}:
        raise InputError(
            f"{what} must be {'' if is_tensor else 'a tensor '}(N, {width}), or (N, {layers}, "
            f"{width}) for each layer its own, not {shape if is_tensor else quoted(rows)}"
        )


def _check_dtype(condition: Tensor, dtype: torch.dtype) -> None:
    """Refuse noise and class vectors in another precision than the first layer's."""
    if condition.dtype != dtype and not torch.is_autocast_enabled(condition.device.type):
        given, own = (str(d).removeprefix("torch.") for d in (condition.dtype, dtype))
        raise InputError(
            f"noise and class vectors are {given}, and the network computes in {own}: convert "
            "them, or the generator, such as gan.generator.double() before gan.differentiable()"
        )


def _check_truncation(truncation: float | Tensor | None) -> None:
    """Refuse what is beyond the statistics, and a tensor that asks for a gradient."""
    if isinstance(truncation, Tensor):  # as in an exported network
        if truncation.requires_grad:
            raise InputError("truncation is a number without a gradient: give a float")
    elif truncation is not None and not 0 <= real_number(truncation, "truncation") <= _HIGHEST:
        raise InputError(f"truncation must be above 0 and at most 1, not {truncation:g}")


def check_number(what: str, num: int, rows: int) -> None:
    """Refuse another number of labels or class vectors than of rows of noise."""
    if num != rows:
        raise InputError(f"give a {what} for each row of noise: {rows}, not {num}")


class _Stage(NamedTuple):
    """A layer with all that it needs but its input."""

    name: str
    run: Callable[[Tensor], Tensor]


class ScaleShift(NamedTuple):
    """What one BatchNorm does to its channels, each (N, C, 1, 1)."""

    scale: Tensor
    shift: Tensor


class _Norm(NamedTuple):
    """A BatchNorm of a block, and the convolution before it, whose bias it takes over."""

    layer: BatchNorm2d | ConditionalBatchNorm2d
    block: int
    behind: SpectralNormConv2d | None = None


class _Modulation(nn.Module):
    """The scales and shifts of all BatchNorms, from noise and class embedding at once.

    Args:
        config: The generator's shape.
        norms: In the order in which they run, of T channels together.
    """

    base: Tensor
    slope: Tensor
    biases: Tensor

    def __init__(self, config: GeneratorConfig, norms: Sequence[_Norm]) -> None:
        super().__init__()
        halves = [_affine(config, norm, part) for part in ("gain", "bias") for norm in norms]
        self.register_buffer("base", torch.cat([base for base, _ in halves]))  # (2 * T,)
        # (condition, 2 * T)
        self.register_buffer("slope", torch.cat([slope for _, slope in halves], dim=1))
        biases = [
            torch.zeros_like(norm.layer.running_mean)
            if norm.behind is None or norm.behind.bias is None
            else norm.behind.bias
            for norm in norms
        ]
        self.register_buffer("biases", torch.cat(biases))  # (T,)
        layers = [norm.layer for norm in norms]
        self.channels = [layer.channels for layer in layers]
        first = layers[0]
        with first.running_mean.device:
            self.statistics = StandingBatchNorm2d(
                sum(self.channels), grid=first.grid, eps=first.eps, off_grid=first.off_grid
            ).to(first.running_mean)
        for name, tensor in self.statistics.named_buffers():
            tensor.copy_(torch.cat([layer.get_buffer(name) for layer in layers], dim=-1))
        channels: Counter[int] = Counter()
        for norm in norms:
            channels[norm.block] += norm.layer.channels
        self.blocks = list(channels.values())  # those of the last BatchNorm behind them

    def forward(self, condition: Tensor, truncation: float | None) -> tuple[Tensor, Tensor]:
        """Of a condition (N, condition), or one for each block (N, blocks, condition)."""
        if condition.ndim == 2:
            gain, bias = affine(self.base, condition, self.slope).chunk(2, dim=1)  # (N, T)
        else:
            gain, bias = self._by_block(condition)
        mean, var = self.statistics.statistics(truncation)
        scale = gain * torch.rsqrt(var + self.statistics.eps)
        return scale, bias + (self.biases - mean) * scale

    def _by_block(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        # The BatchNorm behind the last block has no condition.
        conditions = (*condition.unbind(1), condition[:, -1])
        parts = []
        for base, slope in zip(self.base.chunk(2), self.slope.chunk(2, dim=1), strict=True):
            columns = zip(
                conditions, base.split(self.blocks), slope.split(self.blocks, dim=1), strict=True
            )
            parts.append(torch.cat([affine(b, c, a) for c, b, a in columns], dim=1))
        return parts[0], parts[1]


def _affine(config: GeneratorConfig, norm: _Norm, part: str) -> tuple[Tensor, Tensor]:
    """The "gain" or "bias" of a BatchNorm: its constant (C,), and its slope (condition, C).

    The slope is in terms of all noise and the class embedding.
    """
    layer = getattr(norm.layer, part)
    width = config.z_dim + config.embedding_dim
    zeros = norm.layer.running_mean.new_zeros(norm.layer.channels)
    if isinstance(norm.layer, BatchNorm2d):
        return layer, zeros.expand(width, -1)
    weight = layer.normalized_weight() if isinstance(layer, SpectralNormLinear) else layer.weight
    slope = weight.new_zeros(width, len(weight))
    from_z = config.condition_dim - config.embedding_dim
    start = (norm.block + 1) * config.chunk_dim if config.chunked else 0
    slope[start : start + from_z] = weight.T[:from_z]
    slope[config.z_dim :] = weight.T[from_z:]
    return zeros + 1 if part == "gain" else zeros, slope


class _Block(nn.Module):
    """`GeneratorBlock`, folded."""

    norms = 2  # BatchNorms

    def __init__(self, block: GeneratorBlock, resolution: int, make: MakeConvolution) -> None:
        super().__init__()
        self.reaches = 2 * resolution
        self.out_channels = block.conv2.out_channels
        self.values = self.out_channels * self.reaches**2  # of an image, in the result
        # The shortcut, on the small side, brings the bias of what it is added to.
        bias = _sum(block.conv2.bias, block.shortcut.bias)
        self.shortcut = make(block.shortcut.normalized_weight(), bias, resolution)
        self.conv1 = make(block.conv1.normalized_weight(), None, resolution, upsamples=True)
        self.conv2 = make(block.conv2.normalized_weight(), None, 2 * resolution)

    def forward(self, x: Tensor, norms: list[ScaleShift]) -> Tensor:
        shortcut = upsample(self.shortcut(x))
        h = _convolve(self.conv1, x, norms[0])
        return _convolve(self.conv2, h, norms[1], shortcut)


class _DeepBlock(nn.Module):
    """`DeepGeneratorBlock`, folded."""

    norms = 4

    def __init__(self, block: DeepGeneratorBlock, resolution: int, make: MakeConvolution) -> None:
        super().__init__()
        self.up = block.up
        self.reaches = 2 * resolution if block.up else 0  # attention follows no other block
        self.out_channels = block.out_channels
        self.conv1 = make(block.conv1.normalized_weight(), None, resolution)
        self.conv2 = make(block.conv2.normalized_weight(), None, resolution, upsamples=block.up)
        resolution *= 2 if block.up else 1
        self.values = block.out_channels * resolution**2  # of an image, in the result
        self.conv3 = make(block.conv3.normalized_weight(), None, resolution)
        self.conv4 = make(block.conv4.normalized_weight(), block.conv4.bias, resolution)

    def forward(self, x: Tensor, norms: list[ScaleShift]) -> Tensor:
        shortcut = upsample(_first_channels(x, self.out_channels)) if self.up else x
        h = _convolve(self.conv1, x, norms[0], last_use=self.up)
        h = _convolve(self.conv2, h, norms[1])
        h = _convolve(self.conv3, h, norms[2])
        return _convolve(self.conv4, h, norms[3], shortcut)


class _Attention(nn.Module):
    """`SelfAttention2d`, folded."""

    def __init__(self, attention: SelfAttention2d, resolution: int, make: MakeConvolution) -> None:
        super().__init__()
        self.resolution = resolution
        projections = (attention.theta, attention.phi, attention.g)
        weights = [projection.normalized_weight() for projection in projections]
        self.widths = [len(weight) for weight in weights]
        self.projections = make(torch.cat(weights), None, resolution)
        self.out = make(attention.gamma * attention.o.normalized_weight(), None, resolution)

    @property
    def operations(self) -> int:
        """Floating-point operations of the attention itself, for an image."""
        positions = self.resolution**2
        return 2 * positions * (positions // 4) * (self.widths[0] + self.widths[2])

    def forward(self, x: Tensor) -> Tensor:
        query, pooled = self.projections(x).split([self.widths[0], sum(self.widths[1:])], dim=1)
        key, value = F.max_pool2d(pooled, 2).split(self.widths[1:], dim=1)
        attended = attend(_tokens(query), _tokens(key), _tokens(value))  # (N, HW, C/2)
        return self.out(attended.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2), x)


def _tokens(x: Tensor) -> Tensor:
    """Positions of x (N, C, H, W) in a row: (N, H * W, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _convolve(
    convolution: FrozenConvolution,
    x: Tensor,
    norm: ScaleShift,
    add_to: Tensor | None = None,
    *,
    last_use: bool = True,
) -> Tensor:
    """BatchNorm, ReLU and convolution of x (N, C, H, W), which is overwritten at its last use."""
    if not _can_write_over():
        return convolution.activated(x, norm.scale, norm.shift, add_to)
    activated = x if last_use else torch.empty_like(x)
    torch.addcmul(norm.shift, x, norm.scale, out=activated).relu_()
    return convolution(activated, add_to)


def _first_channels(x: Tensor, num: int) -> Tensor:
    """Of x (N, C, H, W) the first channels, (N, num, H, W)."""
    if x.requires_grad:  # sliced in the last dimension, its gradient is in channels-last memory
        return x.permute(0, 2, 3, 1)[..., :num].permute(0, 3, 1, 2)
    return x[:, :num]


def _can_write_over() -> bool:
    """Whether nobody differentiates, traces, exports or uses the transforms of `torch.func`."""
    return (
        not torch.compiler.is_compiling()
        and torch.is_inference_mode_enabled()
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
