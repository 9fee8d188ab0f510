"""The page about a run, from whole and from damaged folders."""

import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from biggan.cli.report import command
from biggan.errors import InputError
from biggan.reporting import read_run, write_report
from biggan.toml import to_toml
from biggan.training.config import load_recipe
from biggan.weights.files import Description, save_network
from tiny import tiny_generator


class Tags(HTMLParser):
    """Counts elements, and complains of those that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.counts = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in ("meta", "img", "html"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "html":
            assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "my <run>"
    (run / "previews").mkdir(parents=True)
    (run / "evaluations").mkdir()
    (run / "config.toml").write_text(to_toml(load_recipe("digits").to_dict()))
    lines = [
        {"step": step, "d_loss": 2 - step / 100, "g_loss": step / 50, "odd": step, "d_real": 0.5}
        for step in range(10, 90, 10)
    ]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for step in range(10, 90, 10):
        Image.new("L", (40, 30), step).save(run / "previews" / f"step-{step:08d}.png")
    for step, distance in ((40, 12.5), (80, 9.25)):
        evaluation = {
            "rows": [{"scores": {"frechet_distance": distance, "classifier_score": 5.0}}],
            "extractor": {"name": "classifier of digits"},
            "protocol": {"num": 100},
            "reference": {"name": "digits"},
        }
        (run / "evaluations" / f"step-{step:08d}.json").write_text(json.dumps(evaluation))
    return run


def page(run):
    out = run / "page.html"
    write_report(read_run(run), out)
    return out.read_text(encoding="utf-8")


def test_a_whole_run(run):
    text = page(run)
    tags = Tags(text)
    assert tags.open == []
    assert tags.counts["svg"] == 5  # losses, discriminator, "odd", and two scores
    assert tags.counts["img"] == 6  # from the first sheet to the last
    assert "step 10<" in text
    assert "step 80<" in text
    assert "9.25" in text
    assert "80 of 600" in text
    assert "my &lt;run&gt;" in text
    assert "Missing" not in text
    addresses = re.findall(r"(?:src|href)=['\"]([^'\"]+)", text)
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert page(run) == text  # equal runs give equal pages


def test_training_images_stand_beside_generated_ones_with_their_classes(run, undrawn):
    Image.new("L", (40, 30), 7).save(run / "previews" / "real.png")
    text = page(run)
    assert Tags(text).counts["img"] == 8
    assert "training images<" in text
    assert "generated at step 80<" in text
    assert "A class in each row" not in text  # there is no generator
    about = Description("x", class_names=("tabby, cat", "<b>", "\u732b"))
    save_network(run / "generator.safetensors", tiny_generator(), about)
    assert "A class in each row, from the top: tabby, &lt;b&gt;, \u732b." in page(run)


def test_what_is_missing_is_said_and_the_rest_is_drawn(run, undrawn):
    (run / "metrics.jsonl").unlink()
    for sheet in (run / "previews").iterdir():
        sheet.unlink()
    (run / "evaluations" / "step-00000040.json").write_text("{")
    text = page(run)
    assert "the curves (metrics.jsonl)" in text
    assert "sample sheets" in text
    assert "step-00000040.json" in text
    assert "9.25" in text


def test_a_sheet_that_cannot_be_read_is_left_out_and_words_are_no_markup(run, undrawn):
    (run / "previews" / "step-00000010.png").write_bytes(b"no picture")
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(f'note = "<script>alert(1)</script>"\n{config}')
    text = page(run)
    assert Tags(text).counts["img"] == 5
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_recipe_with_a_byte_order_mark(run):
    config = run / "config.toml"
    config.write_text(config.read_text(), encoding="utf-8-sig")
    assert read_run(run).recipe["total_steps"] == 600


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        read_run(tmp_path)


def test_the_command_says_what_it_is_at(run, caplog):
    caplog.set_level("INFO", "biggan")
    options = [str(run), "--out", str(run / "page.html"), "--figures", str(run / "figures")]
    command.main(options, standalone_mode=False)
    assert caplog.messages == [
        f"reading the logs of {run}",
        f"measuring the effect of truncation on the generator of {run}",
        "drawing the page",
        "drawing the figures",
    ]
    assert (
        len(list((run / "figures").iterdir()))
        == Tags((run / "page.html").read_text()).counts["svg"]
    )


@pytest.mark.parametrize(
    "text",
    [
        "total_steps = " + "9" * 5000,
        "total_steps = 0x" + "f" * 10_000,
        "data = " + "[" * 20_000,
        f"data{'.a' * 5000} = 1",
        "optimizer = 3\ngenerator.resolution = [inf, nan]\ntotal_steps = -1",
    ],
    ids=["digits", "hexadecimal", "brackets", "tables", "types"],
)
def test_a_recipe_of_any_values_is_shown_or_missing(run, text, undrawn):
    (run / "config.toml").write_text(text)
    assert "losses" in page(run).lower()
