"""From a model's name, path or address to a verified network: locate, detect, read, build.

A model is given, in this order, by: nothing (the default model), the name of a bundled model, an
address (`https://`, `hf://owner/repo`, `file://`), an existing path, a name of published weights,
or RUN@STEP or RUN@best for a generator that a run keeps. A path is a file, or a folder of such
files: a training run's, or another software's, in which `_PREFERRED` chooses one. The format is
detected from the contents: the first bytes tell the container (safetensors, torch file, TF Hub
archive), and the names of the tensors tell the format (`biggan.weights.formats`).

What only some models or formats need is imported on use, and torch with the first network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.classes import class_choices, default_class_names, resolve_class, search_classes
from biggan.errors import DamagedFileError, InputError, most_similar, printable, quoted
from biggan.weights.files import (
    BUNDLED,
    BUNDLED_FOLDER,
    FORMAT,
    MAX_HEADER_BYTES,
    RUN_BEST,
    RUN_DISCRIMINATOR,
    RUN_GENERATOR,
    RUN_KEPT,
    Description,
    Kind,
    LoadedModel,
    kept_generator,
    network_sha256,
    open_regular,
    parse_header,
    read_metadata,
    read_safetensors,
    verify,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from biggan.models import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
    from biggan.nn import OffGrid

EPSILONS_KNOWN = (
    "its epsilons are known; bn_eps and sn_eps apply only to ajbrock's files, which do not "
    "contain them (a discriminator has no bn_eps)"
)
"""The message where a user gives epsilons of weights that have their own."""

# In a folder of several files: the names that each software gives to what one samples from.
_PREFERRED: dict[Kind, tuple[str, ...]] = {
    "generator": (
        *(RUN_GENERATOR, "model.safetensors", "pytorch_model.bin"),
        *("G_ema.pth", "G_ema_*.pth", "G.pth"),
        *(f"model={net}-{when}-*.pth" for when in ("best", "current") for net in ("G_ema", "G")),
    ),
    "discriminator": (
        *(RUN_DISCRIMINATOR, "D.pth", "D_[!o]*.pth"),  # not D_optim
        *("model=D-best-*.pth", "model=D-current-*.pth"),
    ),
}
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".tar.gz", ".tgz", ".tar")
_ARCHIVE, _PICKLE = b"\x1f\x8b", (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_HEAD_BYTES = 512
_SHORTEST_PART = 3  # letters of a name by which it is searched in all models
_LISTED = 20  # faults of tensors that one message names


def load_network(
    word: str | Path | None,
    kind: Kind | None = "generator",
    *,
    offline: bool = False,
    bn_eps: float | None = None,
    sn_eps: float | None = None,
) -> LoadedModel:
    """Load a network of this kind, or with None of whichever a file holds, as `biggan.load`."""
    wanted = kind or "generator"  # of a folder with both
    path = locate(word, wanted, offline=offline)
    try:
        file = _weights_file(path, wanted)
        loaded = read_network(file, wanted, bn_eps=bn_eps, sn_eps=sn_eps)
        if kind not in (None, loaded.kind):
            raise InputError(f"{file} holds a {loaded.kind}, not a {kind}")
    except InputError as error:
        raise _with_remedy(error, word, path) from None
    return loaded


def load_class_names(
    word: str | Path | None, *, offline: bool = False
) -> tuple[str, tuple[str, ...]]:
    """A generator's name and those of its classes; of a file of ours only the header is read."""
    path = locate(word, offline=offline)
    with suppress(InputError):  # `load_network` raises it, with the remedy
        file = _weights_file(path, "generator")
        metadata = read_metadata(file) if file.suffix == ".safetensors" else {}
        if metadata.get("format") == FORMAT:
            header = parse_header(metadata, file)
            if header.kind == "generator" and header.description.class_names:
                return header.description.name, header.description.class_names
    description = load_network(word, offline=offline).description
    return description.name, description.class_names


