"""Repositories of the Hugging Face Hub: weights, data sets, and publishing.

    hf://owner/repo[@revision][/file]                        weights
    hf://datasets/owner/name[@revision][/config/split]       parquet files

The file may be left out where only one can be meant. Everything else is huggingface_hub's: login
and tokens, its cache (`HF_HOME`), Xet, `HF_ENDPOINT`, `HF_HUB_OFFLINE`. The Hub is asked each time
whether a branch has moved; where it cannot be reached, its cache is used.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote

from biggan.errors import InputError, first_line, printable

_LOG = logging.getLogger("biggan.hub")

_ADDRESS = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?(/(?P<file>[^/].*))?",
    re.ASCII | re.IGNORECASE,
)
_DATASET = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?"
    r"(/(?P<config>[\w.-]+)(/(?P<split>[\w.-]+))?)?/?",
    re.ASCII | re.IGNORECASE,
)
_REPOSITORY = re.compile(r"(?P<repo>\w[\w.-]*/[\w.-]+)(@[^/@]+)?", re.ASCII)
# What is fetched with a file: patterns of paths from its folder. The Hub counts downloads of a
# model by those of its config.json.
_COMPANIONS = {
    "pytorch_model.bin": "config.json",
    "model.safetensors": "config.json",
    "saved_model.pb": "variables/*",
}
_CONVERTED = "refs/convert/parquet"  # where the Hub keeps data sets of other kinds as parquet
_LISTED = 12  # files that one message lists

_Result = TypeVar("_Result")


def is_offline(asked: bool) -> bool:
    """Whether nothing may be fetched: the caller says so, or BIGGAN_OFFLINE is set and not 0."""
    return asked or os.environ.get("BIGGAN_OFFLINE", "") not in ("", "0")


def hub_address(model: str | Path) -> str | Path:
    """A model as `from_pretrained` takes it: "owner/name" is a repository if it is not a path."""
    match = _REPOSITORY.fullmatch(model) if isinstance(model, str) else None
    is_path = match is None or Path(match[0]).exists() or Path(match["repo"]).exists()
    return model if is_path else f"hf://{model}"


def obtain_from_hub(address: str, *, kind: str = "generator", offline: bool = False) -> Path:
    """The weights file of a repository, or the folder of a TF Hub module, in the Hub's cache.

    The address is `hf://owner/repo[@revision][/file]`, the kind "generator" or "discriminator".
    """
    match, shown = _ADDRESS.fullmatch(address), printable(address[:100])
    if match is None:
        raise InputError(f"{shown}: a repository is hf://owner/repo[@revision][/file]")
    revision = unquote(match["revision"] or "main")

    def choose(names: Sequence[str]) -> tuple[PurePosixPath, list[str]]:
        file = PurePosixPath(match["file"] or _choose(shown, names, kind))
        if str(file) not in names:
            raise InputError(f"{shown}: no such file; there are {_listed(names)}")
        patterns = [glob.escape(str(file))]
        if file.name in _COMPANIONS:
            folder_pattern = glob.escape(str(file).removesuffix(file.name))
            patterns.append(folder_pattern + _COMPANIONS[file.name])
        return file, patterns

    snapshot, file = _fetch(shown, match["repo"], "model", revision, choose, offline=offline)
    path = snapshot / file
    return path.parent if file.name == "saved_model.pb" else path


def is_dataset(address: str | Path) -> bool:
    """Whether a source of data is a data set of the Hub."""
    return re.match("hf:/{1,2}datasets(/|$)", str(address), re.IGNORECASE) is not None


def obtain_dataset(address: str | Path) -> Path:
    """The parquet files of a data set's split in the Hub's cache, as a pattern of paths.

    Without a config there must be one, or one that is called default; without a split it is train.
    """
    address = re.sub("^hf:/+", "hf://", str(address))  # a Path has one slash of two
    match, shown = _DATASET.fullmatch(address), printable(address[:100])
    if match is None:
        raise InputError(
            f"{shown}: a data set is hf://datasets/owner/name[@revision][/config/split]"
        )
    wanted = match["config"], match["split"]

    def choose(names: Sequence[str]) -> tuple[str, list[str]]:
        found: dict[tuple[str, str], str] = {}
        for name in names:
            if part := _part_of_dataset(name):
                found[part[:2]] = part[2]
        if not found:
            raise _WithoutParquetError
        configs = sorted({config for config, _ in found})
        config = wanted[0] or (configs[0] if len(configs) == 1 else "default")
        splits = sorted(split for name, split in found if name == config)
        split = wanted[1] or (splits[0] if len(splits) == 1 else "train")
        if (config, split) not in found:
            parts = [f"{config}/{split}" for config, split in sorted(found)]
            raise InputError(f"{shown}: name one of its parts: {_listed(parts)}")
        if wanted[1] is None and len(splits) > 1:
            _LOG.info("%s: using %s of the splits %s", shown, split, _listed(splits))
        return found[config, split], [found[config, split]]

    asked = unquote(match["revision"] or "main")
    with contextlib.suppress(_WithoutParquetError):
        folder, pattern = _fetch(shown, match["repo"], "dataset", asked, choose)
        return folder / pattern
    with contextlib.suppress(_WithoutParquetError, InputError):
        folder, pattern = _fetch(shown, match["repo"], "dataset", _CONVERTED, choose)
        return folder / pattern
    raise InputError(
        f"{shown} holds no parquet files: download it (`hf download --repo-type dataset`) and give "
        "the folder"
    )


class _WithoutParquetError(Exception):
    """A data set has no parquet files."""


def _part_of_dataset(name: str) -> tuple[str, str, str] | None:
    """The config and split that a parquet file belongs to, and a pattern of all their files."""
    *folders, base = PurePosixPath(name).parts
    match = re.fullmatch(r"(.+?)(-\d+-of-\d+(-[0-9a-f]+)?)?\.parquet", base)
    if match is None:
        return None
    split, pattern = match[1], f"{match[1]}-*.parquet" if match[2] else base
    if split.isdecimal() and folders:  # as the Hub converts them: config/split/0000.parquet
        split = folders.pop()
        pattern = f"{split}/*.parquet"
    config = folders[-1] if folders and folders[-1] != "data" else "default"
    return config, split, "/".join([*folders, pattern])


def check_repository(repo: str) -> None:
    """Make sure that this may be the name of a repository."""
    if not _REPOSITORY.fullmatch(repo) or "@" in repo:
        raise InputError(f"{printable(repo[:100])}: a repository is owner/name")


def check_push(repo: str) -> None:
    """Make sure that pushing may work, before pictures are drawn for it."""
    check_repository(repo)
    _check_library(repo)
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or is_offline(False):
        raise InputError(f"cannot push to {repo} offline: unset HF_HUB_OFFLINE and BIGGAN_OFFLINE")


def push_folder(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload a folder to a model's repository, created if there is none; returns its address.

    A README.md that is there already stays as it is. Call `check_push` first.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        there = api.file_exists(url.repo_id, "README.md")
        if there:
            _LOG.info("%s keeps its README.md", repo)
        api.upload_folder(
            repo_id=url.repo_id,
            folder_path=folder,
            commit_message="Upload a BigGAN model",
            ignore_patterns=["README.md"] if there else None,
        )
    except Exception as error:
        raise InputError(f"cannot push to {repo}: {_reason(error, local=False)}") from None
    return str(url)


def _check_library(shown: str) -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ModuleNotFoundError:
        raise InputError(f"{shown} needs huggingface_hub: pip install 'biggan[hub]'") from None
    from huggingface_hub.utils.tqdm import disable_progress_bars

    for library in ("httpx", "httpx2"):  # they report every request
        logging.getLogger(library).setLevel(logging.WARNING)
    if not sys.stderr.isatty():
        disable_progress_bars()


def _fetch(
    shown: str,
    repo: str,
    repo_type: str,
    revision: str,
    choose: Callable[[Sequence[str]], tuple[_Result, list[str]]],
    *,
    offline: bool = False,
) -> tuple[Path, _Result]:
    """Bring files of a repository into the Hub's cache: the folder there, and a result.

    `choose` takes the names of all files, and gives the result and patterns of what to fetch.
    """
    _check_library(shown)
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    local = is_offline(offline) or constants.HF_HUB_OFFLINE
    names: list[str] = []
    of: dict[str, Any] = {"repo_id": repo, "repo_type": repo_type, "revision": revision}
    try:
        if not local:
            try:
                about = HfApi().repo_info(**of)
                listed: Any = getattr(about, "siblings", None) or ()
                names = [file.rfilename for file in listed if _is_inside(file.rfilename)]
                if about.id and about.id != repo:
                    _LOG.warning("%s has moved to %s", repo, printable(about.id[:100]))
            except HfHubHTTPError:
                raise
            except Exception as error:  # those of its HTTP library, and of the operating system
                _LOG.warning("no connection to the Hub (%s): using its cache", first_line(error))
                local = True
        if local:
            folder = Path(snapshot_download(**of, local_files_only=True, allow_patterns=[]))
            names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        result, patterns = choose(sorted(names))
        snapshot = snapshot_download(**of, local_files_only=local, allow_patterns=patterns)
    except (InputError, _WithoutParquetError):
        raise
    except Exception as error:
        raise InputError(f"{shown}: {_reason(error, local)}") from None
    return Path(snapshot), result


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return name.isprintable() and not path.is_absolute() and ".." not in path.parts


def _choose(address: str, names: Sequence[str], kind: str) -> str:
    """The file of a repository that is its weights, where only one can be meant."""
    safetensors = [name for name in names if name.endswith(".safetensors")]
    hugging_face = ["pytorch_model.bin"] if "config.json" in names else []
    pickles = [name for name in names if name.endswith((".pth", ".pt", ".bin"))]
    modules = [name for name in names if PurePosixPath(name).name == "saved_model.pb"]
    ours = [f"{kind}.safetensors"], ["model.safetensors"]
    for found in (*ours, safetensors, hugging_face, pickles, modules):
        if len(found) == 1 and found[0] in names:
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
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return "a gated repository: accept its terms on its page and log in (`hf auth login`)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or a private one: log in (`hf auth login`) or set HF_TOKEN"
    if isinstance(error, errors.LocalTokenNotFoundError) or status == HTTPStatus.UNAUTHORIZED:
        return "nobody is logged in: `hf auth login`, or set HF_TOKEN"
    if status == HTTPStatus.FORBIDDEN:
        return "no permission: log in with a token that may write there (`hf auth login`)"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision"
    if local and isinstance(error, errors.LocalEntryNotFoundError):
        return "not in the Hub's cache, and nothing is downloaded offline"
    return f"the Hub cannot be used ({first_line(error.__cause__ or error)})"
