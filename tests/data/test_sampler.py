import numpy as np
import pytest
import torch

from biggan.data import sampler
from biggan.data.dataset import ImageDataset
from biggan.data.sampler import ShuffledStream, fetch, flips


def batch_indices(size, batch_size, seed, start):
    return ShuffledStream(size, seed).indices(start, batch_size)


def test_every_epoch_holds_every_image_once():
    stream = ShuffledStream(10, seed=0).indices(0, 40).reshape(4, 10)
    for epoch in stream:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in stream}) == 4


@pytest.mark.parametrize("batch_size", [1, 3, 10, 25])
def test_batches_are_slices_of_one_stream(batch_size):
    whole = ShuffledStream(10, seed=5).indices(0, 100)
    batches = [batch_indices(10, batch_size, 5, start) for start in range(0, 75, batch_size)]
    np.testing.assert_array_equal(np.concatenate(batches), whole[: len(batches) * batch_size])


def test_the_answer_does_not_depend_on_earlier_questions():
    stream = ShuffledStream(7, seed=1)
    later = stream.indices(20, 9)
    stream.indices(0, 3)
    np.testing.assert_array_equal(stream.indices(20, 9), later)
    np.testing.assert_array_equal(batch_indices(7, 9, 1, 20), later)


def test_an_epoch_is_shuffled_once(monkeypatch):
    drawn = []
    generator = sampler.generator
    monkeypatch.setattr(sampler, "generator", lambda *key: drawn.append(key) or generator(*key))
    stream = ShuffledStream(100, seed=0)
    for start in range(0, 200, 10):
        stream.indices(start, 10)
    assert len(drawn) == 2


def test_the_stream_is_the_same_on_every_machine():
    # Written down: a change would make resumed runs go on with other batches.
    assert batch_indices(10, 12, seed=0, start=8).tolist() == [9, 5, 9, 8, 0, 6, 1, 4, 3, 2, 5, 7]
    found = flips(seed=0, start=4090, count=12).astype(int)
    assert "".join(map(str, found)) == "010110000001"


def test_seeds_give_streams_of_their_own():
    assert batch_indices(1000, 20, 0, 0).tolist() != batch_indices(1000, 20, 1, 0).tolist()
    assert flips(0, 0, 64).tolist() != flips(1, 0, 64).tolist()
    first = [batch_indices(4, 1, seed, 0)[0] for seed in range(2000)]
    assert np.bincount(first, minlength=4).min() > 430  # first places are spread evenly


def test_one_image_and_no_image():
    assert batch_indices(1, 5, 0, 3).tolist() == [0] * 5
    assert batch_indices(5, 0, 0, 3).tolist() == []
    with pytest.raises(ValueError, match="at least one image"):
        ShuffledStream(0, 0)


@pytest.mark.parametrize("function", [ShuffledStream(5, 0).indices, lambda a, b: flips(0, a, b)])
def test_positions_are_not_negative(function):
    for start, count in [(-1, 2), (0, -1)]:
        with pytest.raises(ValueError, match="0 or more"):
            function(start, count)


def test_flips_depend_on_the_position_alone_and_are_half_of_all():
    whole = flips(3, 0, 4 * 4096)
    assert whole.dtype == np.bool_
    for start, count in [(0, 1), (4095, 2), (4096, 4096), (17, 9000), (9999, 1), (8192, 0)]:
        np.testing.assert_array_equal(flips(3, start, count), whole[start : start + count])
    blocks = whole.reshape(4, 4096)
    assert abs(blocks.mean(1) - 0.5).max() < 0.04
    assert len({block.tobytes() for block in blocks}) == 4


def test_fetch_copies_images_and_labels_and_mirrors_the_chosen_ones():
    images = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).reshape(4, 3, 2, 2)
    data = ImageDataset(images.clone(), torch.tensor([0, 1, 1, 0]), ("a", "b"), "test")
    found, labels = fetch(data, np.array([2, 0, 2]))
    assert torch.equal(found, images[[2, 0, 2]])
    assert labels.tolist() == [1, 0, 1]
    found, _ = fetch(data, np.array([1, 2, 1]), np.array([True, False, False]))
    assert torch.equal(found, torch.stack([images[1].flip(2), images[2], images[1]]))
    assert torch.equal(data.images, images)
