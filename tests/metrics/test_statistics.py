"""Mean and covariance in one pass, merged, and through files."""

import dataclasses
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from biggan.errors import InputError
from biggan.metrics.statistics import (
    FeatureSource,
    FeatureStatistics,
    check_same_source,
    load_statistics,
)
from biggan.weights.files import FORMAT, Description, save_network, save_tensors
from tiny import TINY_CLASSES, tiny_generator

DIM = 7
SOURCE = FeatureSource("TF-Inception 2015-12-05", "ab" * 32, "tf-bilinear")


def random_features(num=200, dim=DIM, offset=0.0):
    mix = torch.randn(dim, dim, dtype=torch.float64)
    return torch.randn(num, dim, dtype=torch.float64) @ mix + offset


def statistics_of(*batches, **keywords):
    statistics = FeatureStatistics(batches[0].shape[1], **keywords)
    for batch in batches:
        statistics.update(batch)
    return statistics


def assert_moments(statistics, features, rtol=1e-10):
    expected = np.cov(features.numpy(), rowvar=False)
    covariance = statistics.covariance()
    assert statistics.count == len(features)
    assert statistics.mean.dtype == covariance.dtype == torch.float64
    torch.testing.assert_close(statistics.mean, features.mean(0), rtol=rtol, atol=1e-12)
    atol = rtol * np.abs(expected).max()
    torch.testing.assert_close(covariance, torch.from_numpy(expected), rtol=rtol, atol=atol)
    assert torch.equal(covariance, covariance.T)


@pytest.mark.parametrize("sizes", [(200,), (1, 199), (1,) * 200, (50, 0, 150), (3, 64, 133)])
def test_batches_of_any_size_give_numpys_moments(sizes):
    features = random_features()
    statistics = statistics_of(*features.split(sizes))
    assert_moments(statistics, features)
    statistics.mean.zero_()  # copies
    statistics.covariance().zero_()
    assert_moments(statistics, features)
    longer = random_features(2500, 3)  # than a chunk
    assert_moments(statistics_of(longer), longer)


def test_an_offset_far_above_the_spread_costs_no_digits():
    features = random_features(offset=1e8)
    centred = features - 1e8  # exact to 1e-8
    expected = np.cov(centred.numpy(), rowvar=False)
    found = statistics_of(*features.split(16)).covariance().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
    squares = features.T @ features - 200 * torch.outer(features.mean(0), features.mean(0))
    assert np.abs(squares.numpy() / 199 - expected).max() > 0.01  # what is avoided here


def test_merging_four_parts_equals_one_pass():
    features = random_features(1000, 32, offset=30.0)
    features[250:500] += 5  # parts that differ
    parts = [statistics_of(part) for part in features.split([100, 400, 499, 1])]
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    assert_moments(merged, features, rtol=1e-12)
    one_pass = statistics_of(features)
    scale = one_pass.covariance().abs().max()
    assert (merged.covariance() - one_pass.covariance()).abs().max() / scale < 1e-12


def test_merging_in_another_order_and_with_empty_ones():
    features = random_features()
    left, right = (statistics_of(part) for part in features.split([120, 80]))
    empty = FeatureStatistics(DIM)
    empty.merge(FeatureStatistics(DIM))
    assert empty.count == 0
    empty.merge(right)
    empty.merge(left)
    empty.merge(FeatureStatistics(DIM))
    assert_moments(empty, features)
    assert right.count == 80  # the merged ones are left alone
    assert_moments(right, features[120:])


def test_statistics_travel_between_processes():
    features = random_features()
    statistics = pickle.loads(pickle.dumps(statistics_of(features, source=SOURCE)))
    assert statistics.source == SOURCE
    assert_moments(statistics, features)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int64])
def test_features_of_any_type_are_summed_in_float64(dtype):
    features = (random_features() * 10).to(dtype)
    assert_moments(statistics_of(features), features.double())
    if dtype.is_floating_point:
        assert not statistics_of(features.requires_grad_()).covariance().requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_and_nothing_is_taken_in(value):
    features = random_features()
    statistics = statistics_of(features)
    bad = random_features(20).float()
    bad[13, 2] = value
    with pytest.raises(InputError, match="features hold NaN or infinite values, first in row 13"):
        statistics.update(bad)
    assert_moments(statistics, features)


