"""What the page says of a model: its name, and a card with its size, origin and figures."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from biggan.gan import Gan
from biggan.weights.networks import statistics_grid

_FAMILIES = {"biggan": "BigGAN", "biggan-deep": "BigGAN-deep"}
_SCORES = {
    "fid": "FID",
    "is": "IS",
    "frechet_distance": "Fréchet distance",
    "classifier_score": "classifier score",
}


def model_card(gan: Gan) -> str:
    """The page's header, as HTML: the model's name, the main facts, and a card with all of them."""
    size = gan.config.resolution
    classes = f"{len(gan.class_names)} classes" if gan.class_names else "unconditional"
    facts = [_FAMILIES[gan.config.family], f"{size} &times; {size} pixels", classes]
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in _rows(gan) if text
    )
    return (
        f"<h1>{html.escape(gan.name)}</h1><p>{' &middot; '.join(facts)}</p>"
        f"<details><summary>About this model</summary><dl>{rows}</dl></details>"
    )


def _rows(gan: Gan) -> list[tuple[str, str]]:
    description = gan.description
    parameters = sum(parameter.numel() for parameter in gan.generator.parameters())
    return [
        ("Parameters", f"{rounded(parameters)} ({parameters:,})"),
        ("Noise", f"{gan.config.z_dim} numbers"),
        ("BatchNorm statistics", _grid_in_words(statistics_grid(gan.generator))),
        ("Training", _trained(description.training)),
        ("Measured", _measured(description.training)),
        ("Source", _linked(html.escape(description.source))),
        ("Licence", _linked(html.escape(description.licence))),
        ("sha256", f"<code>{gan.sha256[:16]}&hellip;</code>"),
    ]


def rounded(count: int) -> str:
    """A count in three digits at most: "58.2 million"."""
    for unit, word in ((10**9, " billion"), (10**6, " million"), (10**3, " thousand")):
        if count >= unit:
            return f"{count / unit:.3g}{word}"
    return str(count)


def _grid_in_words(grid: tuple[float, ...]) -> str:
    if not grid:
        return "one set for all truncations"
    return f"of {len(grid)} truncations, {grid[0]:.2f} to {grid[-1]:.2f}"


def _trained(training: Mapping[str, Any]) -> str:
    step = training.get("step")
    if not isinstance(step, int):
        return ""
    return html.escape(f"{step:,} steps on {training.get('data', 'unknown data')}")


def _measured(training: Mapping[str, Any]) -> str:
    """FID and IS with what decides them, as `biggan train` keeps them with the best generator."""
    evaluation = training.get("evaluation")
    scores = evaluation.get("scores") if isinstance(evaluation, Mapping) else None
    figures = [
        f"{name} {scores[key]:.3g}"
        for key, name in _SCORES.items()
        if isinstance(scores, Mapping) and isinstance(scores.get(key), int | float)
    ]
    if not isinstance(evaluation, Mapping) or not figures:
        return "FID and IS: not measured (<code>biggan evaluate</code> does)"
    num = evaluation.get("num")
    of = [
        f"{num:,} untruncated images" if isinstance(num, int) else "",
        f"against {_named(evaluation.get('reference'))}",
        f"features of {_named(evaluation.get('extractor'))}",
    ]
    return html.escape(f"{', '.join(figures)} ({', '.join(filter(None, of))})")


def _named(about: Any) -> str:
    name = about.get("name") if isinstance(about, Mapping) else None
    return str(name or "unknown")


def _linked(text: str) -> str:
    return re.sub(r"https?://[^\s<>]+[\w/]", r'<a href="\g<0>" rel="noopener">\g<0></a>', text)
