"""Weights in repositories of the Hugging Face Hub: `hf://owner/repo[@revision][/file]`.

The file may be left out where only one can be meant. Everything else is huggingface_hub's: login
and tokens, its cache (`HF_HOME`), Xet, `HF_ENDPOINT`, `HF_HUB_OFFLINE`. The Hub is asked each time
whether a branch has moved; where it cannot be reached, its cache is used.
"""

from __future__ import annotations

import glob
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from biggan.errors import InputError, printable

_LOG = logging.getLogger("biggan.weights")

_ADDRESS = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?(/(?P<file>[^/].*))?",
    re.ASCII | re.IGNORECASE,
)
# What is fetched with a file: patterns of paths from its folder.
_COMPANIONS = {"pytorch_model.bin": "config.json", "saved_model.pb": "variables/*"}
_LISTED = 12  # files that one message lists


def obtain_from_hub(address: str, *, offline: bool = False) -> Path:
    """The weights file of a repository, or the folder of a TF Hub module, in the Hub's cache.

    Args:
        address: `hf://owner/repo[@revision][/file]`.
        offline: Whether to look no further than the cache.
    """
    match, shown = _ADDRESS.fullmatch(address), printable(address[:100])
    if match is None:
        raise InputError(f"{shown}: a repository is hf://owner/repo[@revision][/file]")
    try:
        from huggingface_hub import HfApi, constants, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ModuleNotFoundError:
        raise InputError(f"{shown} needs huggingface_hub: pip install 'biggan[hub]'") from None
    if not sys.stderr.isatty():
        disable_progress_bars()
    repo, revision = match["repo"], unquote(match["revision"] or "main")
    local = offline or constants.HF_HUB_OFFLINE
    names: list[str] = []
    try:
        if not local:
            try:
                listed = HfApi().model_info(repo, revision=revision).siblings
                names = [f.rfilename for f in listed or () if _is_plain(f.rfilename)]
            except HfHubHTTPError:
                raise
            except Exception as error:  # those of its HTTP library, and of the operating system
                _LOG.warning("no connection to the Hub (%s): using its cache", _first_line(error))
                local = True
        if local:
            folder = Path(
                snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[])
            )
            names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        file = PurePosixPath(match["file"] or _choose(shown, sorted(names)))
        if str(file) not in names:
            raise InputError(f"{shown}: no such file; there are {_listed(sorted(names))}")
        patterns = [glob.escape(str(file))]
        if file.name in _COMPANIONS:
            folder_pattern = glob.escape(str(file).removesuffix(file.name))
            patterns.append(folder_pattern + _COMPANIONS[file.name])
        snapshot = snapshot_download(
            repo, revision=revision, local_files_only=local, allow_patterns=patterns
        )
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{shown}: {_reason(error, local)}") from None
    path = Path(snapshot, file)
    return path.parent if file.name == "saved_model.pb" else path


def _is_plain(name: str) -> bool:
    """Whether a name that the Hub lists is that of a file within the repository's folder."""
    path = PurePosixPath(name)
    return name.isprintable() and not path.is_absolute() and ".." not in path.parts


def _choose(address: str, names: Sequence[str]) -> str:
    """The file of a repository that is its weights, where only one can be meant."""
    for name in ("generator.safetensors", "model.safetensors"):
        if name in names:
            return name
    safetensors = [name for name in names if name.endswith(".safetensors")]
    pickles = [name for name in names if name.endswith((".pth", ".pt", ".bin"))]
    modules = [name for name in names if PurePosixPath(name).name == "saved_model.pb"]
    if len(safetensors) == 1:
        return safetensors[0]
    if "pytorch_model.bin" in names and "config.json" in names:
        return "pytorch_model.bin"
    for found in (pickles, modules):
        if len(found) == 1:
            return found[0]
    if candidates := safetensors + pickles + modules:
        raise InputError(
            f"{address} holds several weights files: {_listed(candidates)}; "
            f"give one of them, such as {address.rstrip('/')}/{candidates[0]}"
        )
    raise InputError(f"{address} holds no weights file; there are {_listed(names)}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return printable(", ".join(name[:100] for name in names[:_LISTED]) or "no files") + more


def _reason(error: Exception, local: bool) -> str:
    """Why the Hub did not give a file."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "a gated repository: accept its terms on its page and log in (`hf auth login`)"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or a private one: log in (`hf auth login`) or set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision"
    if local and isinstance(error, LocalEntryNotFoundError):
        return "not in the Hub's cache, and nothing is downloaded offline"
    return f"cannot be downloaded ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return printable((str(error).strip() or type(error).__name__).splitlines()[0])[:200]
