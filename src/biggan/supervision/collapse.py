"""Collapse rules: pure functions of a run's signals and of its evaluations.

GAN curves have temporary spikes. So `wrong`, `blind` and `uniform` must hold in three consecutive
lines of signals and over 40 steps, `sigma0` in three consecutive lines. `sigma0` and `wrong` follow
the paper (Section 4, Appendix F); `blind` is what small runs with too large learning rates show
first. In runs that have collapsed the figures are far beyond the thresholds, in healthy ones far
from them (docs/stability.md).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WINDOW = 60
"""Lines of signals that the rules look at, the newest included."""

_CONSECUTIVE = 3  # consecutive lines in which a rule must hold
_STEPS = 40  # steps that these lines must span at least
_SEPARATION = 0.1  # of D's mean logits; the hinge loss asks for 2
_APART = 0.5  # a separation that is clearly good
_WRONG = 4.0  # hinge loss of D's mean logits; a D that answers 0 to everything has 2
_RIGHT = 2.0
_DIVERSITY = 0.25  # share of the median before
_DIVERSE = 0.5
_SPAN = 5  # lines within which sigma0 may not double
_GROWTH = 2.0
_DISTANCE = 2.0  # times the best evaluation

_Line = Mapping[str, Any]


@dataclass(frozen=True)
class Collapse:
    """A collapse, as a rule found it."""

    rule: str
    reason: str
    """One sentence."""
    onset: int
    """The last step that was still good: no later checkpoint is resumed. May be below 0."""
    values: Mapping[str, float] = field(default_factory=dict)
    """The figures that decided."""
    fatal: bool = False
    """Whether training cannot go on at all."""


def distance(scores: Sequence[tuple[int, float]]) -> Collapse | None:
    """Rule `distance`: the two newest Frechet distances are more than twice the best before them.

    The averaged generator is evaluated, which changes slowly: what it shows is no spike. The scores
    are steps and distances, oldest first.
    """
    if len(scores) < 3:
        return None
    step, newest = scores[-1]
    good, best = min(scores[:-2], key=lambda score: score[1])
    if not all(value > _DISTANCE * best for _, value in scores[-2:]):
        return None
    reason = (
        f"The Frechet distance is {newest:.4g} at step {step}, and was {best:.4g} at step {good}."
    )
    return Collapse("distance", reason, scores[-3][0], {"distance": newest, "best": best})


def not_finite(lines: Sequence[_Line]) -> Collapse | None:
    """Rule `not finite`: a weight, a gradient or an output is infinite or no number."""
    step = lines[-1]["step"]
    name = next((name for name, value in _numbers(lines[-1]) if not math.isfinite(value)), None)
    if name is None:
        return None
    before = lines[-2]["step"] if len(lines) > 1 else -1
    return Collapse("not finite", f"{name} is not finite at step {step}.", before, fatal=True)


def blind(lines: Sequence[_Line]) -> Collapse | None:
    """Rule `blind`: the discriminator no longer tells real from generated images.

    Its mean logits are less than 0.1 apart, where the hinge loss asks for 2, and by less than they
    scatter; or less than 0.01. Its loss is then 2, as of one that answers 0 to everything, and
    neither network learns: with Adam at twenty times the learning rate all within a hundred steps.
    A generator that had learned its data would look like this too, and need no more training.
    """

    def holds(line: _Line) -> bool:
        apart, scatter = _separation(line), _scatter(line)
        return apart < _SEPARATION / 10 or (apart < _SEPARATION and apart < scatter)

    if not _held(lines, holds):
        return None
    apart, step = _separation(lines[-1]), lines[-1]["step"]
    reason = (
        f"The discriminator no longer tells real from generated images: its mean outputs are "
        f"{apart:.2g} apart at step {step}."
    )
    onset = _last(lines, lambda line: _separation(line) > _APART)
    return Collapse("blind", reason, onset, {"separation": apart, "scatter": _scatter(lines[-1])})


def wrong(lines: Sequence[_Line]) -> Collapse | None:
    """Rule `wrong`: the discriminator's logits are large, of the wrong sign.

    The hinge loss of its mean logits is above 4, twice that of one that answers 0 to everything. In
    the paper D's loss tends to 0 and jumps at collapse; with D frozen, to 300.
    """
    if not _held(lines, lambda line: _hinge(line) > _WRONG):
        return None
    loss, step = _hinge(lines[-1]), lines[-1]["step"]
    reason = (
        "The discriminator classifies real images as generated and generated ones as real: the "
        f"loss of its mean outputs is {loss:.3g} at step {step}."
    )
    return Collapse("wrong", reason, _last(lines, lambda x: _hinge(x) < _RIGHT), {"loss": loss})


def uniform(lines: Sequence[_Line]) -> Collapse | None:
    """Rule `uniform`: the images of a class have become alike.

    The diversity of the fixed sample is below a quarter of its median over all lines of the window
    but the newest.
    """
    before = [line["diversity"] for line in lines[: -_needed(lines)]]
    if len(before) < _CONSECUTIVE:
        return None
    usual = statistics.median(before)
    if not _held(lines, lambda line: line["diversity"] < _DIVERSITY * usual):
        return None
    newest, step = lines[-1]["diversity"], lines[-1]["step"]
    reason = (
        f"The images of a class have become alike: they differ by {newest:.2g} at step {step}, "
        f"usually by {usual:.2g}."
    )
    onset = _last(lines, lambda line: line["diversity"] > _DIVERSE * usual)
    return Collapse("uniform", reason, onset, {"diversity": newest, "median": usual})


def sigma0(lines: Sequence[_Line]) -> Collapse | None:
    """Rule `sigma0`: the largest singular value of a generator's weight doubled within five lines.

    In the paper's Figure 3 it grows through all of training, in some layers, and explodes at
    collapse. The discriminator's is no sign: it has spikes that pass.
    """
    spectra = [line["singular_values"]["generator"] for line in lines]
    for layer, values in spectra[-1].items():
        curve = [spectrum[layer][0] for spectrum in spectra if layer in spectrum]
        if len(curve) <= _SPAN + _CONSECUTIVE:
            continue
        recent = range(len(curve) - _CONSECUTIVE, len(curve))
        ratios = [curve[i] / curve[i - _SPAN] if curve[i - _SPAN] > 0 else 0.0 for i in recent]
        if all(ratio > _GROWTH for ratio in ratios):
            reason = (
                f"The largest singular value of the generator's {layer} exploded: "
                f"{values[0]:.3g} at step {lines[-1]['step']}, {ratios[-1]:.2g} times that of "
                f"{_SPAN} lines before."
            )
            onset = lines[-_CONSECUTIVE - _SPAN]["step"]
            return Collapse("sigma0", reason, onset, {"sigma0": values[0], "growth": ratios[-1]})
    return None


@dataclass(frozen=True)
class Rules:
    """What decides whether a run has collapsed: the first rule that holds."""

    signals: tuple[Callable[[Sequence[_Line]], Collapse | None], ...] = (
        not_finite,
        wrong,
        blind,
        uniform,
        sigma0,
    )
    """Rules for the newest line of signals.jsonl, given those before it, oldest first."""
    scores: Callable[[Sequence[tuple[int, float]]], Collapse | None] = distance
    """The rule for Frechet distances: of (step, distance), oldest first."""

    def find(self, lines: Sequence[_Line], margin: float = 1.0) -> Collapse | None:
        """Apply the rules for signals to the newest of some lines of signals.jsonl, oldest first.

        Lines that lack a value that `_is_complete` checks are skipped; D's outputs are measured in
        margins.
        """
        recent = [_in_margins(line, margin) for line in lines[-WINDOW:] if _is_complete(line)]
        if not recent:
            return None
        return next(filter(None, (rule(recent) for rule in self.signals)), None)


def _held(lines: Sequence[_Line], holds: Callable[[_Line], bool]) -> bool:
    """Whether a rule holds in the newest lines."""
    newest = _needed(lines)
    return len(lines) >= newest and all(holds(line) for line in lines[-newest:])


def _needed(lines: Sequence[_Line]) -> int:
    """In how many of the newest lines a rule must hold: `_CONSECUTIVE`, or more for `_STEPS`."""
    newest = lines[-1]["step"]
    within = sum(line["step"] > newest - _STEPS for line in lines)
    return max(_CONSECUTIVE, within + 1)


def _last(lines: Sequence[_Line], good: Callable[[_Line], bool]) -> int:
    """The step of the newest line that was good; -1 where none was."""
    return next((line["step"] for line in reversed(lines) if good(line)), -1)


def _is_complete(line: _Line) -> bool:
    """Whether a line has the numbers that the rules need, finite or not."""
    try:
        figures: list[Any] = [value for _, value in _numbers(line)]
        figures += [values[0] for values in line["singular_values"]["generator"].values()]
        figures += [d["std"] for d in line["logits"].values()]
    except (KeyError, TypeError, AttributeError, IndexError):
        return False
    known = line["logits"].keys() >= {"real", "fake"}
    return known and all(
        isinstance(figure, float) or (isinstance(figure, int) and abs(figure) < 2**53)
        for figure in figures
    )


def _in_margins(line: _Line, margin: float) -> _Line:
    """A line with its logits divided by the margin."""
    if margin == 1:
        return line
    logits = {
        kind: {name: value / margin for name, value in described.items()}
        for kind, described in line["logits"].items()
    }
    return {**line, "logits": logits}


def _separation(line: _Line) -> float:
    return line["logits"]["real"]["mean"] - line["logits"]["fake"]["mean"]


def _scatter(line: _Line) -> float:
    real, fake = line["logits"]["real"]["std"], line["logits"]["fake"]["std"]
    return math.hypot(real, fake) / math.sqrt(2)


def _hinge(line: _Line) -> float:
    real, fake = line["logits"]["real"]["mean"], line["logits"]["fake"]["mean"]
    return max(0.0, 1 - real) + max(0.0, 1 + fake)


def _numbers(line: _Line) -> list[tuple[str, float]]:
    """The figures of a line that must be finite, with their names."""
    numbers = [
        (f"the Frobenius norm of the {network}'s {layer}", norm)
        for network, layers in line["frobenius_norms"].items()
        for layer, norm in layers.items()
    ]
    numbers += [(f"the {n}'s gradient norm", norm) for n, norm in line["gradient_norms"].items()]
    numbers += [(f"the mean output on {k}", d["mean"]) for k, d in line["logits"].items()]
    return [*numbers, ("the images' diversity", line["diversity"])]
