"""Which image belongs to which class, read off the paths.

The rule is one folder per class. The traps are the folders above and beside it: a model trained on
the parent of `train/` learns one class, and on the parent of `train/` and `val/` two, and nobody is
told until the samples look wrong. So such a folder is refused, with the right one named.
"""

import functools
import itertools
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from biggan.classes import normal_name
from biggan.errors import InputError

logger = logging.getLogger("biggan.data")

_NAMED = 5  # folders that a message names
_UNCONDITIONAL = "train without classes (--set unconditional=true)"

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
_ANY_WORD = re.compile("|".join([*_SPLIT_WORDS.values(), *_CONTENT_WORDS.values()]), re.IGNORECASE)
_SUFFIX = r"(sets?|data|datasets?|folder|dir|split|files?|samples?|images?|imgs?)"
# What may follow such a word: "train_images", "train-jpg", "test_set_small", "trainA".
_AFTER = re.compile(
    rf"{_SUFFIX}|jpe?g|png|tif|photos?|pictures?|labell?ed|labels?|masks?|full|small|mini|tiny|clean"
    r"|raw|orig(inal)?|resized|cropped|processed|final|new|all|only|background|px|part|hr|lr|class"
    r"|object|bbox(es)?|[a-z]"
)
# Folders that cut a dataset into pieces of similar contents: "images_001", "fold1", "part-2".
_PIECE = re.compile(
    r"(images?|parts?|shards?|chunks?|batch|folds?|splits?|disk|vol|volume|subset|train|val|test)"
)
# "session2", "set_b", "setB"
_ONE_OF_SEVERAL = re.compile(r"(.+?)([-_. ]?\d+|[-_. ][A-Za-z]|(?<=[a-z])[A-Z])")
_SHARD_DIGITS = 4  # at least so many in the name of a shard of StyleGAN's tools


@dataclass(frozen=True)
class Layout:
    """The images of a dataset in order: by class, then by path.

    Attributes:
        members: Relative paths of the image files.
        labels: The class of each, an index into `class_names`; all 0 without classes.
        class_names: The classes, sorted by name; empty for an unconditional dataset.
    """

    members: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]


@dataclass
class _Folder:
    """A folder with images in it or below it."""

    direct: int = 0  # images in it
    total: int = 0  # images in it and below it
    folders: dict[str, "_Folder"] = field(default_factory=dict)


def arrange(
    members: Sequence[str],
    path: Path,
    *,
    folders: Sequence[str] = (),
    in_zip: bool = False,
    unconditional: bool = False,
) -> Layout:
    """Give every image its class: the name of the topmost folder it lies in.

    A folder that wraps all the class folders of a zip is passed over, because nobody can point
    inside a zip; the same in a folder is an error that names the folder to point at.

    Args:
        members: Relative paths of image files, at least one.
        path: The folder or zip they are in, for messages.
        folders: Folders that are there, also such as hold no image.
        in_zip: Whether it is a zip.
        unconditional: Ignore folders: one dataset without classes.

    Returns:
        The images in order with their classes.

    Raises:
        InputError: The folders do not give two classes, or are not the classes; a class has no
            image.
    """
    if unconditional:
        return Layout(tuple(sorted(members)), (0,) * len(members), ())
    tree = _tree(members)
    prefix = ""
    if in_zip:
        prefix, tree = _inside_wrapping_folders(tree)
    class_names = sorted({normal_name(name) for name in tree.folders})
    if len(class_names) < 2 or _part_to_train_on(tree) is not None:
        below = "/".join(_likely_below(tree) or ())
        advice = f"did you mean {path / below}?"
        if in_zip:
            advice = f"make a zip of {prefix}{below} alone"
        raise InputError(f"{path} {_fault(tree, advice if below else None)}")
    if _are_shards(tree, members, prefix):
        raise InputError(
            f"{path} holds shards ({_listed(tree.folders)}), not class folders: put the images of "
            "each class in a folder of its own, or give their labels in dataset.json, as "
            f"StyleGAN's tools write it, or {_UNCONDITIONAL}; or rename them, if they are classes"
        )
    if _are_initials(tree):
        example = f"{class_names[0]}/{min(tree.folders[class_names[0]].folders)}"
        raise InputError(
            f"{path} holds folders by first letter ({_listed(tree.folders)}), not class folders: "
            f"move the folders in them, such as {example}, beside each other"
        )
    check_class_names(path, class_names)
    beside = {name.removeprefix(prefix) for name in folders if name.startswith(prefix)}
    beside = {normal_name(name) for name in beside if name and "/" not in name}
    empty = sorted(beside - set(class_names))
    if empty:
        others = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise InputError(
            f"{path}: the class {empty[0]!r}{others} has no images: put some into its folder, or "
            "take the folder away"
        )
    _warn_of_shared_folders(tree)
    return _by_top_folder(members, prefix, class_names)


