"""Class names: from what a user types to the index a model takes.

ImageNet's names are lists of synonyms ("tabby, tabby cat") that share words and, a few times, whole
synonyms ("crane" is a bird and a machine). So a query is either clear or refused with the choices;
nothing here picks silently.

ImageNet's own names come with the package, in the order that all published models share:
`imagenet_classes.tsv`, written by `scripts/make_imagenet_classes.py`, which names the source.
"""

import contextlib
import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path

from biggan.errors import InputError, quoted, whole_number

_LISTED = 10  # choices that an "ambiguous" message names
_NEAREST = 5  # names that a "no such class" message offers

_SIMILAR = 0.75  # least likeness of a misspelling: one letter wrong in a word of four
_MARGIN = 0.1  # how much less alike than the best find another may be

_IMAGENET_SIZE = 1000

_LISTS = "`biggan classes --model MODEL` or gan.class_names"  # in the shell, in Python


class AmbiguousClassError(InputError):
    """Several classes have the name."""


def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes in order, synonyms after commas."""
    return _imagenet_table()[1]


def wordnet_ids() -> tuple[str, ...]:
    """The WordNet ids of ImageNet's 1000 classes in order, such as "n02099601"."""
    return _imagenet_table()[0]


def is_imagenet(class_names: Sequence[str]) -> bool:
    """Whether these are ImageNet's classes, so that `wordnet_ids` are theirs."""
    return len(class_names) == _IMAGENET_SIZE and tuple(class_names) == imagenet_classes()


def default_class_names(num_classes: int) -> tuple[str, ...]:
    """Names for the classes of a model whose file has none: "class 0" and so on.

    1000 classes are taken for ImageNet's in their usual order; 0 is unconditional.
    """
    if num_classes == _IMAGENET_SIZE:
        return imagenet_classes()
    return tuple(f"class {index}" for index in range(num_classes))


def normal_name(name: str) -> str:
    """One spelling of a name, NFC: macOS writes accents as characters of their own.

    Bytes of a path or an argument that the locale could not decode are read as UTF-8.
    """
    if name.isascii():
        return name
    with contextlib.suppress(UnicodeError):
        name = name.encode("utf-8", "surrogateescape").decode("utf-8")
    return unicodedata.normalize("NFC", name)


def resolve_class(query: str | int, class_names: Sequence[str]) -> int:
    """Find the one class that a name or an index means.

    In this order: the exact name or one exact synonym; an index ("207", or the notebook's
    drop-down form "207) golden retriever"); a WordNet id, if the classes are ImageNet's; the only
    class with the query among its words. Case does not matter, and spaces, hyphens and underscores
    are the same.

    A name that several classes have is refused, even where it is the whole name of one: "harp" may
    be the harp or, by its synonyms, the harmonica.

    Args:
        query: A class name, a synonym, words of one, an index, or a WordNet id.
        class_names: The model's classes in order; a name may hold synonyms after commas.

    Returns:
        The index of the class.

    Raises:
        InputError: No class fits, several do (AmbiguousClassError), or the index is out of range.
    """
    if not class_names:
        raise InputError(f"this model is unconditional: it has no class {quoted(query)}; omit it")
    if not isinstance(query, str):
        return _checked_index(whole_number(query, "the index of a class"), class_names)
    wanted = _normal(query)
    if not wanted:
        raise InputError(f"the class is empty: give a name or an index ({_LISTS} lists them)")
    names = [_normal(name) for name in class_names]

    found = [i for i, name in enumerate(names) if wanted in (name, *name.split(", "))]
    if not found:
        index = _numbered(query, class_names)
        if index is not None:
            return index
        if is_imagenet(class_names) and wanted in wordnet_ids():
            return wordnet_ids().index(wanted)
        found = [i for i, name in enumerate(names) if _has_words(wanted, name)]
    if len(found) == 1:
        return found[0]
    # Semicolons, for the names themselves hold commas.
    if found:
        listed = "; ".join(_choice(index, class_names) for index in found[:_LISTED])
        more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise AmbiguousClassError(
            f"class {quoted(query)} is ambiguous: {listed}{more}; give the number or the whole "
            "entry"
        )
    nearest = search_classes(query, class_names)[:_NEAREST]
    if not nearest and len(class_names) <= _LISTED:
        nearest = list(range(len(class_names)))
    hint = f"; nearest: {'; '.join(_choice(index, class_names) for index in nearest)}"
    raise InputError(
        f"no class is named {quoted(query)}{hint if nearest else ''}; {_LISTS} lists them all"
    )


