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

    bytes: int
    integrity: str


FILES: Mapping[str, RuntimeFile] = {
    "ort.wasm.bundle.min.mjs": RuntimeFile(
        73054, "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG"
    ),
    "ort-wasm-simd-threaded.wasm": RuntimeFile(
        14239897, "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"
    ),
    "ort.webgpu.bundle.min.mjs": RuntimeFile(
        117732, "sha384-1ntMeyj+z5diX6vBR5h+zlJBPc4iNvhCxE6nlammh8daBYcLBZkzrwDkuJjhwI+f"
    ),
    "ort-wasm-simd-threaded.asyncify.wasm": RuntimeFile(
        26781914, "sha384-EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR"
    ),
}
"""The scripts and WebAssembly modules: without and with WebGPU."""

_SECONDS = 600  # for npm


def integrity(algorithm: str, digest: str) -> str:
    """A hexadecimal digest as browsers write it (Subresource Integrity)."""
    return f"{algorithm}-{base64.b64encode(bytes.fromhex(digest)).decode()}"


def copy_runtime(target: Path, folder: Path | None = None, *, offline: bool = False) -> int:
    """Copy the files into a new folder; returns their size in bytes.

    Args:
        target: The folder.
        folder: Where they are: a folder with the files or an onnxruntime-web package; None for
            this package's cache, which npm fills once.
        offline: Whether npm may use its own cache only.

    Raises:
        InputError: A file is missing or another version's, or npm cannot get it.
    """
    if folder is None:
        folder = cache_dir() / f"onnxruntime-web-{VERSION}"
        with exclusive(folder, f"onnxruntime-web {VERSION}"):
            if not all((folder / name).is_file() for name in FILES):
                _fetch(folder, is_offline(offline))
    elif (folder / "dist").is_dir():
        folder = folder / "dist"
    target.mkdir()
    for name in FILES:
        (target / name).write_bytes(_checked(folder / name))
    return sum(file.bytes for file in FILES.values())


def _checked(path: Path) -> bytes:
    fault = f"{path.parent} is not onnxruntime-web {VERSION}: {path.name}"
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise InputError(f"{fault}: {error.strerror}") from None
    if integrity("sha384", hashlib.sha384(contents).hexdigest()) != FILES[path.name].integrity:
        raise InputError(f"{fault} has other contents")
    return contents


def _fetch(folder: Path, offline: bool) -> None:
    remedy = "give its files with --runtime DIR, or load them from a CDN with --runtime cdn"
    npm = shutil.which("npm")
    if npm is None:
        needed = f"the page needs onnxruntime-web {VERSION} and npm is not installed"
        raise InputError(f"{needed}: install npm, {remedy}")
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
            lines = [line.partition("npm error")[2].strip() for line in done.stderr.splitlines()]
            told = [line for line in lines if line and not line.startswith("code ")]
            reason = told[0][:100] if told else "it failed"
            raise InputError(f"npm cannot fetch onnxruntime-web {VERSION}: {reason}; {remedy}")
        with contextlib.closing(tarfile.open(packages[0])) as archive:
            for name in FILES:
                member = archive.extractfile(f"package/dist/{name}")
                assert member is not None
                Path(temporary, name).write_bytes(member.read())
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            write_atomically(folder / name, _checked(Path(temporary, name)))