def test_features_that_do_not_fit():
    for shape in ((4,), (2, 3, DIM), (4, 0)):
        with pytest.raises(InputError, match=r"must be real numbers \(N, dim\), not \("):
            FeatureStatistics(DIM).update(torch.zeros(shape))
    for add, other in (
        (FeatureStatistics.update, torch.zeros(3, 8)),
        (FeatureStatistics.merge, FeatureStatistics(8)),
    ):
        with pytest.raises(InputError, match="features have width 8, these statistics 7"):
            add(FeatureStatistics(DIM), other)
    for num in (0, 1):
        with pytest.raises(InputError, match=f"at least 2 images, not {num}"):
            statistics_of(random_features(num)).covariance()


def test_statistics_of_other_features_are_not_merged():
    other = dataclasses.replace(SOURCE, resize="none")
    statistics = statistics_of(random_features(), source=SOURCE)
    for source in (other, None):
        with pytest.raises(InputError, match="of different sources"):
            statistics.merge(statistics_of(random_features(), source=source))


def test_sources_are_compared_where_both_are_known():
    statistics = FeatureStatistics(DIM, SOURCE)
    check_same_source(statistics, FeatureStatistics(DIM, SOURCE))
    check_same_source(statistics, FeatureStatistics(DIM))
    other = dataclasses.replace(SOURCE, sha256="cd" * 32)
    with pytest.raises(InputError, match="abababababab.*cdcdcdcdcdcd.*same extractor"):
        check_same_source(statistics, FeatureStatistics(DIM, other))
    with pytest.raises(InputError, match="7 and 8 wide"):
        check_same_source(statistics, FeatureStatistics(8))


def test_through_a_file(tmp_path):
    features = random_features()
    statistics = statistics_of(
        features[:150], source=SOURCE, provenance={"data": "digits", "num": 150}
    )
    digest = statistics.save(tmp_path / "a.safetensors")
    assert digest == statistics.save(tmp_path / "b.safetensors")
    assert len(digest) == 64
    loaded = load_statistics(tmp_path / "a.safetensors")
    assert loaded.source == SOURCE
    assert loaded.provenance == {"data": "digits", "num": 150}
    assert loaded.count == 150
    assert torch.equal(loaded.mean, statistics.mean)
    assert torch.equal(loaded.covariance(), statistics.covariance())
    loaded.update(features[150:])
    assert_moments(loaded, features)


def test_a_state_is_continued_apart_from_its_origin():
    features = random_features()
    statistics = statistics_of(features[:50])
    continued = FeatureStatistics.from_state_dict(statistics.state_dict(), SOURCE)
    continued.update(features[50:])
    assert continued.source == SOURCE
    assert_moments(continued, features)
    assert_moments(statistics, features[:50])


def test_a_state_that_does_not_fit():
    state = statistics_of(random_features()).state_dict()
    with pytest.raises(InputError, match=r"scatter \(3, 3\) are not those of feature statistics"):
        FeatureStatistics.from_state_dict({**state, "scatter": torch.zeros(3, 3)})
    with pytest.raises(InputError, match="not those of feature statistics"):
        FeatureStatistics.from_state_dict({**state, "count": torch.tensor(-1)})


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_the_files_of_pytorch_fid(tmp_path):
    features = random_features()
    mu, sigma = features.mean(0).numpy(), np.cov(features.numpy(), rowvar=False)
    loaded = load_statistics(write_npz(tmp_path / "cifar10.npz", mu=mu, sigma=sigma))
    assert (loaded.count, loaded.source, loaded.dim) == (None, None, DIM)
    np.testing.assert_array_equal(loaded.mean.numpy(), mu)
    np.testing.assert_array_equal(loaded.covariance().numpy(), sigma)
    compressed = tmp_path / "compressed.npz"
    np.savez_compressed(compressed, mu=mu.astype(np.float32), sigma=sigma.astype(np.float32))
    single = load_statistics(compressed)
    assert single.mean.dtype == single.covariance().dtype == torch.float64
    np.testing.assert_allclose(single.covariance().numpy(), sigma, rtol=1e-5)


