"""What the page says of a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from biggan.demo.card import model_card, rounded
from demo_app import make_gan


def test_the_card_says_what_the_model_is() -> None:
    card = model_card(make_gan())

    for fact in ("tiny", "BigGAN", "16 &times; 16 pixels", "10 classes", "a test", "CC0"):
        assert fact in card
    count = sum(p.numel() for p in make_gan().generator.parameters())
    assert f"({count:,})" in card
    assert "not measured" in card
    assert "unconditional" in model_card(make_gan(class_names=()))


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
    card = model_card(gan)

    assert (
        "FID 7.42, IS 98.8 (50,000 untruncated images, against pets.zip, features of inception)"
    ) in card
    assert "2,000 steps on pets" in card


@pytest.mark.parametrize("evaluation", ["good", {}, {"scores": 5}, {"scores": {"fid": "low"}}])
def test_a_summary_of_another_form_breaks_nothing(evaluation: Any) -> None:
    gan = make_gan()
    gan.description = replace(gan.description, training={"step": "x", "evaluation": evaluation})

    assert "not measured" in model_card(gan)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (999, "999"),
        (1000, "1 thousand"),
        (58_196_000, "58.2 million"),
        (158_260_000, "158 million"),
    ],
)
def test_large_counts_are_rounded(count: int, text: str) -> None:
    assert rounded(count) == text


def test_the_card_trusts_no_text_of_a_file() -> None:
    gan = make_gan()
    gan.description = replace(
        gan.description,
        name="<b>x</b>",
        source='see https://a.org/"onload="x" <script>',
        training={"step": 1, "data": "<i>", "evaluation": {"scores": {"fid": 1}, "num": 5}},
    )
    card = model_card(gan)

    for hostile in ("<b>", "<script>", '"onload', "<i>"):
        assert hostile not in card
    assert '<a href="https://a.org/' in card
