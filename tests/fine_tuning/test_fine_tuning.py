"""Every way to start from loaded weights, against tables and networks written out by hand."""

import copy
import json
import re

import pytest
import torch
from torch.nn import functional as F

import biggan
from biggan.classes import imagenet_classes, wordnet_ids
from biggan.fine_tuning import fitted_to_source
from biggan.fine_tuning.freezing import require_gradients, trainable
from biggan.fine_tuning.transfer import class_origins, initialize
from biggan.models import DiscriminatorConfig
from biggan.nn import ConditionalBatchNorm2d, iterate_power
from biggan.training.config import TrainConfig
from biggan.weights.download import without_folder
from biggan.weights.files import Description, save_network
from foreign_networks import BROCK, RandomWeights
from foreign_networks import discriminator as foreign_discriminator
from foreign_networks import generator as foreign_generator
from tiny import TINY, TINY_CLASSES, TINY_DISCRIMINATOR, refusal, tiny_generator

DEEP = {"family": "biggan-deep", "widths": [4, 2, 2], "z_dim": 4}
DEEP_JUDGE = {"family": "biggan-deep", "widths": [1, 2, 4]}
UNSHARED = {"shared_embedding": False, "skip_z": False}
GAIN = "blocks.0.bn1.gain"
RECORDED = (".table_mean", ".table_var")


def tiny_discriminator(**changes):
    """Random weights, whose spectral norms are not those of their initialization."""
    config = DiscriminatorConfig.from_dict({**TINY_DISCRIMINATOR, **changes})
    discriminator = biggan.build_discriminator(config, seed=3)
    move(discriminator, 0.02)
    return discriminator.eval()


@torch.no_grad()
def move(network, amount):
    """Parameters of no special structure: orthogonal ones would hide what normalization does."""
    random = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        parameter.add_(amount * torch.randn(parameter.shape, generator=random))
    iterate_power(network, 10)


@pytest.fixture
def make(tmp_path):
    """Sources in files, and what they are."""

    def make(g=(), d=(), names=TINY_CLASSES):
        generator = tiny_generator(**dict(g))
        move(generator, 0.05)
        discriminator = tiny_discriminator(**dict(d))
        description = Description("source", names, licence="CC0")
        paths = tmp_path / "G.safetensors", tmp_path / "D.safetensors"
        save_network(paths[0], generator, description)
        save_network(paths[1], discriminator, description)
        return generator, discriminator, paths

    return make


def recipe(paths, names, *, which="gd", **tuning):
    """A recipe of another shape than the sources, fitted to them and to classes."""
    sources = {"generator": str(paths[0]), "discriminator": str(paths[1])}
    sources = {network: path for network, path in sources.items() if network[0] in which}
    config = TrainConfig.from_dict({"fine_tuning": {**sources, **tuning}})
    return fitted_to_source(config).fitted(len(names))


def build(config, names):
    generator = biggan.build_generator(config.generator, seed=11)
    discriminator = biggan.build_discriminator(config.discriminator, seed=12)
    report = initialize(generator, discriminator, config.fine_tuning, names)
    return generator, discriminator, report


def tune(paths, names, **tuning):
    return build(recipe(paths, names, **tuning), names)


def assert_alike(network, source, labels, source_labels=None):
    """Both networks in eval mode give the same for the same noise or images."""
    config, random = network.config, torch.Generator().manual_seed(1)
    size = (config.z_dim,) if hasattr(config, "z_dim") else (3, 16, 16)
    inputs = torch.randn(len(labels), *size, generator=random)
    with torch.no_grad():
        found = copy.deepcopy(network).eval()(inputs, labels)
        expected = source(inputs, labels if source_labels is None else source_labels)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def assert_normalized(layer):
    """Sigma is the largest singular value."""
    largest = torch.linalg.svdvals(layer.weight.detach().flatten(1).double())[0]
    torch.testing.assert_close(layer.sigma().detach().double(), largest, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("g", "d"),
    [
        ({}, {}),
        (DEEP, DEEP_JUDGE),
        ({**DEEP, "rgb_channels": 16}, DEEP_JUDGE),
        (UNSHARED, {}),
        ({"bn_eps": 1e-5, "sn_eps": 1e-6}, {"sn_eps": 1e-6}),
        ({"num_classes": 0}, {"num_classes": 0}),
    ],
)
def test_with_the_same_classes_nothing_changes(make, g, d):
    names = () if g.get("num_classes") == 0 else TINY_CLASSES
    source, judge, paths = make(g, d, names)
    generator, discriminator, report = tune(paths, names)
    labels = torch.tensor([0, 1, 2, 1])
    assert_alike(generator, source, labels)
    assert_alike(discriminator, judge, labels)
    assert generator.config == source.config.updated({"class_dim": generator.config.class_dim})
    for mine, theirs in ((generator, source), (discriminator, judge)):
        state = mine.state_dict()
        for name, value in theirs.state_dict().items():
            if not name.endswith(RECORDED):
                assert torch.equal(state[name], value), name
    remade = set(report[0].remade) | set(report[1].remade)
    assert remade == {name for name in generator.state_dict() if name.endswith(RECORDED)}
    assert generator.head.bn.grid == ()


