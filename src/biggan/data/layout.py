"""Which image belongs to which class, read off the paths.

The rule is one folder per class. The traps are the folders above and beside it: a model trained on
the parent of `train/` learns one class, and on the parent of `train/` and `val/` two, and nobody is
told until the samples look wrong. So such a folder is refused, with the right one named.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from biggan.errors import InputError

logger = logging.getLogger("biggan.data")

# The names of the parts of a dataset: "train", "val2017", "cifar10-test".
_TRAIN_PART = re.compile(r"(^|.*[-_ .])train(ing)?\d*", re.IGNORECASE)
_OTHER_PART = re.compile(r"(^|.*[-_ .])(val(id(ation)?)?|test(ing)?|dev|eval)\d*", re.IGNORECASE)


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
    if len(tree.folders) < 2 or _split_to_train_on(tree) is not None:
        below = "/".join(_likely_below(tree) or ())
        advice = f"did you mean {path / below}?"
        if in_zip:
            advice = f"make a zip of {prefix}{below} alone"
        raise InputError(f"{path} {_fault(tree, advice if below else None)}")
    beside = {name.removeprefix(prefix) for name in folders if name.startswith(prefix)}
    empty = sorted(name for name in beside - set(tree.folders) if name and "/" not in name)
    if empty:
        others = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise InputError(
            f"{path}: the class {empty[0]!r}{others} has no images: put some into its folder, or "
            "take the folder away"
        )
    return _by_top_folder(members, prefix, tree)


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
    name = _split_to_train_on(folder)
    if name is None and len(folder.folders) == 1:
        name = next(iter(folder.folders))
    if name is None:
        # A class may have folders of its own, but then most images lie beside them.
        return () if folder.direct * 2 < folder.total else None
    below = _likely_below(folder.folders[name])
    return None if below is None else (name, *below)


def _split_to_train_on(folder: _Folder) -> str | None:
    """The training part where folders are the parts of a dataset (train, val) and not its classes.

    Folders called train may well be classes, the vehicles; beside one called test they are not,
    where they hold folders or there is nothing else.
    """
    train, other = _parts(folder)
    if not train or not other:
        return None
    nested = [name for name in train + other if len(folder.folders[name].folders) > 1]
    nothing_else = len(folder.folders) == len(train + other)
    return (nested or train)[0] if nested or nothing_else else None


def _parts(folder: _Folder) -> tuple[list[str], list[str]]:
    names = sorted(folder.folders)
    train = [name for name in names if _TRAIN_PART.fullmatch(name)]
    return train, [name for name in names if _OTHER_PART.fullmatch(name)]


def _fault(tree: _Folder, advice: str | None) -> str:
    """What is wrong with folders that are not the classes, and the way out."""
    names = sorted(tree.folders)
    unconditional = "train without classes (--set unconditional=true)"
    if not names:
        return (
            "holds images but no class folders: put the images of each class in a folder of its "
            f"own, or {unconditional}"
        )
    if len(names) > 1:
        train, other = _parts(tree)
        parts = ", ".join(sorted(train + other))
        return (
            f"holds the parts of a dataset ({parts}), not class folders; "
            f"{advice or 'give the one to train on, with class folders in it'}"
        )
    return (
        f"has one folder with images, {names[0]!r}, and a conditional model needs several classes; "
        f"{advice or 'add folders for other classes'}, or {unconditional}"
    )


def _by_top_folder(members: Sequence[str], prefix: str, tree: _Folder) -> Layout:
    class_names = tuple(sorted(tree.folders))
    label_of = {name: label for label, name in enumerate(class_names)}
    labelled, stray = [], []
    for member in members:
        top, separator, _ = member.removeprefix(prefix).partition("/")
        if separator:
            labelled.append((label_of[top], member))
        else:
            stray.append(member)
    if stray:
        logger.warning(
            "ignored %d images outside the class folders, such as %s", len(stray), stray[0]
        )
    labelled.sort()
    return Layout(
        members=tuple(member for _, member in labelled),
        labels=tuple(label for label, _ in labelled),
        class_names=class_names,
    )
