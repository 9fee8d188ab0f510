"""The one exception that means "the caller can mend this", and foreign text in its messages."""

import difflib
import operator
import re
import reprlib
from collections.abc import Iterable
from numbers import Real

_QUOTED = 100  # characters of anybody's input that a message repeats

# Control characters, line separators, bidirectional overrides, and what no encoding can write.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = _QUOTED


class InputError(ValueError):
    """A mistake in what the user gave: a name, a value, a file.

    Its message is one line that names the mistake and the way out. The command line prints it and
    exits with status 2; everything else that is raised is a defect of ours and keeps its traceback.
    """


class DamagedFileError(InputError):
    """A file that is not whole: it is of no use, and should be fetched again."""


def require(condition: bool, message: str) -> None:
    """Raise InputError with this message where a condition is false."""
    if not condition:
        raise InputError(message)


def most_similar(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The word that was probably meant; None if none is similar, see `difflib`.

    Of words that are equally similar it is the one with the most characters in the same place:
    "biggan-deep-129" is nearer to "biggan-deep-128" than to "biggan-deep-512".
    """

    def similarity(other: str) -> tuple[float, int]:
        ratio = difflib.SequenceMatcher(None, other, word).ratio()
        return ratio, sum(a == b for a, b in zip(other, word, strict=False))

    best = max(words, key=similarity, default="")
    return best if best and similarity(best)[0] >= cutoff else None


def whole_number(value: object, what: str) -> int:
    """Somebody's value as an int, for files and messages: NumPy's integers, too; or InputError."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"{what} must be a whole number, not {quoted(value)}") from None


def real_number(value: object, what: str) -> float:
    """Somebody's value as a float, for files and messages: NumPy's numbers, too; or InputError."""
    if not isinstance(value, Real):
        raise InputError(f"{what} must be a number, not {quoted(value)}")
    return float(value)


def quoted(value: object) -> str:
    """The repr of somebody's value as a message repeats it: at most 100 characters of it."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = f"<{type(value).__name__}>"
    text = re.sub(r"\n\s*", " ", text)  # an array's
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."


def first_line(error: BaseException) -> str:
    """The first line of an error of another library, or its type, as a message repeats it."""
    return printable((str(error).strip() or type(error).__name__).splitlines()[0])[:200]


def printable(text: str) -> str:
    """Somebody's text with escapes for the characters that would command a terminal."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)
