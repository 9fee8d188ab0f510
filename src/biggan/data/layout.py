"""Which image belongs to which class: by the folders, or by labels.

The rule is one folder per class. A model trained on the parent of `train/` would learn one class,
on the parent of `train/` and `val/` two: such a folder is refused, with the right one named.
"""

import functools
import itertools
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from biggan.classes import normal_name
from biggan.errors import InputError

logger = logging.getLogger("biggan.data")

Label = int | str | None
WITHOUT_CLASSES = "train without classes (--unconditional; for training --set unconditional=true)"
_NAMED = 5  # folders that a message names

# Words for a part of a dataset, in the order in which the parts are worth training on.
_SPLIT_WORDS = {
    "train": r"train(ing|val)?|trn|labell?ed|supervised",
    "validation": r"val(id(at(e|ion))?)?|dev",
    "test": r"tests?|testing|tst|eval(uation)?|holdout|pred(ict(ions?)?)?|infer(ence)?"
    r"|query|gallery|extra",
    "unlabelled": r"unlabell?ed|unsup(ervised)?",
}
_CONTENT_WORDS = {
    "images": r"(jpe?g|png)?(images?|imgs?)|jpe?g|png|data(sets?)?|archive",
    "annotations": r"annotations?|labels?|masks?|trimaps?|seg(mentations?|mim|s)?|groundtruths?|gt"
    r"|thumbnails?",
}
_SPLITS = "|".join(_SPLIT_WORDS.values())
_ANY_WORD = re.compile("|".join([_SPLITS, *_CONTENT_WORDS.values()]), re.IGNORECASE)
_SUFFIX = r"(sets?|data|datasets?|folder|dir|split|files?|samples?|images?|imgs?)"
# What may follow such a word: "train_images", "train-jpg", "test_set_small", "trainA".
_AFTER = (
    rf"{_SUFFIX}|jpe?g|png|tif|photos?|pictures?|labell?ed|labels?|masks?|full|small|mini|tiny|clean"
    r"|raw|orig(inal)?|resized|cropped|processed|final|new|all|only|background|px|part|hr|lr|class"
    r"|object|bbox(es)?|[a-z]"
)
# Names of folders and files by what they hold, in small letters with spaces between words. The
# groups are atomic: a word that two alternatives match is not tried twice.
_PARTS = {
    **{k: rf"(.* )?({w}){_SUFFIX}?( (?>({_SPLITS}|{_AFTER})\b))*" for k, w in _SPLIT_WORDS.items()},
    **{kind: rf"({words})( (?>({_AFTER})\b))*" for kind, words in _CONTENT_WORDS.items()},
}
# Folders that divide a dataset into pieces of similar contents: "images_001", "fold1", "part-2".
_PIECE = re.compile(
    r"(images?|parts?|shards?|chunks?|batch|folds?|splits?|disk|vol|volume|subset|train|val|test)"
)
# "session2", "set_b", "setB"
_ONE_OF_SEVERAL = re.compile(r"(.+?)([-_. ]?\d+|[-_. ][A-Za-z]|(?<=[a-z])[A-Z])")
_SHARD_DIGITS = 4  # at least so many in the name of a shard of StyleGAN's tools
NUMBER = re.compile(r"[+-]?\d{1,18}")  # a label that is a whole number


class Item(NamedTuple):
    """An image of a source.

    `name` is the image's own, where it has one; `place` is unique in the source; `handle` is what
    the source needs to read the image.
    """

    name: str | None
    place: str
    handle: Any
    label: Label = None


