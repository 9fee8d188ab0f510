"""Recipes: what a training run is, as a TOML file says it.

A recipe names a preset and changes what it needs to; `--set key=value` changes it further. The
resolved recipe is written to the run's folder and into its checkpoints.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from biggan.errors import InputError, most_similar, printable, quoted, require
from biggan.fine_tuning.freezing import FineTuningConfig
from biggan.models import DiscriminatorConfig, GeneratorConfig, get_preset
from biggan.supervision.settings import (
    CollapseConfig,
    EvaluationConfig,
    InterventionConfig,
    Regime,
    WatchConfig,
)
from biggan.training.augmentation import AugmentationConfig, DropoutConfig, InstanceNoiseConfig
from biggan.training.regularization import LeCamConfig, R1Config
from biggan.training.singular_values import SpectrumConfig

_T = TypeVar("_T")

_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}

_MOST = 2**53  # of any whole number in a recipe
_MOST_IMAGES = 2**20  # of what is in memory at once
_POSITIVE = (
    "total_steps",
    "batch_size",
    "accumulation",
    "d_steps",
    "checkpoint_every",
    "log_every",
    "statistics_images",
    "stream_window",
)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam (Kingma and Ba 2015), with the paper's settings as defaults (Appendix C)."""

    g_lr: float = 5e-5
    """Learning rate of the generator."""
    d_lr: float = 2e-4
    """Learning rate of the discriminator."""
    beta1: float = 0.0
    """Decay of the first moment."""
    d_beta1: float = 0.0
    """That of the discriminator; a recipe that names only `beta1` gives both."""
    beta2: float = 0.999
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""

    def __post_init__(self) -> None:
        for name in ("g_lr", "d_lr", "eps"):
            require(0 < getattr(self, name) < math.inf, f"optimizer.{name} must be above 0")
        for name in ("beta1", "d_beta1", "beta2"):
            require(
                0 <= getattr(self, name) < 1, f"optimizer.{name} must be at least 0 and below 1"
            )


@dataclass(frozen=True)
class EmaConfig:
    """The moving average of the generator's weights, which is what a run makes."""

    decay: float = 0.9999
    """Weight of the past at each step."""
    start: int = 0
    """Up to this step the average is a copy of the weights."""

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, "ema.decay must be at least 0 and below 1")
        require(self.start >= 0, "ema.start must be 0 or above")


@dataclass(frozen=True)
class LossConfig:
    """The discriminator's hinge loss."""

    margin: float = 1.0
    """Output from which on an image costs nothing (Section 4.2 tries others than 1)."""

    def __post_init__(self) -> None:
        require(0 < self.margin < math.inf, "loss.margin must be above 0")


