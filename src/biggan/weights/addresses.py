"""Weights given by address: a file on the web, a file here, a repository on the Hugging Face Hub.

    https://host/file      downloaded once and kept; http:// as well
    file:///folder/file    read where it is
    hf://owner/repo[@revision][/file]

Of a repository, the file may be left out where there is no doubt which one is meant. The Hub's own
settings hold: `HF_ENDPOINT` names another host than huggingface.co; the token of `HF_TOKEN`, of the
file `HF_TOKEN_PATH`, or of a login (`$HF_HOME/token`) is sent to that host, for private ones; with
`HF_HUB_OFFLINE` nothing is asked of it.

Whatever was fetched is found again under its address, and is not asked for again: see
`biggan.weights.cache`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

from biggan.errors import InputError
from biggan.weights.cache import cache_dir, exclusive, is_offline
from biggan.weights.download import (
    DownloadError,
    RemoteFile,
    fetch_all,
    read_document,
    without_secrets,
)

_ENDPOINT = "https://huggingface.co"
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_REPOSITORY = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?(/(?P<file>[^/].*))?", re.ASCII
)
# Beside which file which others are needed, or looked at: patterns of their paths from its folder.
_COMPANIONS = {
    "pytorch_model.bin": r"config\.json",
    "saved_model.pb": r"tfhub_module\.pb|(assets|variables)/.*",
}
_LONGEST_NAME = 200  # bytes; file systems end at 255, and ours appends to it
_LISTED = 12  # files that one message lists


def is_address(text: str) -> bool:
    """Whether a model's name is an address, `scheme://...`."""
    return _SCHEME.match(text) is not None


def obtain_address(address: str, *, offline: bool = False) -> Path:
    """The file or folder that an address leads to, downloaded if it is not in the cache.

    Args:
        address: `https://`, `http://`, `file://` or `hf://`.
        offline: Whether to look no further than the cache.

    Raises:
        InputError: It cannot be fetched, or is in doubt, or is not an address of these kinds.
    """
    scheme = address.partition("://")[0].lower()
    shown = without_secrets(address)
    if scheme not in ("https", "http", "hf", "file"):
        raise InputError(f"{shown}: only https://, http://, hf:// and file:// can be read")
    try:
        urlsplit(address)
    except ValueError:
        raise InputError(f"{shown} is no well-formed address") from None
    if scheme == "file":
        return _local_path(address)
    digest = hashlib.sha256(address.encode(errors="surrogateescape")).hexdigest()
    folder = cache_dir() / "addresses" / f"{digest[:24]}-{_file_name(address)}"
    if not _is_filled(folder):
        if is_offline(offline):
            raise InputError(
                f"{shown} is not in the cache {cache_dir()}, and nothing is fetched offline"
            )
        with exclusive(folder, shown):
            if not _is_filled(folder):
                _fill(folder, address)
    return only_file_or_folder(folder)


def repository_files(address: str) -> tuple[RemoteFile, ...]:
    """The files of a Hugging Face repository that hold its weights, as its listing has them.

    Args:
        address: `hf://owner/repo[@revision][/file]`.

    Raises:
        InputError: No such repository, no weights in it, or several.
    """
    repository = _Repository.parse(address)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise InputError(f"{address} is not fetched: HF_HUB_OFFLINE is set")
    sha256s = repository.read_listing()
    if repository.file is None:
        chosen = _choose(address, sorted(sha256s))
    else:
        chosen = _with_companions(address, repository.file, sha256s)
    root = os.path.commonpath([PurePosixPath(name).parent for name in chosen])
    return tuple(
        RemoteFile(
            url=repository.url(name),
            name=PurePosixPath(name).relative_to(root).as_posix(),
            sha256=sha256s[name],
            token=repository.token,
        )
        for name in chosen
    )


