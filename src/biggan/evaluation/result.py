"""What an evaluation is at its end: figures, and all that decided them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """Figures, and everything that decided them.

    Attributes:
        subject: The model or the images that were evaluated.
        reference: The data that they were compared with.
        extractor: The network whose features were compared; empty if none were.
        protocol: How many images were made, and how; the settings of each metric.
        rows: For each truncation {"truncation": t, "scores": {...}, "seconds": s}; and "per_class",
            a list of {"class": k, "name": ..., ...}, where a metric looks at classes one by one.
        points: The rows of the paper's Table 2, by name; empty unless several truncations were
            measured.
        versions: The software that took part.
        date: UTC, ISO 8601.
    """

    subject: dict[str, Any]
    reference: dict[str, Any]
    extractor: dict[str, Any]
    protocol: dict[str, Any]
    rows: list[dict[str, Any]]
    points: dict[str, Any]
    versions: dict[str, str]
    date: str

    def to_json(self) -> str:
        """All of it, as text that people can read."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def is_of_same(evaluation: Evaluation, file: Path) -> bool:
    """Whether a file holds the figures of an evaluation of the same, maybe by other software."""
    try:
        found = json.loads(file.read_bytes())
        return _decided_by(found) == _decided_by(json.loads(evaluation.to_json()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _decided_by(values: dict[str, Any]) -> list[Any]:
    rows = [(row["truncation"], sorted(row["scores"])) for row in values["rows"]]
    return [values[key] for key in ("subject", "reference", "extractor", "protocol")] + rows
