"""A classifier's files: the finished one, the unfinished one beside it, and who may write them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.atomic_write import make_folder
from biggan.errors import InputError
from biggan.locks import locked
from biggan.metrics.classifier.network import Classifier
from biggan.weights.files import FORMAT, load_tensors, save_tensors

_LOG = logging.getLogger("biggan.metrics")

_CHECKPOINT_SECONDS = 30.0
_MOMENTUM_PREFIX = "momentum."


def read_header(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """The header, tensors and digest of a file of this kind.

    Raises:
        InputError: The file is missing, damaged, or of another kind.
    """
    metadata, tensors, sha256 = load_tensors(path)
    try:
        header = dict(json.loads(metadata["header"]))
    except (KeyError, TypeError, ValueError, RecursionError):
        header = {}
    if header.get("kind") != kind:
        raise InputError(f"{path} holds no {kind}: `biggan classifier DATA --out FILE` makes one")
    return header, tensors, sha256


def check_same_recipe(header: Mapping[str, Any], recipe: Mapping[str, Any], path: Path) -> None:
    """Refuse a file of another recipe than this one.

    Raises:
        InputError: With all that differs.
    """
    found = header.get("recipe") or {}
    differing = [
        "other images" if key == "data_fingerprint" else f"{key} {found.get(key)}, not {value}"
        for key, value in recipe.items()
        if found.get(key) != value
    ]
    if differing:
        raise InputError(
            f"{path} is of another classifier ({'; '.join(differing)}): delete it, or choose "
            "another --out"
        )


class Checkpoint:
    """The unfinished classifier, in a file beside the one that it will be.

    Args:
        out: The file to be.
        recipe: What decides the classifier: another one's checkpoint is refused.
    """

    def __init__(self, out: Path, recipe: Mapping[str, Any]) -> None:
        self.path = out.with_name(f"{out.stem}.checkpoint.safetensors")
        self._recipe = recipe
        self._saved_at = time.monotonic()

    def restore(self, network: Classifier, optimizer: torch.optim.SGD) -> int:
        """Bring both to where they were saved.

        Returns:
            The steps done; 0 where there is no checkpoint, or one that is damaged.

        Raises:
            InputError: It is of another recipe.
        """
        if not self.path.exists():
            return 0
        try:
            header, tensors, _ = read_header(self.path, "classifier checkpoint")
        except InputError as error:
            _LOG.warning("%s; training from the beginning", error)
            return 0
        check_same_recipe(header, self._recipe, self.path)
        for name, parameter in network.named_parameters():
            # In the parameter's memory format, as it was: another one may round otherwise.
            momentum = torch.empty_like(parameter).copy_(tensors.pop(_MOMENTUM_PREFIX + name))
            optimizer.state[parameter]["momentum_buffer"] = momentum.detach()
        network.load_state_dict(tensors)
        _LOG.info("resuming at step %d of %d", header["step"], self._recipe["steps"])
        step: int = header["step"]
        return step

    def save_when_due(
        self, network: Classifier, optimizer: torch.optim.SGD, step: int, *, say: bool
    ) -> None:
        """Write both if half a minute has passed, and say so where there is no bar."""
        if time.monotonic() - self._saved_at < _CHECKPOINT_SECONDS:
            return
        momenta = {
            _MOMENTUM_PREFIX + name: optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in network.named_parameters()
        }
        header = {"kind": "classifier checkpoint", "recipe": self._recipe, "step": step}
        metadata = {"format": FORMAT, "header": json.dumps(header)}
        save_tensors(self.path, metadata, network.state_dict() | momenta)
        self._saved_at = time.monotonic()
        if say:
            _LOG.info("step %d of %d: checkpoint", step, self._recipe["steps"])


@contextmanager
def locked_output(out: Path) -> Iterator[None]:
    """Keep other processes from training the same file, whose folder is created if needed."""
    make_folder(out.parent)
    busy = f"another process is training {out}: wait until it ends, or choose another --out"
    with ExitStack() as held:
        try:
            held.enter_context(locked(out.with_name(f".{out.name}.lock"), busy))
        except OSError as error:
            raise InputError(f"cannot write to {out.parent}: {error.strerror}") from None
        yield