def test_statistics_of_an_unknown_count_are_not_continued(tmp_path):
    file = write_npz(tmp_path / "of_others.npz", mu=np.zeros(DIM), sigma=np.eye(DIM))
    unknown = load_statistics(file)
    counted = statistics_of(random_features())
    for action in (
        lambda: unknown.update(random_features()),
        lambda: unknown.merge(counted),
        lambda: counted.merge(unknown),
        lambda: unknown.save(tmp_path / "own.safetensors"),
    ):
        with pytest.raises(InputError, match="do not state their number of images"):
            action()
    assert list(tmp_path.iterdir()) == [file]
    assert counted.count == 200
    np.testing.assert_array_equal(unknown.covariance().numpy(), np.eye(DIM))


NOT_MOMENTS = {
    "another length": {"mu": np.zeros(3), "sigma": np.eye(4)},
    "not square": {"mu": np.zeros(3), "sigma": np.zeros((3, 2))},
    "NaN": {"mu": np.zeros(3), "sigma": np.diag([1, np.nan, 1])},
    "infinite": {"mu": np.array([0, np.inf]), "sigma": np.eye(2)},
    "not symmetric": {"mu": np.zeros(2), "sigma": np.array([[1.0, 0.5], [0.1, 1.0]])},
    "negative variance": {"mu": np.zeros(2), "sigma": np.diag([1.0, -1.0])},
    "correlations above 1": {"mu": np.zeros(2), "sigma": np.array([[1.0, 5.0], [5.0, 1.0]])},
    "integers": {"mu": np.zeros(2, int), "sigma": np.eye(2, dtype=int)},
    "nothing": {"mu": np.zeros(0), "sigma": np.zeros((0, 0))},
    "words": {"mu": np.array(["a"]), "sigma": np.array([["b"]])},
    "matrices": {"mu": np.eye(2), "sigma": np.eye(2)},
}


@pytest.mark.parametrize("what", NOT_MOMENTS)
def test_an_npz_file_of_something_like_it(tmp_path, what):
    with pytest.raises(InputError, match="not a mean and covariance"):
        load_statistics(write_npz(tmp_path / "x.npz", **NOT_MOMENTS[what]))


def test_an_npz_file_of_something_else(tmp_path):
    with pytest.raises(InputError, match="holds images, labels, not the mu and sigma"):
        load_statistics(write_npz(tmp_path / "x.npz", images=np.zeros(3), labels=np.zeros(3)))
    with pytest.raises(InputError, match="holds nothing"):
        load_statistics(write_npz(tmp_path / "x.npz"))
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("0.png", b"\x89PNG")
    with pytest.raises(InputError, match=r"holds 0.png, not the mu and sigma"):
        load_statistics(tmp_path / "images.zip")


def test_pickled_arrays_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code in the file was run",))

    mu = np.array([Trap()], dtype=object)
    with pytest.raises(InputError, match="is not a whole .npz file"):
        load_statistics(write_npz(tmp_path / "x.npz", mu=mu, sigma=np.eye(1)))


