"""Comparing with statistics in a file instead of with images."""

import numpy as np
import pytest
import torch

from biggan.data import ImageDataset
from biggan.errors import InputError
from biggan.evaluation import Protocol, evaluate_generator, evaluate_images
from biggan.evaluation.features import extract_features
from biggan.evaluation.images import DatasetImages
from biggan.evaluation.reference import (
    ReferenceStatistics,
    open_reference,
    save_statistics,
)
from biggan.evaluation.result import as_table
from biggan.gan import Gan
from biggan.metrics.statistics import FeatureStatistics, load_statistics
from biggan.weights.files import Description
from data_forms import pictures, write_folder
from runs import noise_images
from simple_features import SimpleFeatures
from tiny import TINY_CLASSES, tiny_generator

PROTOCOL = Protocol(num=40, seed=3, batch_size=8)


def noise(num=80, side=16, **options):
    return noise_images(num, side, (), **options)


def write(path, data, extractor=None):
    extractor = extractor or SimpleFeatures()
    features = extract_features(DatasetImages(data), extractor, progress=False)
    save_statistics(features, data, extractor, path)
    return path


def opened(path, resolution=16):
    return open_reference(path, resolution, 3, with_classes=False)


@pytest.mark.parametrize("name", ["data.safetensors", "data.npz", "DATA.NPZ"])
def test_the_distance_is_that_to_the_images(gan, tmp_path, name):
    reference = opened(write(tmp_path / name, noise()))
    metrics = ("fid", "is")
    one, other = (
        evaluate_generator(gan, data, SimpleFeatures(), (0.4,), metrics, PROTOCOL).rows[0]["scores"]
        for data in (noise(), reference)
    )
    assert other == pytest.approx(one, rel=1e-9)


def test_what_is_written_is_what_other_software_reads(tmp_path):
    data = noise()
    arrays = np.load(write(tmp_path / "data.npz", data))
    features = SimpleFeatures().extract(data.images).features.double().numpy()
    assert sorted(arrays) == ["mu", "sigma"]
    np.testing.assert_allclose(arrays["mu"], features.mean(0), rtol=1e-10)
    np.testing.assert_allclose(arrays["sigma"], np.cov(features, rowvar=False), rtol=1e-9)


def test_our_own_file_says_what_decides_it(gan, tmp_path):
    path = write(tmp_path / "data.safetensors", noise())
    loaded = load_statistics(path)
    assert (loaded.count, loaded.source.extractor, loaded.source.resize) == (80, "simple", "area")
    assert loaded.provenance["data"]["fingerprint"] == noise().fingerprint
    result = evaluate_generator(gan, opened(path), SimpleFeatures(), (0.4,), ("fid",), PROTOCOL)
    assert result.reference["num"] == 80
    assert result.reference["resolution"] == 16
    assert result.reference["statistics"]["data"]["name"] == "noise"
    assert "against 80 of data.safetensors at 16 px" in as_table(result)


def test_what_a_file_of_others_does_not_say_is_said_of_it(gan, tmp_path, caplog):
    path = write(tmp_path / "data.npz", noise())
    result = evaluate_generator(gan, opened(path), SimpleFeatures(), (0.4,), ("fid",), PROTOCOL)
    assert "data.npz does not state the network" in caplog.text
    assert "simple, resize area" in caplog.text
    assert result.reference["num"] is None
    assert "against the statistics of data.npz, seen by simple" in as_table(result)


def test_a_fingerprint_is_of_the_contents(tmp_path):
    one, same = (opened(write(tmp_path / name, noise())) for name in ("a.npz", "b.npz"))
    other = opened(write(tmp_path / "c.npz", noise(seed=1)))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_a_sweep_without_the_datas_own_score_leaves_that_point_out(gan, tmp_path):
    reference = opened(write(tmp_path / "data.npz", noise()))
    sweep = (0.4, None)
    result = evaluate_generator(gan, reference, SimpleFeatures(), sweep, ("fid", "is"), PROTOCOL)
    assert sorted(result.points) == [
        "best classifier_score",
        "best frechet_distance",
        "no truncation",
    ]


@pytest.mark.parametrize("metric", ["kid", "pr", "intra-fid", "cas"])
def test_metrics_of_single_images_are_refused(gan, tmp_path, metric):
    reference = opened(write(tmp_path / "data.safetensors", noise()))
    with pytest.raises(
        InputError, match=f"data.safetensors contains statistics.*{metric}.*--metrics"
    ):
        evaluate_generator(gan, reference, SimpleFeatures(), (0.4,), ("fid", metric), PROTOCOL)


def test_features_of_another_extractor_are_refused(gan, tmp_path):
    reference = opened(write(tmp_path / "data.safetensors", noise()))

    class Other(SimpleFeatures):
        sha256 = "1" * 64

    class Resized(SimpleFeatures):
        resize = "nearest"

    class Wider(SimpleFeatures):
        dim = 7

    for extractor in (Other(), Resized()):
        with pytest.raises(InputError, match="data.safetensors does not fit --extractor.*sources"):
            evaluate_generator(gan, reference, extractor, (0.4,), ("fid",), PROTOCOL)
        assert extractor.seen == 0
    unknown = opened(write(tmp_path / "data.npz", noise()))
    with pytest.raises(InputError, match="data.npz does not fit --extractor.*7 and 6 wide"):
        evaluate_images(noise(), unknown, Wider(), ("fid",))


def test_statistics_of_another_resolution_are_refused(gan, tmp_path):
    reference = opened(write(tmp_path / "data.safetensors", noise(side=8)))
    with pytest.raises(InputError, match="16 pixels a side and data.safetensors has 8"):
        evaluate_generator(gan, reference, SimpleFeatures(), (0.4,), ("fid",), PROTOCOL)


def test_statistics_in_colour_are_not_for_a_grey_model(tmp_path):
    reference = opened(write(tmp_path / "data.safetensors", noise()))
    grey = Gan(tiny_generator(image_channels=1), Description("grey", TINY_CLASSES), "f" * 64)
    with pytest.raises(InputError, match="1 channels and data.safetensors has 3.*--model"):
        evaluate_generator(grey, reference, SimpleFeatures(), (0.4,), ("fid",), PROTOCOL)


def test_statistics_of_too_few_images_are_refused():
    few = FeatureStatistics(6)
    few.update(torch.randn(9, 6))
    with pytest.raises(InputError, match="at least 10 images, and 9 are in few"):
        evaluate_images(noise(), ReferenceStatistics(few, "few"), SimpleFeatures(), ("fid",))


def test_few_images_behind_statistics_are_warned_of(tmp_path, caplog):
    evaluate_images(
        noise(), opened(write(tmp_path / "data.safetensors", noise(70))), SimpleFeatures(), ("fid",)
    )
    assert "of 70 images" in caplog.text


def test_a_name_that_would_not_be_known_again_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must end in .safetensors, or in .npz"):
        write(tmp_path / "data.pt", noise())
    assert not (tmp_path / "data.pt").exists()


def test_a_folder_of_images_may_be_called_anything(tmp_path):
    write_folder(tmp_path / "x.npz", pictures(5, size=16))
    assert isinstance(opened(tmp_path / "x.npz"), ImageDataset)