def check_class_names(source: str | Path, names: Iterable[str]) -> None:
    """Make sure that class names can be told apart, and written to files and terminals.

    Raises:
        InputError: Two are the same; one has control characters, or bytes that are not UTF-8.
    """
    counts = Counter(names)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(
            f"{source}: two classes are called {twice[0]!r:.100}: give them different names"
        )
    for name in counts:
        if not name.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
            raise InputError(
                f"{source}: the class name {ascii(name)[:100]} is not UTF-8, or has control "
                "characters: rename the class"
            )


@functools.cache
def part_of_dataset(name: str) -> str | None:
    """Which part of a dataset a folder or file of this name holds, as far as the name tells.

    Returns:
        "train", "validation", "test", "unlabelled", "images" or "annotations"; None for any other.
    """
    if not _ANY_WORD.search(name):
        return None
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [word.lower() for word in re.split(r"[\W\d_]+", spaced) if word]
    for kind, pattern in _SPLIT_WORDS.items():
        for place, word in enumerate(words):
            if re.fullmatch(rf"({pattern}){_SUFFIX}?", word) and all(
                map(_may_follow, words[place + 1 :])
            ):
                return kind
    for kind, pattern in _CONTENT_WORDS.items():
        if words and re.fullmatch(pattern, words[0]) and all(map(_AFTER.fullmatch, words[1:])):
            return kind
    return None


def _may_follow(word: str) -> bool:
    splits = "|".join(_SPLIT_WORDS.values())
    return _AFTER.fullmatch(word) is not None or re.fullmatch(splits, word) is not None


def _tree(members: Sequence[str]) -> _Folder:
    root = _Folder()
    for member in members:
        folder = root
        folder.total += 1
        for name in member.split("/")[:-1]:
            folder = folder.folders.setdefault(name, _Folder())
            folder.total += 1
        folder.direct += 1
    return root


def _inside_wrapping_folders(tree: _Folder) -> tuple[str, _Folder]:
    prefix = ""
    while not tree.direct and len(tree.folders) == 1:
        name, only = next(iter(tree.folders.items()))
        if _likely_below(only) is None:
            break
        prefix, tree = f"{prefix}{name}/", only
    return prefix, tree


def _likely_below(folder: _Folder) -> tuple[str, ...] | None:
    """The way down to the folder whose folders look like the classes; None where there is none."""
    name = _part_to_train_on(folder)
    if name is None and len(folder.folders) == 1:
        name = next(iter(folder.folders))
    if name is None:
        # A class may have folders of its own, but then most images lie beside them.
        return () if folder.direct * 2 < folder.total else None
    below = _likely_below(folder.folders[name])
    return None if below is None else (name, *below)


def _part_to_train_on(folder: _Folder) -> str | None:
    """The folder to train on where the folders are not all classes; None where they may be."""
    parts = _parts(folder)
    nested = [name for name in parts if len(_unwrapped(folder.folders[name]).folders) > 1]
    return (
        next(iter(nested or parts), None)
        or _copy(folder)
        or next(iter(_variants(folder)), None)
        or _dataset_beside_others(folder)
    )


def _parts(folder: _Folder) -> list[str]:
    """The folders that are the parts of a dataset and not its classes, the best to train on first.

    Folders called train may well be classes, the vehicles. Beside one called test they are not,
    where they hold folders or there is nothing else; nor where they alone hold folders.
    """
    kinds = {name: kind for name in folder.folders if (kind := part_of_dataset(name))}
    nested = {name for name, below in folder.folders.items() if len(_unwrapped(below).folders) > 1}
    nothing_else = len(kinds) == len(folder.folders)
    several = len(set(kinds.values())) > 1 and (nothing_else or nested & kinds.keys())
    alone = (
        len(nested) == 1 < len(folder.folders)
        and kinds.get(*nested) in ("train", "images")
        and not folder.folders[next(iter(nested))].direct
    )
    if not several and not alone:
        return []
    order = [*_SPLIT_WORDS, *_CONTENT_WORDS]
    return sorted(kinds, key=lambda name: (order.index(kinds[name]), name))


def _copy(folder: _Folder) -> str | None:
    """The folder that holds the folders beside it once more; None where there is none."""
    for name, below in sorted(folder.folders.items()):
        inside = _unwrapped(below).folders.keys()
        if len(inside) > 1 and inside <= folder.folders.keys() - {name}:
            return name
        while not below.direct and len(below.folders) == 1:
            [(inner, below)] = below.folders.items()
            if inner in folder.folders.keys() - {name}:
                return inner
    return None


