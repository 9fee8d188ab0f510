import json
import re
import tomllib
from pathlib import Path

import pytest
import torch

import biggan
from biggan.errors import InputError
from biggan.toml import to_toml
from biggan.training import load_recipe, shipped_recipes
from biggan.training.config import TrainConfig, differing_keys, recipe_keys
from biggan.training.state import TrainState
from tiny import TINY_RECIPE, refusal


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('preset = "biggan-32"\nbatch_size = 16\n[generator]\nchannels = 8\n')
    return path


def test_defaults_are_the_papers():
    config = TrainConfig.from_dict({})
    assert (config.optimizer.g_lr, config.optimizer.d_lr) == (5e-5, 2e-4)
    assert (config.optimizer.beta1, config.optimizer.beta2) == (0.0, 0.999)
    assert (config.batch_size, config.d_steps) == (2048, 2)
    assert (config.ema.decay, config.orthogonal) == (0.9999, 1e-4)


def test_a_recipe_changes_its_preset_and_set_changes_the_recipe(recipe):
    config = load_recipe(recipe, ["optimizer.g_lr=1e-3", "name=mine", "generator.z_dim=40"], "pets")
    assert (config.batch_size, config.generator.channels, config.generator.z_dim) == (16, 8, 40)
    assert config.generator.widths == (4, 4, 4, 4)
    assert (config.optimizer.g_lr, config.name, config.data) == (1e-3, "mine", "pets")


def test_the_discriminators_first_moment_decays_as_the_generators_unless_it_is_set():
    for changes, betas in (
        ({"beta1": 0.5}, (0.5, 0.5)),
        ({"d_beta1": 0.9}, (0.0, 0.9)),
        ({"beta1": 0.5, "d_beta1": 0.0}, (0.5, 0.0)),
    ):
        config = TrainConfig.from_dict({"optimizer": changes, **TINY_RECIPE})
        state = TrainState.create(config, torch.device("cpu"))
        made = [o.param_groups[0]["betas"] for o in (state.g_optimizer, state.d_optimizer)]
        assert made == [(beta, 0.999) for beta in betas]
        assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid_and_survives_toml(name):
    config = load_recipe(name)
    again = TrainConfig.from_dict(tomllib.loads(to_toml(config.to_dict())))
    assert again == config


def test_a_preset_pair_agrees_for_every_preset():
    for name in biggan.models.PRESETS:
        assert TrainConfig.from_dict({"preset": name}).preset == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("batch_sise=4", r"no key 'batch_sise'; did you mean batch_size\?"),
        ("optimizer.lr=1", r"no key 'optimizer.lr'; did you mean optimizer.[gd]_lr\?"),
        ("optimiser.g_lr=1.0", r"no key 'optimiser.g_lr'; did you mean optimizer.g_lr\?"),
        ("g_lr=1.0", r"no key 'g_lr'; did you mean optimizer.g_lr\?"),
        ("generator.chanels=8", r"no key 'generator.chanels'; did you mean generator.channels\?"),
        ("optimizer.batch_size=8", r"no key 'optimizer.batch_size'; did you mean batch_size\?"),
        ("qqqq=8", "no key 'qqqq'; biggan train RECIPE --dry-run lists all keys"),
        ("batch_size=many", "batch_size must be a whole number, not 'many'"),
        ("batch_size=0", "batch_size must be at least 1"),
        ("total_steps=1.5", "total_steps must be a whole number"),
        ("flip=1", "flip must be true or false"),
        ("accumulation=3", "16 is not divisible into 3"),
        ("ema.decay=1.0", "ema.decay"),
        ("label_sampling=some", "label_sampling must be one of uniform, empirical, not"),
        ("generator=5", r"generator must be a table, \[generator\]"),
        ("generator.image_channels=1", "have different image_channels: 1 and 3"),
        ("batch_size", "needs key=value"),
        ("batch_size.x=1", "batch_size is not a table"),
        ("preset=biggan-33", "no architecture is named 'biggan-33'"),
        ("seed=-1", "seed"),
        ("optimizer.eps=0", "optimizer.eps must be above 0"),
        ("optimizer.g_lr=nan", "optimizer.g_lr must be above 0"),
        ("optimizer.beta2=1.0", "optimizer.beta2 must be at least 0 and below 1"),
        ("orthogonal=-1.0", "orthogonal must be 0 or above"),
        ("augmentation.kind=flips", "augmentation.kind must be one of none, diffaugment, ada"),
        ("augmentation.target=1.0", "augmentation.target must be between -1 and 1"),
        ("augmentation.images=0", "augmentation.images must be at least 1"),
        ("lecam.strength=-0.1", "lecam.strength must be 0 or above"),
        ("lecam.strength=nan", "lecam.strength must be 0 or above"),
        ("lecam.decay=1.0", "lecam.decay must be at least 0 and below 1"),
        ("lecam.start=-1", "lecam.start must be 0 or above"),
        ("stream_window=0", "stream_window must be at least 1"),
        ("classes=names.txt", r"classes applies to streams \(stream = true\)"),
        ("batch_size=9223372036854775808", "batch_size cannot be above 9,007,199,254,740,992"),
        ("batch_size=2000000", "batch_size cannot be above 1,048,576"),
        ("stream_window=2000000", "stream_window cannot be above 1,048,576"),
        ("evaluation.num=1000000000", "evaluation.num must be between 10 and 10,000,000"),
        ("optimizer.g_lr=1" + "0" * 400, "optimizer.g_lr cannot be above"),
        ("optimizer.g_lr=inf", "optimizer.g_lr must be above 0"),
        ("orthogonal=nan", "orthogonal must be 0 or above"),
        ("batch_size=1" + "0" * 5000, "batch_size must be a whole number, not '1000"),
        ("batch_size=" + "[" * 20_000, r"batch_size must be a whole number, not '\[\[\["),
        ("generator.bn_eps=0.0", "bn_eps"),
        ("é" * 5000 + "=1", "a recipe has no key 'é"),
    ],
)
def test_mistakes_are_named(recipe, change, message):
    said = refusal(load_recipe, recipe, [change])
    assert re.search(message, said)
    assert len(said) < 300


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 20_000, "total_steps = " + "9" * 5000], ids=["brackets", "digits"]
)
def test_toml_beyond_what_can_be_parsed_is_no_recipe(tmp_path, text):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(biggan.InputError, match="thousands of digits or thousands of brackets"):
        load_recipe(tmp_path / "recipe.toml")


