"""What happened to a run, in words: collapses, rollbacks, interventions, spikes."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from biggan.training.report import spikes as rule
from biggan.training.report.charts import Mark
from biggan.training.report.logs import Curve, Event, Log
from biggan.training.report.page import Section, details, paragraph, table
from biggan.training.report.palette import COLLAPSE, INK, INTERVENTION, ROLLBACK, Color
from biggan.training.report.record import RunRecord
from biggan.training.report.spikes import HISTORY, Burst, Spike, find_spikes, group_spikes

NETWORKS = {"generator": "G", "discriminator": "D"}

_KINDS: dict[str, tuple[str, str, Color]] = {  # letter, in words, colour
    "collapse": ("C", "collapse called", COLLAPSE),
    "rollback": ("R", "rolled back", ROLLBACK),
    "intervention": ("A", "altered: an intervention", INTERVENTION),
    "stop": ("S", "stopped", INK),
}
_OTHER = ("E", "another event", INK)
_NOT_FINITE = Mark(0, "N", COLLAPSE)
_LISTED = 40  # lines of a table that is not folded away
_MARKED = 40  # events that are marked in charts, at most
_BY_HEART = 0.2  # accuracy on training images over that on held-out ones
_UNWATCHED = (
    "This run was not watched: its folder has no signals.jsonl. Losses, evaluations and samples "
    "are drawn below. Singular values, gradient norms, memorization and variety are written by "
    "training with watch.every above 0 (biggan train ... --set watch.every=20)."
)


def marks_of(record: RunRecord) -> list[Mark]:
    """The vertical lines of all charts: events, and where numbers first were none."""
    marks = []
    for event in record.events[:_MARKED]:
        letter, _, color = _KINDS.get(event.kind, _OTHER)
        marks.append(Mark(event.step, letter, color))
    at = [steps[0] for steps in record.not_finite.values()]
    at += [steps[0] for steps in record.signals.not_finite.values()]
    if at:
        marks.append(_NOT_FINITE._replace(step=min(at)))
    return marks


def legend(record: RunRecord) -> str:
    """What the marks in the charts mean, as HTML; empty where there are none."""
    kinds = {_KINDS.get(event.kind, _OTHER)[:2] for event in record.events}
    words = [f"<b>{letter}</b> {meaning}" for letter, meaning in sorted(kinds)]
    if record.not_finite or record.signals.not_finite:
        words.append("<b>N</b> first value that is not finite")
    if record.attempts:
        words.append("dashed curves: what a rollback undid")
    first = f" (the first {_MARKED} events)" if len(record.events) > _MARKED else ""
    return f"<p>Marked in the charts{first}: {', '.join(words)}.</p>" if words else ""


def spikes_of(record: RunRecord, network: str) -> list[dict[str, list[Spike]]]:
    """Of each layer of a network the spikes of sigma0.

    Returns:
        Those of the run as it stands, then those of each attempt that a rollback undid.
    """
    current = sigma_curves(record.signals, network)
    found = [{layer: find_spikes(curve) for layer, curve in current.items()}]
    for attempt in record.attempts:
        of_attempt = {}
        for layer, curve in sigma_curves(attempt.signals, network).items():
            whole = continued(current.get(layer, Curve([], [])), curve, before=HISTORY)
            spikes = find_spikes(whole)
            of_attempt[layer] = [spike for spike in spikes if spike.step >= curve.steps[0]]
        found.append(of_attempt)
    return found


def sigma_curves(log: Log, network: str, index: int = 0) -> dict[str, Curve]:
    """Of each layer of a network, first to last, a singular value: 0 for the largest."""
    curves = log.under("singular_values", network)
    return {key[0]: c for key, c in curves.items() if len(key) == 2 and key[1] == str(index)}


def continued(current: Curve, undone: Curve, *, before: int = 1) -> Curve:
    """An undone stretch with up to `before` points of what it branched off from."""
    start = undone.steps[0]
    points = [p for p in zip(current.steps, current.values, strict=True) if p[0] < start][-before:]
    return Curve(
        [step for step, _ in points] + undone.steps, [value for _, value in points] + undone.values
    )


def verdict(record: RunRecord) -> str:
    """The outcome in a few sentences, as HTML."""
    collapses = [event for event in record.events if event.kind == "collapse"]
    rollbacks = [event for event in record.events if event.kind == "rollback"]
    stops = [event for event in record.events if event.kind == "stop"]
    sentences = []
    for event in collapses[:3]:
        why = f": {event.reason}" if event.reason else ""
        sentences.append(f"Collapse was called at step {event.step}{why}".rstrip(".") + ".")
    if len(collapses) > 3:
        sentences.append(f"It was called {len(collapses)} times in all.")
    if rollbacks:
        times = "once" if len(rollbacks) == 1 else f"{len(rollbacks)} times"
        last = "" if len(rollbacks) == 1 else "at last "
        where = "" if rollbacks[-1].to is None else f", {last}to step {rollbacks[-1].to}"
        sentences.append(f"The run was rolled back {times}{where}, and went on.")
    if stops:
        why = f": {stops[-1].reason}" if stops[-1].reason else ""
        sentences.append(f"It was stopped at step {stops[-1].step}{why}".rstrip(".") + ".")
    at = [(s[0], name) for name, s in record.not_finite.items()]
    at += [(s[0], " ".join(key)) for key, s in record.signals.not_finite.items()]
    if at:
        step, name = min(at)
        sentences.append(f"{name} is not finite at step {step}: numbers overflowed.")
    if not collapses and (record.signals.curves or record.events):
        sentences.append("No collapse was called.")
    if record.signals.curves:
        sentences += _remembered(record)
    else:
        sentences.append(_UNWATCHED)
    alarm = " alarm" if (collapses and not rollbacks) or stops or at else ""
    if rollbacks and not alarm:
        alarm = " warning"
    return f"<div class='verdict{alarm}'>{''.join(paragraph(s) for s in sentences)}</div>"


def _remembered(record: RunRecord) -> list[str]:
    """Whether D knows the training images by heart, in a sentence."""
    accuracy = record.signals.under("accuracy")
    seen, new = accuracy.get(("trained",)), accuracy.get(("held_out",))
    if seen is None or new is None:
        return []
    # D swings from step to step: a single line of the log says little.
    lately = [curve.values[-max(5, len(curve.values) // 4) :] for curve in (seen, new)]
    known, unknown = (sum(values) / len(values) for values in lately)
    knows = "knows" if known - unknown > _BY_HEART else "shows no sign of knowing"
    return [
        f"Over the last quarter the discriminator took {known:.0%} of training images for real and "
        f"{unknown:.0%} of held-out ones: it {knows} its training images by heart (the paper's "
        "took above 98% and 50 to 55%)."
    ]


def history_section(record: RunRecord) -> Section:
    """Events in words, and spikes."""
    parts = []
    if record.events:
        rows = [list(_in_words(event)) for event in record.events]
        parts.append(_long_table(["step", "what", "why"], rows, "events"))
    if record.signals.curves or record.attempts:
        parts.append("<h3>Spikes of σ0</h3>")
        bursts = {network: bursts_of(record, network) for network in NETWORKS}
        rows = [
            [str(burst.last), NETWORKS[network], str(len(burst.layers)), _strongest(burst)]
            for network, of_network in bursts.items()
            for burst in of_network
        ]
        rows.sort(key=lambda row: int(row[0]))
        head = ["step", "network", "layers", "strongest rise"]
        parts.append(_long_table(head, rows, "spikes") if rows else "<p>None.</p>")
        parts.append(details("What counts as a spike", paragraph(rule.RULE)))
    return Section("history", "What happened", legend(record), parts) if parts else _EMPTY


_EMPTY = Section("history", "What happened")


def bursts_of(record: RunRecord, network: str) -> list[Burst]:
    """The spikes of a network's layers, put together where they came together."""
    logs = [record.signals, *(attempt.signals for attempt in record.attempts)]
    steps = sorted(
        {s for log in logs for c in sigma_curves(log, network).values() for s in c.steps}
    )
    bursts = [b for spikes in spikes_of(record, network) for b in group_spikes(spikes, steps)]
    return sorted(bursts, key=lambda burst: burst.first)


