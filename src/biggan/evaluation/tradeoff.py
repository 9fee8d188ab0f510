"""Fidelity against variety along the truncation: the paper's Figure 17 and its Table 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
"""A truncation with its scores: {"truncation": t, "scores": {...}}."""


def operating_points(
    rows: Sequence[Row], fid: str, score: str, score_of_data: float | None
) -> dict[str, Row]:
    """The points of the paper's Table 2, each the nearest that was measured.

    Args:
        rows: The sweep.
        fid: Name of the distance among the scores, small for good.
        score: Name of the Inception Score, or of what stands for it.
        score_of_data: The same of the data themselves; None if it is unknown.

    Returns:
        "no truncation" (left out if it was not measured), "best <fid>", "<score> of the data" (left
        out if that is unknown) and "best <score>".
    """
    points: dict[str, Row] = {}
    untruncated = [row for row in rows if row["truncation"] is None]
    if untruncated:
        points["no truncation"] = untruncated[0]
    points[f"best {fid}"] = min(rows, key=lambda row: row["scores"][fid])
    if score_of_data is not None:
        points[f"{score} of the data"] = min(
            rows, key=lambda row: abs(row["scores"][score] - score_of_data)
        )
    points[f"best {score}"] = max(rows, key=lambda row: row["scores"][score])
    return points
