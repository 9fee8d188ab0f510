"""The three ways of real images to a step give the same images."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest
import torch

from biggan.data import ShuffledStream, fetch, flips
from biggan.images import from_uint8
from biggan.training.batches import in_background, pick_on, real_batches

CPU = torch.device("cpu")


@pytest.mark.parametrize("flip", [True, False])
def test_batches_are_the_stream_from_the_start_th_on(config, dataset, flip):
    config = dataclasses.replace(config, flip=flip)
    batches = real_batches(config, dataset, CPU, start=3)
    size = config.batch_size
    for i in range(3, 6):
        images, labels = next(batches)
        indices = ShuffledStream(len(dataset), config.seed).indices(i * size, size)
        mirrored = flips(config.seed, i * size, size) if flip else None
        expected, expected_labels = fetch(dataset, indices, mirrored)
        assert torch.equal(images, from_uint8(expected))
        assert torch.equal(labels, expected_labels)
    batches.close()


@pytest.mark.parametrize("mirrored", [None, np.array([True, False, True])])
def test_what_a_device_picks_is_what_is_fetched(dataset, mirrored):
    indices = np.array([5, 0, 5])
    picked = next(pick_on(CPU, dataset, iter([(indices, mirrored)])))
    for found, expected in zip(picked, fetch(dataset, indices, mirrored), strict=True):
        assert torch.equal(found, expected)


def test_the_background_keeps_the_order_and_works_ahead():
    made = []

    def make():
        for i in itertools.count():
            made.append((i, threading.current_thread()))
            yield i

    items = in_background(make(), ahead=2)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    items.close()
    assert len(made) == 7
    assert all(thread is not threading.current_thread() for _, thread in made)


def test_an_error_in_the_background_arrives_in_its_place():
    def make():
        yield 0
        raise OSError("the disk is gone")

    items = in_background(make(), ahead=1)
    assert next(items) == 0
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