def _variants(folder: _Folder) -> list[str]:
    """The folders, if all hold the same ones: variants of a dataset, or sessions of its making.

    Two folders that all classes have may tell good images from bad ones.
    """
    names = list(folder.folders)
    below = [_unwrapped(one) for one in folder.folders.values()]
    shared = below[0].folders.keys() if below else ()
    if len(shared) < 2 or any(one.direct or one.folders.keys() != shared for one in below):
        return []
    if _are_pieces(names):
        return []
    matches = [_ONE_OF_SEVERAL.fullmatch(name) for name in names]
    alike = len({match and match[1] for match in matches}) == 1 and None not in matches
    real = [name for name in shared if not name.isdecimal()]
    several = len(names) > 1 and (len(real) > 2 or (len(real) > 1 and alike))
    return sorted(names) if several else []


def _dataset_beside_others(folder: _Folder) -> str | None:
    """The folder that alone holds the parts of a dataset, each with class folders in it."""
    below = {name: _unwrapped(one) for name, one in folder.folders.items()}
    with_parts = [name for name, one in below.items() if _has_parts_with_classes(one)]
    return with_parts[0] if len(with_parts) == 1 < len(below) else None


def _has_parts_with_classes(folder: _Folder) -> bool:
    parts = [_unwrapped(folder.folders[name]) for name in _parts(folder)]
    return len(parts) > 1 and any(len(part.folders) > 1 for part in parts)


def _are_pieces(names: Iterable[str]) -> bool:
    stems = {name.rstrip("0123456789").rstrip("-_ .").lower() for name in names}
    return len(stems) == 1 and _PIECE.fullmatch(next(iter(stems))) is not None


def _unwrapped(folder: _Folder) -> _Folder:
    """The first folder on the way down that holds more than one other folder."""
    while not folder.direct and len(folder.folders) == 1:
        folder = next(iter(folder.folders.values()))
    return folder


def _are_shards(folder: _Folder, members: Sequence[str], prefix: str) -> bool:
    """Whether the folders cut one dataset into pieces: by name, or by the numbers of the files."""
    if _are_pieces(folder.folders):
        return True
    names = sorted(folder.folders)
    widths = {len(name) for name in names}
    if not all(map(str.isdecimal, names)) or len(widths) > 1 or max(widths) < _SHARD_DIGITS:
        return False
    numbers: dict[str, list[int]] = {name: [] for name in names}
    for member in members:
        top, separator, below = member.removeprefix(prefix).partition("/")
        if not separator:
            continue  # beside the folders
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


def _warn_of_shared_folders(tree: _Folder) -> None:
    """Say so where the class folders all have the same folders, which may be the real classes."""
    shared = set.intersection(*(set(_unwrapped(below).folders) for below in tree.folders.values()))
    shared = {name for name in shared if not name.isdecimal()}
    if len(shared) > 1:
        logger.warning(
            "each of the classes %s has the folders %s, whose images are taken together: if those "
            "are the classes, make one folder of each",
            _listed(tree.folders),
            _listed(shared),
        )


def _fault(tree: _Folder, advice: str | None) -> str:
    """What is wrong with folders that are not the classes, and the way out."""
    names = sorted(tree.folders)
    if not names:
        return (
            "holds images but no class folders: put the images of each class in a folder of its "
            f"own, or {_UNCONDITIONAL}"
        )
    if parts := _parts(tree):
        listed = _listed(parts if len(parts) > 1 else names)
        return (
            f"holds the parts of a dataset ({listed}), not class folders; "
            f"{advice or 'give the one to train on, with class folders in it'}"
        )
    if copy := _copy(tree):
        return (
            f"holds the same folders beside {copy!r} and in it; "
            f"{advice or 'take one of the copies away'}"
        )
    if _variants(tree):
        shared = _unwrapped(tree.folders[names[0]]).folders
        return (
            f"holds the same folders ({_listed(shared)}) in each of {_listed(names)}; "
            f"{advice or 'give one of these'}; or, if these are the classes, put their images into "
            "them directly"
        )
    if beside := _dataset_beside_others(tree):
        return (
            f"holds a dataset in {beside!r}, with parts of its own, and other folders beside it; "
            f"{advice or 'give the part to train on'}"
        )
    return (
        f"has one folder with images, {names[0]!r}, and a conditional model needs several classes; "
        f"{advice or 'add folders for other classes'}, or {_UNCONDITIONAL}"
    )


def _by_top_folder(members: Sequence[str], prefix: str, class_names: Sequence[str]) -> Layout:
    label_of = {name: label for label, name in enumerate(class_names)}
    labelled, stray = [], []
    for member in members:
        top, separator, _ = member.removeprefix(prefix).partition("/")
        if separator:
            labelled.append((label_of[normal_name(top)], normal_name(member), member))
        else:
            stray.append(member)
    if stray:
        logger.warning(
            "ignored %d images outside the class folders, such as %s", len(stray), stray[0]
        )
    labelled.sort()
    return Layout(
        members=tuple(member for _, _, member in labelled),
        labels=tuple(label for label, _, _ in labelled),
        class_names=tuple(class_names),
    )


def _listed(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = ", ..." if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
