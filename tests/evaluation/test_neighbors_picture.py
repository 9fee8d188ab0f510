"""The picture of samples beside the data's nearest."""

import numpy as np
import pytest
import torch
from PIL import ImageFont

import biggan.evaluation.pictures as module
from biggan.evaluation import Protocol
from biggan.evaluation.pictures import (
    Samples,
    draw_neighbors,
    drawable,
    find_neighbors,
    label_font,
    samples_of_generator,
    samples_of_images,
)
from biggan.gan import Gan
from biggan.images import to_uint8
from biggan.latents import make_noise
from biggan.metrics.nearest_neighbors import nearest_neighbors
from biggan.weights.files import Description
from runs import noise_images
from simple_features import SimpleFeatures
from tiny import tiny_generator


def data(num=60, **options):
    return noise_images(num, 16, (), **options)


def copies(dataset, numbers):
    return Samples(dataset.images[numbers].clone(), tuple(f"copy of {n}" for n in numbers))


def test_characters_that_the_font_lacks_are_escaped():
    assert drawable("red apple \u732b", ImageFont.load_default(11)) == "red apple \\u732b"
    pytest.importorskip("matplotlib")
    wide = "\u00e9 \u042f\u0431\u043b\u043e\u043a\u043e \u03b1"
    assert drawable(f"{wide} \u732b", label_font()) == f"{wide} \\u732b"


def test_copies_are_found_by_pixels_and_by_features():
    dataset = data()
    found = find_neighbors(copies(dataset, [7, 50]), dataset, SimpleFeatures())
    for neighbors in found:
        assert neighbors.indices[:, 0].tolist() == [7, 50]
        assert neighbors.distances[:, 0].tolist() == [0, 0]


def test_the_search_goes_through_the_data_in_parts(monkeypatch):
    dataset, extractor = data(), SimpleFeatures()
    samples = Samples(data(5, seed=1).images, ("",) * 5)
    expected = nearest_neighbors(
        extractor.extract(samples.images).features, extractor.extract(dataset.images).features, 4
    )
    for at_once in (1, 3, 25, 1024):
        monkeypatch.setattr(module, "_BATCH", at_once)
        found = find_neighbors(samples, dataset, extractor)[1]
        assert torch.equal(found.indices, expected.indices), at_once
        torch.testing.assert_close(found.distances, expected.distances)


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_stand_first_and_their_nearest_beside_them(channels):
    dataset = data(channels=channels)
    samples = copies(dataset, [7, 50])
    found = find_neighbors(samples, dataset, SimpleFeatures())
    picture = draw_neighbors(samples, found, dataset, "simple")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    cell = 6 * 16  # an image of 16 pixels is drawn at six times its size
    expected = dataset.images[7].expand(3, -1, -1).repeat_interleave(6, 1).repeat_interleave(6, 2)
    lefts = [
        x
        for x in range(pixels.shape[2] - cell + 1)
        if torch.equal(pixels[:, 16 : 16 + cell, x : x + cell], expected)
    ]
    first_by_features = 5 * (cell + 4) + 24
    assert lefts == [0, cell + 4 + 12, first_by_features]
    below = pixels[:, 16 + cell : 16 + cell + 14, :cell]
    assert below.min() < 128  # words


def test_fewer_images_than_neighbours():
    dataset = data(2)
    samples = copies(dataset, [1])
    found = find_neighbors(samples, dataset, SimpleFeatures())
    assert found[1].indices.shape == (1, 2)
    draw_neighbors(samples, found, dataset, "simple")


def test_samples_are_those_of_the_evaluation(gan):
    protocol = Protocol(num=200, seed=3)
    samples = samples_of_generator(gan, protocol, 0.4)
    z = make_noise(10, gan.config.z_dim, 0.4, 3)
    expected = to_uint8(gan.generate(z, torch.arange(10) % 3, 0.4))
    assert (samples.images.int() - expected.int()).abs().max() <= 1
    assert samples.names[:4] == ("tabby", "siamese cat", "golden retriever", "tabby")


def test_samples_of_many_classes_are_of_classes_far_apart():
    names = tuple(f"class {k}" for k in range(100))
    gan = Gan(tiny_generator(num_classes=100), Description("many", names), "f" * 64)
    samples = samples_of_generator(gan, Protocol(num=500), None)
    assert samples.names[:3] == ("class 0", "class 11", "class 22")
    assert samples.names[-1] == "class 99"


def test_samples_of_images_come_from_all_over():
    dataset = data(31)
    samples = samples_of_images(dataset)
    assert samples.names[0] == "#0"
    assert samples.names[-1] == "#30"
    assert torch.equal(samples.images[-1], dataset.images[30])
    assert len(samples_of_images(data(4)).images) == 4
