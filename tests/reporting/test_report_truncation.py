"""Amenability to truncation: what is measured, kept, and said."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

pytest.importorskip("matplotlib")

import synthetic_runs
from biggan import Gan
from biggan.errors import InputError
from biggan.reporting import measure_truncation, read_run, write_report
from biggan.reporting.figures import all_figures
from biggan.reporting.truncation import (
    TRUNCATIONS,
    Saturation,
    Sweep,
    sweep_truncations,
)
from biggan.weights.files import Description, save_network
from tiny import TINY_CLASSES, tiny_generator


class Painter(Gan):
    """Paints a part of each picture white that depends on the width of the noise."""

    def __init__(self, paint):
        generator = tiny_generator()
        super().__init__(generator, Description("painter", TINY_CLASSES), "0" * 64)
        self.paint = paint

    def generate(self, z, labels, truncation=None, *, batch_size=None):
        images = torch.zeros(len(z), 3, 16, 16)
        images[:, :, :4] = -1.0  # a quarter is black, as it should be
        rows = 4 + round(12 * self.paint(float(abs(torch.as_tensor(z)).max()), truncation))
        images[:, :, 4:rows] = 1.0
        return images


@pytest.fixture
def run(tmp_path):
    run = synthetic_runs.healthy_run(tmp_path / "run")
    save_network(run / "generator.safetensors", tiny_generator(), Description("tiny", TINY_CLASSES))
    return run


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run whose generator was measured, at two truncations."""
    folder = tmp_path_factory.mktemp("measured") / "run"
    about = Description("tiny", TINY_CLASSES)
    synthetic_runs.healthy_run(folder)
    save_network(folder / "generator.safetensors", tiny_generator(), about)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("biggan.reporting.truncation.TRUNCATIONS", (None, 0.2))
        measure_truncation(folder)
    return folder


def test_what_is_saturated_anyway_does_not_count():
    sweep = sweep_truncations(Painter(lambda width, truncation: 0.0))
    assert sweep.rows[0] == Saturation(None, 0.25, 0.0, 0.25)
    assert sweep.added() == [(truncation, 0.0) for truncation in TRUNCATIONS[1:]]
    assert sweep.most_added == 0


def test_what_truncated_noise_adds_does():
    """A third of the picture with the statistics of narrow noise, two thirds without."""

    def paint(width, truncation):
        return 0.0 if width > 0.5 else 1 / 3 if truncation is not None else 2 / 3

    sweep = sweep_truncations(Painter(paint))
    added, plain = dict(sweep.added()), dict(sweep.added(plain=True))
    assert added == {1.0: 0, 0.8: 0, 0.6: 0, 0.4: 0, 0.2: 0.25, 0.1: 0.25, 0.04: 0.25}
    assert (plain[0.4], plain[0.2]) == (0, 0.5)
    assert sweep.rows[-1] == Saturation(0.04, 0.25, 0.25, 0.75)
    assert sweep.most_added == 0.25


def test_a_sweep_is_measured_once_for_each_generator(run, monkeypatch):
    monkeypatch.setattr("biggan.reporting.truncation.TRUNCATIONS", (None, 1.0, 0.2))
    first = measure_truncation(run)
    assert [row.truncation for row in first.rows] == [None, 1.0, 0.2]
    assert [truncation for truncation, _ in first.strips] == [None, 1.0, 0.2]

    def unexpected(*arguments, **options):
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr("biggan.reporting.truncation.load", unexpected)
        assert measure_truncation(run) == first
    other = tiny_generator(channels=4)
    save_network(run / "generator.safetensors", other, Description("tiny", TINY_CLASSES))
    assert measure_truncation(run) != first


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:100],
        lambda text: "[" * 100_000,
        lambda text: text.replace('"dark"', '"murky"'),
        lambda text: text.replace("[0.2, ", '["0.2", '),
        lambda text: json.dumps({**json.loads(text), "key": [99]}),
    ],
)
def test_what_was_kept_and_cannot_be_read_is_measured_again(
    measured, damage, tmp_path, monkeypatch
):
    monkeypatch.setattr("biggan.reporting.truncation.TRUNCATIONS", (None, 0.2))
    run = shutil.copytree(measured, tmp_path / "run")
    kept = run / "truncation.json"
    kept.write_text(damage(kept.read_text()))
    assert measure_truncation(run) == measure_truncation(measured)


def test_a_run_without_a_generator_has_none(tmp_path):
    assert measure_truncation(synthetic_runs.healthy_run(tmp_path / "run")) is None


def test_pictures_that_are_none_are_refused():
    gan = Painter(lambda width, truncation: 0.0)
    gan.generate = lambda z, labels, truncation: torch.full((len(z), 3, 16, 16), torch.nan)
    with pytest.raises(InputError, match="not finite"):
        sweep_truncations(gan)


def test_the_page_says_how_each_run_takes_it(tmp_path, undrawn):
    record = read_run(synthetic_runs.healthy_run(tmp_path / "run"))

    def swept(name, bright):
        rows = [Saturation(t, 0.2, bright if t == 0.04 else 0.0, 0.2) for t in TRUNCATIONS]
        return replace(record, name=name, sweep=Sweep(48, tuple(rows), ((0.2, "png"),)))

    runs = {name: swept(name, bright) for name, bright in (("with", 0.01), ("without", 0.3))}
    [chart] = all_figures(record, runs)["truncation"]
    assert "without adds 30.0 percentage points at truncation 0.04" in chart.alt
    write_report(runs["with"], tmp_path / "page.html", [runs["without"]])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "with: truncation adds at most 1.0 percentage points: amenable by this measure" in text
    assert "without: truncation adds at most 30.0 percentage points: not amenable" in text
    assert "<td>without</td><td>0.04</td><td>50.0%</td><td>20.0%</td><td>30.0%</td>" in text
    assert "truncation 0.2</figcaption>" in text


def test_the_page_shows_both_runs(measured, tmp_path, undrawn):
    record = replace(read_run(measured), sweep=measure_truncation(measured))
    write_report(record, tmp_path / "page.html", [record])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h2>Amenability to truncation</h2>" in text
    assert text.count("<h3>Images of run (") == 2
    write_report(read_run(measured), tmp_path / "page.html", [record])
    assert (tmp_path / "page.html").read_text().count("<h3>Images of run (2)") == 1
    write_report(read_run(measured), tmp_path / "page.html")
    assert "Amenability" not in (tmp_path / "page.html").read_text()
