"""Damaged and hostile variants of files, for fuzzers with fixed seeds.

`make test` tries MUTATIONS = 50 of them for every kind of file, `make test-all` 2,000.
"""

import contextlib
import copy
import os
import resource
from pathlib import Path
from random import Random

from biggan.errors import InputError

MUTATIONS = int(os.environ.get("BIGGAN_TEST_MUTATIONS", "50"))

NESTED = "[" * 20_000
"""More brackets than Python's parsers can recurse into."""

VALUES = (
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**400,
    0.5,
    -0.0,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "a",
    "\x1b[2J\n",
    "\ud800",
    "../../x",
    "é" * 5000,
    [],
    [1, "a", None],
    [[[[[]]]]],
    {},
    {"a": {"a": {"a": 1}}},
)
"""In place of any value in JSON or TOML."""


def mutated_bytes(contents, random):
    """Flip a bit, cut, drop, repeat, overwrite or insert somewhere.

    Args:
        contents: The file.
        random: A `random.Random`.
    """
    if not contents:
        return random.randbytes(8)
    start = random.randrange(len(contents))
    end = min(len(contents), start + random.choice((1, 2, 8, 64, 1024)))
    part = contents[start:end]
    replacement = random.choice(
        (
            bytes([part[0] ^ 1 << random.randrange(8)]) + part[1:],
            b"",
            part * 2,
            bytes(len(part)),
            b"\xff" * len(part),
            random.randbytes(len(part)),
            NESTED.encode(),
            b"9" * 5000,
        )
    )
    if random.random() < 0.2:
        return contents[:start]
    return contents[:start] + replacement + contents[end:]


def read_damaged(read, path, number):
    """What is read of so many damaged variants of a file; None if it is refused, in one line."""
    whole, random = path.read_bytes(), Random(0)
    for _ in range(number):
        path.write_bytes(mutated_bytes(whole, random))
        found, message = None, ""
        try:
            found = read(path)
        except InputError as error:
            message = str(error)
        assert "\n" not in message
        yield found


def mutated_value(value, random):
    """JSON-like data of which one entry is replaced, removed, added or renamed.

    Args:
        value: Dicts, lists and scalars; not changed.
        random: A `random.Random`.
    """
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return random.choice(VALUES)
    parent, key = random.choice(places)
    change = random.random()
    if change < 0.7:
        parent[key] = random.choice(VALUES)
    elif change < 0.8:
        del parent[key]
    elif isinstance(parent, dict):
        parent[random.choice(("", "a", "step", "\x1b", *parent))] = parent.pop(key)
    else:
        parent.insert(random.randrange(len(parent) + 1), random.choice(VALUES))
    return value


@contextlib.contextmanager
def limited_memory(spare=1 << 30):
    """Let this process take so many bytes more of addresses, and no others, while within."""
    statm = Path("/proc/self/statm")
    if not statm.exists():  # as Linux counts
        yield
        return
    taken = int(statm.read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + spare, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _places(value):
    """All containers within a value with each of their keys."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from _places(inner)
