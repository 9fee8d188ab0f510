"""What the page says and draws of runs that are healthy, collapse, are rolled back, or damaged."""

import io
import json
import math
import re
from importlib import resources
from pathlib import Path
from random import Random

import pytest
from PIL import Image

pytest.importorskip("matplotlib")

import synthetic_runs
from biggan.reporting import charts as colors
from biggan.reporting import read_run, write_figures, write_report
from biggan.reporting.charts import REAL, Line, as_png, as_svg, line_chart
from biggan.reporting.figures import all_figures, conditioning, layer_lines, marks_of
from biggan.reporting.run import Curve, Log
from biggan.reporting.spikes import bursts_of, spikes_of


def charts(run, section):
    return {chart.name: chart for chart in all_figures(run, {run.name: run})[section]}


def append(path, *lines):
    path.write_text(path.read_text() + "".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture
def page(undrawn):
    def write(run, *others):
        out = run / "page.html"
        write_report(read_run(run), out, [read_run(other) for other in others])
        return out.read_text(encoding="utf-8")

    return write


def test_the_documentation_names_the_parts_of_the_page():
    page = resources.files("biggan.reporting").joinpath("page.html").read_text(encoding="utf-8")
    sections = re.findall(r'\("\w+", "([^"]+)", ', page[page.index("{% set sections") :])
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    table = text[text.index("| part |") : text.index("Letters above")]
    parts = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    assert [part for part in parts if part not in {"part", "---", "top of the page"}] == sections


def test_a_page_with_all_figures_is_whole_and_alone(tmp_path):
    run = synthetic_runs.rolled_back_run(tmp_path / "run")
    write_report(read_run(run), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for title in ("σ0 of every layer of G", "σ0 of every layer of D", "Conditioning of G"):
        assert f"<h3>{title}" in text
    assert text.count("<svg") == text.count('role="img" aria-label="') == 19
    ids = re.findall(r"\bid=['\"]([^'\"]+)", text)
    assert len(ids) == len(set(ids))
    links = re.findall(r"href=['\"]#([^'\"]+)", text) + re.findall(r"url\(#([^)]+)\)", text)
    assert set(links) <= set(ids)
    addresses = re.findall(r"(?:src|href)=['\"]([^'\"]+)", text)
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "<script" not in text
    style, drawings = text.split("</style>")
    assert colors.INK in style
    assert colors.INK not in drawings  # text and grid follow the page, light or dark
    assert colors.GRID not in drawings


def test_a_rolled_back_run_in_words(tmp_path, page):
    record = read_run(synthetic_runs.rolled_back_run(tmp_path / "run"))
    told = page(tmp_path / "run")
    assert '<div class="verdict warning">' in told
    assert "A collapse was detected at step 530: the largest singular value of linear in G" in told
    assert "rolled back once, to step 400, and continued.</p>" in told
    assert "<dt>initial learning rates</dt>" in told
    assert "classified 96% of training images and 55% of held-out ones as real" in told
    assert "it has memorized its training images" in told
    assert "Rolled back to step 400; optimizer.g_lr = 0.00015" in told
    assert "(rule: sigma0-explosion) [linear = 27.5, limit = 10]" in told
    assert "Altered: an intervention; optimizer.d_lr = 0.0004" in told
    assert (
        "Marked in the charts: A altered: an intervention, C collapse called, R rolled back, "
        "dashed curves: attempts discarded by a rollback.</p>"
    ) in told
    assert [(mark.step, mark.letters) for mark in marks_of(record)] == [
        (200, "A"),
        (530, "CR"),
    ]


def test_what_a_rollback_undid_is_drawn_beside_what_followed(tmp_path):
    record = read_run(synthetic_runs.rolled_back_run(tmp_path / "run"))
    current, undone = spikes_of(record, "generator")
    assert not any(current.values())
    assert [spike.step for spike in undone["linear"]] == [530]
    (burst,) = bursts_of(record, "generator")
    assert (burst.last, list(burst.layers)) == (530, ["linear"])
    before, after = spikes_of(record, "discriminator")
    assert [spike.step for spike in before["blocks.0.conv1"]] == [400]
    assert not any(after.values())  # the one at 400 was before it branched off
    alt = charts(record, "spectra")["sigma0-generator"].alt
    assert "steps 10 to 600" in alt
    assert "5 more curves" not in alt
    assert "CR at 530" in alt


def test_spikes_that_were_undone_a_moment_ago_are_apart(tmp_path):
    run = synthetic_runs.rolled_back_run(tmp_path / "run")
    log, undone = run / "signals.jsonl", run / "signals.before-rollback-1.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:40]))  # up to step 400
    lines = [json.loads(line) for line in undone.read_text().splitlines()]
    for line in (lines[3], lines[11]):
        line["singular_values"]["discriminator"]["head.linear"][0] *= 2
    synthetic_runs.write_lines(undone, lines)
    assert [burst.last for burst in bursts_of(read_run(run), "discriminator")] == [400, 440, 520]


def test_a_healthy_run_and_one_that_collapsed_differ_at_first_sight(tmp_path, page):
    record = read_run(synthetic_runs.healthy_run(tmp_path / "healthy"))
    told = page(tmp_path / "healthy")
    assert '<div class="verdict ">' in told
    assert "<p>No collapse was detected.</p>" in told
    (burst,) = bursts_of(record, "discriminator")
    assert burst.last == 400
    assert set(burst.layers) == {"blocks.0.conv1", "blocks.1.conv1"}
    assert "<td>400</td><td>D</td><td>2</td><td>blocks." in told
    assert "more than 0.05 (5%) and by more than 8 robust standard deviations" in told
    told = page(synthetic_runs.collapsed_run(tmp_path / "collapsed"))
    assert '<div class="verdict alarm">' in told
    assert "<p>It was stopped at step 540: collapse.action is stop.</p>" in told


def test_a_run_that_was_not_watched(tmp_path, page):
    run = synthetic_runs.healthy_run(tmp_path / "run")
    (run / "signals.jsonl").unlink()
    text = page(run)
    assert "This run was not watched" in text
    assert "--set watch.every=20" in text
    assert "Missing" not in text
    assert "<h3>Losses</h3>" in text
    assert "<h3>Outputs of the discriminator</h3>" in text
    assert "Singular values</h2>" not in text


def test_signals_alone_make_a_page(tmp_path, page):
    run = synthetic_runs.healthy_run(tmp_path / "run")
    for name in ("metrics.jsonl", "config.toml"):
        (run / name).unlink()
    text = page(run)
    assert "Missing: the recipe (config.toml); the curves (metrics.jsonl)." in text
    assert "<h3>σ0 of every layer of G</h3>" in text
    assert "<dd>600</dd>" in text


def test_signals_that_end_in_nan_are_marked_and_drawn_up_to_there(tmp_path, page):
    run = synthetic_runs.healthy_run(tmp_path / "run")
    broken = {
        "step": 610,
        "singular_values": {"generator": {"linear": [float("nan"), 2.0, 1.0]}},
        "diversity": float("inf"),
    }
    append(run / "signals.jsonl", broken)
    append(run / "metrics.jsonl", {"step": 610, "d_loss": float("nan")})
    record = read_run(run)
    assert marks_of(record)[-1][:2] == (610, "N")
    told = page(run)
    assert '<div class="verdict alarm">' in told
    assert "is not finite at step 610: numbers overflowed.</p>" in told
    assert "N first value that is not finite.</p>" in told
    assert "d_loss not finite" in told
    assert record.signals.curves[("diversity",)].steps[-1] == 600


def test_signals_of_another_version_are_drawn_as_they_are(tmp_path, page):
    run = synthetic_runs.healthy_run(tmp_path / "run")
    lines = [
        {
            "step": 610 + i,
            "entropy": {"generator": 1.0 + i},
            "singular_values": [{"layer": "linear", "values": [1.0, 0.5]}],
            "diversity": {"class 0": 0.5},
            "accuracy": 0.7,
            "note": "new",
        }
        for i in range(3)
    ]
    append(run / "signals.jsonl", *lines)
    record = read_run(run)
    signals = {"entropy", "singular-values", "diversity", "accuracy"}
    assert {f"signal-{name}" for name in signals} <= set(charts(record, "unknown"))
    assert "does not know" in page(run)
    assert "sigma0-generator" in charts(record, "spectra")
    assert "accuracy" in charts(record, "losses")


@pytest.mark.parametrize("seed", range(8))
def test_no_damage_to_the_logs_loses_the_page(tmp_path, page, seed):
    """Values, names and lines replaced at random."""
    random = Random(seed)
    run = synthetic_runs.rolled_back_run(tmp_path / "run")
    for log in run.glob("*.jsonl"):
        lines = []
        for line in log.read_text().splitlines():
            text = json.dumps(damaged(json.loads(line), random, random.choice([0.02, 0.2])))
            lines.append(text[: random.randrange(len(text))] if random.random() < 0.05 else text)
        log.write_text("\n".join(lines))
    text = page(run, run)
    assert text.count("<h1>") == 1
    assert "damaged lines of signals.jsonl" in text


def damaged(value, random, part):
    if random.random() < part:
        return random.choice(
            [None, "x", math.nan, math.inf, 1e308, 1e-320, -1, 10**400, True, [], {"a": {"b": [3]}}]
        )
    if isinstance(value, dict):
        names = ["<b>", "$a_{", "é猫", "\ud83d", "", "x" * 300, "'\"&"]
        return {
            random.choice(names) if random.random() < part else name: damaged(inner, random, part)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [damaged(inner, random, part) for inner in value]
    return value


def test_memorization_needs_held_out_images(tmp_path, page):
    run = synthetic_runs.healthy_run(tmp_path / "run")
    with_them = charts(read_run(run), "losses")["accuracy"]
    assert "held-out from 0.55 to 0.55" in with_them.alt
    lines = [json.loads(line) for line in (run / "signals.jsonl").read_text().splitlines()]
    for line in lines:
        del line["accuracy"]["held_out"]
    synthetic_runs.write_lines(run / "signals.jsonl", lines)
    text = page(run)
    assert "With watch.held_out above 0, the same for real images" in text
    assert "memorized its training images" not in text


def test_discriminators_that_swing_know_nothing_by_heart(tmp_path, page):
    run = synthetic_runs.healthy_run(tmp_path / "run")
    lines = [json.loads(line) for line in (run / "signals.jsonl").read_text().splitlines()]
    for i, line in enumerate(lines):
        known, new = (1.0, 0.5) if i % 2 else (0.5, 1.0)
        line["accuracy"] |= {"trained": known, "held_out": new}
    synthetic_runs.write_lines(run / "signals.jsonl", lines)
    assert "shows no sign of having memorized" in page(run)


def test_gradients_variety_statistics_and_conditioning(tmp_path):
    record = read_run(synthetic_runs.healthy_run(tmp_path / "run"))
    drawn = list(charts(record, "networks"))
    assert drawn == ["gradients", "diversity", "batch-norm-mean", "batch-norm-var"]
    signals = record.signals.curves
    ratio = conditioning(record.signals, "generator")["linear"]
    key = ("singular_values", "generator", "linear")
    expected = signals[(*key, "0")].values[3] / signals[(*key, "1")].values[3]
    assert ratio.values[3] == expected
    assert "head.linear" not in conditioning(record.signals, "discriminator")
    flat = Log({(*key, "0"): Curve([1, 2], [3.0, 3.0]), (*key, "1"): Curve([1, 2], [0.0, 2.0])})
    assert conditioning(flat, "generator") == {"linear": Curve([2], [1.5])}


def test_runs_are_compared_where_both_have_a_curve(tmp_path, page):
    first = synthetic_runs.healthy_run(tmp_path / "a" / "run")
    second = synthetic_runs.healthy_run(tmp_path / "b" / "run")
    recipe = second / "config.toml"
    text = recipe.read_text()
    recipe.write_text(re.sub(r"(?m)^orthogonal = .*$", "orthogonal = 0.5", text))
    (second / "metrics.jsonl").unlink()
    drawn = all_figures(read_run(first), {"a": read_run(first), "b": read_run(second)})
    compared = [chart.name for chart in drawn["comparison"]]
    assert "compared-sigma-generator" in compared
    assert "compared-d_loss" not in compared
    told = page(first, second)
    assert "<h2>Compared</h2>" in told
    assert "<tr><th>recipe</th><th>run (1)</th><th>run (2)</th></tr>" in told
    table = told.partition("<th>run (2)</th></tr>")[2].partition("</table>")[0]
    assert table.strip() == "<tr><td>orthogonal</td><td>0.0001</td><td>0.5</td></tr>"
    assert "<h2>Compared</h2>" not in page(first)


def test_figures_are_files_too(tmp_path, monkeypatch):
    run = synthetic_runs.healthy_run(tmp_path / "run")
    drawn = []
    monkeypatch.setattr(
        "biggan.reporting.report.as_png", lambda chart: drawn.append(chart) or b"PNG"
    )
    paths = write_figures(read_run(run), tmp_path / "new" / "figures")
    assert len(paths) == len({path.name for path in paths}) == len(drawn) == 19
    assert paths[0].name == "losses.png"
    assert all(path.read_bytes() == b"PNG" for path in paths)
    with Image.open(io.BytesIO(as_png(drawn[0]))) as image:
        assert image.format == "PNG"
        assert image.width == 880
        assert image.text["Description"].startswith("Losses. Line chart, steps 10 to 600")


def test_names_and_numbers_of_any_kind_can_be_drawn():
    names = ["$x_{$", "猫", "a\nb", "", "<b>\"'&", "x" * 300, "\ud800"]
    curves = [Curve([1, 2, 2**50], [10.0**k, -(10.0**k), 1e308]) for k in range(-320, 300, 90)]
    lines = [Line(n, c, REAL, spread=c) for n, c in zip(names, curves, strict=True)]
    chart = line_chart("name", "title <&>", lines)
    drawing = as_svg(chart, 1)
    assert "title &lt;&amp;&gt;" in drawing
    assert "<b>" not in drawing
    one = line_chart("name", "title", [Line("a", Curve([7], [0.0]), REAL)], height=2)
    assert line_chart("name", "title", []) is None
    assert "<svg" in as_svg(one, 1)


def test_long_curves_keep_their_extremes_in_short_paths():
    steps = list(range(100_000))
    values = [float(step % 7) for step in steps]
    values[54_321], values[54_322] = 99.0, -99.0
    curve = Curve(steps, values)
    chart = line_chart("name", "title", [Line("a", curve, REAL, spread=curve)])
    drawing = as_svg(chart, 1)
    assert len(drawing) < 100_000
    path = max(re.findall(r' d="([^"]*)"', drawing.split("<title>a</title>")[1]), key=len)
    heights = [float(y) for y in re.findall(r"[ML] [\d.-]+ ([\d.-]+)", path)]
    assert max(heights) - min(heights) > 10 * (sorted(heights)[-20] - sorted(heights)[20])


def contrast(color: str, page: str) -> float:
    """As the Web Content Accessibility Guidelines define it."""

    def luminance(hexadecimal: str) -> float:
        parts = [int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(color), luminance(page)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#14181d"])
def test_curves_can_be_told_from_light_and_dark_pages(page, tmp_path):
    run = read_run(synthetic_runs.healthy_run(tmp_path / "run"))
    lines = layer_lines(run, lambda log: log.singular_values("generator"))
    assert len({line.color for line in lines}) == len(synthetic_runs.G_LAYERS)
    of_layers = {line.label: line.color for line in lines}
    assert of_layers["linear"] == colors.LAYERS[0]
    assert of_layers["head.conv"] == colors.LAYERS[-1]
    marks = (colors.TRAINED, colors.COLLAPSE)
    for color in (*colors.SERIES, *colors.LAYERS, *marks, *of_layers.values()):
        assert contrast(color, page) >= 3, color