@pytest.mark.parametrize("form", ["safetensors", "npz"])
def test_files_cut_short_or_damaged_are_refused(tmp_path, form):
    features = random_features()
    whole, cut = tmp_path / f"whole.{form}", tmp_path / "cut"
    if form == "npz":
        np.savez(whole, mu=features.mean(0).numpy(), sigma=np.cov(features.numpy().T))
    else:
        statistics_of(features).save(whole)
    contents = whole.read_bytes()
    for length in (0, 1, 2, 7, 100, len(contents) // 2, len(contents) - 1):
        cut.write_bytes(contents[:length])
        with pytest.raises(InputError, match="cut short") as error:
            load_statistics(cut)
        assert "\n" not in str(error.value)


def test_no_flipped_bit_ends_in_a_traceback(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, mu=np.arange(3.0), sigma=np.eye(3))
    contents = buffer.getvalue()
    damaged = tmp_path / "damaged.npz"
    for position in range(len(contents)):
        for bit in (0, 3, 7):
            flipped = bytearray(contents)
            flipped[position] ^= 1 << bit
            damaged.write_bytes(flipped)
            try:
                loaded = load_statistics(damaged)
            except InputError:
                continue
            # A date or another field that says nothing of the arrays.
            assert loaded.mean.tolist() == [0, 1, 2]
            assert torch.equal(loaded.covariance(), torch.eye(3, dtype=torch.float64))


def test_files_of_something_else(tmp_path):
    with pytest.raises(InputError, match="cannot read .*missing.npz: No such file"):
        load_statistics(tmp_path / "missing.npz")
    with pytest.raises(InputError, match="cannot read"):
        load_statistics(tmp_path)
    (tmp_path / "x.npz").touch()
    with pytest.raises(InputError, match="not a whole .npz file"):
        load_statistics(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_text("not a .npz at all")
    with pytest.raises(InputError, match=r"not a whole \.npz file: it may be cut short"):
        load_statistics(tmp_path / "x.npz")
    (tmp_path / "text").write_text("not statistics at all")
    with pytest.raises(InputError, match="is not a safetensors file"):
        load_statistics(tmp_path / "text")
    save_network(tmp_path / "g.safetensors", tiny_generator(), Description("t", TINY_CLASSES))
    with pytest.raises(InputError, match="holds a generator, not feature statistics"):
        load_statistics(tmp_path / "g.safetensors")


@pytest.mark.parametrize("header", ["{}", "[]", "}", '{"kind": "feature statistics"}', None])
def test_a_file_of_ours_with_another_header(tmp_path, header):
    metadata = {"format": FORMAT} | ({} if header is None else {"header": header})
    save_tensors(tmp_path / "x.safetensors", metadata, {"mean": torch.zeros(2)})
    with pytest.raises(InputError, match="but contains no feature statistics"):
        load_statistics(tmp_path / "x.safetensors")


def test_a_file_of_ours_with_nan_statistics_is_refused(tmp_path):
    """With a digest that fits: a distance to them once came out as a perfect 0."""
    statistics = statistics_of(random_features())
    file = tmp_path / "x.safetensors"
    for name in ("_mean", "_scatter"):
        spoiled = FeatureStatistics.from_state_dict(statistics.state_dict())
        getattr(spoiled, name)[2] = torch.nan
        spoiled.save(file)
        with pytest.raises(InputError, match="x.safetensors: the mean or the scatter .* is NaN"):
            load_statistics(file)


@pytest.mark.parametrize("provenance", ['"words"', "3", "[" * 100_000])
def test_a_file_of_ours_with_another_provenance(tmp_path, provenance):
    header = f'{{"kind": "feature statistics", "source": null, "provenance": {provenance}}}'
    state = statistics_of(random_features()).state_dict()
    save_tensors(tmp_path / "x.safetensors", {"format": FORMAT, "header": header}, state)
    with pytest.raises(InputError, match="but contains no feature statistics"):
        load_statistics(tmp_path / "x.safetensors")


def npy_header(shape):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


BROKEN_MEMBERS = {
    "no array": b"hello",
    "nothing": b"",
    "more than any memory": npy_header("(1000000000000000,)"),
    "more than any number": npy_header("(10000000000000000000000000,)"),
    "brackets left open": npy_header("(("),
}


@pytest.mark.parametrize("what", BROKEN_MEMBERS)
def test_npz_members_that_are_no_arrays(tmp_path, what):
    file = tmp_path / "x.npz"
    np.savez(file, sigma=np.eye(3))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("mu.npy", BROKEN_MEMBERS[what])
    with pytest.raises(InputError, match=r"x.npz.*(not a whole|not a mean and covariance)"):
        load_statistics(file)
