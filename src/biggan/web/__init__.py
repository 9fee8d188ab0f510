"""A web page that runs a generator in the visitor's browser: a folder of static files.

    index.html, *.js, style.css, icon.svg   the page (`page/` beside this file)
    model.json                              what the page needs to know of the model
    graph-*, weights-*, statistics-*        the network (ONNX), in parts of at most 20 MB
    runtime/                                onnxruntime-web, unless it comes from a CDN

The names of the network's files contain digests of their contents, so browsers may keep them.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from biggan._version import __version__
from biggan.atomic_write import TEMPORARY_SUFFIX, make_folder, temporary_prefix
from biggan.errors import InputError
from biggan.export import SUFFIXES, Storage, check_packages, write_page_network
from biggan.gan import Gan
from biggan.models import statistics_grid
from biggan.web.runtime import CDN, FILES, VERSION, copy_runtime, integrity

PART = 20_000_000
"""Largest file of weights in bytes: browsers cache files of this size, hosts accept them."""

MAX_WEIGHTS = 1_000_000_000
"""Largest size of a generator's float32 weights, in bytes.

A browser holds the downloaded weights and the runtime's copies in the 4 GB of WebAssembly's memory.
"""

_MANIFEST = "model.json"
_POLICY = "connect-src 'self'"
"""In the page's own Content-Security-Policy; a CDN is added to it."""


@dataclass(frozen=True)
class ExportedPage:
    """What was written."""

    folder: Path
    weights: int
    """Size of the network's files in bytes."""
    runtime: int
    """Size of onnxruntime-web in the folder in bytes."""
    difference: float
    """Largest difference of a pixel, of a range of 2, from the generator's images."""


def check_page_request(out: Path, *, force: bool = False) -> None:
    """Refuse a folder that cannot be written to, before a model is loaded; see `export_page`.

    Raises:
        InputError: A package is missing, or the folder is a file or not empty.
    """
    check_packages("onnx")
    if (out.exists() and not out.is_dir()) or out.suffix.lower() in (*SUFFIXES.values(), ".html"):
        raise InputError(f"{out} is the name of a file: give that of a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not force:
        raise InputError(
            f"{out} is not empty: choose another folder, or replace it with --force (force=True)"
        )
    if not (out / _MANIFEST).is_file():
        raise InputError(
            f"{out} contains something other than an exported page: choose another folder"
        )


def export_page(
    gan: Gan,
    out: str | Path,
    *,
    storage: Storage = "float32",
    runtime: Path | str | None = None,
    offline: bool = False,
    force: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> ExportedPage:
    """Write a page that runs a generator in the browser.

    Args:
        gan: The model.
        out: The folder, which must be empty or not exist. It appears complete or not at all.
        storage: Type of the weights in the files; the network computes in float32.
        runtime: Where onnxruntime-web comes from: a folder that contains it; "cdn" for a page that
            loads it from there; None for this package's cache, filled by npm.
        offline: Whether npm may use its own cache only.
        force: Replace an exported page.
        report: Called before each step.

    Raises:
        InputError: The folder or the runtime cannot be used, or the model is too large.
    """
    out = Path(out)
    check_page_request(out, force=force)
    _check_size(gan)
    out = out.resolve()
    make_folder(out.parent)
    try:
        with tempfile.TemporaryDirectory(
            TEMPORARY_SUFFIX, temporary_prefix(), dir=out.parent
        ) as temporary:
            page = Path(temporary, "page")
            page.mkdir()
            size_of_runtime = 0
            if runtime != "cdn":
                report(f"looking for onnxruntime-web {VERSION}")
                folder = None if runtime is None else Path(runtime)
                size_of_runtime = copy_runtime(page / "runtime", folder, offline=offline)
            report("converting to ONNX")
            files, difference = _write_network(gan, page, Path(temporary), storage)
            _write_json(page / _MANIFEST, _manifest(gan, files, storage, cdn=runtime == "cdn"))
            _copy_page(page, cdn=runtime == "cdn")
            if out.exists():
                out.rename(Path(temporary, "replaced"))
            page.rename(out)
    except OSError as error:  # as on a full disk
        raise InputError(f"cannot write {out}: {error.strerror}") from None
    weights = sum(part["bytes"] for parts in files.values() for part in parts)
    return ExportedPage(out, weights, size_of_runtime, difference)


def _check_size(gan: Gan) -> None:
    size = 4 * sum(parameter.numel() for parameter in gan.generator.parameters())
    if size > MAX_WEIGHTS:
        raise InputError(
            f"{gan.name} is too large for a browser: {size / 1e9:.1f} GB of float32 weights, and "
            f"at most {MAX_WEIGHTS / 1e9:.1f} GB fit; export a narrower model, or use "
            "--format onnx for another program"
        )


def _write_network(
    gan: Gan, page: Path, temporary: Path, storage: Storage
) -> tuple[dict[str, list[dict[str, Any]]], float]:
    """Write the graph, the weights and the statistics.

    Returns:
        The files of each, and the largest difference of a pixel.
    """
    graph = temporary / "graph.onnx"
    statistics, difference = write_page_network(gan, graph, storage)
    table = temporary / "statistics"
    table.write_bytes(np.ascontiguousarray(statistics.numpy(), "<f4").tobytes())
    sources = {"graph": graph, "weights": Path(f"{graph}.data"), "statistics": table}
    return {name: _split(source, page, name) for name, source in sources.items()}, difference


def _split(source: Path, page: Path, name: str) -> list[dict[str, Any]]:
    """Copy a file in parts of at most `PART` bytes, named by their contents."""
    parts = []
    with source.open("rb") as file:
        while contents := file.read(PART):
            digest = hashlib.sha256(contents).hexdigest()
            path = page / f"{name}-{digest[:12]}.bin"
            path.write_bytes(contents)
            parts.append(
                {
                    "file": path.name,
                    "bytes": len(contents),
                    "integrity": integrity("sha256", digest),
                }
            )
    return parts


def _manifest(
    gan: Gan, files: dict[str, list[dict[str, Any]]], storage: Storage, *, cdn: bool
) -> dict[str, Any]:
    config, about = gan.config, gan.description
    return {
        "version": __version__,
        "name": gan.name,
        "sha256": gan.sha256,
        "source": about.source,
        "licence": about.licence,
        "classes": list(gan.class_names),
        "resolution": config.resolution,
        "channels": config.image_channels,
        "z_dim": config.z_dim,
        "grid": list(statistics_grid(gan.generator)),
        "off_grid": config.off_grid,
        "precision": storage,
        "files": files,
        "runtime": {
            "version": VERSION,
            "address": CDN if cdn else "runtime/",
            "files": {
                name: {"bytes": file.size, "integrity": integrity("sha384", file.sha384)}
                for name, file in FILES.items()
            },
        },
    }


def _copy_page(page: Path, *, cdn: bool) -> None:
    for source in resources.files("biggan.web").joinpath("page").iterdir():
        contents = source.read_bytes()
        if cdn and source.name == "index.html":
            host = CDN.split("/npm/")[0]
            contents = contents.replace(_POLICY.encode(), f"{_POLICY} {host}".encode())
        (page / source.name).write_bytes(contents)


def _write_json(path: Path, contents: dict[str, Any]) -> None:
    path.write_text(f"{json.dumps(contents, indent=1)}\n", encoding="utf-8")