def parse_label(value: object) -> Label:
    """A label as a file states it: a whole number or a name; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    return int(text) if NUMBER.fullmatch(text) else text or None


@dataclass
class _Folder:
    """A folder with images in it or below it."""

    direct: int = 0  # images in it
    total: int = 0  # images in it and below it
    folders: dict[str, "_Folder"] = field(default_factory=dict)

    @property
    def inner(self) -> "_Folder":
        """The first folder on the way down that holds more than one other folder."""
        folder = self
        while not folder.direct and len(folder.folders) == 1:
            folder = next(iter(folder.folders.values()))
        return folder

    @property
    def is_nested(self) -> bool:
        return len(self.inner.folders) > 1


def number_folders(
    members: Sequence[str], path: Path, *, folders: Sequence[str] = (), in_zip: bool = False
) -> tuple[list[int | None], tuple[str, ...]]:
    """Give every image its class: the name of the topmost folder it lies in.

    A folder that wraps all the class folders of a zip is passed over, because nobody can point
    inside a zip; the same in a folder is an error that names the folder to point at.

    `members` are the relative paths of at least one image, `folders` all folders that exist, with
    images or without.

    Returns:
        The class of each image, None for those outside the class folders; and the class names.

    Raises:
        InputError: The folders do not give two classes, or are not the classes; a class has no
            image.
    """
    tree = _Folder()
    for member in members:
        folder = tree
        folder.total += 1
        for name in member.split("/")[:-1]:
            folder = folder.folders.setdefault(name, _Folder())
            folder.total += 1
        folder.direct += 1
    prefix = ""
    while in_zip and not tree.direct and len(tree.folders) == 1:
        [(name, only)] = tree.folders.items()
        if _way_to_classes(only) is None:
            break
        prefix, tree = f"{prefix}{name}/", only
    relative = [member.removeprefix(prefix) for member in members]
    if fault := _fault(tree, relative):
        advice = "make one folder of images per class"
        if way := "/".join(_way_to_classes(tree) or ()):
            advice = f"did you mean {f'{path}::{prefix}{way}' if in_zip else path / way}?"
        raise InputError(f"{path} {fault}: {advice}, or {WITHOUT_CLASSES}")
    class_names = sorted({normal_name(name) for name in tree.folders})
    check_class_names(path, class_names)
    beside = {name.removeprefix(prefix) for name in folders if name.startswith(prefix)}
    beside = {normal_name(name) for name in beside if name and "/" not in name}
    if empty := sorted(beside - set(class_names)):
        raise InputError(
            f"folders without images in {path}: {_listed(empty)}; add images, or remove the folders"
        )
    shared = set.intersection(*(set(below.inner.folders) for below in tree.folders.values()))
    shared = {name for name in shared if not name.isdecimal()}
    if len(shared) > 1:
        logger.warning(
            "each of the classes %s has the folders %s, whose images are combined: if these are "
            "the classes, make one folder of each",
            _listed(tree.folders),
            _listed(shared),
        )
    if stray := [member for member in relative if "/" not in member]:
        logger.warning(
            "ignored %d images outside the class folders, such as %s", len(stray), stray[0]
        )
    numbers = {name: number for number, name in enumerate(class_names)}
    tops = [member.partition("/") for member in relative]
    labels = [numbers[normal_name(top)] if below else None for top, _, below in tops]
    return labels, tuple(class_names)


def number_labels(
    source: str | Path, labels: Mapping[Label, str], class_names: Sequence[str] | None
) -> tuple[dict[Label, int], tuple[str, ...]]:
    """Give every label its class: a number is its own, a name has its place among the class names.

    `labels` has an image or a shard for each label that occurs. Without `class_names` the classes
    are named after the labels.

    Raises:
        InputError: An image has no label, or one without a class name; a class has no image; there
            is only one class.
    """
    for label in (None, "", -1):  # -1: in test sets whose labels are secret
        if label in labels:
            raise InputError(
                f"{source}: {labels[label]} has no label; choose a split with labels, or "
                f"{WITHOUT_CLASSES}"
            )
    numbers = {label for label in labels if isinstance(label, int)}
    if class_names is None:
        table = sorted({normal_name(label) for label in labels if isinstance(label, str)})
        if table and numbers:
            raise InputError(
                f"{source}: some labels are numbers and some are names, such as {min(numbers)} and "
                f"{table[0]!r:.100}: make all of them names"
            )
        if numbers:
            classes = max(numbers) + 1
            if len(numbers) < classes:  # before a table is made, which could be of any size
                example = next(number for number in range(classes) if number not in numbers)
                raise _without_images(source, classes - len(numbers), classes, str(example))
            table = [str(number) for number in range(classes)]
    else:
        table = [normal_name(name) for name in class_names]
    check_class_names(source, table)
    places = {name: number for number, name in enumerate(table)}
    found = {}
    for label, place in labels.items():
        number = places.get(normal_name(label), -1) if isinstance(label, str) else label
        if number is None or not 0 <= number < len(table):
            raise InputError(
                f"{source}: {place} has the label {label!r:.100}, but there are only {len(table)} "
                "class names"
            )
        found[label] = number
    if missing := sorted(set(range(len(table))) - set(found.values())):
        raise _without_images(source, len(missing), len(table), table[missing[0]])
    return found, tuple(table)


def _without_images(source: str | Path, missing: int, classes: int, example: str) -> InputError:
    return InputError(
        f"{source}: {missing} of {classes} classes have no image, such as {example!r:.100}: "
        "choose data with images of all, or correct the class names"
    )


def check_class_names(source: str | Path, names: Sequence[str]) -> None:
    """Refuse fewer than two classes, equal names, control characters, and what is not UTF-8."""
    counts = Counter(names)
    for name, count in counts.items():
        if count > 1:
            raise InputError(
                f"{source}: two classes are named {name!r:.100}: give them different names"
            )
    for name in counts:
        if not name.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
            raise InputError(
                f"{source}: the class name {ascii(name)[:100]} is not UTF-8, or has control "
                "characters: rename the class"
            )
    if len(counts) < 2:
        raise InputError(
            f"{source}: a conditional model needs several classes, and there "
            f"{'is one' if counts else 'are none'}: {WITHOUT_CLASSES}"
        )


@functools.cache
def part_of_dataset(name: str) -> str | None:
    """Which part of a dataset a folder or file of this name holds: a key of `_PARTS`, or None."""
    if not _ANY_WORD.search(name):
        return None
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = " ".join(re.findall(r"[^\W\d_]+", spaced)).lower()
    return next((kind for kind, form in _PARTS.items() if re.fullmatch(form, words)), None)


def _fault(tree: _Folder, members: Sequence[str]) -> str | None:
    """Why folders are not the classes; None where they may be."""
    if wrong := _misplaced(tree):
        return wrong[1]
    if not tree.folders:
        return "holds images but no class folders"
    if len({normal_name(name) for name in tree.folders}) == 1:
        return f"has one folder with images, {next(iter(tree.folders))!r}, but several are needed"
    if _are_shards(tree, members):
        return (
            f"holds shards ({_listed(tree.folders)}), not class folders (if they are, rename them; "
            "labels may also be in labels.csv or dataset.json)"
        )
    if _are_initials(tree):
        first = min(tree.folders)
        return (
            f"holds folders by first letter ({_listed(tree.folders)}), not class folders such as "
            f"{first}/{min(tree.folders[first].folders)}"
        )
    return None


def _way_to_classes(folder: _Folder) -> tuple[str, ...] | None:
    """The way down to the folder whose folders look like the classes; None where there is none."""
    if wrong := _misplaced(folder):
        name = wrong[0]
    elif len(folder.folders) == 1:
        [name] = folder.folders
    else:
        # A class may have folders of its own, but then most images lie beside them.
        return () if folder.direct * 2 < folder.total else None
    below = _way_to_classes(folder.folders[name])
    return None if below is None else (name, *below)


def _misplaced(folder: _Folder) -> tuple[str, str] | None:
    """Where folders are parts, copies or variants of a dataset: the right one, and the fault."""
    if parts := _parts(folder):
        right = next((name for name in parts if folder.folders[name].is_nested), parts[0])
        listed = _listed(parts if len(parts) > 1 else folder.folders)
        return right, f"contains the splits of a dataset ({listed}), not class folders"
    if copy := _copy(folder):
        return copy, f"contains the same folders twice, beside {copy!r} and inside it"
    if shared := _shared_by_variants(folder):
        names = _listed(folder.folders)
        return min(folder.folders), f"holds the same folders ({_listed(shared)}) in each of {names}"
    # One folder that holds the parts of a dataset, each with class folders in it.
    inner = {name: below.inner for name, below in folder.folders.items()}
    datasets = [
        name
        for name, below in inner.items()
        if len(parts := _parts(below)) > 1 and any(below.folders[p].is_nested for p in parts)
    ]
    if len(datasets) == 1 < len(inner):
        return datasets[0], f"holds a dataset in {datasets[0]!r}, with parts of its own, and others"
    return None


def _parts(folder: _Folder) -> list[str]:
    """The folders that are the parts of a dataset and not its classes, the best to train on first.

    Folders called train may be classes, the vehicles. Beside one called test they are not, where
    they hold folders or there is nothing else; nor where they alone hold folders.
    """
    kinds = {name: kind for name in folder.folders if (kind := part_of_dataset(name))}
    nested = [name for name, below in folder.folders.items() if below.is_nested]
    nothing_else = len(kinds) == len(folder.folders)
    several = len(set(kinds.values())) > 1 and (nothing_else or kinds.keys() & nested)
    alone = (
        len(nested) == 1 < len(folder.folders)
        and kinds.get(nested[0]) in ("train", "images")
        and not folder.folders[nested[0]].direct
    )
    if not several and not alone:
        return []
    return sorted(kinds, key=lambda name: (list(_PARTS).index(kinds[name]), name))


def _copy(folder: _Folder) -> str | None:
    """The folder that holds the folders beside it once more; None where there is none."""
    for name, below in sorted(folder.folders.items()):
        others = folder.folders.keys() - {name}
        inside = below.inner.folders.keys()
        if len(inside) > 1 and inside <= others:
            return name
        while not below.direct and len(below.folders) == 1:
            [(inner, below)] = below.folders.items()
            if inner in others:
                return inner
    return None


def _shared_by_variants(folder: _Folder) -> list[str]:
    """The folders in each folder, if all hold the same ones: variants or sessions of a dataset.

    Two folders that all classes have may tell good images from bad ones.
    """
    inner = [below.inner for below in folder.folders.values()]
    shared = list(inner[0].folders) if inner else []
    if len(inner) < 2 or any(one.direct or one.folders.keys() != {*shared} for one in inner):
        return []
    matches = [_ONE_OF_SEVERAL.fullmatch(name) for name in folder.folders]
    alike = len({match and match[1] for match in matches}) == 1 and None not in matches
    real = [name for name in shared if not name.isdecimal()]
    are_variants = len(real) > 2 or (len(real) > 1 and alike)
    return shared if are_variants and not _are_pieces(folder.folders) else []


def _are_pieces(names: Iterable[str]) -> bool:
    stems = {name.rstrip("0123456789").rstrip("-_ .").lower() for name in names}
    return len(stems) == 1 and _PIECE.fullmatch(next(iter(stems))) is not None


def _are_shards(folder: _Folder, members: Sequence[str]) -> bool:
    """Whether folders divide one dataset into pieces: by name, or by the numbers of the files."""
    if _are_pieces(folder.folders):
        return True
    names = sorted(folder.folders)
    widths = {len(name) for name in names}
    if not all(map(str.isdecimal, names)) or len(widths) > 1 or max(widths) < _SHARD_DIGITS:
        return False
    numbers: dict[str, list[int]] = {name: [] for name in names}
    for top, _, below in (member.partition("/") for member in members if "/" in member):
        digits = re.findall(r"\d+", PurePosixPath(below).stem)
        if not digits or "/" in below:
            return False
        numbers[top].append(int(digits[-1]))
    ascending = all(
        max(numbers[before]) < min(numbers[after]) for before, after in itertools.pairwise(names)
    )
    # By the last three digits, as Danbooru has them.
    by_rest = all(n % 1000 == int(name) for name, own in numbers.items() for n in own)
    return ascending or by_rest


def _are_initials(folder: _Folder) -> bool:
    """Whether the folders sort others by their first letters, as Places and SUN have them."""
    return all(
        len(letter) == 1
        and not below.direct
        and all(re.fullmatch(rf"{re.escape(letter)}[a-z][\w -]+", name) for name in below.folders)
        for letter, below in folder.folders.items()
    )


def _listed(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:_NAMED]) + ", ..." * (len(listed) > _NAMED)
