"""Class names: from what a user types to the index a model takes.

ImageNet's names are lists of synonyms ("tabby, tabby cat") that share words and, a few times, whole
synonyms ("crane" is a bird and a machine). So a query is either clear or refused with the choices;
nothing here picks silently.
"""

import difflib
import operator
import re
from collections.abc import Iterable, Sequence

from biggan.errors import InputError

_LISTED = 10  # choices that an "ambiguous" message names
_NEAREST = 5  # names that a "no such class" message offers


def resolve_class(query: str | int, class_names: Sequence[str]) -> int:
    """Find the one class that a name or an index means.

    In this order: the exact name or one exact synonym; an index ("207", or the notebook's
    drop-down form "207) golden retriever"); the only class with the query among its words. Case
    does not matter, and spaces, hyphens and underscores are the same.

    Args:
        query: A class name, a synonym, words of one, or an index.
        class_names: The model's classes in order; a name may hold synonyms after commas.

    Returns:
        The index of the class.

    Raises:
        InputError: No class fits, several do, or the index is out of range.
    """
    if not class_names:
        raise InputError("this model has no classes: it is unconditional")
    if not isinstance(query, str):
        return _checked_index(operator.index(query), class_names)
    wanted = _normal(query)
    if not wanted:
        raise InputError(
            "the class is empty: give a name or an index (`biggan classes` lists them)"
        )
    names = [_normal(name) for name in class_names]

    exact = [index for index, name in enumerate(names) if _is_called(wanted, name)]
    if exact:
        return _the_only(exact, query, class_names)
    index = _numbered(query, class_names)
    if index is not None:
        return index
    containing = [index for index, name in enumerate(names) if _has_words(wanted, name)]
    if containing:
        return _the_only(containing, query, class_names)
    raise InputError(_no_such_class(query, wanted, class_names))


def search_classes(query: str, class_names: Sequence[str]) -> list[int]:
    """List the classes whose names hold the query anywhere, best first.

    A synonym that is the query comes before one that starts with it, then the query as whole
    words, then as a part of a word; ties keep the order of the classes. An empty query finds all.

    Args:
        query: Part of a name, in any case.
        class_names: The model's classes in order.

    Returns:
        Indices into `class_names`.
    """
    wanted = _normal(query)
    ranked = []
    for index, name in enumerate(_normal(name) for name in class_names):
        if wanted in name:
            ranked.append((_rank(wanted, name), index))
    return [index for _, index in sorted(ranked)]


def class_choices(class_names: Sequence[str]) -> list[str]:
    """The entries of a drop-down list, as the notebook writes them: "933) cheeseburger"."""
    return [_choice(index, class_names) for index in range(len(class_names))]


def _normal(text: str) -> str:
    """One spelling for comparing: lower case, single spaces, ", " between synonyms."""
    # A leading minus is kept, or the index "-1" would find a class that is called "1".
    spaced = re.sub(r"(?!^-\d)[\s_-]+", " ", text.strip().casefold())
    return re.sub(r"\s*,\s*", ", ", spaced).strip(" ,")


def _synonyms(name: str) -> list[str]:
    return name.split(", ")


def _is_called(wanted: str, name: str) -> bool:
    return wanted == name or wanted in _synonyms(name)


def _has_words(wanted: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", name) is not None


def _rank(wanted: str, name: str) -> int:
    if _is_called(wanted, name):
        return 0
    if any(synonym.startswith(wanted) for synonym in _synonyms(name)):
        return 1
    return 2 if _has_words(wanted, name) else 3


def _numbered(query: str, class_names: Sequence[str]) -> int | None:
    """The index in "207" or "207) golden retriever"; None where the query has another form."""
    match = re.fullmatch(r"(-?[0-9]{1,9})(?:\)(.*))?", query.strip(), re.DOTALL)
    if match is None:
        return None
    index = _checked_index(int(match[1]), class_names)
    name = _normal(match[2] or "")
    # The entry may come from another model's list: the same number, another class.
    if name and not _has_words(name, _normal(class_names[index])):
        raise InputError(
            f"class {query!r}: number {index} of this model is {class_names[index]!r}; "
            "give the name or the number alone"
        )
    return index


def _checked_index(index: int, class_names: Sequence[str]) -> int:
    if not 0 <= index < len(class_names):
        raise InputError(
            f"class {index} is out of range: this model's classes are 0 to {len(class_names) - 1}"
        )
    return index


def _the_only(found: Sequence[int], query: str, class_names: Sequence[str]) -> int:
    if len(found) == 1:
        return found[0]
    listed = _listed(_choice(index, class_names) for index in found[:_LISTED])
    more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    raise InputError(
        f"class {query!r} is ambiguous: {listed}{more}; give the full name or the number"
    )


def _no_such_class(query: str, wanted: str, class_names: Sequence[str]) -> str:
    owner: dict[str, int] = {}
    for index, name in enumerate(class_names):
        for synonym in _synonyms(_normal(name)):
            owner.setdefault(synonym, index)
    partial = search_classes(query, class_names)
    similar = [owner[synonym] for synonym in difflib.get_close_matches(wanted, owner, n=_NEAREST)]
    nearest = list(dict.fromkeys(partial + similar))[:_NEAREST]
    if not nearest and len(class_names) <= _LISTED:
        nearest = list(range(len(class_names)))
    hint = f"; nearest: {_listed(_choice(index, class_names) for index in nearest)}"
    return f"no class is called {query!r}{hint if nearest else ''}; `biggan classes` lists them all"


def _choice(index: int, class_names: Sequence[str]) -> str:
    return f"{index}) {class_names[index]}"


def _listed(choices: Iterable[str]) -> str:
    # Not commas: the names themselves hold them.
    return "; ".join(choices)
