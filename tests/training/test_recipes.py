"""Every shipped recipe: its settings are the published ones, and its header says how to run it."""

import re
from importlib import resources
from pathlib import Path

import pytest

from biggan.models import count_parameters
from biggan.training import load_recipe, shipped_recipes

DOCS = Path(__file__).parents[2] / "docs"

# Table 1: batch, ch, shared embedding, skip-z, orthogonal, thousand steps, million parameters
TABLE_1 = {
    "sagan-128": (256, 64, False, False, False, 1000, 81.5),
    "table1-row2": (512, 64, False, False, False, 1000, 81.5),
    "table1-row3": (1024, 64, False, False, False, 1000, 81.5),
    "table1-row4": (2048, 64, False, False, False, 732, 81.5),
    "table1-row5": (2048, 96, False, False, False, 295, 173.5),
    "table1-row6": (2048, 96, True, False, False, 185, 160.6),
    "table1-row7": (2048, 96, True, True, False, 152, 158.3),
    "table1-row8": (2048, 96, True, True, True, 165, 158.3),
    "table1-row9": (2048, 64, True, True, True, 371, 71.3),
}
BOTH_LOWER = ["biggan-deep-256", "biggan-deep-512"]  # Appendix C
SIZES = [f"biggan-{kind}{size}" for kind in ("", "deep-") for size in (128, 256, 512)]
IMAGENET = [*TABLE_1, *SIZES]


def header(name):
    text = (resources.files("biggan") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    lines = text.splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:end])


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_header_gives_the_command(name):
    text = header(name).replace(" \\\n#", "")  # commands that go on in the next line
    commands = re.findall(r"biggan train (\S+)(.*)", text)
    assert commands, "no command"
    for recipe, options in commands:
        assert recipe == name
        assert "--out runs/" in options
        assert "--data" in options or load_recipe(name).data
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_guide_to_the_recipes_lists_it(name):
    assert f"`{name}`" in (DOCS / "recipes.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*IMAGENET, "cifar10"])
def test_published_figures_come_with_what_was_run_of_them(name):
    assert "Published" in header(name)
    assert "Not run here" in " ".join(header(name).replace("#", "").split())


@pytest.mark.parametrize(("name", "row"), TABLE_1.items(), ids=TABLE_1)
def test_rows_of_table_1(name, row):
    batch, channels, shared, skip_z, orthogonal, thousand_steps, million_parameters = row
    config = load_recipe(name)
    generator, discriminator = config.generator, config.discriminator
    assert (config.batch_size, config.total_steps) == (batch, 1000 * thousand_steps)
    assert generator.channels == discriminator.channels == channels
    assert (generator.shared_embedding, generator.skip_z) == (shared, skip_z)
    assert config.orthogonal == (1e-4 if orthogonal else 0)
    # The table counts both networks without the rows of the shared embedding.
    embedding = 1000 * 128 if shared else 0
    count = count_parameters(generator) + count_parameters(discriminator) - embedding
    assert round(count / 1e6, 1) == million_parameters


def test_row_8_of_table_1_is_biggan_128():
    row, model = load_recipe("table1-row8").to_dict(), load_recipe("biggan-128").to_dict()
    assert {key for key in model if model[key] != row[key]} == {"name"}


@pytest.mark.parametrize("name", IMAGENET)
def test_what_the_paper_does_everywhere(name):
    config = load_recipe(name)
    lower = name in BOTH_LOWER
    rates = (config.optimizer.g_lr, config.optimizer.d_lr)
    assert rates == ((2.5e-5, 2.5e-5) if lower else (5e-5, 2e-4))
    assert (config.optimizer.beta1, config.optimizer.beta2) == (0.0, 0.999)
    assert (config.d_steps, config.ema.decay) == (2, 0.9999)
    assert (config.generator.bn_eps, config.generator.sn_eps) == (1e-4, 1e-4)
    assert (config.augmentation.kind, config.lecam.strength) == ("none", 0)
    assert config.generator.num_classes == 1000


@pytest.mark.parametrize("name", SIZES)
def test_the_final_models_are_their_presets_at_the_full_batch(name):
    config = load_recipe(name)
    preset = load_recipe("biggan-128", [f"preset={name}"])
    assert (config.generator, config.discriminator) == (preset.generator, preset.discriminator)
    assert (config.batch_size, config.orthogonal) == (2048, 1e-4)


@pytest.mark.parametrize("name", IMAGENET)
def test_eight_processes_share_every_micro_batch(name):
    config = load_recipe(name)
    assert config.batch_size % (8 * config.accumulation) == 0


def test_a_folder_of_few_pictures_is_augmented():
    config = load_recipe("small-folder").fitted(2)
    assert (config.augmentation.kind, config.flip) == ("diffaugment", True)
    million = count_parameters(config.generator) + count_parameters(config.discriminator)
    assert million < 20e6