OTHERS = ("Golden_Retriever", "kitten", "siamese")  # 2, none, 1
FOUND = (2, None, 1)


def expected_rows(source, fresh, found):
    rows = []
    for i, index in enumerate(found):
        if index is None:
            rows.append(source.double().mean(0).float())
        else:
            rows.append(fresh[i] if index == "random" else source[index])
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("mode", "found"), [("nearest", FOUND), ("mean", (None,) * 3), ("random", ("random",) * 3)]
)
def test_class_tables_are_made_row_by_row(make, mode, found):
    source, judge, paths = make()
    config = recipe(paths, OTHERS, classes=mode)
    fresh = biggan.build_generator(config.generator, seed=11)
    fresh_judge = biggan.build_discriminator(config.discriminator, seed=12)
    generator, discriminator, _ = build(config, OTHERS)
    if mode == "nearest":  # a class that was found makes the source's pictures
        assert_alike(generator, source, torch.tensor([0, 2]), torch.tensor([2, 1]))
    for name, networks in (
        ("class_embedding.table.weight", (generator, source, fresh)),
        ("head.embedding.weight", (discriminator, judge, fresh_judge)),
    ):
        mine, theirs, random = (network.get_parameter(name).detach() for network in networks)
        torch.testing.assert_close(mine, expected_rows(theirs, random, found))
    assert_normalized(discriminator.head.embedding)
    for name, value in source.state_dict().items():
        if not name.startswith("class_embedding") and not name.endswith(RECORDED):
            assert torch.equal(generator.state_dict()[name], value), name
    for name, value in judge.state_dict().items():
        if not name.startswith("head.embedding"):
            assert torch.equal(discriminator.state_dict()[name], value), name


@pytest.mark.parametrize("names", [("one",), OTHERS, (*TINY_CLASSES, "tabby", "more")])
@pytest.mark.parametrize("mode", ["nearest", "mean", "random"])
def test_tables_of_every_layer_are_made_column_by_column(make, names, mode):
    source, _, paths = make(UNSHARED)
    config = recipe(paths, names, classes=mode)
    fresh = biggan.build_generator(config.generator, seed=11)
    generator, _, report = build(config, names)
    if mode == "nearest":
        found = [o.index for o in class_origins(names, TINY_CLASSES, mode)]
    else:
        found = [None if mode == "mean" else "random"] * len(names)
    for layer in (GAIN, "blocks.1.bn2.bias"):
        weights = [net.get_submodule(layer).weight.detach() for net in (source, fresh, generator)]
        expected = expected_rows(weights[0].T, weights[1].T, found)
        torch.testing.assert_close(weights[2].T, expected)
        assert f"{layer}.weight" in report[0].remade


def test_deep_tables_keep_the_noises_columns(make):
    """The first layer of a BigGAN-deep sees the condition too, and is normalized."""
    source, _, paths = make({**DEEP, "shared_embedding": False}, DEEP_JUDGE)
    generator, _, _ = tune(paths, ("siamese", "unknown"))
    weight, other = generator.linear.weight.detach(), source.linear.weight.detach()
    expected = torch.cat([other[:, :4], other[:, [5]], other[:, 4:].mean(1, keepdim=True)], 1)
    torch.testing.assert_close(weight, expected)
    assert_normalized(generator.linear)


