"""The loop that makes images, alone and spread over processes."""

import numpy as np
import pytest
import torch

from biggan.engines import PyTorchEngine
from biggan.errors import InputError
from biggan.sampling import generate_batches, generate_own_batches
from several_processes import launch
from tiny import TINY, tiny_generator

LABELS = torch.tensor([0, 2, 1, 1, 0, 2, 0])
NUM = len(LABELS)
NOISE = np.random.default_rng(0).normal(size=(NUM, TINY["z_dim"]))


def make(generator, number=NUM, labels=LABELS, batch_size=1):
    batches = generate_own_batches(generator, labels[:number], NOISE[:number], 0.4, batch_size)
    return [(batch.start, batch.images.numpy()) for batch in batches]


def refusals(generator):
    """What a process says to input whose fault is in the last image alone, or in none."""
    messages = []
    for labels, noise in (
        (torch.tensor([0] * (NUM - 1) + [3]), NOISE),
        (LABELS[:-1], NOISE),
        (LABELS, NOISE[:, :-1]),
        (LABELS, NOISE[0]),
    ):
        with pytest.raises(InputError) as caught:
            next(generate_own_batches(generator, labels, noise, 0.4))
        messages.append(str(caught.value))
    return messages


def everything():
    generator = tiny_generator()
    return {
        "one by one": make(generator),
        "in threes": make(generator, batch_size=3),
        "two": make(generator, number=2),
        "refusals": refusals(generator),
    }


@pytest.fixture(scope="module")
def three():
    return launch(everything, 3)


def all_images():
    batches = generate_batches(tiny_generator(), LABELS, NOISE, 0.4, 1)
    return torch.cat([batch.images for batch in batches]).numpy()


def joined(parts):
    """Images by their number; every number comes once."""
    images = {}
    for start, batch in (entry for part in parts for entry in part):
        for number, image in enumerate(batch, start):
            assert number not in images
            images[number] = image
    return np.stack([images[number] for number in range(len(images))])


def test_image_k_is_the_same_whoever_makes_it(three):
    one_by_one = [found["one by one"] for found in three]
    assert [[start for start, _ in part] for part in one_by_one] == [[0, 1], [2, 3], [4, 5, 6]]
    assert (joined(one_by_one) == all_images()).all()
    in_threes = [found["in threes"] for found in three]
    assert [len(batch) for part in in_threes for _, batch in part] == [2, 2, 3]
    np.testing.assert_allclose(joined(in_threes), all_images(), rtol=0, atol=1e-5)


def test_more_processes_than_images(three):
    assert [len(found["two"]) for found in three] == [0, 1, 1]
    assert (joined([found["two"] for found in three]) == all_images()[:2]).all()


def test_all_processes_refuse_the_same(three):
    expected = refusals(tiny_generator())
    assert [found["refusals"] for found in three] == [expected] * 3
    assert expected[0] == "labels must be between 0 and 2"


def test_one_process_makes_all():
    assert (joined([make(tiny_generator())]) == all_images()).all()


def test_no_gradients_are_kept():
    assert all(
        batch.images.is_inference()
        for batch in generate_batches(tiny_generator(), LABELS, NOISE, 0.4, 3)
    )


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        make(tiny_generator().train())


def test_no_images_at_once_are_refused():
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        make(tiny_generator(), batch_size=0)


class Crowded(PyTorchEngine):
    """An engine for whose memory more than two images are too many."""

    fits = 2

    def _render(self, grid, scale, shift):
        if len(grid) > self.fits:
            torch.empty(2**46)  # 256 TiB
        return super()._render(grid, scale, shift)


def test_a_batch_that_exceeds_the_memory_is_made_in_halves_and_none_is_lost(caplog):
    expected = torch.cat([b.images for b in generate_batches(tiny_generator(), LABELS, NOISE, 0.4)])
    batches = list(generate_batches(Crowded(tiny_generator()), LABELS, NOISE, 0.4, 5))
    assert max(len(batch.images) for batch in batches) == 2
    assert [batch.start for batch in batches] == list(range(0, len(NOISE), 2))
    torch.testing.assert_close(torch.cat([b.images for b in batches]), expected)
    assert [record.message for record in caplog.records] == [
        "out of memory on cpu: 262144.00 GiB more are needed; going on with 2 images at once "
        "instead of 5"
    ]


def test_where_not_even_one_image_fits_it_says_so(monkeypatch):
    monkeypatch.setattr(Crowded, "fits", 0)
    with pytest.raises(InputError, match=r"GiB more .*not even one image of 16 pixels fits"):
        list(generate_batches(Crowded(tiny_generator()), LABELS, NOISE, 0.4))


def test_other_errors_of_an_engine_are_not_taken_for_that(monkeypatch):
    def fail(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(PyTorchEngine, "_render", fail)
    with pytest.raises(RuntimeError, match="something else"):
        list(generate_batches(tiny_generator(), LABELS, NOISE, 0.4))
