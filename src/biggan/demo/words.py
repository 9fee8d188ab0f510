"""The words of the demo: what a picture shows, how to make it again, a model's card."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from biggan.demo.forms import MOVES, SheetProvenance, settings_of
from biggan.gan import Gan
from biggan.models import statistics_grid
from biggan.provenance import GridProvenance, LatentGridProvenance, MorphProvenance, Provenance
from biggan.publishing import measured
from biggan.weights.files import BUNDLED
from biggan.weights.published import PUBLISHED, downloads_folder

WELCOME = """<h1>BigGAN</h1>
<p>Draws new pictures of a class, after training on photographs. Choose a class, move the sliders,
or morph one class into another.
<a href="https://arxiv.org/abs/1809.11096" target="_blank" rel="noopener">Read the paper</a></p>"""
"""The page's heading, as HTML."""

API_LINK = '<a href="api/docs">The HTTP API of this page, for programs</a>'
"""The page's last line, as HTML."""

CANCELLED = "<p>The download was cancelled. Choose the model again to go on with it.</p>"
"""In place of a download's progress."""

# Of the shell, where they differ from the keys of controls.
_OPTIONS = {"category": "class", "category_a": "from", "category_b": "to"}
_KEYS = (*_OPTIONS, "num", "steps", "truncation", "seed", "seed_a", "seed_b")
_FAMILIES = {"biggan": "BigGAN", "biggan-deep": "BigGAN-deep"}
_LARGE = 256  # pixels a side to which small pictures are enlarged


def caption(gan: Gan, sheet: SheetProvenance, model: str | None) -> str:
    """The shell command that makes a picture again, as HTML; empty if `model` may not be seen."""
    if model is None:
        return ""
    words: list[Any] = [] if model == BUNDLED[0] else ["--model", model]
    where, verb, values = "In a shell", "sample", settings_of(gan, sheet)
    if isinstance(sheet, MorphProvenance):
        verb = "interpolate"
    elif isinstance(sheet, LatentGridProvenance):
        where = "In a shell, the second picture"
    elif _is_sweep(sheet):
        where = "In a shell, with a row for each truncation"
        truncations = [f"{p.truncation:g}" for p in sheet.pictures[: sheet.columns]]
        words += ["--sweep", ",".join(truncations), "--noise", values.pop("noise")]
        del values["truncation"]
    else:
        words += ["--grid"]
        if len({picture.class_index for picture in sheet.pictures}) > 1:
            del values["category"]
    for key in _KEYS:
        if values.get(key) is not None:
            words += [f"--{_OPTIONS.get(key, key)}".replace("_", "-"), values[key]]
    for number, key in enumerate(MOVES):
        if values.get(key):
            words += ["--direction", f"sefa:{number}={values[key]:g}"]
    command = shlex.join(["biggan", verb, *map(str, words)])
    return f'<p class="shell">{where}: <code>{html.escape(command)}</code></p>'