def test_classes_for_a_source_without_any_start_as_what_it_makes(make):
    source, judge, paths = make({"num_classes": 0}, {"num_classes": 0}, ())
    generator, discriminator, report = tune(paths, ("a", "b"))
    labels = torch.tensor([0, 1, 1])
    assert_alike(generator, source, labels)
    assert generator.class_embedding.table.weight.shape == (2, 128)
    assert discriminator.head.embedding.weight.shape[0] == 2
    assert_normalized(discriminator.head.embedding)
    mine, theirs = generator.get_submodule(GAIN), source.get_submodule(GAIN)
    torch.testing.assert_close(mine.sigma(), theirs.sigma())
    assert torch.equal(discriminator.head.linear.weight, judge.head.linear.weight)
    lines = "\n".join(report[0].lines(None) + report[1].lines(report[0]))
    assert "generator: classes, of which the source has none, their columns zero:" in lines
    assert "discriminator: classes, of which the source has none, random: head.embedding" in lines
    # They do not stay alike.
    z = torch.randn(4, 12)
    (generator(z, torch.tensor([0, 0, 1, 1])) * torch.randn(4, 3, 16, 16)).sum().backward()
    assert generator.get_submodule(GAIN).weight.grad[:, 4:].abs().max() > 0


def test_how_classes_enter_is_the_recipes_if_the_source_has_none(make):
    _, _, paths = make({"num_classes": 0}, {"num_classes": 0}, ())
    tuning = {"generator": str(paths[0]), "discriminator": str(paths[1])}
    config = TrainConfig.from_dict({"generator": {"class_dim": 5}, "fine_tuning": tuning})
    generator, _, _ = build(fitted_to_source(config).fitted(2), ("a", "b"))
    assert generator.class_embedding.table.weight.shape == (2, 5)


@pytest.mark.parametrize(("g", "noise"), [({}, 4), ({**DEEP}, 4)])
def test_without_classes_the_noises_columns_stay(make, g, noise):
    source, _, paths = make(g)
    generator, discriminator, report = tune(paths, ())
    for layer in [GAIN, "linear"] if g else [GAIN]:
        mine, theirs = generator.get_submodule(layer), source.get_submodule(layer)
        assert torch.equal(mine.weight, theirs.weight[:, :noise])
        assert_normalized(mine)
    assert discriminator.head.embedding is None
    remade = report[1].remade
    assert set(remade) == {f"head.embedding.{name}" for name in ("weight", "u", "v")}
    z = torch.randn(1, generator.config.z_dim)
    assert generator.eval()(z, torch.tensor([0])).isfinite().all()


def test_ajbrocks_files(tmp_path):
    weights, judge = RandomWeights(), RandomWeights(1)
    z, labels = torch.randn(2, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([4, 1])
    widths = [32, 16, 8]
    expected = foreign_generator(weights, z, labels, widths, 8, BROCK)
    foreign_discriminator(judge, expected, labels, [8, 16, 32], 2, 8, BROCK)
    paths = tmp_path / "G_ema.pth", tmp_path / "D.pth"
    torch.save(weights.tensors, paths[0])
    torch.save(judge.tensors, paths[1])
    names = ("class 4", "Class_1")
    generator, discriminator, report = tune(paths, names)
    with torch.no_grad():
        made = generator.eval()(z, torch.tensor([0, 1]))
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)
    table = judge.tensors["embed.weight"][[4, 1]]
    torch.testing.assert_close(discriminator.head.embedding.weight.detach(), table)
    assert_normalized(discriminator.head.embedding)
    assert [origin.index for origin in report[1].classes] == [4, 1]


def origin(name, names=None, mode="nearest"):
    return class_origins([name], imagenet_classes() if names is None else names, mode)[0]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tabby", 281),
        ("Egyptian_cat", 285),
        ("GOLDEN RETRIEVER", 207),
        ("n02099601", 207),
        ("golden retreiver", 207),  # the only similar one
        ("tench, Tinca tinca", 0),
        ("n02012849", 134),  # one of two cranes
    ],
)
def test_names_of_imagenet(name, found):
    assert origin(name).index == found


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crane", "candidates: crane; crane"),
        ("cat", r"candidates: .*; and \d+ more"),
        ("quux", "the source has no class with this name"),
        ("7", "a number is not a class name"),
        ("207) golden retriever", "a number is not a class name"),
        ("--", "the source has no class with this name"),
        ("n99999999", "the source has no class with this name"),
    ],
)
def test_names_that_mean_no_single_class_get_the_mean(name, reason):
    found = origin(name)
    assert (found.index, found.start) == (None, "the mean of the source's 1000 classes")
    assert re.fullmatch(reason, found.reason), found.reason


