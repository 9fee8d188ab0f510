"""Images that bring their labels with them, put into the order in which a folder has them.

Parquet files, WebDataset shards and the `dataset.json` of StyleGAN's tools say the class of each
image, and keep images in any order.
Here they get the layout of a folder of class folders: by class, then by name. So the same images
make the same dataset, down to its fingerprint, whichever way they are stored.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from biggan.classes import normal_name
from biggan.data.decoding import CorruptImageError
from biggan.data.layout import Layout, check_class_names
from biggan.data.sources import ImageFiles
from biggan.errors import InputError

Label = int | str | None


def arrange_labelled(
    path: Path,
    names: Sequence[str | None],
    places: Sequence[str],
    labels: Sequence[Label] | None,
    class_table: Sequence[str] | None,
) -> tuple[Layout, list[int]]:
    """Order images by class, then by name.

    Args:
        path: The source, for messages.
        names: What each image is called, where known. Images that share a name within a class are
            all called by their places instead.
        places: Where each image lies in the source: unique, and sorted as the source has them.
        labels: The class of each: a number or a name; None for a dataset without classes.
        class_table: The names of the numbers; without it a number is a class's name.

    Returns:
        The images in order, and which image of the source each one is.

    Raises:
        InputError: An image has no label, or one that is not in the table; a class has no image;
            there is only one class.
    """
    if labels is None:
        members = _members(names, places, None, ())
        order = sorted(range(len(members)), key=lambda image: members[image])
        return Layout(tuple(members[image] for image in order), (0,) * len(order), ()), order
    numbers, class_names = _numbers(path, places, labels, class_table)
    members = _members(names, places, numbers, class_names)
    order = sorted(range(len(members)), key=lambda image: (numbers[image], members[image]))
    layout = Layout(
        members=tuple(members[image] for image in order),
        labels=tuple(numbers[image] for image in order),
        class_names=class_names,
    )
    return layout, order


def read_label_file(files: ImageFiles) -> list[Label] | None:
    """The labels that the `dataset.json` of StyleGAN's tools gives to image files.

    It holds {"labels": [["00000/img00000000.png", 6], ...]}.
    https://github.com/NVlabs/stylegan3/blob/main/dataset_tool.py

    Returns:
        A label for each of `files.members`; None where there is no such file, or another program's.

    Raises:
        InputError: It is damaged, or gives no labels, or none to an image, or vectors.
    """
    if files.label_file is None:
        return None
    place = files.path / files.label_file
    without = f"go without classes (--unconditional), or take {files.label_file} away"
    try:
        about = json.loads(files.read(files.label_file))
    except (CorruptImageError, ValueError, RecursionError) as error:
        raise InputError(f"{place} is damaged: mend it, or take it away") from error
    if not isinstance(about, dict) or "labels" not in about:
        return None
    if about["labels"] is None:
        raise InputError(f"{place} gives no labels (null): {without}")
    try:
        given = {_member(name): label for name, label in dict(about["labels"]).items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{place} gives the labels in another form than [file, number]: {without}"
        ) from error
    folder = files.label_file.rpartition("/")[0]
    labels = [given.get(_member(name.removeprefix(f"{folder}/"))) for name in files.members]
    for name, label in zip(files.members, labels, strict=True):
        if isinstance(label, bool) or not isinstance(label, (int, str, type(None))):
            raise InputError(f"{place} gives {name} no number but {str(label)[:100]}: {without}")
    missing = [name for name, label in zip(files.members, labels, strict=True) if label is None]
    if missing:
        raise InputError(
            f"{place} gives no label to {len(missing)} of {len(labels)} images, such as "
            f"{missing[0]}: add them, or {without}"
        )
    lost = set(map(str, given.values())) - set(map(str, labels))
    if lost:
        raise InputError(
            f"{files.path} has no image of the class {min(lost)[:100]} that {files.label_file} "
            "names: copy or download it again"
        )
    return labels


def _member(name: str) -> str:
    return normal_name(name.replace("\\", "/").removeprefix("./"))


def _members(
    names: Sequence[str | None],
    places: Sequence[str],
    numbers: Sequence[int] | None,
    class_names: tuple[str, ...],
) -> list[str]:
    """A unique name for each image."""
    known = [name for name in names if name]
    if len(set(known)) == len(places):
        return known
    if numbers is not None and len(known) == len(places):
        # Hugging Face drops the folders: "0001.png" is there once in every class.
        full = [f"{class_names[n]}/{name}" for n, name in zip(numbers, known, strict=True)]
        if len(set(full)) == len(places):
            return full
    return list(places)


def _numbers(
    path: Path, places: Sequence[str], labels: Sequence[Label], table: Sequence[str] | None
) -> tuple[list[int], tuple[str, ...]]:
    """Each image's class as an index, and the names of the classes."""
    for place, label in zip(places, labels, strict=True):
        if label in (None, "", -1):  # -1: what test sets have that keep their labels secret
            raise InputError(
                f"{path}: {place} has no label; choose a part with labels, or go without classes "
                "(--unconditional)"
            )
    labels = [normal_name(label) if isinstance(label, str) else label for label in labels]
    table = _default_table(path, labels) if table is None else [normal_name(name) for name in table]
    check_class_names(path, table)
    index = {name: number for number, name in enumerate(table)}
    numbers = []
    for place, label in zip(places, labels, strict=True):
        number = index.get(label, -1) if isinstance(label, str) else label
        if not isinstance(number, int) or not 0 <= number < len(table):
            raise InputError(
                f"{path}: {place} has the label {label!r:.100}, which none of the "
                f"{len(table)} class names belongs to"
            )
        numbers.append(number)
    missing = sorted(set(range(len(table))) - set(numbers))
    if missing:
        raise without_images(path, len(missing), len(table), table[missing[0]])
    if len(table) < 2:
        raise InputError(
            f"{path} has one class, {table[0]!r}, and a conditional model needs several: go "
            "without classes (--unconditional)"
        )
    return numbers, tuple(table)


def _default_table(path: Path, labels: Sequence[Label]) -> list[str]:
    names = sorted({label for label in labels if isinstance(label, str)})
    numbers = {label for label in labels if isinstance(label, int)}
    if names and numbers:
        raise InputError(
            f"{path}: some labels are numbers and some are names, such as {min(numbers)} and "
            f"{names[0]!r:.100}: make all of them names"
        )
    return names or numbered_classes(path, numbers)


def numbered_classes(source: str | Path, numbers: Collection[int]) -> list[str]:
    """The names of classes that only have numbers.

    Raises:
        InputError: A number below the highest one is not among them.
    """
    classes = max(numbers) + 1
    if len(numbers) < classes:  # found before a table is made, which could be of any size
        example = next(number for number in range(classes) if number not in numbers)
        raise without_images(source, classes - len(numbers), classes, str(example))
    return [str(number) for number in range(classes)]


def without_images(source: str | Path, missing: int, classes: int, example: str) -> InputError:
    """The error for classes of which a source has no image."""
    return InputError(
        f"{source}: {missing} of {classes} classes have no image, such as {example!r:.100}: choose "
        "a part with images of all, or mend the class names"
    )