def search_classes(query: str, class_names: Sequence[str]) -> list[int]:
    """List the classes that match a query; if there are none, those that it may misspell."""
    names = [_normal(name) for name in class_names]
    return matching_classes(query, class_names) or _similar(_normal(query), names)


def matching_classes(query: str, class_names: Sequence[str]) -> list[int]:
    """List the classes, by index, whose names hold the query anywhere, best first.

    A synonym that is the query comes before the class with this index ("207", "207) golden
    retriever"); for the others see `_rank`. An empty query finds all; the start of a WordNet id
    ("n0209") those of ImageNet.
    """
    wanted = _normal(query)
    if not wanted:
        return list(range(len(class_names)))
    if re.fullmatch(r"n[0-9]+", wanted) and is_imagenet(class_names):
        return [index for index, id_ in enumerate(wordnet_ids()) if id_.startswith(wanted)]
    names = [_normal(name) for name in class_names]
    ranks = {index: _rank(wanted, name) for index, name in enumerate(names) if wanted in name}
    with contextlib.suppress(InputError):  # no number of this model
        index = _numbered(query, class_names)
        if index is not None:
            ranks[index] = min(1, ranks.get(index, 1))
    return sorted(ranks, key=lambda index: (ranks[index], index))


def class_choices(class_names: Sequence[str]) -> list[str]:
    """The entries of a drop-down list, as the notebook writes them: "933) cheeseburger"."""
    return [_choice(index, class_names) for index in range(len(class_names))]


@cache
def _imagenet_table() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """WordNet ids, and names."""
    table = Path(__file__).with_name("imagenet_classes.tsv").read_text(encoding="utf-8")
    ids, names = zip(*(line.split("\t") for line in table.splitlines()), strict=True)
    return ids, names


@lru_cache(maxsize=4096)  # every query is compared with all the names
def _normal(text: str) -> str:
    """One spelling for comparing: lower case, NFC, single spaces, ", " between synonyms."""
    # A leading minus is kept, or the index "-1" would find a class that is called "1".
    spaced = re.sub(r"(?!^-\d)[\s_-]+", " ", normal_name(text.strip()).casefold())
    return re.sub(r"\s*,\s*", ", ", spaced).strip(" ,")


def _has_words(wanted: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", name) is not None


def _rank(wanted: str, name: str) -> int:
    """The query as a synonym, its first words, any words, its beginning, or another part."""
    synonyms = name.split(", ")
    if wanted in (name, *synonyms):
        return 0
    if _has_words(wanted, name):
        return 2 if any(re.match(rf"{re.escape(wanted)}(?!\w)", s) for s in synonyms) else 3
    return 4 if any(synonym.startswith(wanted) for synonym in synonyms) else 5


def _similar(wanted: str, names: Sequence[str]) -> list[int]:
    """The classes with a phrase about as similar to the query as the most similar one."""
    owners = defaultdict(set)
    for index, name in enumerate(names):
        for phrase in _phrases(name, len(wanted.split())):
            owners[phrase].add(index)
    matcher = difflib.SequenceMatcher(b=wanted)
    likeness: dict[int, float] = {}
    for phrase, indices in owners.items():
        matcher.set_seq1(phrase)
        # Two cheap upper bounds of the ratio spare most phrases the slow one.
        if matcher.real_quick_ratio() < _SIMILAR or matcher.quick_ratio() < _SIMILAR:
            continue
        ratio = matcher.ratio()
        for index in indices:
            likeness[index] = max(ratio, likeness.get(index, 0))
    least = max(_SIMILAR, max(likeness.values(), default=0) - _MARGIN)
    found = [(-ratio, index) for index, ratio in likeness.items() if ratio >= least]
    return [index for _, index in sorted(found)]


def _phrases(name: str, length: int) -> Iterator[str]:
    """What a misspelling may mean: a synonym, or so many of its words in a row."""
    for synonym in name.split(", "):
        yield synonym
        words = synonym.split()
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length])


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
            f"class {quoted(query)}: number {index} of this model is {class_names[index]!r}; "
            "give only the name or only the number"
        )
    return index


def _checked_index(index: int, class_names: Sequence[str]) -> int:
    if not 0 <= index < len(class_names):
        raise InputError(
            f"class {quoted(index)} is out of range: this model's classes are 0 to "
            f"{len(class_names) - 1}"
        )
    return index


def _choice(index: int, class_names: Sequence[str]) -> str:
    return f"{index}) {class_names[index]}"