def test_classes_that_share_words_with_a_name_are_candidates():
    found = origin("my green pear", ("apple", "pear", "green-apple", "plum 3"))
    assert (found.index, found.reason) == (None, "candidates: pear; green-apple")
    assert origin("jar of 3", ("plum 3", "pot of jam")).reason.endswith("no class with this name")


def test_wordnet_ids_as_names_on_either_side():
    ids = ("n01440764", "n02099601", "n02123045")
    assert origin("tabby", ids).index == 2
    assert origin("n02099601", ids).index == 1
    assert origin("n02099601", TINY_CLASSES).index == 2
    assert origin("7", ("5", "6", "7")).index == 2  # a number is the class of that name
    assert origin("Caf\u00e9", ["tea", "cafe\u0301", "caf\u00e9 noir"]).index == 1
    folders = class_origins(wordnet_ids(), imagenet_classes(), "nearest")
    assert [found.index for found in folders] == list(range(1000))


def test_the_same_names_are_the_same_classes_though_two_are_alike():
    found = class_origins(imagenet_classes(), imagenet_classes(), "nearest")
    assert [o.index for o in found] == list(range(1000))


FIRST_STAGE = ["linear", "blocks.0", "attention"]


def is_under(name, layers):
    return any(name.startswith(f"{layer}.") for layer in layers)


@pytest.mark.parametrize(
    ("make", "changes", "frozen", "layers"),
    [
        (tiny_generator, {}, 0, []),
        (tiny_generator, {}, 1, FIRST_STAGE),
        (tiny_generator, {}, 2, [*FIRST_STAGE, "blocks.1"]),
        (tiny_generator, DEEP, 1, [*FIRST_STAGE, "blocks.1"]),
        (tiny_discriminator, {}, 0, []),
        (tiny_discriminator, {}, 1, ["blocks.0", "attention"]),
        (tiny_discriminator, {}, 3, ["blocks.0", "attention", "blocks.1", "blocks.2"]),
        (tiny_discriminator, DEEP_JUDGE, 1, ["stem", "blocks.0", "blocks.1", "attention"]),
    ],
)
def test_frozen_layers_stay_and_others_move(make, changes, frozen, layers):
    """Two steps of an optimizer that was given every parameter."""
    network = make(**changes).train()
    is_generator = make is tiny_generator
    inputs = torch.randn(6, network.config.z_dim) if is_generator else torch.randn(6, 3, 16, 16)
    require_gradients(network, frozen)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    before = copy.deepcopy(network.state_dict())
    for _ in range(2):
        optimizer.zero_grad()
        outputs = network(inputs, torch.tensor([0, 1, 2] * 2))
        # A term in every parameter: some have no gradient in so small a network at first.
        terms = sum(parameter.sum() for parameter in trainable(network, frozen))
        (F.softplus(outputs).sum() + terms).backward()
        optimizer.step()
        network.requires_grad_(False)  # as the steps do between
        require_gradients(network, frozen)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name]) == is_under(name, layers), name
    if is_generator:
        statistics = "blocks.0.bn1.running_mean"
        assert not torch.equal(network.get_buffer(statistics), before[statistics])


def test_class_tables_of_frozen_stages_are_trained():
    generator = tiny_generator(**UNSHARED)
    moving = {id(p) for p in trainable(generator, 2)}
    layers = [m for m in generator.modules() if isinstance(m, ConditionalBatchNorm2d)]
    tables = {id(p) for layer in layers for p in layer.parameters()}
    head = {id(p) for p in generator.head.parameters()}
    assert moving == tables | head


