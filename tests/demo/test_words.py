"""What the page says of a picture and of a model."""

import html
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import biggan
from biggan import Gan
from biggan.cli import interpolate, sample
from biggan.demo.drawing import draw_grid
from biggan.demo.forms import DIRECTIONS, EXPLORE, INTERPOLATE, SWEEP
from biggan.demo.words import (
    caption,
    column_heads,
    describe,
    download_links,
    download_progress,
    model_card,
)
from biggan.images import save_png
from biggan.provenance import file_stem
from biggan.provenance_files import read_provenance
from biggan.weights.files import save_network
from demo_app import SETTINGS, make_gan


def test_a_caption_is_a_command_that_makes_the_same_file(
    gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_network(tmp_path / "m", gan.generator, gan.description)
    loaded = biggan.load(tmp_path / "m")
    moved = "samples/tiny-002-two-hub0.6-seed3-0000-0+2.5-1-1.png"
    grids = [f"samples/grid{number}.png" for number in ("", "-2", "-3")]
    files = (grids[0], "interpolation.png", grids[1], moved, grids[2])
    for (form, values), made in zip(SETTINGS, files, strict=True):
        sheet = form.plan(loaded, **values)
        save_png(draw_grid(loaded, sheet), tmp_path / "page.png", sheet)
        found = re.search("<code>(.*)</code>", caption(loaded, sheet, "m"))
        assert found is not None
        program, verb, *words = shlex.split(html.unescape(found[1]))
        assert program == "biggan"
        command = {"sample": sample.command, "interpolate": interpolate.command}[verb]
        result = CliRunner().invoke(command, words)
        assert result.exit_code == 0, result.output
        if form is SWEEP:  # rows and columns are exchanged
            shown, written = sheet, read_provenance(tmp_path / made)
            assert set(written.pictures) == set(shown.pictures)
            continue
        if form is DIRECTIONS:  # the second picture
            assert read_provenance(tmp_path / made) == sheet.latents[1]
            with Image.open(tmp_path / "page.png") as shown, Image.open(tmp_path / made) as after:
                assert shown.crop((17, 0, 33, 16)).tobytes() == after.tobytes()
            continue
        with Image.open(tmp_path / "page.png") as a, Image.open(tmp_path / made) as b:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_captions_name_what_a_visitor_may_see(gan: Gan) -> None:
    assert caption(gan, EXPLORE.plan(gan), None) == ""
    assert "--class" not in caption(gan, EXPLORE.plan(gan, category=None), "m")
    assert caption(gan, EXPLORE.plan(gan), "fruits") == (  # the default
        '<p class="shell">In a shell: <code>biggan sample --grid --class &#x27;0) zero&#x27; '
        "--num 10 --truncation 0.4 --seed 0</code></p>"
    )


def test_words_trust_no_text_of_a_file() -> None:
    gan = make_gan(class_names=("<b>x</b>", "'; rm -rf /"))
    sheet = INTERPOLATE.plan(gan)
    assert "<b>" not in caption(gan, sheet, "<b>")
    assert "<b>" not in column_heads(sheet)
    hostile = replace(sheet, model="../../etc/passwd", class_a_name="a/b\\c\0é, d")
    assert file_stem(hostile).startswith("etc-passwd-a-b-c-to-")
    gan.description = replace(
        gan.description,
        name="<b>x</b>",
        source='see https://a.org/"onload="x" <script>',
        training={"step": 1, "data": "<i>", "evaluation": {"scores": {"fid": 1}, "num": 5}},
    )
    card = model_card(gan, "m")
    for text in ("<b>", "<script>", '"onload', "<i>"):
        assert text not in card
    assert '<a href="https://a.org/' in card


def test_columns_and_pictures_are_described(gan: Gan) -> None:
    heads = "<span>2</span><span>1.5</span><span>1</span><span>0.5</span><span>0.04</span>"
    assert column_heads(SWEEP.plan(gan)) == heads
    paths = INTERPOLATE.plan(gan, steps=3)
    assert column_heads(paths) == "<span>zero</span><span></span><span>nine</span>"
    assert describe(paths) == "2 paths from zero to nine in 3 steps, by tiny"
    samples = EXPLORE.plan(gan, num=7, category="six")
    assert column_heads(samples) == ""
    assert describe(samples) == "7 pictures of six, 5 a row, by tiny"
    moved = DIRECTIONS.plan(gan, direction_0=1)
    assert column_heads(moved) == "<span>Before</span><span>After</span>"
    assert describe(moved) == "A picture before and after its noise is moved, by tiny"
    flat = make_gan(class_names=())
    assert "--class" not in caption(flat, DIRECTIONS.plan(flat, direction_0=1), "m")
    assert "from one picture to another" in describe(INTERPOLATE.plan(flat))
    assert column_heads(INTERPOLATE.plan(flat, steps=2)) == "<span>A</span><span>B</span>"


def test_the_card_says_what_the_model_is() -> None:
    card = model_card(make_gan(), "m")

    for fact in ("tiny", "BigGAN", "16 &times; 16 pixels", "10 classes", "a test", "CC0"):
        assert fact in card
    count = sum(p.numel() for p in make_gan().generator.parameters())
    assert f"{count:,}" in card
    assert "not measured" in card
    assert "unconditional" in model_card(make_gan(class_names=()), "m")


def test_figures_come_with_what_decides_them() -> None:
    gan = make_gan()
    measured = {
        "scores": {"fid": 7.416, "is": 98.81, "precision": 0.5},
        "extractor": {"name": "inception", "sha256": "0"},
        "reference": {"name": "pets.zip", "num": 5000},
        "num": 50_000,
    }
    training = {"step": 2000, "data": "pets", "evaluation": measured}
    gan.description = replace(gan.description, training=training)
    card = model_card(gan, "m")

    assert (
        "FID 7.42, Inception Score 98.8 (50,000 untruncated images, against pets.zip, features of "
        "inception)"
    ) in card
    assert "2,000 steps on pets" in card


@pytest.mark.parametrize("evaluation", ["good", {}, {"scores": 5}, {"scores": {"fid": "low"}}])
def test_a_summary_of_another_form_breaks_nothing(evaluation: Any) -> None:
    gan = make_gan()
    gan.description = replace(gan.description, training={"step": "x", "evaluation": evaluation})

    assert "not measured" in model_card(gan, "m")


def test_the_progress_of_a_download() -> None:
    about = "Downloading biggan-128. Licence not established: DeepMind's module pages state none."
    for parts, words in (
        ([], '<progress></progress><p role="status">Connecting</p>'),
        ([(1, None)], '<progress></progress><p role="status">Connecting</p>'),
        (
            [(1, 9), (5_000_000, 9_000_000)],
            '<progress value="5000000" max="9000000"></progress><p role="status">5 of 9 MB</p>',
        ),
        ([(9, 9)], '<progress></progress><p role="status">Reading the weights</p>'),
    ):
        shown = html.unescape(download_progress("biggan-128", parts))
        assert shown == f"<p>{about}</p>{words}"


def test_a_small_picture_is_also_offered_enlarged() -> None:
    small = download_links("sample", "num=1&category=a%26b", 64)
    (original, large) = re.findall('href="([^"]*)" download>', small)
    assert html.unescape(original) == "api/sample?num=1&category=a%26b"
    assert html.unescape(large) == "api/sample?num=1&category=a%26b&enlarge=4"
    assert "enlarged 4x (pixels repeated)" in small
    assert "enlarge" not in download_links("sample", "num=1", 256)