@dataclass(frozen=True)
class TrainConfig:
    """A training run, resolved: every value that decides its result."""

    generator: GeneratorConfig
    """The generator's shape; `num_classes` and `image_channels` as the data has them."""
    discriminator: DiscriminatorConfig
    """The discriminator's shape."""
    name: str = "biggan"
    """The model's short name."""
    licence: str = ""
    """What may be done with the weights; written into their file."""
    preset: str = "biggan-32"
    """The architecture that the tables [generator] and [discriminator] change."""
    data: str = ""
    """`digits` (built in), or a source: a folder of class folders, a zip of one, a packed data set,
    parquet files, tar shards."""
    label_column: str = ""
    """Where a table has several, the column of the labels; empty for `label`."""
    resize: Literal["crop", "pad", "stretch"] = "crop"
    """What becomes of images that are not square: cropped to the centre, padded with black, or
    stretched."""
    stream: bool = False
    """Whether tar shards are read again for every epoch, not loaded: for data that no disk holds.
    They may be addresses (https://, s3://, pipe:), too."""
    classes: str = ""
    """Of a stream: a text file with the class names, one a line; empty for those of `classes.txt`
    beside the shards, or else the labels themselves."""
    stream_window: int = 4096
    """Images of a stream that are shuffled together; twice as many wait in memory as files."""
    unconditional: bool = False
    """Whether to train without classes."""
    total_steps: int = 100_000
    """Generator updates."""
    batch_size: int = 2048
    """Images per update of a network, over all processes and micro-batches."""
    accumulation: int = 1
    """Micro-batches per update: less memory, the same gradients but for BatchNorm's statistics."""
    d_steps: int = 2
    """Discriminator updates per generator update."""
    seed: int = 0
    """Seed of all that is random."""
    flip: bool = False
    """Whether real images are mirrored half of the time."""
    label_sampling: Literal["uniform", "empirical"] = "uniform"
    """Classes of generated images: all alike, or as often as in the data."""
    orthogonal: float = 1e-4
    """Strength of the generator's orthogonal regularization; 0 for none."""
    checkpoint_every: int = 1000
    """Steps from one checkpoint, preview and exported generator to the next."""
    keep_every: int = 0
    """Steps from one exported generator that stays in generators/ to the next, a multiple of
    `checkpoint_every`; 0 for a tenth of the run."""
    log_every: int = 50
    """Steps from one line of metrics to the next."""
    track: Literal["", "trackio", "wandb", "mlflow"] = ""
    """A tracker that gets the curves, previews and the report, too; empty for none."""
    statistics_images: int = 2048
    """Generated images behind each row of the standing statistics; fewer in a very short run."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What convolutions and matrix products compute in; statistics, spectral norms, attention's
    softmax and losses are float32 always."""
    compile: bool = False
    """Whether both networks go through torch.compile; needs a compiler, pays on GPUs."""
    checkpoint_activations: bool = False
    """Whether activations inside blocks are computed again in the backward pass: less memory, a
    third more work."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    lecam: LeCamConfig = field(default_factory=LeCamConfig)
    fine_tuning: FineTuningConfig = field(default_factory=FineTuningConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    collapse: CollapseConfig = field(default_factory=CollapseConfig)
    spectrum: SpectrumConfig = field(default_factory=SpectrumConfig)
    r1: R1Config = field(default_factory=R1Config)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    instance_noise: InstanceNoiseConfig = field(default_factory=InstanceNoiseConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    interventions: tuple[InterventionConfig, ...] = ()
    """What changes on the way, in the order of the steps."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            require(getattr(self, name) >= 1, f"{name} must be at least 1")
        for name in ("batch_size", "stream_window"):
            require(getattr(self, name) <= _MOST_IMAGES, f"{name} cannot be above {_MOST_IMAGES:,}")
        require(
            self.batch_size % self.accumulation == 0,
            f"batch_size {self.batch_size} is not divisible into {self.accumulation} micro-batches",
        )
        require(0 <= self.seed < 2**32, f"seed must be between 0 and {2**32 - 1}")
        require(
            self.keep_every >= 0 and self.keep_every % self.checkpoint_every == 0,
            f"keep_every must be a multiple of checkpoint_every ({self.checkpoint_every}), or 0, "
            f"not {self.keep_every}",
        )
        require(
            self.evaluation.every % self.checkpoint_every == 0,
            f"evaluation.every must be a multiple of checkpoint_every ({self.checkpoint_every}), "
            f"not {self.evaluation.every}",
        )
        require(0 <= self.orthogonal < math.inf, "orthogonal must be 0 or above")
        require(
            self.stream or not self.classes,
            "classes applies to streams (stream = true): other data have class names from "
            "folders, classes.txt or labels",
        )
        require(
            not (self.unconditional and self.classes),
            "unconditional training has no classes: set only one of unconditional and classes",
        )
        require(
            not (self.stream and self.watch.held_out),
            "watch.held_out needs images in memory: with a stream set it to 0",
        )
        require(
            not (self.compile and self.checkpoint_activations),
            "torch.compile does not support this package's activation checkpointing: set only one "
            "of compile and checkpoint_activations",
        )
        for name in ("resolution", "image_channels"):
            makes, takes = getattr(self.generator, name), getattr(self.discriminator, name)
            require(
                makes == takes,
                f"generator and discriminator have different {name}: {makes} and {takes}",
            )
        steps = [intervention.step for intervention in self.interventions]
        require(
            all(before < after for before, after in pairwise(steps)),
            "interventions must be in the order of their steps, with one per step, not "
            f"{quoted(steps)}",
        )

    @property
    def micro_batch_size(self) -> int:
        """Images per forward pass."""
        return self.batch_size // self.accumulation

    def regimes(self) -> dict[int, Regime]:
        """Every regime of the run by its first step, in order."""
        found = {0: Regime(self.optimizer.g_lr, self.optimizer.d_lr, self.d_steps)}
        for intervention in self.interventions:
            found[intervention.step] = list(found.values())[-1].after(intervention)
        return found

    def regime_at(self, step: int) -> Regime:
        """The regime of the step that follows `step` others."""
        return [regime for start, regime in self.regimes().items() if start <= step][-1]

    def steps_by_regime(self, steps: int) -> list[tuple[Regime, int]]:
        """How many of the first `steps` steps are done under each regime."""
        found = self.regimes()
        ends = [*list(found)[1:], steps]
        return [
            (regime, min(end, steps) - start)
            for (start, regime), end in zip(found.items(), ends, strict=True)
            if start < steps
        ]

    def real_batches_before(self, step: int) -> int:
        """Batches of real images that the first `step` steps take."""
        return sum(regime.real_batches * steps for regime, steps in self.steps_by_regime(step))

    def to_dict(self) -> dict[str, Any]:
        """The recipe as TOML and JSON can hold it."""
        values = dataclasses.asdict(self)
        values["generator"] = self.generator.to_dict()
        values["discriminator"] = self.discriminator.to_dict()
        values["interventions"] = [{"step": i.step, **i.changes()} for i in self.interventions]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a recipe from plain data; tables may be partial, on top of the preset."""
        tables: dict[str, Any] = {"interventions": _interventions(values.get("interventions", []))}
        _refuse_unknown_keys(values)
        preset = get_preset(str(values.get("preset", "biggan-32")))
        for name, table in _TABLES.items():
            given = values.get(name, {})
            require(isinstance(given, Mapping), f"{name} must be a table, [{name}]")
            if name == "optimizer" and "beta1" in given:
                given = {"d_beta1": given["beta1"], **given}
            if name in _SHAPES:
                tables[name] = getattr(preset, name).updated(given)
            else:
                tables[name] = _fill(table, f"{name}.", given)
        scalars = {key: value for key, value in values.items() if key not in tables}
        return _fill(cls, "", {**scalars, **tables})

    @property
    def kept_interval(self) -> int:
        """Steps from one generator that stays in generators/ to the next."""
        tenth = -(-self.total_steps // (10 * self.checkpoint_every)) * self.checkpoint_every
        return self.keep_every or tenth

    def fitted(self, num_classes: int) -> TrainConfig:
        """The recipe for data of this many classes (0: unconditional)."""
        shapes: dict[str, Any] = {
            name: dataclasses.replace(getattr(self, name), num_classes=num_classes)
            for name in _SHAPES
        }
        return dataclasses.replace(self, **shapes)


_SHAPES = ("generator", "discriminator")
_TABLES: dict[str, Any] = {
    name: hint
    for name, hint in get_type_hints(TrainConfig).items()
    if dataclasses.is_dataclass(hint)
}


def load_recipe(
    recipe: str | Path, changes: Iterable[str] = (), data: str | None = None
) -> TrainConfig:
    """Read a recipe: a TOML file, or the name of a shipped one.

    `changes` are "key=value" or "table.key=value", the value written as in TOML, text without
    quotation marks, too; `data` replaces the recipe's.

    Raises:
        InputError: No such recipe, not valid TOML, an unknown key, or a value that does not fit.
    """
    values = _read_toml(recipe)
    for change in changes:
        _apply(values, change)
    if data is not None:
        values["data"] = data
    return TrainConfig.from_dict(values)


def recipe_keys() -> list[str]:
    """Every key that a recipe may have, those of tables as "table.key"."""
    keys = []
    for each in dataclasses.fields(TrainConfig):
        table = _TABLES.get(each.name)
        inner = dataclasses.fields(table) if table else ()
        keys += [f"{each.name}.{key.name}" for key in inner] or [each.name]
    return keys


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("biggan") / "recipes"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


# What may change from one start to the next: the weights after N steps are the same.
_FREE = {
    "data",
    "label_column",
    "classes",
    "licence",
    "total_steps",
    "checkpoint_every",
    "keep_every",
    "log_every",
    "track",
    "statistics_images",
    "name",
    "compile",
    "checkpoint_activations",
    "watch.every",
}
_FREE_TABLES = ("evaluation.", "collapse.")


def differing_keys(old: TrainConfig, new: TrainConfig, step: int = 0) -> list[str]:
    """What decides the result of a run and differs, as "key: old -> new".

    How long to train, and when to log, save, watch and evaluate, may change from one start to the
    next, and the paths of data and class names, whose contents are compared by fingerprint; so may
    what is yet to come after `step`: interventions, and what is done about a collapse.
    """
    flat_old, flat_new = flatten(old.to_dict()), flatten(new.to_dict())
    for flat in (flat_old, flat_new):
        past = [each for each in flat.pop("interventions") if each["step"] < step]
        flat[f"interventions before step {step}"] = past
    return [
        f"{key}: {flat_old[key]} -> {value}"
        for key, value in flat_new.items()
        if key not in _FREE and not key.startswith(_FREE_TABLES) and flat_old[key] != value
    ]


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data without its tables: "table.key" for what is in one."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{member}": v for member, v in value.items()}
        else:
            flat[key] = value
    return flat


def _read_toml(recipe: str | Path) -> dict[str, Any]:
    path = Path(recipe)
    if path.suffix == ".toml" or path.is_file():
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise InputError(f"cannot read the recipe {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(
                f"{path} is not a text file in UTF-8, as recipes are; give images as --data"
            ) from None
    elif str(recipe) in shipped_recipes():
        file = resources.files("biggan") / "recipes" / f"{recipe}.toml"
        text = file.read_text(encoding="utf-8")
    else:
        close = most_similar(str(recipe), shipped_recipes())
        hint = f" (did you mean {close}?)" if close else ""
        if path.exists():
            hint = f" (to train on a folder: biggan train small-folder --data {recipe})"
        raise InputError(
            f"no recipe {quoted(str(recipe))}{hint}: give a .toml file or one of "
            f"{', '.join(shipped_recipes())}"
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{recipe} is not valid TOML: {error}") from None
    except (ValueError, RecursionError):
        raise InputError(
            f"{recipe} is not a recipe: it contains a number with thousands of digits or "
            "thousands of brackets"
        ) from None


def _apply(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set needs key=value, not {quoted(change)}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # tomllib's own error is a ValueError
        value = text.strip()
    *tables, last = key.strip().split(".")
    target = values
    for table in tables:
        target = target.setdefault(table, {})
        if not isinstance(target, dict):
            raise InputError(
                f"{printable(table)[:100]} is not a table: cannot set {quoted(key.strip())}"
            )
    target[last] = value


def _interventions(values: object) -> tuple[InterventionConfig, ...]:
    """What [[interventions]] says, table by table."""
    if not (isinstance(values, list) and all(isinstance(table, Mapping) for table in values)):
        raise InputError("interventions must be a list of tables, each [[interventions]]")
    known = [field.name for field in dataclasses.fields(InterventionConfig)]
    for table in values:
        for key in table:
            require(
                key in known,
                f"an intervention has no key {quoted(key)}; there are {', '.join(known)}",
            )
        require("step" in table, "an intervention needs a step from which it applies")
    return tuple(_fill(InterventionConfig, "interventions.", table) for table in values)


def _refuse_unknown_keys(values: Mapping[str, Any]) -> None:
    known = recipe_keys()
    tables = {key.partition(".")[0] for key in known if "." in key}
    for key in flatten(values):
        if key in known or (key in tables and not isinstance(values[key], Mapping)):
            continue  # a table that is none is refused where it is read
        name = key.rpartition(".")[2]
        # Probably meant: the same name in another table, or a similar one.
        same = [other for other in known if other.rpartition(".")[2] == name]
        near = same[0] if same else most_similar(key, known)
        hint = f"did you mean {near}?" if near else "biggan train RECIPE --dry-run lists all keys"
        raise InputError(f"a recipe has no key {quoted(key)}; {hint}")


def _fill(cls: type[_T], prefix: str, values: Mapping[str, Any]) -> _T:
    """Make a dataclass of scalars, checking types and choices."""
    hints = get_type_hints(cls)
    checked = {}
    for key, value in values.items():
        hint = hints[key]
        if isinstance(value, int) and not isinstance(value, bool):
            require(abs(value) <= _MOST, f"{prefix}{key} cannot be above {_MOST:,}")
            value = float(value) if hint is float else value
        if isinstance(hint, type) and type(value) is not hint:
            raise InputError(
                f"{prefix}{key} must be {_TYPE_NAMES.get(hint, hint.__name__)}, not {quoted(value)}"
            )
        if get_origin(hint) is Literal:
            choices = get_args(hint)
            named = ", ".join(filter(None, choices))
            require(value in choices, f"{prefix}{key} must be one of {named}, not {quoted(value)}")
        checked[key] = value
    return cls(**checked)
