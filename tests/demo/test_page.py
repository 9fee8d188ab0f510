"""The functions behind the page's events, and the page as Gradio will serve it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import biggan
from biggan import Gan, InputError
from biggan.classes import class_choices

pytest.importorskip("gradio")

from biggan.demo import page

if TYPE_CHECKING:
    from PIL import Image

IMAGENET = tuple(
    {8: "hen", 207: "golden retriever", 992: "hen-of-the-woods, hen of the woods"}.get(
        index, {933: "cheeseburger"}.get(index, f"class number {index}")
    )
    for index in range(1000)
)


def build_page(gan: Gan) -> Any:
    """The page, built inside an event loop: outside one Gradio makes a loop and leaks it."""

    async def build() -> Any:
        return page.build_page(gan)

    return asyncio.run(build())


def controls(blocks: Any, kind: str) -> dict[str, Any]:
    """The page's controls of a kind, in order, by their labels (the forms share some)."""
    found = [block for block in blocks.blocks.values() if block.get_block_name() == kind]
    return {f"{index} {block.label}": block for index, block in enumerate(found)}


@pytest.mark.parametrize(
    ("num", "columns", "rows", "side"),
    [(1, 1, 1, 256), (3, 3, 1, 208), (5, 5, 1, 128), (7, 5, 2, 128), (20, 5, 4, 128)],
)
def test_samples_in_at_most_five_columns(
    make_gan: Any, num: int, columns: int, rows: int, side: int
) -> None:
    grid = page.sample_grid(make_gan(), num, 0.4, 0, "3) three")

    assert grid.size == (columns * side + columns - 1, rows * side + rows - 1)


@pytest.mark.parametrize(("num", "steps", "side"), [(2, 5, 128), (1, 10, 64), (5, 2, 128)])
def test_interpolations_have_a_column_for_each_step(
    make_gan: Any, num: int, steps: int, side: int
) -> None:
    grid = page.interpolation_grid(make_gan(), num, steps, 0.2, 0, 1, "0) zero", "9) nine")

    assert grid.size == (steps * side + steps - 1, num * side + num - 1)


def test_small_pictures_are_enlarged_without_a_change_of_value(make_gan: Any) -> None:
    gan = make_gan()
    grid = np.asarray(page.sample_grid(gan, 2, 0.4, 7, "3) three"))

    second = np.asarray(gan.sample("three", num=2, truncation=0.4, seed=7)[1])
    enlarged = second.repeat(16, axis=0).repeat(16, axis=1)
    np.testing.assert_array_equal(grid[:, 257:], enlarged)
    assert (grid[:, 256] == 255).all()  # the white line between the two


def test_large_pictures_are_shown_as_they_are(make_gan: Any) -> None:
    gan = make_gan(resolution=128)
    grid = page.sample_grid(gan, 2, 0.4, 0, "3) three")

    assert grid.size == (257, 128)
    first = gan.sample("three", num=2, truncation=0.4, seed=0)[0]
    assert grid.crop((0, 0, 128, 128)).tobytes() == first.tobytes()


