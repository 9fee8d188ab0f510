"""Directions of the noise against plain numpy and scikit-learn."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import biggan
from biggan import directions
from biggan.directions import (
    bundled_directions,
    default_directions,
    draw_sheet,
    find_directions,
    load_directions,
    save_directions,
    with_names,
)
from biggan.latents import make_noise
from biggan.weights.files import Description, load_tensors, save_tensors
from tiny import DEEP, TINY_CLASSES, tiny_generator


def make_gan(changes):
    return biggan.Gan(tiny_generator(**changes), Description("tiny", TINY_CLASSES), "0" * 64)


@pytest.fixture(scope="module", params=[{}, DEEP], ids=["biggan", "biggan-deep"])
def gan(request):
    return make_gan(request.param)


def jacobian(gan, layer):
    """How what a layer reads of the noise changes with it, by automatic differentiation."""
    generator, config = gan.generator, gan.config
    modules = dict(generator.named_modules())
    norm_of = re.compile(rf"blocks\.{layer - 1}\.bn\d")

    def read(z):
        if config.family == "biggan-deep":
            seen = [torch.cat([z, z.new_zeros(config.class_dim)])] * (1 + len(generator.blocks))
        else:
            chunks = z.split(config.chunk_dim)
            zeros = z.new_zeros(config.class_dim)
            seen = [chunks[0], *(torch.cat([chunk, zeros]) for chunk in chunks[1:])]
        if layer == 0:
            return generator.linear(seen[0][None])[0]
        norms = [block for name, block in modules.items() if norm_of.fullmatch(name)]
        own = [norm for norm in norms if hasattr(norm, "gain")]
        own = [norm for norm in own if hasattr(norm.gain, "weight")]
        parts = [norm.gain for norm in own] + [norm.bias for norm in own]
        return torch.cat([part(seen[layer][None])[0] for part in parts])

    return torch.autograd.functional.jacobian(read, torch.zeros(config.z_dim)).detach().numpy()


@pytest.mark.parametrize("layers", [None, (1, 2), (0,)])
def test_sefa_solves_the_eigenproblem(gan, layers):
    found = find_directions(gan, "sefa", 4, layers=layers)
    a = np.concatenate([jacobian(gan, i) for i in layers or range(gan.conditions)]).astype(float)
    values, vectors = np.linalg.eigh(a.T @ a)
    np.testing.assert_allclose(found.strengths, np.sqrt(values[::-1][:4]), rtol=1e-4)
    for ours, theirs in zip(found.vectors.numpy(), vectors.T[::-1], strict=False):
        np.testing.assert_allclose(abs(ours @ theirs), 1, atol=1e-4)
    assert found.layers == (layers or tuple(range(gan.conditions)))


def test_pca_is_scikit_learns_of_all_samples_at_once(gan):
    found = find_directions(
        gan, "pca", 3, samples=600, class_="tabby", truncation=0.8, seed=4, progress=False
    )
    z = make_noise(600, gan.config.z_dim, 0.8, 4)
    outputs = gan.features(z, ["tabby"] * 600, 0.8, layers="linear")["linear"].flatten(1).numpy()
    pca = PCA(gan.config.z_dim, svd_solver="full").fit(outputs)
    np.testing.assert_allclose(found.strengths, pca.explained_variance_[:3] ** 0.5, rtol=0.02)
    # The layer is linear: a component is reached by the noise that the pseudo-inverse names.
    coordinates = pca.transform(outputs)
    expected = np.linalg.lstsq(coordinates[:, :3], z - z.mean(0), rcond=None)[0]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert (np.abs((found.vectors.numpy() * expected).sum(1)) > 0.98).all()
    again = find_directions(
        gan, "pca", 3, samples=600, class_=0, truncation=0.8, seed=4, progress=False
    )
    assert torch.equal(again.vectors, found.vectors)


def test_without_a_terminal_progress_is_logged(gan, monkeypatch, caplog):
    monkeypatch.setattr(directions, "_LOG_EVERY", 0)
    caplog.set_level("INFO")
    find_directions(gan, "pca", 2, samples=512)
    assert caplog.messages == [
        f"{title}: {done} of 512 samples"
        for title in ("components", "noise")
        for done in (256, 512)
    ]


def test_more_components_than_the_layer_has_activations():
    gan = make_gan({"channels": 2, "widths": [1, 1, 1], "attention_resolution": 0})  # 2 * 4 * 4
    found = find_directions(gan, "pca", 12, samples=200, progress=False)
    assert found.vectors.shape == (12, 12)


def test_a_component_moves_the_layer_more_than_other_noise_does(gan):
    found = find_directions(
        gan, "pca", 2, activation="blocks.0", samples=600, class_=1, progress=False
    )

    def moved(direction):
        z = torch.stack([-direction, direction])
        first, last = gan.features(z, [1, 1], 1.0, layers="blocks.0")["blocks.0"]
        return (last - first).norm()

    others = torch.randn(20, gan.config.z_dim, generator=torch.Generator().manual_seed(0))
    typical = torch.stack([moved(other / other.norm()) for other in others]).mean()
    assert moved(found.vectors[0]) > typical


def test_noise_is_moved_in_the_chosen_layers_alone(gan):
    found = with_names(find_directions(gan, "sefa", 3, layers=[1]), {2: "size"})
    z = torch.from_numpy(make_noise(2, gan.config.z_dim, 0.5, 0)).float()
    moved = found.apply(z, {0: 1.5, "size": -1})
    assert moved.shape == (2, gan.conditions, gan.config.z_dim)
    expected = z + 1.5 * found.vectors[0] - found.vectors[2]
    torch.testing.assert_close(moved[:, 1], expected)
    for layer in set(range(gan.conditions)) - {1}:
        assert torch.equal(moved[:, layer], z)
    assert torch.equal(found.apply(moved, {}), moved)
    zeros = torch.zeros(1, gan.config.z_dim, dtype=torch.int64)
    assert torch.equal(found.apply(zeros, {0: 1.5})[0, 1], 1.5 * found.vectors[0])
    plain, edited = gan.generate(z, [0, 1], 0.5), gan.generate(moved, [0, 1], 0.5)
    assert (plain - edited).abs().max() > 1e-3
    back = found.apply(moved, {0: -1.5, 2: 1})
    torch.testing.assert_close(gan.generate(back, [0, 1], 0.5), plain, atol=1e-4, rtol=0)


def test_a_file_holds_all(gan, tmp_path):
    found = with_names(find_directions(gan, "pca", 2, samples=100, progress=False), {1: "colour"})
    save_directions(found, str(tmp_path / "dirs.safetensors"))
    read = load_directions(tmp_path / "dirs.safetensors")
    assert torch.equal(read.vectors, found.vectors)
    assert torch.equal(read.strengths, found.strengths)
    for name in ("layers", "conditions", "method", "model", "sha256", "names", "details"):
        assert getattr(read, name) == getattr(found, name)


def test_the_bundled_file_holds_what_sefa_finds_in_the_bundled_weights():
    gan = biggan.load("fruits")
    bundled = bundled_directions(gan)
    assert bundled.names[:4] == ("upright", "turn", "lean", "")
    assert default_directions(gan).names == bundled.names
    found = find_directions(gan, "sefa", gan.config.chunk_dim, layers=[0])
    torch.testing.assert_close(bundled.vectors, found.vectors, atol=1e-3, rtol=0)
    assert bundled.layers == found.layers
    other = biggan.Gan(gan.generator, gan.description, "1" * 64)
    assert bundled_directions(other) is None
    assert default_directions(other).names == ("",) * gan.config.chunk_dim


def test_a_sheet_has_a_row_for_each_direction(gan):
    found = find_directions(gan, "sefa", 3)
    sheet = draw_sheet(gan, found, "siamese cat", 0.4, 2, amounts=(-2, 0, 2))
    size = gan.config.resolution
    assert sheet.size == (3 * size + 2, 3 * (size + 13) + 2)
    middle = np.asarray(gan.sample("siamese cat", 1, 0.4, 2)[0])
    box = (size + 1, 13)
    drawn = np.asarray(sheet.crop((*box, box[0] + size, box[1] + size)))
    np.testing.assert_array_equal(drawn, middle)


MISTAKES = [
    (lambda g, d: find_directions(g, "ica"), "the method is sefa or pca"),
    (lambda g, d: find_directions(g, num=99), "1 to 12 directions"),
    (lambda g, d: find_directions(g, num=2, layers=[5]), r"0 \(the linear one\) to 2"),
    (lambda g, d: find_directions(g, num=2, layers=[]), "layers are 0"),
    (lambda g, d: find_directions(g, "pca", 9, samples=10), "at least 18"),
    (
        lambda g, d: find_directions(g, "pca", 2, activation="blocks.9", progress=False),
        "no layer 'blocks.9'",
    ),
    (lambda g, d: find_directions(g, num=2, layers=[0.5]), "a layer must"),
    (lambda g, d: find_directions(g, num=2, layers=0), "layers must be a list of numbers, not 0"),
    (
        lambda g, d: find_directions(g, "pca", 2, class_=[0, 1], progress=False),
        r"class must be a whole number, not \[0, 1\]",
    ),
    (lambda g, d: find_directions(g, num=2, layers="01"), "a layer must"),
    (lambda g, d: d.apply(torch.zeros(1, 7), {0: 1}), "not .1, 7."),
    (lambda g, d: d.apply(torch.zeros(1, 12), {0: "x"}), "amount must be"),
    (lambda g, d: d.apply(torch.zeros(1, 12), {0: float("nan")}), "a finite number, not nan"),
    (
        lambda g, d: d.apply(torch.zeros(1, 12), [1.0, 2.0]),
        r"amounts must be a dict .* such as \{0: 2.0\}, not \[1.0, 2.0\]",
    ),
    (lambda g, d: d.index(7), "no direction 7; there are 0 to 2"),
    (lambda g, d: d.index(1.5), "a direction must be a whole number, not 1.5"),
    (lambda g, d: with_names(d, {0: "age", 1: "age"}), "'age' cannot be"),
    (
        lambda g, d: with_names(d, {0: "\x1b[2J" + 200 * "x"}).index("age"),
        r"no direction 'age': \\x1b\[2Jx{96}$",
    ),
    (lambda g, d: d.index("age"), "no direction 'age'"),
    (lambda g, d: with_names(d, {0: 3}), "3 cannot be a name"),
    (lambda g, d: with_names(d, ["turn"]), "must be a dict"),
    (lambda g, d: draw_sheet(g, d, amounts=[]), "must be a list of numbers"),
    (
        lambda g, d: d.check_model(biggan.Gan(g.generator, g.description, "1" * 64)),
        "the directions are of tiny",
    ),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_mistakes_are_named(call, message):
    gan = make_gan({})
    with pytest.raises(biggan.InputError, match=message):
        call(gan, find_directions(gan, "sefa", 3))


@pytest.mark.parametrize(
    "change",
    [
        {"layers": [7]},
        {"layers": [-1], "conditions": 10**12},
        {"layers": "x"},
        {"names": ["one"]},
        {"conditions": None},
        {"details": 3},
    ],
)
def test_a_file_of_something_else_is_refused(change, tmp_path):
    path = tmp_path / "dirs.safetensors"
    save_directions(find_directions(make_gan({}), "sefa", 3), path)
    metadata, tensors, _ = load_tensors(path)
    about = json.loads(metadata["directions"]) | change
    save_tensors(path, metadata | {"directions": json.dumps(about)}, tensors)
    with pytest.raises(biggan.InputError, match="contains no directions"):
        load_directions(path)
    with pytest.raises(biggan.InputError, match="contains no network"):
        biggan.load(path)


def test_no_file_a_damaged_one_and_a_models(tiny_file, tmp_path):
    with pytest.raises(biggan.InputError, match="there is no file"):
        load_directions(tmp_path / "none.safetensors")
    with pytest.raises(biggan.InputError, match="contains no directions"):
        load_directions(tiny_file)
    path = tmp_path / "dirs.safetensors"
    save_directions(find_directions(make_gan({}), "sefa", 3), path)
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)
    with pytest.raises(biggan.InputError, match="damaged"):
        load_directions(path)


def test_without_scikit_learn_pca_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(biggan.InputError, match=r"^the method pca needs .* 'biggan\[train\]'$"):
        find_directions(make_gan({}), "pca", num=1, activation="linear", samples=8)