def models_with_class(query: str | int) -> list[str]:
    """The bundled and published models with a class of this name; none for a number."""
    if not isinstance(query, str) or query.strip().isdigit():
        return []
    found = []
    for name, classes in _known_classes().items():
        with suppress(InputError):
            resolve_class(query, classes)
            found.append(name)
    return found


def search_models(query: str, *, whole_names: bool = False) -> dict[str, list[str]]:
    """The bundled and published models with classes that match a query, and these as choices.

    If a model has a class of this name, or with `whole_names`, only such classes are listed.
    """
    known, exact = _known_classes(), models_with_class(query)
    is_short = len(query.strip()) < _SHORTEST_PART or query.strip().isdigit()
    if not exact and (whole_names or is_short):
        return {}
    found = {
        classes: [resolve_class(query, classes)] if exact else search_classes(query, classes)
        for classes in {known[name] for name in exact or known}
    }
    return {
        name: [class_choices(classes)[index] for index in found[classes]]
        for name, classes in known.items()
        if found.get(classes)
    }


def _known_classes() -> dict[str, tuple[str, ...]]:
    from biggan.weights.published import PUBLISHED

    names = {name: load_class_names(name)[1] for name in BUNDLED}
    for name, model in PUBLISHED.items():
        names[name] = model.class_names or default_class_names(model.config.num_classes)
    return names


# --- locate ---


def locate(word: str | Path | None, kind: Kind = "generator", *, offline: bool = False) -> Path:
    """The file or folder of a model's name, path or address, fetched if it has to be."""
    if not isinstance(word, str | Path | None):
        raise InputError(f"a model is a name, a path or an address, not {quoted(word)}")
    name = BUNDLED[0] if word is None else str(word)
    if name in BUNDLED:
        bundled = f"{name}.safetensors" if kind == "generator" else f"{name}-{kind}.safetensors"
        if kind == "generator" or (BUNDLED_FOLDER / bundled).is_file():
            return BUNDLED_FOLDER / bundled
    if not name:
        raise InputError("the model's name is empty: omit it to use the bundled model")
    if means_published(name, kind):
        from biggan.weights.published import obtain_published

        return obtain_published(name, kind, offline=offline)
    if is_address(name):
        from biggan.weights.download import obtain_address

        return obtain_address(name, kind, offline=offline)
    try:
        path = Path(name).expanduser()
        if path.exists():
            return path
        match = re.fullmatch(r"(.+)@(\d{1,12}|best)", name)
        if match and kind == "generator" and (run := Path(match[1]).expanduser()).is_dir():
            return _generator_of_step(run, match[2])
    except (OSError, RuntimeError) as error:  # no permission, too long a name, no such user
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot open {quoted(name)}: {reason}") from None
    raise InputError(_nothing_there(name, kind))


def _generator_of_step(run: Path, step: str) -> Path:
    """The generator of a step of a run, or its best one."""
    wanted = run / RUN_BEST if step == "best" else kept_generator(run, int(step))
    if wanted.is_file():
        return wanted
    kept = sorted((run / RUN_KEPT).glob("step-*.safetensors"))
    steps = [path.stem.removeprefix("step-").lstrip("0") for path in kept]
    there = f"it keeps those of steps {', '.join(steps[-20:])}" if steps else "it keeps none"
    raise InputError(
        f"{run} has no {'best generator' if step == 'best' else f'generator of step {step}'}: "
        f"{there} (keep_every and evaluation.keep_best in a recipe)"
    )


