"""What happened to a run, in words: the outcome, events, spikes; and their marks in the charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from biggan.reporting.charts import COLLAPSE, INK, INTERVENTION, ROLLBACK, Mark
from biggan.reporting.page import Folded, Part, Section, Table
from biggan.reporting.run import NETWORKS, Curve, Run
from biggan.reporting.spikes import HISTORY, RULE, Burst, Spike, find_spikes, group_spikes
from biggan.supervision.log import Event

_KINDS = {  # letter, in words, colour
    "collapse": ("C", "collapse called", COLLAPSE),
    "rollback": ("R", "rolled back", ROLLBACK),
    "intervention": ("A", "altered: an intervention", INTERVENTION),
    "stop": ("S", "stopped", INK),
}
_OTHER = ("E", "another event", INK)
_MARKED = 40  # events with marks in the charts
_MEMORIZED = 0.2  # accuracy on training images above that on held-out ones


def marks_of(run: Run) -> list[Mark]:
    """The vertical lines of all charts: events, and the first value that is not finite."""
    found = [(event.step, _KINDS.get(event.event, _OTHER)) for event in run.events[:_MARKED]]
    if at := run.first_not_finite():
        found.append((at[0], ("N", "", COLLAPSE)))
    marks: dict[int, Mark] = {}
    for step, (letter, _, color) in found:
        mark = marks.setdefault(step, Mark(step, "", color))
        if letter not in mark.letters:
            marks[step] = mark._replace(letters=mark.letters + letter)
    return list(marks.values())


def verdict(run: Run) -> tuple[str, list[str]]:
    """The outcome in a few sentences, and before them "alarm", "warning" or ""."""
    collapses, rollbacks, stops = (
        [event for event in run.events if event.event == kind]
        for kind in ("collapse", "rollback", "stop")
    )
    sentences = [
        f"A collapse was detected at step {event.step}: {event.reason}" for event in collapses[:3]
    ]
    if len(collapses) > 3:
        sentences.append(f"It was detected {len(collapses)} times in all")
    if rollbacks:
        once, to = len(rollbacks) == 1, rollbacks[-1].to
        times = "once" if once else f"{len(rollbacks)} times"
        where = "" if to is None else f", {'' if once else 'at last '}to step {to}"
        sentences.append(f"The run was rolled back {times}{where}, and continued")
    if stops:
        sentences.append(f"It was stopped at step {stops[-1].step}: {stops[-1].reason}")
    not_finite = run.first_not_finite()
    if not_finite:
        step, name = not_finite
        sentences.append(f"{name} is not finite at step {step}: numbers overflowed")
    if not collapses and (run.signals.curves or run.events):
        sentences.append("No collapse was detected")
    accuracy = run.signals.under("accuracy")
    if ("trained",) in accuracy and ("held_out",) in accuracy:
        # The discriminator swings from step to step: a single line of the log says little.
        values = [accuracy[name,].values for name in ("trained", "held_out")]
        known, new = (sum(v) / len(v) for v in (v[-max(5, len(v) // 4) :] for v in values))
        verdict = "has" if known - new > _MEMORIZED else "shows no sign of having"
        sentences.append(
            f"Over the last quarter the discriminator classified {known:.0%} of training images "
            f"and {new:.0%} of held-out ones as real: it {verdict} memorized its training images "
            "(in the paper above 98%, and 50 to 55%)"
        )
    alarm = (collapses and not rollbacks) or stops or not_finite
    level = "alarm" if alarm else "warning" if rollbacks else ""
    return level, [f"{sentence.rstrip(' .:')}." for sentence in sentences]


def history_section(run: Run) -> Section:
    """Events, and spikes of the largest singular values."""
    parts: list[Part] = []
    kinds = sorted({_KINDS.get(event.event, _OTHER)[:2] for event in run.events})
    words = [f"{letter} {meaning}" for letter, meaning in kinds]
    if run.first_not_finite():
        words.append("N first value that is not finite")
    if run.undone:
        words.append("dashed curves: attempts discarded by a rollback")
    if words:
        first = f" (the first {_MARKED} events)" if len(run.events) > _MARKED else ""
        parts.append(f"Marked in the charts{first}: {', '.join(words)}.")
    if run.events:
        parts.append(Table(["step", "what", "why"], [_in_words(event) for event in run.events]))
    if run.signals.curves or run.undone:
        bursts = [(burst, letter) for n, letter in NETWORKS.items() for burst in bursts_of(run, n)]
        bursts.sort(key=lambda pair: pair[0].last)
        rows = []
        for burst, letter in bursts:
            layer, spike = next(iter(burst.layers.items()))
            rise = f"{layer}: by a factor of {spike.factor:.3g}, to {spike.value:.3g}"
            rows.append([str(burst.last), letter, str(len(burst.layers)), rise])
        parts.append(f"Spikes of σ0:{'' if rows else ' none.'}")
        if rows:
            parts.append(Table(["step", "network", "layers", "strongest rise"], rows))
        parts.append(Folded("Definition of a spike", RULE))
    return Section("history", "What happened", parts)


def spikes_of(run: Run, network: str) -> list[dict[str, list[Spike]]]:
    """The spikes of each layer: of the run as it stands, then of what each rollback undid."""
    current = run.signals.singular_values(network)
    found = [{layer: find_spikes(curve) for layer, curve in current.items()}]
    for undone in run.undone:
        spikes = {}
        for layer, curve in undone["signals"].singular_values(network).items():
            whole = find_spikes(continued(current.get(layer), curve, before=HISTORY))
            spikes[layer] = [spike for spike in whole if spike.step >= curve.steps[0]]
        found.append(spikes)
    return found


def bursts_of(run: Run, network: str) -> list[Burst]:
    """The spikes of a network, those at one time together, in order of their steps."""
    logs = [run.signals, *(undone["signals"] for undone in run.undone)]
    curves = [curve for log in logs for curve in log.singular_values(network).values()]
    steps = sorted({step for curve in curves for step in curve.steps})
    bursts = [b for spikes in spikes_of(run, network) for b in group_spikes(spikes, steps)]
    return sorted(bursts, key=lambda burst: burst.first)


def continued(current: Curve | None, undone: Curve, *, before: int = 1) -> Curve:
    """An undone curve with up to `before` points of the one that it branched off from."""
    points = current.points if current else []
    return Curve.of([p for p in points if p[0] < undone.steps[0]][-before:] + undone.points)


def _in_words(event: Event) -> list[str]:
    what = _KINDS.get(event.event, ("", event.event))[1]
    what = what[:1].upper() + what[1:]
    what += "" if event.to is None else f" to step {event.to}"
    what += f"; {_listed(event.changes)}" if event.changes else ""
    rule = f"(rule: {event.rule})" if event.rule else ""
    values = f"[{_listed(event.values)}]" if event.values else ""
    return [str(event.step), what, " ".join(filter(None, (event.reason, rule, values)))]


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
