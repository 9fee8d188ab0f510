"""Images that bring their labels with them, put into the order in which a folder has them.

Parquet files and WebDataset shards say the class beside each image, and keep images in any order.
Here they get the layout of a folder of class folders: by class, then by name. So the same images
make the same dataset, down to its fingerprint, whichever way they are stored.
"""

from collections.abc import Sequence
from pathlib import Path

from biggan.data.layout import Layout
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
        if label is None or label == -1:  # -1: what test sets have that keep their labels secret
            raise InputError(
                f"{path}: {place} has no label; choose a part with labels, or go without classes "
                "(--unconditional)"
            )
    table = _default_table(labels) if table is None else table
    if len(set(table)) < len(table):
        twice = next(name for name in table if list(table).count(name) > 1)
        raise InputError(f"{path}: two classes are called {twice!r}: give them different names")
    index = {name: number for number, name in enumerate(table)}
    numbers = []
    for place, label in zip(places, labels, strict=True):
        number = index.get(label, -1) if isinstance(label, str) else label
        if not isinstance(number, int) or not 0 <= number < len(table):
            raise InputError(
                f"{path}: {place} has the label {label!r}, which none of the {len(table)} class "
                "names belongs to"
            )
        numbers.append(number)
    missing = sorted(set(range(len(table))) - set(numbers))
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(table)} classes have no image, such as "
            f"{table[missing[0]]!r}: choose a part with images of all, or mend the class names"
        )
    if len(table) < 2:
        raise InputError(
            f"{path} has one class, {table[0]!r}, and a conditional model needs several: go "
            "without classes (--unconditional)"
        )
    return numbers, tuple(table)


def _default_table(labels: Sequence[Label]) -> list[str]:
    if any(isinstance(label, str) for label in labels):
        return sorted({str(label) for label in labels})
    return [str(number) for number in range(max(int(label or 0) for label in labels) + 1)]