def is_address(word: str) -> bool:
    """Whether a model is given by an address, `scheme://...`."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", word) is not None


def means_published(name: str, kind: Kind = "generator") -> bool:
    """Whether a name means published weights.

    What is there under that path goes before the name; but not a folder without weights, such as
    one of samples that is called like their model.
    """
    from biggan.weights.published import PUBLISHED

    if name not in PUBLISHED or (kind == "discriminator" and not PUBLISHED[name].discriminator):
        return False
    path = Path(name)
    if not path.is_dir():
        return not path.exists()
    names = {file.name for file in _listing(path)}
    return "saved_model.pb" not in names and not any(n.endswith(_ENDINGS) for n in names)


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror or error}") from None


def _weights_file(path: Path, kind: Kind) -> Path:
    """The file that a path means: itself, or the right one of a folder; or a TF Hub module."""
    if not path.is_dir() or (path / "saved_model.pb").exists():
        return path
    listed = _listing(path)
    for pattern in (*_PREFERRED[kind], ""):
        found = [f for f in listed if (f.match(pattern) if pattern else f.name.endswith(_ENDINGS))]
        if found:
            break
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:5])
        raise InputError(f"{path} holds several weights files ({names}): give one of them")
    if not found:
        raise InputError(
            f"{path} holds no {_PREFERRED[kind][0]} (a run folder has one after its first "
            "checkpoint) and no weights of another format"
        )
    return found[0]


def _nothing_there(name: str, kind: Kind) -> str:
    from biggan.models import PRESETS
    from biggan.weights.published import PUBLISHED

    published = [n for n in PUBLISHED if kind == "generator" or PUBLISHED[n].discriminator]
    written = re.sub(r"[\s_]+", "-", name[:100].lower())
    near = most_similar(written, (*BUNDLED, *published), 0.8)
    meant = f" (did you mean {near!r}?)" if near and near != name else ""
    if kind == "discriminator":
        why = ": none was published" if name in PUBLISHED else meant
        return (
            f"no discriminator {quoted(name)}{why}; give a weights file with one, such as "
            f"ajbrock's D.pth, the folder of a training run, or one of {', '.join(published)}"
        )
    if name in PRESETS:
        return (
            f"{name} is an architecture without published weights. Give a weights file or a run "
            f"folder, or omit the model to use {BUNDLED[0]!r}"
        )
    return (
        f"no model {quoted(name)}{meant}: give a name that `biggan models` lists, a weights file, "
        "the folder of a training run, or an address (https://, hf://owner/repo)"
    )


def _with_remedy(error: InputError, word: str | Path | None, path: Path) -> InputError:
    """An error in a file, with how to replace a bundled or fetched one; damaged copies go."""
    from biggan.weights.published import is_cached_network

    by_address = isinstance(word, str) and re.match("(?i)(https?|hf)://", word)
    if path.parent == BUNDLED_FOLDER:
        remedy = "the file belongs to biggan: install biggan again"
    elif not by_address and not is_cached_network(path):
        return error
    elif isinstance(error, DamagedFileError) and path.is_file():
        with suppress(OSError):  # of the Hub's cache, the file and the link to it
            path.resolve().unlink()
            path.unlink()
        remedy = "the copy in the cache is deleted: try again"
    else:
        remedy = f"a copy in the cache; if it is damaged, delete {path} to download it again"
    return InputError(f"{error} ({remedy})")


# --- detect, read ---


def read_network(
    path: Path,
    kind: Kind = "generator",
    *,
    bn_eps: float | None = None,
    sn_eps: float | None = None,
) -> LoadedModel:
    """Read a network in any known format; `kind` is for files of several. See `load_network`."""
    path = _weights_file(path, kind)
    how: dict[str, Any] = {"epsilons": {"bn_eps": bn_eps, "sn_eps": sn_eps}, "kind": kind}
    try:
        if path.is_dir():
            return _convert_module(path, how)
        with open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
            file.seek(0)
            # First, for the bytes of the header's size may be anything.
            if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES:
                metadata, tensors = read_safetensors(file, path)
                if metadata.get("format") != FORMAT:
                    return _convert(tensors, path, how)
                if (bn_eps, sn_eps) != (None, None):
                    raise InputError(f"{path}: {EPSILONS_KNOWN}")
                return _build(metadata, tensors, path)
            if head.startswith(_ARCHIVE) or head[257:262] == b"ustar":
                from biggan.weights.containers.archives import unpacked

                with unpacked(file, path) as folder:
                    return _convert_module(folder, how)
            if head.startswith(_PICKLE):
                from biggan.weights.containers.pickles import load_checkpoint

                tensors, how["beside"] = load_checkpoint(file, path)
                return _convert(tensors, path, how)
        raise _not_weights(head, path)
    except InputError as error:  # that of a shape that cannot be built knows no file
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None


def _not_weights(head: bytes, path: Path) -> DamagedFileError:
    text = head.lstrip().lower()
    if not head:
        nature = "is empty: download it again"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml")):
        nature = "is a web page, not a weights file: the download returned an error page or a login"
    elif text.startswith(b"version https://git-lfs"):
        nature = "is a Git LFS pointer, not the weights: download them with `git lfs pull`"
    elif path.suffix == ".json":
        nature = "is a configuration: give the weights file beside it"
    else:
        nature = "is not a weights file (safetensors, a torch file or a TF Hub archive)"
    return DamagedFileError(f"{path} {nature}")


# --- build ---


def _build(metadata: dict[str, str], tensors: dict[str, Tensor], path: Path) -> LoadedModel:
    """The network of a file of ours, after its contents are verified."""
    from biggan.models import DiscriminatorConfig, GeneratorConfig

    sha256 = verify(metadata, tensors, path)
    header = parse_header(metadata, path)
    if header.kind == "discriminator":
        discriminator = assemble(DiscriminatorConfig.from_dict(header.config), (), tensors, path)
        return LoadedModel(discriminator, header.description, sha256)
    if header.kind != "generator":
        raise InputError(f"{path} holds a {quoted(header.kind)}, not a generator or discriminator")
    config = GeneratorConfig.from_dict(header.config)
    network = assemble(config, header.grid, tensors, path)  # first: a header can claim any numbers
    names = header.description.class_names or default_class_names(config.num_classes)
    if len(names) != config.num_classes:
        raise InputError(
            f"{path} names {len(names)} classes, but its network has {config.num_classes}"
        )
    return LoadedModel(network, replace(header.description, class_names=names), sha256)


def _convert_module(folder: Path, how: Mapping[str, Any]) -> LoadedModel:
    from biggan.weights.containers.tensor_bundle import VARIABLES, read_bundle

    return _convert(read_bundle(folder / VARIABLES), folder, how)


def _convert(tensors: Mapping[str, Tensor], path: Path, how: Mapping[str, Any]) -> LoadedModel:
    """The network that foreign tensors are, described by their contents alone.

    So a file under any name, and what it is converted to, are one model with one digest. `how` are
    further arguments of `ForeignTensors`.
    """
    from biggan.weights.formats import FORMATS
    from biggan.weights.formats.conversion import ForeignTensors

    if all(name.startswith("module.") for name in tensors):  # put there by `DataParallel`
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    source = ForeignTensors(tensors, path, **how)
    known = next((known for known in FORMATS if source.has_any(*known.MARKS)), None)
    if known is None:
        names = printable(", ".join(list(tensors)[:3]))[:100]
        raise InputError(
            f"{path} contains tensors of an unknown format (such as {names}); supported are "
            f"biggan, IC-GAN, {', '.join(known.ORIGIN for known in FORMATS)}"
        )
    converted = known.convert(source)
    config = converted.config
    network = assemble(config, converted.grid, converted.tensors, path)
    description = Description(
        name=f"{config.family}-{config.resolution}",
        class_names=default_class_names(config.num_classes),
        source=f"weights of {known.ORIGIN}",
        licence=known.LICENCE,
    )
    return LoadedModel(network, description, network_sha256(network, description))


def assemble(
    config: GeneratorConfig | DiscriminatorConfig,
    grid: Sequence[float],
    tensors: Mapping[str, Tensor],
    path: Path,
) -> Generator | Discriminator:
    """A network in eval mode that is made of these tensors, without a copy of them.

    They are its whole state by name; the grid are the truncations of a generator's statistics.
    """
    from biggan.nn import StandingBatchNorm2d

    ascending = all(before < after for before, after in pairwise(grid))
    if not ascending or not all(0 <= truncation < math.inf for truncation in grid):
        raise InputError(f"{path}: the truncations of its statistics do not ascend from 0")
    if getattr(config, "off_grid", None) == "hub":
        _require_hub_grid(grid)
    network = empty_network(config, grid)
    load_strictly(network, tensors, path)
    for name, layer in network.named_modules():
        if isinstance(layer, StandingBatchNorm2d):
            for variance in (layer.running_var, layer.table_var):
                if bool((variance + layer.eps <= 0).any()):
                    raise InputError(f"{path}: a variance of {name} is negative")
    return network.eval()


def empty_network(
    config: GeneratorConfig | DiscriminatorConfig, grid: Sequence[float] = ()
) -> Generator | Discriminator:
    """A network on torch's `meta` device: names and shapes, without values or memory."""
    import torch

    from biggan.models import (
        DiscriminatorConfig,
        make_discriminator,
        make_generator,
        set_statistics_grid,
    )

    with torch.device("meta"):
        if isinstance(config, DiscriminatorConfig):
            return make_discriminator(config).float()  # whatever torch's default is
        generator = make_generator(config).float()
        set_statistics_grid(generator, list(grid))
        return generator


