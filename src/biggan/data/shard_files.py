"""Shards as the `webdataset` library opens them: files, addresses, or what a program prints."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biggan.data.labelled import Label
from biggan.data.packed import is_packed
from biggan.data.reading import containers, expand
from biggan.data.tars import BLOCK, image_suffix, parse_label, split_name, split_sample
from biggan.errors import InputError

# Around a shard's name in an address or a shell command.
_NAME = re.compile(r"[^/\\\s'\"=&?]+\.tar(?![\w.])")


@dataclass(frozen=True)
class Sample:
    """An image as it is stored, and its class as it is stored."""

    name: str
    data: bytes
    label: Label


def is_address(url: str) -> bool:
    """Whether shards are anywhere but in files: https://, s3://, or "pipe:" with a command."""
    return "://" in url or url.startswith("pipe:")


def shard_name(url: str) -> str:
    """What a shard, or a pattern of them, is called: without the way to it, or any password."""
    names = _NAME.findall(url)
    if names:
        return str(names[-1])
    return "shards" if is_address(url) else Path(url).expanduser().resolve().name


def expand_shards(urls: str | Path | Sequence[str | Path]) -> list[str]:
    """The shards that are meant, in order.

    Args:
        urls: A pattern with {0000..0009} or *, a folder of shards, an address, or a list of these.

    Raises:
        InputError: A file among them does not exist or is no .tar, or none is named.
    """
    found: list[str] = []
    for url in [urls] if isinstance(urls, (str, Path)) else urls:
        if is_address(str(url)):
            found += _webdataset().shardlists.expand_urls(str(url))
            continue
        path = Path(url).expanduser()
        if path.is_dir():
            if is_packed(path):
                raise InputError(f"{path} is packed: it is loaded, not streamed")
            shards = [file for file in containers(path) if file.suffix.lower() == ".tar"]
            if not shards:
                raise InputError(f"{path} holds no .tar shards, and only those are streamed")
        else:
            shards = expand(str(path))
        others = [file for file in shards if file.suffix.lower() != ".tar"]
        if others:
            raise InputError(f"{others[0]} is no .tar shard, and only those are streamed")
        found += map(str, shards)
    if not found:
        raise InputError("no shards are named")
    return found


def read_shard(url: str, left_out: Counter[str]) -> Iterator[Sample]:
    """The samples of a shard that have an image, in order.

    Args:
        url: The shard.
        left_out: Counts files that are no images, by ending.

    Raises:
        InputError: The shard cannot be read to its end.
    """
    library = _webdataset()
    stream = None
    try:
        # The library's own dataset is these three, and leaves the file open.
        stream = library.gopen(url)
        watched = _Watched(stream)
        files = library.tariterators.tar_file_expander([{"url": url, "stream": watched}])
        for group in library.tariterators.group_by_keys(files, split_name):
            files_of_group = {key: data for key, data in group.items() if not key.startswith("__")}
            for key, stored in split_sample(group["__key__"], files_of_group):
                place = f"{shard_name(url)}/{key}"
                suffix = image_suffix(place, stored, left_out)
                if suffix is not None:
                    yield Sample(f"{place}.{suffix}", stored[suffix], parse_label(stored))
        stream.close()  # a program that was reading from afar says only here that it failed
        if any(watched.last):  # a tar that is cut between two blocks reads without an error
            raise EOFError("it may be truncated, copy or download it again")
    except Exception as error:  # a damaged tar, a lost connection, a missing program
        # The library adds the stream, and where it is, to what was said.
        said = error if isinstance(error, OSError) or not error.args else error.args[0]
        reason = " ".join(str(said).partition(" @ <")[0].split())
        raise InputError(f"cannot read the shard {url}: {reason}") from error
    finally:
        if stream is not None:
            with contextlib.suppress(Exception):
                stream.close()


class _Watched:
    """A stream that remembers its last block, which in a whole tar is empty."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.last = b"\1"

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        if data:
            self.last = (self.last + data)[-BLOCK:]
        return data


def _webdataset() -> Any:
    try:
        import webdataset  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError("streams of shards need webdataset: pip install 'biggan[data]'") from error
    return webdataset