@pytest.mark.parametrize(
    ("key", "number", "message"),
    [
        ("freeze_generator", 3, "freeze_generator is 3, but the generator has 2 stages"),
        (
            "freeze_discriminator",
            4,
            "freeze_discriminator is 4, but the discriminator has 3 blocks",
        ),
    ],
)
def test_more_frozen_than_there_is(make, key, number, message):
    _, _, paths = make()
    assert re.search(message, refusal(recipe, paths, TINY_CLASSES, **{key: number}))
    network = tiny_generator() if key.endswith("generator") else tiny_discriminator()
    assert re.search(message, refusal(trainable, network, number))


def test_the_sources_shapes_decide(make):
    source, judge, paths = make({**DEEP, "rgb_channels": 16}, {**DEEP_JUDGE, "sn_eps": 1e-6})
    config = recipe(paths, ("a", "b"))
    assert config.generator == source.config.updated({"num_classes": 2})
    assert config.discriminator == judge.config.updated({"num_classes": 2})
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_random_weights_need_no_source():
    config = TrainConfig.from_dict({})
    assert fitted_to_source(config) == config
    names = tuple("abcdefghij")
    config = TrainConfig.from_dict({"generator": {"channels": 4}, "discriminator": {"channels": 4}})
    generator, _, report = build(config, names)
    expected = biggan.build_generator(config.generator, seed=11)
    assert torch.equal(generator.linear.weight, expected.linear.weight)
    assert report == []


def test_a_discriminator_from_random_weights_follows_the_images_channels():
    config = fitted_to_source(TrainConfig.from_dict({"fine_tuning": {"generator": "digits"}}))
    assert (config.generator.image_channels, config.discriminator.image_channels) == (1, 1)
    assert config.discriminator.channels == 96


def test_a_generator_from_random_weights_follows_the_images_channels(tmp_path):
    path = tmp_path / "D.safetensors"
    save_network(path, tiny_discriminator(image_channels=1), Description("d"))
    table = {"fine_tuning": {"discriminator": str(path)}, "generator": TINY}
    config = fitted_to_source(
        TrainConfig.from_dict({**table, "discriminator": TINY_DISCRIMINATOR}).fitted(3)
    )
    assert config.generator.image_channels == 1


@pytest.mark.parametrize(
    ("d", "values", "which", "message"),
    [
        (
            {},
            {"generator": {"z_dim": 40}},
            "gd",
            "generator.z_dim = 40, but fine_tuning.generator .*G.safetensors has 12: set it to",
        ),
        ({}, {"discriminator": {"widths": [1, 1, 1, 1]}}, "gd", r"discriminator.widths = \[1, 1"),
        (
            {"resolution": 32, "widths": [1, 2, 4, 4], "down_blocks": 3},
            {},
            "gd",
            "G.safetensors generates images of 16 px, .*D.safetensors needs 32: fine-tune",
        ),
        ({"image_channels": 1}, {}, "gd", "images of 3 channels, .*needs 1: leave"),
        ({}, {}, "g", r"16 px, the recipe's discriminator \(preset biggan-32\) needs 32: give a"),
        (
            {"resolution": 64, "widths": [1, 2, 4, 4, 4], "down_blocks": 4},
            {},
            "d",
            r"generates images of 32 px, .*needs 64: choose a preset of 64 px \(biggan-64\)",
        ),
    ],
)
def test_shapes_that_do_not_fit(make, d, values, which, message):
    _, _, paths = make({}, d)
    sources = {"generator": str(paths[0]), "discriminator": str(paths[1])}
    tuning = {name: path for name, path in sources.items() if name[0] in which}
    with pytest.raises(biggan.InputError, match=message):
        fitted_to_source(TrainConfig.from_dict({**values, "fine_tuning": tuning}))


def test_a_network_that_only_classes_condition_needs_some(make):
    _, _, paths = make(UNSHARED)
    values = {"unconditional": True, "fine_tuning": {"generator": str(paths[0])}}
    with pytest.raises(biggan.InputError, match="cannot be trained without classes"):
        fitted_to_source(TrainConfig.from_dict(values))


@pytest.mark.parametrize(
    ("generator", "message"),
    [("nothing.pth", "no model 'nothing.pth'"), ("{d}", "holds a discriminator, not a generator")],
)
def test_what_cannot_be_loaded_says_so(make, generator, message):
    _, _, paths = make()
    tuning = {"generator": generator.format(d=paths[1])}
    with pytest.raises(biggan.InputError, match=message):
        fitted_to_source(TrainConfig.from_dict({"fine_tuning": tuning}))