def only_file_or_folder(folder: Path) -> Path:
    """A folder's only file, if it holds nothing else; otherwise the folder."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_file() else folder


def _is_filled(folder: Path) -> bool:
    """Whether a folder has what was fetched; people may have emptied it to have it anew."""
    return folder.is_dir() and any(folder.iterdir())


def _fill(folder: Path, address: str) -> None:
    """Download what an address leads to into a folder that appears when all is there."""
    if address.lower().startswith("hf://"):
        files = repository_files(address)
    else:
        files = (RemoteFile(address, _file_name(address)),)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    fetch_all(files, unfinished)
    try:
        wanted = {unfinished / file.name for file in files}
        for path in unfinished.rglob("*"):  # of an earlier try, when the listing was another
            if path.is_file() and path not in wanted:
                path.unlink()
        unfinished.rename(folder)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from None


def _local_path(address: str) -> Path:
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise InputError(f"{address}: a file here has three slashes, file:///folder/file")
    path = url2pathname(parts.path)
    if not path.isprintable():
        raise InputError(f"{address!a} is no address of a file")
    return Path(path)


def _file_name(address: str) -> str:
    """The last part of an address as a file may be called, so that people know it in the cache."""
    last = PurePosixPath(unquote(urlsplit(address).path)).name
    return re.sub(r"[^\w.-]", "-", last, flags=re.ASCII)[-80:].lstrip(".") or "weights"


@dataclass(frozen=True)
class _Repository:
    """A repository on the Hugging Face Hub at one revision, and perhaps one of its files."""

    repo: str
    revision: str
    file: str | None
    endpoint: str
    token: str | None

    @classmethod
    def parse(cls, address: str) -> _Repository:
        """Read `hf://owner/repo[@revision][/file]`, and the host and token of the environment."""
        match = _REPOSITORY.fullmatch(address)
        if match is None:
            raise InputError(f"{address}: a repository is hf://owner/repo[@revision][/file]")
        return cls(
            repo=match["repo"],
            revision=unquote(match["revision"] or "main"),
            file=match["file"],
            endpoint=(os.environ.get("HF_ENDPOINT") or _ENDPOINT).rstrip("/"),
            token=_token(),
        )

    def url(self, name: str) -> str:
        """Where a file is."""
        return f"{self.endpoint}/{self.repo}/resolve/{quote(self.revision, safe='')}/{quote(name)}"

    def read_listing(self) -> dict[str, str | None]:
        """The names of the repository's files, with the sha256 of those that have one.

        Raises:
            DownloadError: There is no listing.
        """
        revision = quote(self.revision, safe="")
        url = f"{self.endpoint}/api/models/{self.repo}/revision/{revision}?blobs=true"
        try:
            listing = json.loads(read_document(url, token=self.token))
            files = {file["rfilename"]: _sha256(file) for file in listing["siblings"]}
        except DownloadError as error:
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
            reason = (
                f"{error.reason}: no such repository, or a private one, which needs a login "
                "(`hf auth login`) or HF_TOKEN"
            )
            raise DownloadError(url, reason, error.status) from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise DownloadError(url, "the answer is no listing of a repository") from None
        return {name: sha256 for name, sha256 in files.items() if _stays_inside(name)}


def _token() -> str | None:
    """The user's token for the Hub, where huggingface_hub looks for it."""
    if token := os.environ.get("HF_TOKEN", "").strip():
        return token
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{caches}/huggingface"
    try:
        path = Path(os.environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser()
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, RuntimeError, ValueError):  # nobody has logged in, or nobody is at home
        return None


def _sha256(file: Mapping[str, Any]) -> str | None:
    """What the Hub knows of a file's contents: it has a sha256 of large ones alone."""
    return str(file["lfs"]["sha256"]) if file.get("lfs") else None


def _stays_inside(name: Any) -> bool:
    """Whether a name that a host gives is one of a file within the folder it is joined to."""
    if not isinstance(name, str) or not name.isprintable() or set(name) & set('\\:*?"<>|'):
        return False
    path = PurePosixPath(name)
    short = all(len(part.encode()) < _LONGEST_NAME for part in path.parts)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and short


def _choose(address: str, names: Sequence[str]) -> tuple[str, ...]:
    """The files of a repository that are its weights, where there is no doubt."""
    for name in ("generator.safetensors", "model.safetensors"):
        if name in names:
            return (name,)
    safetensors = [name for name in names if name.endswith(".safetensors")]
    if len(safetensors) == 1:
        return (safetensors[0],)
    if "pytorch_model.bin" in names and "config.json" in names:
        return _with_companions(address, "pytorch_model.bin", names)
    pickles = [name for name in names if name.endswith((".pth", ".pt", ".bin"))]
    if len(pickles) == 1:
        return (pickles[0],)
    modules = [name for name in names if PurePosixPath(name).name == "saved_model.pb"]
    if len(modules) == 1:
        return _with_companions(address, modules[0], names)
    if candidates := safetensors + pickles + modules:
        raise InputError(
            f"{address} holds several weights files: {_some(candidates)}; "
            f"name one, as {address.rstrip('/')}/{candidates[0]}"
        )
    raise InputError(f"{address} holds no weights file; there are {_some(names) or 'no files'}")


def _with_companions(address: str, name: str, names: Collection[str]) -> tuple[str, ...]:
    """A file and those without which it cannot be read."""
    if name not in names:
        raise InputError(f"{address}: no such file; there are {_some(sorted(names)) or 'none'}")
    last = PurePosixPath(name).name
    if last not in _COMPANIONS:
        return (name,)
    pattern = f"{re.escape(name.removesuffix(last))}({_COMPANIONS[last]})"
    return (*(other for other in sorted(names) if re.fullmatch(pattern, other)), name)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
