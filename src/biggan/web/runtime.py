"""The files of onnxruntime-web that a page needs, of one version and checked by their digests."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from biggan.atomic_write import write_atomically
from biggan.errors import InputError
from biggan.hub import is_offline
from biggan.weights.files import cache_dir, exclusive

VERSION = "1.30.0"
"""Of onnxruntime-web."""

CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/"


class RuntimeFile(NamedTuple):
    """What a file must be."""

    size: int
    sha384: str


FILES: Mapping[str, RuntimeFile] = {
    "ort.wasm.bundle.min.mjs": RuntimeFile(
        73054,
        "3cb5b3fa71c4547a63c01b0ed1855dbd08fa9f9f35e08bfc1376fc146d11a7fb"
        "8802d8c530228ea4feba88fcde76b206",
    ),
    "ort-wasm-simd-threaded.wasm": RuntimeFile(
        14239897,
        "be3049d73eeaae1913c98b0da8a785e9cecdfa7389494f78733128fadbd972ef"
        "06ef92696ab1aaf6407e9139c450d54c",
    ),
    "ort.webgpu.bundle.min.mjs": RuntimeFile(
        117732,
        "d67b4c7b28fecf97625fabc147987ece52413dce2236f842c44ea795a9a687c7"
        "5a05870b059933af00e4b898e1c08f9f",
    ),
    "ort-wasm-simd-threaded.asyncify.wasm": RuntimeFile(
        26781914,
        "10f5432d3c6e3baeb776464efe970a245eaf3b2c9fabfe73f45635a24b0dd145"
        "855f60011f8c030d940778da1495e591",
    ),
}
"""The scripts and WebAssembly modules: without and with WebGPU."""

_SECONDS = 600  # for npm


def integrity(algorithm: str, digest: str) -> str:
    """A hexadecimal digest as browsers write it (Subresource Integrity)."""
    return f"{algorithm}-{base64.b64encode(bytes.fromhex(digest)).decode()}"


def copy_runtime(target: Path, folder: Path | None = None, *, offline: bool = False) -> int:
    """Copy the files into a new folder.

    Args:
        target: The folder.
        folder: Where they are: a folder with the files or an onnxruntime-web package; None for
            this package's cache, which npm fills once.
        offline: Whether npm may use its own cache only.

    Returns:
        Their size in bytes.

    Raises:
        InputError: A file is missing or another version's, or npm cannot get it.
    """
    if folder is None:
        folder = _cached(is_offline(offline))
    elif (folder / "dist").is_dir():
        folder = folder / "dist"
    target.mkdir()
    for name in FILES:
        (target / name).write_bytes(_checked(folder / name))
    return sum(file.size for file in FILES.values())


def _checked(path: Path) -> bytes:
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path.parent} is not onnxruntime-web {VERSION}: {path.name}: {error.strerror}"
        ) from None
    if hashlib.sha384(contents).hexdigest() != FILES[path.name].sha384:
        raise InputError(
            f"{path.parent} is not onnxruntime-web {VERSION}: {path.name} has other contents"
        )
    return contents


def _cached(offline: bool) -> Path:
    """The folder of the cache that has the files, fetched with npm if they are not there."""
    folder = cache_dir() / f"onnxruntime-web-{VERSION}"
    with exclusive(folder, f"onnxruntime-web {VERSION}"):
        if not all((folder / name).is_file() for name in FILES):
            _fetch(folder, offline)
    return folder


def _fetch(folder: Path, offline: bool) -> None:
    remedy = "give its files with --runtime DIR, or load them from a CDN with --runtime cdn"
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"the page needs onnxruntime-web {VERSION} and npm is not installed: install npm, "
            f"{remedy}"
        )
    with tempfile.TemporaryDirectory(prefix="biggan-") as temporary:
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--pack-destination", temporary]
        command += ["--offline"] if offline else ["--prefer-offline"]
        try:
            done = subprocess.run(  # noqa: S603
                command, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"npm did not fetch onnxruntime-web {VERSION}: {remedy}") from None
        packages = list(Path(temporary).glob("*.tgz"))
        if done.returncode != 0 or not packages:
            raise InputError(
                f"npm cannot fetch onnxruntime-web {VERSION}: {_reason(done.stderr)}; {remedy}"
            )
        with contextlib.closing(tarfile.open(packages[0])) as archive:
            for name in FILES:
                member = archive.extractfile(f"package/dist/{name}")
                assert member is not None
                Path(temporary, name).write_bytes(member.read())
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            write_atomically(folder / name, _checked(Path(temporary, name)))


def _reason(stderr: str) -> str:
    """The first error, without its prefix."""
    lines = [line.partition("npm error")[2].strip() for line in stderr.splitlines()]
    told = [line for line in lines if line and not line.startswith("code ")]
    return told[0][:100] if told else "it failed"