@pytest.mark.parametrize(
    ("g", "names"), [({}, ("a", "b")), ({}, ()), ({"num_classes": 0}, ("a", "b"))]
)
def test_a_run_that_has_begun_does_without_its_sources(make, g, names):
    _, _, paths = make({**g, "class_dim": 7}, g, () if g else TINY_CLASSES)
    saved = recipe(paths, names)
    for path in paths:
        path.unlink()
    tuning = {"generator": str(paths[0]), "discriminator": str(paths[1])}
    again = TrainConfig.from_dict({"fine_tuning": tuning})
    assert fitted_to_source(again, saved).fitted(len(names)) == saved
    resolved = TrainConfig.from_dict(saved.to_dict())
    assert fitted_to_source(resolved, saved) == saved
    assert "no model" in refusal(fitted_to_source, again)


def test_weights_of_another_shape_than_the_recipes_are_refused(make):
    _, _, paths = make()
    config = recipe(paths, TINY_CLASSES)
    save_network(paths[0], tiny_generator(z_dim=24), Description("other", TINY_CLASSES))
    with pytest.raises(
        biggan.InputError, match="does not have the shape of the recipe's generator"
    ):
        build(config, TINY_CLASSES)


def test_the_report_says_what_became_of_everything(make):
    _, _, paths = make()
    generator, discriminator, report = tune(paths, OTHERS, freeze_generator=1)
    first, second = report
    assert set(first.kept) | set(first.remade) == set(generator.state_dict())
    assert set(second.kept) | set(second.remade) == set(discriminator.state_dict())
    lines = first.lines(None) + second.lines(first)
    assert lines[0].startswith(
        f"generator: from {paths[0]} (source, sha256 {first.loaded.sha256[:12]}..."
    )
    assert lines[0].endswith("; licence: CC0)")
    assert f"generator: {len(first.kept)} tensors kept" in lines
    others = "others than the source's or in another order: class_embedding.table.weight"
    assert f"generator: 3 classes, {others}" in lines
    assert "generator: class Golden_Retriever <- golden retriever" in lines
    mean = "the mean of the source's 3 classes (the source has no class with this name)"
    assert f"generator: class kitten <- {mean}" in lines
    assert "discriminator: classes start as those of the generator" in lines
    frozen = [name for name, _ in generator.named_parameters() if is_under(name, FIRST_STAGE)]
    assert first.frozen == frozen
    assert any(line.startswith(f"generator: {len(frozen)} parameters frozen: ") for line in lines)
    saved = json.loads(json.dumps({transfer.name: transfer.card() for transfer in report}))
    sources = [saved[network]["source"] for network in ("generator", "discriminator")]
    assert sources == ["G.safetensors", "D.safetensors"]
    assert str(paths[0].parent) not in json.dumps(saved)
    assert saved["generator"]["classes"][2] == "siamese <- siamese cat"
    assert saved["generator"]["parameters_frozen"] == len(frozen)
    assert list(saved["discriminator"]["tensors_remade"].values()) == [
        "head.embedding.weight, head.embedding.u, head.embedding.v"
    ]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("biggan-deep-128", "biggan-deep-128"),
        ("/home/someone/weights/G_ema.pth", "G_ema.pth"),
        ("../runs/pets/", "pets"),
        ("~/pets", "pets"),
        ("file:///home/someone/G_ema.pth", "G_ema.pth"),
        ("hf://owner/repo@main/G_ema.pth", "hf://owner/repo@main/G_ema.pth"),
        ("https://host/G_ema.pth", "https://host/G_ema.pth"),
        ("https://me:secret@host/G_ema.pth", "https://host/G_ema.pth"),
    ],
)
def test_a_card_names_sources_without_their_folders(source, told):
    assert without_folder(source) == told


def test_a_long_list_of_classes_is_cut_but_for_those_not_found(make):
    _, _, paths = make()
    names = tuple(f"quux {i}" for i in range(30))
    report = tune(paths, ("golden retriever", *names[1:]))[2]
    lines = report[0].lines(None)
    assert "generator: and 10 more classes" in lines
    assert not any("golden retriever" in line for line in lines)
    assert len(report[0].card()["classes"]) == 30
