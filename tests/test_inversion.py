"""Inversion: latents of generated pictures are found again."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import biggan
from biggan.errors import InputError
from biggan.images import to_pil, to_uint8
from biggan.interpolation import plan_latent_morph
from biggan.inversion import (
    Inverter,
    Latents,
    discriminator_metric,
    load_latents,
    lpips_metric,
    read_picture,
    save_latents,
)
from biggan.provenance import LatentGridProvenance, LatentProvenance
from biggan.provenance_files import provenance_from_json
from biggan.sampling import plan_latents
from biggan.weights.files import Description, load_tensors, save_tensors
from tiny import TINY_DISCRIMINATOR, tiny_generator


@pytest.fixture
def discriminator():
    config = biggan.DiscriminatorConfig.from_dict(TINY_DISCRIMINATOR)
    return biggan.build_discriminator(config, seed=3).eval()


def picture_of(gan, label, truncation, seed=5):
    z = torch.from_numpy(biggan.truncated_noise(1, gan.config.z_dim, truncation, seed)).float()
    return z, to_uint8(gan.generate(z, [label], truncation))[0]


@pytest.mark.parametrize("with_discriminator", [False, True])
def test_the_class_and_the_image_of_a_generated_picture_are_found(
    tiny, discriminator, with_discriminator
):
    features = discriminator_metric(discriminator) if with_discriminator else None
    inverter = Inverter(tiny, truncation=0.7, features=features, steps=120, progress=False)
    for label in (2,) if with_discriminator else (0, 1):
        _, picture = picture_of(tiny, label, 0.7)
        found = inverter.invert(picture, "it")
        assert found.details["class_index"] == label
        assert found.details["psnr"] > 33
        assert set(found.details["distances"]) == {"pyramid"} | (
            {"features"} if with_discriminator else set()
        )
        # The figure is that of the image which the latents make.
        made = to_uint8(tiny.generate(found.z, None, 0.7, class_vectors=found.class_vectors))[0]
        error = (made.double() - picture.double()).square().mean()
        assert found.details["psnr"] == pytest.approx(
            10 * math.log10(255**2 / error.item()), abs=0.05
        )
        assert found.z.abs().max() < 2 * 0.7 + 0.1  # what the truncation draws, nearly


def test_a_known_class_is_kept_and_the_starts_are_of_it(tiny):
    _, picture = picture_of(tiny, 1, 1.0)
    found = Inverter(tiny, "golden", starts=8, steps=8, progress=False).invert(picture)
    assert found.details["class_name"] == "golden retriever"


def test_the_search_ends_in_time(tiny):
    _, picture = picture_of(tiny, 0, 1.0)
    steps = itertools.count()

    def counting(_target):
        def distance(images):
            next(steps)
            return 0 * images.flatten(1).sum(1)

        return distance

    Inverter(tiny, features=counting, steps=10**6, seconds=0.5, progress=False).invert(picture)
    assert next(steps) < 10**5


def test_bars_are_shown_where_they_are_asked_for(tiny, capsys):
    _, picture = picture_of(tiny, 0, 1.0)
    for progress in (None, False, True):
        Inverter(tiny, starts=4, steps=3, seconds=0.2, progress=progress).invert(picture)
        shown = capsys.readouterr().err
        assert ("drawing starts" in shown and "inverting" in shown) == bool(progress)


def test_unconditional_and_grey(tiny_unconditional):
    _, picture = picture_of(tiny_unconditional, 0, None)
    found = Inverter(tiny_unconditional, truncation=None, steps=120, progress=False).invert(picture)
    assert found.details["class_name"] is None
    assert found.details["psnr"] > 28
    assert found.class_vectors.shape == (1, 0)


@pytest.fixture
def tiny_unconditional():
    generator = tiny_generator(num_classes=0, image_channels=1)
    return biggan.Gan(generator, Description("grey"), "0" * 64)


def test_lpips_compares_where_it_is_installed(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="needs the package lpips"):
        lpips_metric()
    # The package's interface, without the AlexNet that it downloads.
    (tmp_path / "lpips.py").write_text(
        "import torch\n"
        "class LPIPS(torch.nn.Module):\n"
        "    def __init__(self, net, verbose):\n"
        "        super().__init__()\n"
        "    def forward(self, a, b):\n"
        "        assert a.shape == b.shape and a.shape[1] == 3\n"
        "        return (a - b).abs().mean((1, 2, 3), keepdim=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    a, b = torch.rand(2, 1, 8, 8), torch.rand(1, 1, 8, 8)
    distance = lpips_metric()(b)(a)
    torch.testing.assert_close(distance, (a - b).abs().flatten(1).mean(1))


def test_latents_are_written_and_read(tiny, tmp_path):
    path = tmp_path / "latents.safetensors"
    z, vectors = torch.randn(2, 12), torch.randn(2, 16)
    saved = Latents(z.numpy(), vectors, 0.5, tiny.name, tiny.sha256, "cat", {"psnr": 31.5})
    save_latents(saved, str(path))
    found = load_latents(path)
    assert (found.truncation, found.name, found.details["psnr"]) == (0.5, "cat", 31.5)
    assert torch.equal(found.z, z)
    assert torch.equal(found.class_vectors, vectors)
    found.check_model(tiny)
    with pytest.raises(InputError, match="the latents are of tiny .* not of fruits"):
        found.check_model(biggan.load())

    for wrong in (vectors[:1], vectors[0]):
        with pytest.raises(InputError, match=r"noise \(N, z_dim\) and .*, not \(2, 12\) and"):
            save_latents(dataclasses.replace(saved, class_vectors=wrong), path)
    with pytest.raises(InputError, match="z must be finite numbers"):
        save_latents(dataclasses.replace(saved, z=z * math.nan), path)

    metadata, tensors, _ = load_tensors(path)
    about = json.loads(metadata["latents"])
    for changed in (
        {**tensors, "z": torch.full((2, 12), torch.nan)},
        {**tensors, "z": torch.zeros(3, 12)},
        {"z": tensors["z"]},
    ):
        save_tensors(path, metadata, changed)
        with pytest.raises(InputError, match="contains no latents: make them with biggan invert"):
            load_latents(path)
    save_tensors(path, {**metadata, "latents": json.dumps({**about, "truncation": []})}, tensors)
    with pytest.raises(InputError, match="contains no latents"):
        load_latents(path)


def test_pictures_of_another_shape_or_mode_are_refused(tiny, tiny_unconditional, tmp_path):
    path = tmp_path / "picture.png"
    colour = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 24, 3), np.uint8))
    colour.save(path)
    with pytest.raises(InputError, match="24x40 pixels, and tiny makes 16x16.*--fit"):
        read_picture(path, tiny)
    assert read_picture(path, tiny, fit=True).shape == (3, 16, 16)
    colour.crop((0, 0, 16, 16)).save(path)
    assert torch.equal(
        read_picture(str(path), tiny).permute(1, 2, 0), torch.from_numpy(np.array(colour)[:16, :16])
    )
    with pytest.raises(InputError, match="is colour, and grey makes grey images.*--fit"):
        read_picture(path, tiny_unconditional)
    colour.crop((0, 0, 16, 16)).convert("L").save(path)
    with pytest.raises(InputError, match="is grey, and tiny makes colour images.*--fit"):
        read_picture(path, tiny)
    assert read_picture(path, tiny_unconditional).shape == (1, 16, 16)
    assert read_picture(path, tiny, fit=True).shape == (3, 16, 16)
    path.write_text("no picture")
    with pytest.raises(InputError, match="is not a readable picture"):
        read_picture(path, tiny)
    with pytest.raises(InputError, match="cannot read .*nothing.png: No such file"):
        read_picture(tmp_path / "nothing.png", tiny)


def test_a_picture_of_pil_is_that_of_its_pixels(tiny):
    _, picture = picture_of(tiny, 2, 1.0)
    image = to_pil(picture[None])[0]
    inverter = Inverter(tiny, steps=6, starts=2)
    assert torch.equal(inverter.invert(image).z, inverter.invert(picture).z)
    with pytest.raises(InputError, match="of mode RGB, not L: convert it with picture.convert"):
        inverter.invert(image.convert("L"))
    with pytest.raises(InputError, match="the picture must be an array of numbers, not 'a.png'"):
        inverter.invert("a.png")


def test_mistakes(tiny):
    with pytest.raises(
        InputError, match=r"must be uint8 \(3, 16, 16\), not torch.uint8 \(3, 8, 8\)"
    ):
        Inverter(tiny).invert(torch.zeros(3, 8, 8, dtype=torch.uint8))
    for wrong, message in (
        ({"starts": 0}, "the number of starts must be at least 1"),
        ({"steps": 0}, "the number of steps must be at least 1"),
        ({"seconds": 0}, "above 0 seconds"),
        ({"truncation": 2.0}, "truncation must be"),
        ({"class_": "dog"}, "no class is named 'dog'"),
        ({"features": "lpips"}, "a metric such as .*, not 'lpips'"),
    ):
        with pytest.raises(InputError, match=message):
            Inverter(tiny, **wrong)


def test_a_picture_of_latents_is_made_again(tiny):
    z, vectors = torch.randn(2, 12), tiny.embed([0, 1])
    layers = z[:, None].repeat(1, tiny.conditions, 1)
    expected = to_pil(to_uint8(tiny.generate(z, [0, 1], 0.5)))
    for noise in (z, layers):
        planned = plan_latents(tiny, noise, vectors, 0.5, ["a", "b"])
        grid = LatentGridProvenance(2, tuple(planned))
        assert provenance_from_json(grid.to_json()) == grid
        assert provenance_from_json(planned[0].to_json()) == planned[0]
        for drawn, right in zip(tiny.draw(planned), expected, strict=True):
            assert np.array_equal(drawn, right)
    text = planned[0].to_json()
    for wrong in ('"z": [1e300]', '"z": [NaN]', '"z": ["1"]', '"z": 1', '"z": [true]'):
        with pytest.raises(InputError, match="'z' must be a list of numbers"):
            provenance_from_json(text.replace('"z": [', f'{wrong}, "old": ['))
    short = LatentProvenance(tiny.name, tiny.sha256, "a", 0.5, (1.0,), (1.0,), "0")
    with pytest.raises(InputError, match=r"noise must be \(N, 12\)"):
        list(tiny.draw([short]))


def test_noise_that_the_truncation_does_not_draw_costs(tiny):
    inverter = Inverter(tiny, truncation=0.5, progress=False)
    z = torch.zeros(2, 12)
    z[:, 0] = torch.tensor([0.9, 1.5])  # hub noise reaches 1
    losses = inverter._losses(
        lambda images: 0 * images.flatten(1).sum(1), z.requires_grad_(), tiny.embed([0, 0])
    )
    assert losses.tolist() == pytest.approx([0, 0.1 * 0.5**2])


def test_ends_of_a_path_that_do_not_fit_the_model_are_refused(tiny):
    z, vectors = torch.zeros(1, 12), tiny.embed(0)
    for start, message in (
        ((z[0], vectors), r"noise must be \(N, 12\), or .*, not \(12,\)"),
        ((z, "tabby"), "class vectors must be an array of numbers, not 'tabby'"),
        ((z.repeat(2, 1), vectors), "latents of one shape"),
    ):
        with pytest.raises(InputError, match=message):
            plan_latent_morph(tiny, start, (z, vectors), 3, 1.0)
    assert len(plan_latent_morph(tiny, (z.numpy(), vectors), (z, vectors), 3, 1.0)) == 3