def download_links(endpoint: str, query: str, resolution: int) -> str:
    """Links to the picture as it is and, if it is small, enlarged, as HTML."""
    address = html.escape(f"api/{endpoint}?{query}")
    links = [f'<a href="{address}" download>Download the original (PNG)</a>']
    if (factor := min(_LARGE // resolution, 8)) > 1:
        text = f"Download enlarged {factor}x (pixels repeated)"
        links.append(f'<a href="{address}&amp;enlarge={factor}" download>{text}</a>')
    return f"<p>{' '.join(links)}</p>"


def column_heads(sheet: SheetProvenance) -> str:
    """What the columns of a picture are, one HTML span each; empty where all are alike."""
    if isinstance(sheet, MorphProvenance):
        a, b = (sheet.class_a_name or "A").split(",")[0], (sheet.class_b_name or "B").split(",")[0]
        labels = [a, *[""] * (sheet.steps - 2), b]
    elif isinstance(sheet, LatentGridProvenance):
        labels = ["Before", "After"]
    elif _is_sweep(sheet):
        labels = [f"{picture.truncation:g}" for picture in sheet.pictures[: sheet.columns]]
    else:
        return ""
    return "".join(f"<span>{html.escape(label)}</span>" for label in labels)


def describe(sheet: SheetProvenance) -> str:
    """What a picture shows, as its alternative text."""
    if isinstance(sheet, MorphProvenance):
        a, b = sheet.class_a_name or "one picture", sheet.class_b_name or "another"
        return f"{sheet.num} paths from {a} to {b} in {sheet.steps} steps, by {sheet.model}"
    if isinstance(sheet, LatentGridProvenance):
        return f"A picture before and after its noise is moved, by {sheet.model}"
    first = sheet.pictures[0]
    of = f" of {first.class_name}" if first.class_name else ""
    return f"{len(sheet.pictures)} pictures{of}, {sheet.columns} a row, by {first.model}"


def gallery(planned: Sequence[Provenance], pictures: Sequence[str]) -> str:
    """Pictures of classes to click on, as HTML; the last ones may be missing yet."""
    buttons = []
    for made, picture in zip_longest(planned, pictures):
        name = html.escape((made.class_name or "").split(",")[0])
        entry = html.escape(f"{made.class_index}) {made.class_name}")
        about = f'type="button" data-entry="{entry}" title="{name}" aria-label="{name}"'
        shown = f'<img src="{picture}" alt="">' if picture else ""
        buttons.append(f"<button {about}>{shown}</button>")
    return "".join(buttons)


def download_progress(model: str, parts: Sequence[tuple[int, int | None]]) -> str:
    """How far the download of a published model is, as HTML."""
    licence = html.escape(PUBLISHED[model].licence)
    done, total = parts[-1] if parts else (0, None)
    if total and done >= total:
        state, bar = "Reading the weights", "<progress></progress>"
    elif total:
        state = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
        bar = f'<progress value="{done}" max="{total}"></progress>'
    else:
        state, bar = "Connecting", "<progress></progress>"
    return (
        f"<p>Downloading {html.escape(model)}. Licence {licence}.</p>{bar}"
        f'<p role="status">{state}</p>'
    )


def download_failure(model: str, reason: str) -> str:
    """Which files of a published model to fetch by hand, and where to put them, as HTML."""
    published = PUBLISHED[model]
    places = []
    for place in published.places:
        urls = " and ".join(_linked(html.escape(file.url)) for file in place)
        names = " and ".join(f"<code>{html.escape(file.name)}</code>" for file in place)
        folder = html.escape(str(downloads_folder(published, place)))
        places.append(f"<li>{urls}<br>as {names} in <code>{folder}</code></li>")
    return (
        f"<p><strong>{html.escape(reason.partition(' If you have')[0])}</strong></p>"
        "<p>Fetch the files of one of these places in another way, put them into the folder, then "
        f"choose the model again:</p><ul>{''.join(places)}</ul>"
    )


def model_card(gan: Gan, name: str = "") -> str:
    """A model's main facts, and a card with all of them, as HTML; `name` is that of the page."""
    size, description = gan.config.resolution, gan.description
    classes = f"{len(gan.class_names)} classes" if gan.class_names else "unconditional"
    facts = [_FAMILIES[gan.config.family], f"{size} &times; {size} pixels", classes]
    statistics, grid = "one set for all truncations", statistics_grid(gan.generator)
    if grid:
        statistics = f"of {len(grid)} truncations, {grid[0]:.2f} to {grid[-1]:.2f}"
    rows = {
        "Parameters": f"{sum(p.numel() for p in gan.generator.parameters()):,}",
        "Noise": f"{gan.config.z_dim} numbers",
        "BatchNorm statistics": statistics,
        "Training": _trained(description.training),
        "Measured": _measured(description.training),
        "Source": _linked(html.escape(description.source)),
        "Licence": _linked(html.escape(description.licence)),
        "sha256": f"<code>{gan.sha256[:16]}&hellip;</code>",
    }
    entries = (f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in rows.items() if text)
    return (
        f'<h2 data-model-shown="{html.escape(name or gan.name)}">{html.escape(gan.name)}</h2>'
        f" <p>{' &middot; '.join(facts)}</p>"
        f"<details><summary>About this model</summary><dl>{''.join(entries)}</dl></details>"
    )


def _trained(training: Mapping[str, Any]) -> str:
    step, data = training.get("step"), training.get("data", "unknown data")
    return html.escape(f"{step:,} steps on {data}") if isinstance(step, int) else ""


def _measured(training: Mapping[str, Any]) -> str:
    figures, of = measured(training)
    if not figures:
        return "FID and IS: not measured (<code>biggan evaluate</code> does)"
    text = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
    return html.escape(f"{text} ({of})" if of else text)


def _is_sweep(grid: GridProvenance) -> bool:
    return len({picture.truncation for picture in grid.pictures}) > 1


def _linked(text: str) -> str:
    return re.sub(r"https?://[^\s<>]+[\w/]", r'<a href="\g<0>" rel="noopener">\g<0></a>', text)