@pytest.mark.parametrize("policy", ["", "colour", "color, cutout", "cutout,cutout", "color,"])
def test_a_policy_that_cannot_be_done_is_named(recipe, policy):
    kind, change = "augmentation.kind=diffaugment", f'augmentation.policy="{policy}"'
    with pytest.raises(biggan.InputError, match=f"color, translation, cutout.*'{policy}'"):
        load_recipe(recipe, [kind, change])


@pytest.mark.parametrize("policy", ["color", "cutout,translation", "color,translation,cutout"])
def test_a_policy_is_any_part_in_any_order(recipe, policy):
    changes = ["augmentation.kind=diffaugment", f"augmentation.policy={policy}"]
    assert load_recipe(recipe, changes).augmentation.policy == policy


def test_every_key_is_listed_once_and_none_but_these():
    keys = recipe_keys()
    written = to_toml(TrainConfig.from_dict({}).to_dict())
    listed, table = [], ""
    for line in written.splitlines():
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif line:
            listed.append(table + line.partition(" =")[0])
    assert sorted(keys) == sorted(listed)


def test_the_guide_lists_every_key_with_its_default():
    guide = Path(__file__).parents[2] / "docs" / "training.md"
    rows = re.findall(r"^\| `([a-z0-9_.]+)` \| (.+?) \|", guide.read_text("utf-8"), re.MULTILINE)
    written = to_toml(TrainConfig.from_dict({}).to_dict())
    shapes = ("generator", "discriminator")
    for key in recipe_keys():
        table, _, name = key.rpartition(".")
        values = tomllib.loads(written)
        value = (values[table] if table else values)[name]
        default = "preset" if table in shapes else f"`{json.dumps(value)}`"
        assert (key, default) in rows, key
    assert sorted(key for key, default in rows if key in recipe_keys()) == sorted(recipe_keys())
    unknown = {key for key, default in rows if default.startswith("`")} - set(recipe_keys())
    assert not unknown


def test_missing_and_broken_recipes(tmp_path):
    assert re.search("one of .*digits", refusal(load_recipe, "digit"))
    assert "cannot read the recipe" in refusal(load_recipe, tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("batch_size = = 3")
    assert "not valid TOML" in refusal(load_recipe, broken)


def test_what_decides_the_result_must_not_differ_and_the_rest_may(recipe):
    old = load_recipe(recipe)
    longer = load_recipe(recipe, ["total_steps=7", "log_every=1", "checkpoint_every=3"])
    assert differing_keys(old, longer) == []
    streamed = load_recipe(recipe, ["stream=true"])
    moved = load_recipe(recipe, ["stream=true", "classes=names.txt"], "elsewhere")
    assert differing_keys(streamed, moved) == []
    assert differing_keys(old, streamed) == ["stream: False -> True"]
    other = load_recipe(recipe, ["seed=4", "optimizer.d_lr=1e-3"])
    assert differing_keys(old, other) == ["seed: 0 -> 4", "optimizer.d_lr: 0.0002 -> 0.001"]


def test_what_cannot_go_together_is_refused():
    with pytest.raises(InputError, match="set only one of compile and checkpoint_activations"):
        TrainConfig.from_dict({"compile": True, "checkpoint_activations": True})
    with pytest.raises(InputError, match="only one of unconditional and classes"):
        TrainConfig.from_dict({"stream": True, "unconditional": True, "classes": "names.txt"})
    assert "ema.start must be 0 or above" in refusal(TrainConfig.from_dict, {"ema": {"start": -1}})


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('preset = "biggan-32"\n', encoding="utf-8-sig")  # as Windows writes it
    assert load_recipe(file).generator.resolution == 32