def load_strictly(network: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Make tensors the parameters and buffers of a network, all of them and no others.

    Half-precision tensors become float32.
    """
    expected = network.state_dict()
    half = ("torch.float16", "torch.bfloat16")
    tensors = {n: t.float() if str(t.dtype) in half else t for n, t in tensors.items()}
    wrong = [f"missing {name}" for name in expected if name not in tensors]
    wrong += [f"unexpected {printable(name)[:100]}" for name in tensors if name not in expected]
    for name, value in expected.items():
        if name in tensors:
            fault = tensor_fault(name, tensors[name], tuple(value.shape), (value.dtype,))
            wrong += [fault] if fault else []
    refuse_faults(wrong, path)
    # Assigned, not copied: the network takes no memory besides the tensors'.
    network.load_state_dict(tensors, assign=True)


def tensor_fault(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtypes: Sequence[torch.dtype]
) -> str | None:
    """Why a tensor cannot be taken; `dtypes` are those it may have, the usual one first."""
    if tuple(tensor.shape) != shape:
        return f"{name} is {quoted(tuple(tensor.shape))}, not {shape}"
    if tensor.dtype not in dtypes:
        return f"{name} is {tensor.dtype}, not {dtypes[0]}".replace("torch.", "")
    if not tensor.is_meta and not bool(tensor.isfinite().all()):
        return f"{name} has values that are not finite numbers"
    return None


def refuse_faults(faults: Sequence[str], path: Path) -> None:
    """Refuse a file with faults of its tensors; the first twenty are named."""
    if faults:
        more = f"; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        listed = "; ".join(faults[:_LISTED])
        raise InputError(f"{path} does not match its network: {listed}{more}")


def with_off_grid(loaded: LoadedModel, off_grid: OffGrid) -> LoadedModel:
    """The same generator with another interpolation between two rows of its statistics.

    It makes other pictures, so it has another digest. The network is changed, not copied.
    """
    from biggan.models import statistics_grid
    from biggan.nn import StandingBatchNorm2d

    generator = loaded.network
    if generator.config.off_grid == off_grid:
        return loaded
    if off_grid == "hub":
        _require_hub_grid(statistics_grid(generator))
    generator.config = generator.config.updated({"off_grid": off_grid})
    for layer in generator.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.off_grid = off_grid
    return replace(loaded, sha256=network_sha256(generator, loaded.description))


def _require_hub_grid(grid: Sequence[float]) -> None:
    from biggan.models import hub_grid

    if tuple(grid) not in (hub_grid(50), hub_grid(51)):
        raise InputError(
            "off_grid 'hub' is for statistics of 0.02, 0.04, ... 1.00, as in the published "
            f"modules, not for {len(grid)} truncations"
        )
