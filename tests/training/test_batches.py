"""The ways of real images to a step give the same images, on any number of processes."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest
import torch

from biggan.data import ShardStream, ShuffledStream, fetch, flips
from biggan.errors import InputError
from biggan.images import from_uint8
from biggan.training.batches import in_background, pick_on, real_batches
from data_forms import pictures, shuffled, write_shards

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """16 images of two classes in shards of five."""
    files = shuffled(pictures(8, ("blue", "red"), size=32))
    folder = write_shards(tmp_path_factory.mktemp("shards"), files, per_shard=5)
    return ShardStream(folder, 32, 3, ("blue", "red"), seed=0, window=6, workers=1)


def take(batches, num):
    """So many batches: images and labels."""
    taken = list(itertools.islice(batches, num))
    batches.close()
    return [torch.stack(part) for part in zip(*taken, strict=True)]


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


@pytest.mark.parametrize("flip", [True, False])
def test_a_stream_goes_on_at_the_start_th_batch(config, streamed, flip):
    config = dataclasses.replace(config, flip=flip)
    size = config.batch_size
    images, labels = take(real_batches(config, streamed, CPU, start=3), 4)
    (everything, numbers), *_ = streamed.batches([np.arange(7 * size)])
    expected = from_uint8(everything[3 * size :])
    if flip:
        for i, mirrored in enumerate(flips(config.seed, 3 * size, 4 * size)):
            if mirrored:
                expected[i] = torch.from_numpy(expected[i].numpy()[:, :, ::-1].copy())
    assert torch.equal(images.flatten(0, 1), expected)
    assert torch.equal(labels.flatten(), numbers[3 * size :])


@pytest.mark.parametrize("kind", ["dataset", "streamed"])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_every_micro_batch(config, kind, processes, request, monkeypatch):
    """The micro-batches that all processes see together are those of one process."""
    data = request.getfixturevalue(kind)
    config = dataclasses.replace(config, accumulation=2)
    whole = take(real_batches(config, data, CPU, start=1), 5)
    shares = []
    monkeypatch.setattr("biggan.distributed._is_distributed", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: processes)
    for rank in range(processes):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append(take(real_batches(config, data, CPU, start=1), 5))
    for kind_of_part, expected in enumerate(whole):
        # (steps, micro-batches, images of one, ...), those of all processes beside each other
        split = [share[kind_of_part].unflatten(1, (2, -1)) for share in shares]
        assert torch.equal(torch.cat(split, dim=2), expected.unflatten(1, (2, -1)))


def test_closing_ends_a_streams_threads(config, streamed):
    before = threading.active_count()
    # No computation happens on it: any device but a CPU has its batches made in the background.
    for device in (CPU, torch.device("meta")):
        batches = real_batches(config, streamed, device, start=0)
        next(batches)
        assert threading.active_count() > before
        batches.close()
        assert threading.active_count() == before


def test_a_streams_mistake_arrives_with_its_batch(config, tmp_path):
    files = shuffled(pictures(8, ("blue", "red"), size=32))
    write_shards(tmp_path, files, per_shard=5)
    stream = ShardStream(tmp_path, 32, 3, None, seed=0, workers=1)
    write_shards(tmp_path, dict(list(files.items())[:12]), per_shard=5)
    for device in (CPU, torch.device("meta")):
        with pytest.raises(InputError, match="no longer contains the .* samples"):
            next(real_batches(config, stream, device, start=0))
