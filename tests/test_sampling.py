"""The loop that makes images."""

from unittest import mock

import numpy as np
import pytest
import torch

from biggan.errors import InputError
from biggan.inference.engine import Engine
from biggan.sampling import generate_batches
from tiny import TINY, tiny_generator

LABELS = torch.tensor([0, 2, 1, 1, 0, 2, 0])
NOISE = np.random.default_rng(0).normal(size=(len(LABELS), TINY["z_dim"]))


def test_image_k_does_not_depend_on_the_batch_size_and_keeps_no_gradients():
    one_by_one = list(generate_batches(tiny_generator(), LABELS, NOISE, 0.4, 1))
    threes = list(generate_batches(tiny_generator(), LABELS, NOISE, 0.4, 3))
    assert [batch.start for batch in one_by_one] == list(range(len(LABELS)))
    assert [(batch.start, len(batch.images)) for batch in threes] == [(0, 3), (3, 3), (6, 1)]
    images, again = (torch.cat([b.images for b in made]) for made in (one_by_one, threes))
    torch.testing.assert_close(images, again, rtol=0, atol=1e-5)
    assert threes[0].images.is_inference()
    assert list(generate_batches(tiny_generator(), LABELS[:0], NOISE[:0], 0.4)) == []


@pytest.mark.parametrize(
    ("labels", "noise", "batch_size", "message"),
    [
        (torch.tensor([0] * 6 + [3]), NOISE, None, "labels must be between 0 and 2"),
        (LABELS[:-1], NOISE, None, "give a label for each row of noise: 7, not 6"),
        (LABELS, NOISE[:, :-1], None, r"noise must be \(N, 12\), or .* not \(7, 11\)"),
        (LABELS, NOISE[0], None, r"noise must be \(N, 12\)"),
        (LABELS, NOISE, 0, "batch_size must be at least 1"),
    ],
)
def test_input_that_does_not_fit_is_refused_before_an_image_is_made(
    labels, noise, batch_size, message
):
    with pytest.raises(InputError, match=message):
        next(generate_batches(tiny_generator(), labels, noise, 0.4, batch_size))


class Crowded(Engine):
    """An engine for whose memory more than so many images are too many."""

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
        "out of memory on cpu: 262144.00 GiB more is needed; continuing with 2 images at once "
        "instead of 5"
    ]


def test_where_not_even_one_image_fits_it_says_so(monkeypatch):
    monkeypatch.setattr(Crowded, "fits", 0)
    with pytest.raises(InputError, match=r"GiB more .*not even one image of 16 pixels fits"):
        next(generate_batches(Crowded(tiny_generator()), LABELS, NOISE, 0.4))
    other = mock.Mock(side_effect=RuntimeError("something else"))
    monkeypatch.setattr(Crowded, "_render", other)
    with pytest.raises(RuntimeError, match="something else"):
        next(generate_batches(Crowded(tiny_generator()), LABELS, NOISE, 0.4))
