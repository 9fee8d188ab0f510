"""Experiment trackers, which are the user's choice: Trackio, Weights & Biases, MLflow.

Each gets the curves, the previews and at the end the report of a run. Where and whether they send
them is set as their own documents say: WANDB_MODE=offline, MLFLOW_TRACKING_URI; Trackio is local.
A run that is resumed continues its run at the tracker, whose id is in `tracker.json`.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from biggan.atomic_write import write_atomically
from biggan.errors import InputError, first_line

_LOG = logging.getLogger("biggan.training")
_PROJECT = "biggan"
_FILE = "tracker.json"


class Tracker:
    """A run at a tracker. A failure on the way is logged once and ends the tracking only."""

    def __init__(self, backend: Any) -> None:
        self._backend, self._works = backend, True

    def log_values(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of curves at a step."""
        self._try(self._backend.log_values, step, values)

    def log_image(self, step: int, path: Path) -> None:
        """Record a preview."""
        self._try(self._backend.log_image, step, path)

    def log_file(self, path: Path) -> None:
        """Keep a file as an artifact."""
        self._try(self._backend.log_file, path)

    def _try(self, work: Callable[..., None], *what: Any) -> None:
        if not self._works:
            return
        try:
            work(*what)
        except Exception as error:  # of any kind: a host is gone, a disk is full
            self._works = False
            _LOG.warning("the run is no longer tracked: %s", first_line(error))

    def close(self) -> None:
        """Send what waits."""
        self._try(self._backend.finish)


class _Wandb:
    def __init__(self, library: Any, recipe: Mapping[str, Any], run_dir: Path, run_id: str) -> None:
        self._library, self.run_id = library, run_id
        self._run = library.init(
            project=_PROJECT,
            name=recipe["name"],
            id=self.run_id,
            resume="allow",
            config=dict(recipe),
            dir=str(run_dir),
        )
        # Its own step cannot go back, as after a rollback.
        self._run.define_metric("*", step_metric="step")

    def log_values(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def log_image(self, step: int, path: Path) -> None:
        self._run.log({"step": step, "preview": self._library.Image(str(path))})

    def log_file(self, path: Path) -> None:
        artifact = self._library.Artifact(f"{path.stem}-{self.run_id}", type=path.stem)
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def finish(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, library: Any, recipe: Mapping[str, Any], _: Path, run_id: str) -> None:
        self._library, self.run_id = library, run_id
        library.init(project=_PROJECT, name=run_id, resume="allow", config=dict(recipe))

    def log_values(self, step: int, values: Mapping[str, float]) -> None:
        self._library.log(dict(values), step=step)

    def log_image(self, step: int, path: Path) -> None:
        self._library.log({"preview": self._library.Image(str(path))}, step=step)

    def log_file(self, path: Path) -> None:
        self._library.log_artifact(str(path), name=f"{path.stem}-{self.run_id}", type=path.stem)

    def finish(self) -> None:
        self._library.finish()


class _Mlflow:
    def __init__(self, library: Any, recipe: Mapping[str, Any], _: Path, run_id: str) -> None:
        self._library = library
        library.set_experiment(_PROJECT)
        known = {"run_id": run_id} if run_id else {"run_name": recipe["name"]}
        self.run_id = library.start_run(**known).info.run_id
        library.log_dict(dict(recipe), "recipe.json")

    def log_values(self, step: int, values: Mapping[str, float]) -> None:
        named = {re.sub(r"[^\w./ -]", "_", name): value for name, value in values.items()}
        self._library.log_metrics(named, step=step)

    def log_image(self, step: int, path: Path) -> None:  # noqa: ARG002
        self._library.log_artifact(str(path), "previews")

    def log_file(self, path: Path) -> None:
        self._library.log_artifact(str(path))

    def finish(self) -> None:
        self._library.end_run()


_TRACKERS: dict[str, Any] = {"wandb": _Wandb, "trackio": _Trackio, "mlflow": _Mlflow}


def open_tracker(recipe: Mapping[str, Any], run_dir: Path) -> Tracker:
    """Start, or continue, the run at the tracker that a recipe names.

    Raises:
        InputError: The tracker's library is not installed, or it cannot start.
    """
    kind = str(recipe["track"])
    try:
        library = import_module(kind)
    except ImportError as error:
        # A library of its own may be the one that is missing.
        why = "" if error.name in (None, kind) else f" ({first_line(error)})"
        raise InputError(f'track = "{kind}" needs {kind}: pip install {kind}{why}') from None
    file, known = run_dir / _FILE, ""
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        known = str(about["id"]) if about["tracker"] == kind else ""
    except (OSError, ValueError, LookupError, TypeError):
        pass
    if not known and kind != "mlflow":  # which chooses its own
        known = f"{re.sub(r'[^A-Za-z0-9_-]', '-', recipe['name'])[:40]}-{secrets.token_hex(4)}"
    try:
        backend = _TRACKERS[kind](library, recipe, run_dir, known)
    except Exception as error:  # not logged in, no network, no such run
        raise InputError(
            f'track = "{kind}" cannot start ({first_line(error)}): see its documents about '
            "logging in and working offline"
        ) from None
    write_atomically(file, json.dumps({"tracker": kind, "id": backend.run_id}).encode())
    return Tracker(backend)
