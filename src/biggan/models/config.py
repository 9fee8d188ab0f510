"""What a network looks like: everything needed to build it, and nothing else.

The channel counts are multiples of a base width, as in the paper's Tables 4 to 9. A configuration
travels in every weights file; `from_dict` reads it back and refuses what it does not know.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args, get_type_hints

from biggan.errors import InputError, quoted
from biggan.nn import OffGrid

Family = Literal["biggan", "biggan-deep"]

# Far above any network that was ever trained; a file that says more is damaged, or means harm.
_LARGEST = 1 << 24
_WIDEST = 1 << 16
_MOST_WIDTHS = 20
_EPS = (1e-12, 1.0)  # the least and the most of an epsilon


class _Config:
    """Conversion to and from plain data, for files and recipes."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON and TOML can hold them."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a configuration from plain data.

        Raises:
            InputError: An unknown or missing field, or a value that fits no network.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if unknown := sorted(set(values) - set(known)):
            raise InputError(
                f"unknown {cls.__name__} field {quoted(unknown[0])}; known are "
                f"{', '.join(sorted(known))}"
            )
        required = {n for n, f in known.items() if f.default is dataclasses.MISSING}
        if missing := sorted(required - set(values)):
            raise InputError(f"{cls.__name__} lacks the field {missing[0]!r}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """A copy with some fields changed, given as plain data; see `from_dict`."""
        return self.from_dict({**self.to_dict(), **changes})

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise InputError(f"{type(self).__name__}: {message}")

    def _require_wide(self, channels: int, least: int, what: str) -> None:
        self._require(channels >= least, f"{what} needs at least {least} channels, not {channels}")

    def _require_types(self) -> None:
        """Refuse values of the wrong type: they come from files that people edit."""
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            options: dict[Any, bool] = {
                int: isinstance(value, int) and not isinstance(value, bool),
                bool: isinstance(value, bool),
                float: type(value) is int or (isinstance(value, float) and math.isfinite(value)),
                tuple[int, ...]: isinstance(value, tuple) and all(type(v) is int for v in value),
                Family: value in get_args(Family),
                OffGrid: value in get_args(OffGrid),
            }
            self._require(options[hint], f"{name} cannot be {quoted(value)}")
            numbers = value if isinstance(value, tuple) else (value,)
            large = any(isinstance(number, int) and number > _LARGEST for number in numbers)
            self._require(not large, f"{name} cannot be above {_LARGEST}")
            few = len(numbers) <= _MOST_WIDTHS
            self._require(few, f"{name} cannot have {len(numbers)} entries")
            if name.endswith("_eps"):
                wanted = f"{name} must be at least {_EPS[0]:g} and at most {_EPS[1]:g}"
                self._require(_EPS[0] <= value <= _EPS[1], f"{wanted}, not {value:g}")

    def _require_network(self: Any, resolutions: Sequence[int], widths: Sequence[int]) -> None:
        """Refuse what no network can have; attention may follow stages of these widths."""
        self._require(min(self.channels, *self.widths) >= 1, "channels and widths must be positive")
        widest = self.channels * max(self.widths)
        self._require(widest <= _WIDEST, f"channels * widths cannot be above {_WIDEST}")
        self._require(self.num_classes >= 0, "num_classes cannot be negative")
        self._require(self.image_channels in (1, 3), "image_channels must be 1 or 3")
        self._require(
            self.attention_resolution in (0, *resolutions),
            f"attention_resolution must be one of {tuple(resolutions)}, or 0 for none",
        )
        if self.attention_resolution:
            width = widths[resolutions.index(self.attention_resolution)]
            self._require_wide(self.channels * width, 8, "attention")


@dataclass(frozen=True)
class GeneratorConfig(_Config):
    """A generator.

    BigGAN has one residual block per doubling of the resolution; BigGAN-deep two, of which the
    second doubles.
    """

    family: Family
    """`biggan` (Appendix B, Figure 15) or `biggan-deep` (Figure 16)."""
    resolution: int
    """Pixels a side of the image: 4 doubled once per stage."""
    channels: int
    """Base width, `ch` in the paper."""
    widths: tuple[int, ...]
    """Multiples of `channels`: what the first linear layer makes, then what each stage makes."""
    z_dim: int
    """Width of the noise."""
    num_classes: int
    """Number of classes; 0 for an unconditional network."""
    attention_resolution: int = 64
    """Self-attention after the stage that reaches this resolution; 0 for none."""
    class_dim: int = 128
    """Width of the shared class embedding."""
    shared_embedding: bool = True
    """One embedding for all layers; if not, a gain and bias per class in every BatchNorm."""
    skip_z: bool = True
    """BigGAN: noise in equal chunks, one for each stage. BigGAN-deep feeds it whole, always."""
    image_channels: int = 3
    """1 for greyscale, 3 for RGB."""
    rgb_channels: int = 0
    """Channels that the last convolution computes, of which the first `image_channels` are kept;
    0 for just those. DeepMind's published deep generators have 128."""
    bn_eps: float = 1e-4
    """Epsilon of BatchNorm."""
    sn_eps: float = 1e-4
    """Epsilon of spectral normalization."""
    off_grid: OffGrid = "linear"
    """BatchNorm statistics between two recorded truncations: interpolated linearly, or as the ports
    of DeepMind's modules do (`hub`)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        self._require_types()
        stages = len(self.widths) - 1
        self._require(stages >= 1, "widths needs at least two entries")
        self._require(
            self.resolution == 4 * 2**stages,
            f"{stages} stages (len(widths) - 1) end at {4 * 2**stages} pixels, "
            f"not at resolution {self.resolution}",
        )
        self._require(min(self.z_dim, self.class_dim) >= 1, "z_dim and class_dim must be positive")
        self._require(
            self.rgb_channels == 0 or self.rgb_channels >= self.image_channels,
            "rgb_channels must be at least image_channels",
        )
        self._require_network(self.stage_resolutions, self.widths[1:])
        if self.family == "biggan-deep":
            # A bottleneck is a quarter of what enters a block; into the last width none goes.
            self._require_wide(self.channels * min(self.widths[:-1]), 4, "a bottleneck")
        self._require(
            not self.chunked or self.z_dim % (stages + 1) == 0,
            f"z_dim {self.z_dim} is not divisible into {stages + 1} equal chunks (skip_z)",
        )
        self._require(
            self.num_classes > 0 or self.condition_dim > 0,
            "without classes (num_classes 0) only noise can condition the layers: skip_z must be "
            "true",
        )

    @property
    def chunked(self) -> bool:
        """Whether the noise is split over the stages (hierarchical latents, "skip-z")."""
        return self.skip_z and self.family == "biggan"

    @property
    def chunk_dim(self) -> int:
        """Width of the noise that the first linear layer and each condition receive."""
        return self.z_dim // len(self.widths) if self.chunked else self.z_dim

    @property
    def embedding_dim(self) -> int:
        """Width of what `embed` returns: the class part of every condition."""
        if self.num_classes == 0:
            return 0
        return self.class_dim if self.shared_embedding else self.num_classes

    @property
    def condition_dim(self) -> int:
        """Width of the vector that conditions a BatchNorm: noise (if any), then class."""
        conditions_on_z = self.chunked or self.family == "biggan-deep"
        return (self.chunk_dim if conditions_on_z else 0) + self.embedding_dim

    @property
    def stage_resolutions(self) -> tuple[int, ...]:
        """Resolution after each stage."""
        return tuple(8 * 2**i for i in range(len(self.widths) - 1))


@dataclass(frozen=True)
class DiscriminatorConfig(_Config):
    """A discriminator: projection head on summed features (Miyato and Koyama 2018)."""

    family: Family
    """`biggan` or `biggan-deep`."""
    resolution: int
    """Pixels a side of the image."""
    channels: int
    """Base width, `ch` in the paper."""
    widths: tuple[int, ...]
    """Multiples of `channels`. BigGAN: what each block makes. BigGAN-deep: what the stem makes,
    then what each pair of blocks makes."""
    down_blocks: int
    """How many blocks (BigGAN-deep: pairs) halve the resolution, from the first on."""
    num_classes: int
    """Number of classes; 0 for an unconditional network."""
    attention_resolution: int = 64
    """Self-attention after the block that reaches this resolution; 0 for none."""
    image_channels: int = 3
    """1 for greyscale, 3 for RGB."""
    sn_eps: float = 1e-4
    """Epsilon of spectral normalization."""
    relu_before_shortcut: bool = False
    """Whether the shortcut of every block that begins with a ReLU gets its output too, as where the
    ReLU is computed in place (PyTorch-StudioGAN, some networks of mmgeneration)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        self._require_types()
        self._require(len(self.widths) >= 1, "widths needs at least one entry")
        self._require(
            0 <= self.down_blocks <= self.num_blocks and self.num_blocks >= 1,
            f"down_blocks must be between 0 and the {self.num_blocks} blocks that widths gives",
        )
        self._require(
            self.resolution % 2**self.down_blocks == 0,
            f"resolution {self.resolution} cannot be halved {self.down_blocks} times",
        )
        made = self.widths[len(self.widths) - self.num_blocks :]  # by each block or pair
        self._require_network(self.down_resolutions, made)
        if self.family == "biggan-deep":
            self._require_wide(self.channels * min(made), 4, "a bottleneck")

    @property
    def num_blocks(self) -> int:
        """Residual blocks (BigGAN-deep: pairs of them)."""
        return len(self.widths) - (self.family == "biggan-deep")

    @property
    def down_resolutions(self) -> tuple[int, ...]:
        """Resolution after each block that halves it."""
        return tuple(self.resolution // 2 ** (i + 1) for i in range(self.down_blocks))