def test_interpolation_runs_from_a_to_b_along_each_row(make_gan: Any) -> None:
    gan = make_gan(resolution=128)
    grid = page.interpolation_grid(gan, 2, 3, 0.2, 4, 5, "1) one", "6) six")

    def cell(column: int, row: int) -> Image.Image:
        return grid.crop((129 * column, 129 * row, 129 * column + 128, 129 * row + 128))

    for row in range(2):
        start = gan.sample("one", num=2, truncation=0.2, seed=4)[row]
        end = gan.sample("six", num=2, truncation=0.2, seed=5)[row]
        # The label is given as weights of classes here: equal up to rounding.
        assert np.abs(np.asarray(cell(0, row), int) - np.asarray(start, int)).max() <= 1
        assert np.abs(np.asarray(cell(2, row), int) - np.asarray(end, int)).max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0, 0.4, 0, "0) zero"), "the number of samples must be between 1 and 20, not 0"),
        ((21, 0.4, 0, "0) zero"), "the number of samples must be between 1 and 20, not 21"),
        ((2.5, 0.4, 0, "0) zero"), "the number of samples must be a whole number, not 2.5"),
        ((1, 1.5, 0, "0) zero"), "truncation must be above 0 and at most 1, not 1.5"),
        ((1, None, 0, "0) zero"), "truncation must be a number, not None"),
        ((1, "0.4", 0, "0) zero"), "truncation must be a number, not '0.4'"),
        ((1, float("nan"), 0, "0) zero"), "truncation must be a number, not nan"),
        ((1, 0.4, 0.5, "0) zero"), "the seed must be a whole number, not 0.5"),
        ((1, 0.4, True, "0) zero"), "the seed must be a number, not True"),
        ((1, 0.4, -1, "0) zero"), "the seed must be between 0 and"),
        ((1, 0.4, 0, "ten"), "no class is called 'ten'"),
    ],
)
def test_a_wrong_setting_is_named(make_gan: Any, settings: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        page.sample_grid(make_gan(), *settings)


@pytest.mark.parametrize(("num", "steps"), [(6, 5), (0, 5), (2, 1), (2, 11)])
def test_interpolations_have_limits(make_gan: Any, num: int, steps: int) -> None:
    with pytest.raises(InputError, match="must be between"):
        page.interpolation_grid(make_gan(), num, steps, 0.2, 0, 0, "zero", "nine")


def test_menus_start_with_the_notebooks_classes() -> None:
    assert page.default_class(IMAGENET, "cheeseburger", 0) == "933) cheeseburger"
    assert page.default_class(IMAGENET, "golden retriever", 0) == "207) golden retriever"
    assert page.default_class(IMAGENET, "hen", -1) == "8) hen"


def test_menus_of_other_models_start_with_the_first_and_the_last_class(make_gan: Any) -> None:
    menus = list(controls(build_page(make_gan()), "dropdown").values())

    assert [menu.value for menu in menus] == ["0) zero", "0) zero", "9) nine"]
    assert [choice for choice, _ in menus[0].choices] == class_choices(make_gan().class_names)


def test_sliders_are_the_notebooks(make_gan: Any) -> None:
    sliders = controls(build_page(make_gan()), "slider")

    assert {label: (s.minimum, s.maximum, s.step, s.value) for label, s in sliders.items()} == {
        "0 Number of samples": (1, 20, 1, 10),
        "1 Truncation": (0.02, 1, 0.02, 0.4),
        "2 Noise seed": (0, 100, 1, 0),
        "3 Number of samples": (1, 5, 1, 2),
        "4 Number of steps": (2, 10, 1, 5),
        "5 Truncation": (0.02, 1, 0.02, 0.2),
        "6 Noise seed A": (0, 100, 1, 0),
        "7 Noise seed B": (0, 100, 1, 0),
    }


def test_every_control_draws_and_stale_moves_are_dropped(make_gan: Any) -> None:
    blocks = build_page(make_gan())
    events = {event["api_name"]: event for event in blocks.config["dependencies"]}

    assert set(events) == {"sample", "interpolate"}
    for event in events.values():
        assert event["trigger_mode"] == "always_last"
        moved = {block for block, trigger in event["targets"] if trigger == "change"}
        assert moved == set(event["inputs"])
    assert len(events["sample"]["inputs"]) == 4
    assert len(events["interpolate"]["inputs"]) == 7
    limits = [function.concurrency_limit for function in blocks.fns.values()]
    assert limits == [1, 1]
    assert len({function.concurrency_id for function in blocks.fns.values()}) == 1


def test_an_unconditional_model_has_no_menus(make_gan: Any) -> None:
    gan = make_gan(class_names=())
    blocks = build_page(gan)

    assert controls(blocks, "dropdown") == {}
    inputs = {e["api_name"]: len(e["inputs"]) for e in blocks.config["dependencies"]}
    assert inputs == {"sample": 3, "interpolate": 5}
    draw = {function.api_name: function.fn for function in blocks.fns.values()}
    assert draw["sample"](2, 0.4, 0).size == (513, 256)
    assert draw["interpolate"](1, 2, 0.2, 0, 1).size == (513, 256)
    assert "unconditional" in page.about(gan)


def test_a_mistake_reaches_the_page_as_one_line(make_gan: Any) -> None:
    import gradio

    blocks = build_page(make_gan())
    draw = {function.api_name: function.fn for function in blocks.fns.values()}

    with pytest.raises(gradio.Error) as caught:
        draw["sample"](10, 1.5, 0, "0) zero")
    assert caught.value.message == "truncation must be above 0 and at most 1, not 1.5"
    assert caught.value.print_exception is False  # a visitor's mistake is no news for the terminal
    with pytest.raises(gradio.Error, match="one number or one text"):
        draw["sample"]([10], 0.4, 0, "0) zero")


def test_the_header_says_what_the_model_is(make_gan: Any) -> None:
    header = page.about(make_gan())

    for fact in ("tiny", "BigGAN", "16 &times; 16 pixels", "10 classes", "a test", "CC0"):
        assert fact in header
    count = sum(p.numel() for p in make_gan().generator.parameters())
    assert f"{count} parameters" in header


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
    assert page._rounded(count) == text


def test_the_header_trusts_no_text_of_a_file(make_gan: Any) -> None:
    gan = make_gan()
    gan.description = replace(
        gan.description, name="<b>x</b>", source='see https://a.org/"onload="x" <script>'
    )
    header = page.about(gan)

    assert "<b>" not in header
    assert "<script>" not in header
    assert '"onload' not in header
    assert '<a href="https://a.org/' in header


def test_the_bundled_model_has_a_page() -> None:
    gan = biggan.load()

    menu = next(iter(controls(build_page(gan), "dropdown").values()))
    grid = page.sample_grid(gan, 10, 0.4, 0, menu.value)
    assert len(grid.getcolors(1 << 24)) > 2  # not a blank