def _strongest(burst: Burst) -> str:
    layer, spike = next(iter(burst.layers.items()))
    return f"{layer}: by a factor of {spike.factor:.3g}, to {spike.value:.3g}"


def _in_words(event: Event) -> tuple[str, str, str]:
    _, meaning, _ = _KINDS.get(event.kind, ("", event.kind, INK))
    what = meaning[:1].upper() + meaning[1:]
    if event.to is not None:
        what += f" to step {event.to}"
    if event.changes:
        what += f"; {_listed(event.changes)}"
    why = event.reason
    if event.rule:
        why += f" (rule: {event.rule})" if why else f"rule: {event.rule}"
    if event.values:
        why += f" [{_listed(event.values)}]" if why else _listed(event.values)
    return str(event.step), what, why


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {short(value)}" for name, value in values.items())


def short(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    try:
        return str(value)
    except (ValueError, RecursionError):  # thousands of digits, or of levels
        return "..."


def _long_table(head: Sequence[str], rows: Sequence[Sequence[str]], what: str) -> str:
    shown = table(head, rows[:_LISTED])
    rest = rows[_LISTED:]
    return shown + (details(f"{len(rest)} more {what}", table(head, rest)) if rest else "")


def missing(record: RunRecord) -> str:
    """What could not be read, as HTML."""
    if not record.missing:
        return ""
    return f"<p class='lost'>Missing: {html.escape('; '.join(record.missing))}.</p>"
