"""Streams of shards: counted once, in an order that depends on the seed and the position alone."""

import itertools
import re
import shutil
import threading

import numpy as np
import pytest
import torch

from biggan.data import load_dataset, shards
from biggan.data.shards import (
    INDEX,
    ShardContents,
    ShardStream,
    count_shards,
    index_file,
    number_classes,
    read_index,
    shard_name,
)
from biggan.data.tars import read_class_names
from data_forms import cut_short, pictures, refusal, shuffled, wide, write_shards, write_tar

CLASSES = ("cat", "dog")
FILES = shuffled(pictures(10))
IMAGE = FILES["cat/0000.png"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), FILES, per_shard=6)  # 6 6 6 2


@pytest.fixture
def read(monkeypatch):
    """The shards that are read, in order."""
    urls, real = [], shards.read_stream
    monkeypatch.setattr(
        shards, "read_stream", lambda url, *more: urls.append(url) or real(url, *more)
    )
    return urls


def stream(folder, seed=0, **options):
    options = {"window": 7, "workers": 2} | options
    return ShardStream(folder, 8, 3, CLASSES, seed, **options)


def batches(source, start, size, rank=0, world_size=1):
    """Those of a process that has its contiguous slice of every batch, from a position on."""
    own = np.arange(size * rank // world_size, size * (rank + 1) // world_size)
    return source.batches(first + own for first in itertools.count(start, size))


def take(batches, count):
    with_images = list(itertools.islice(batches, count))
    batches.close()
    return [torch.cat(part) for part in zip(*with_images, strict=True)]


def first(source, count, start=0):
    """The images and labels of some positions."""
    return take(batches(source, start, 1), count)


def numbers_of(images, data):
    """Which images of a dataset these are."""
    numbers = {image.numpy().tobytes(): number for number, image in enumerate(data.images)}
    return np.array([numbers[image.numpy().tobytes()] for image in images])


def test_every_epoch_is_a_permutation_of_the_dataset(folder):
    data = load_dataset(folder, 8, 3)
    images, labels = take(batches(stream(folder), 0, 4), 15)
    assert (images.dtype, images.shape) == (torch.uint8, (60, 3, 8, 8))
    assert labels.dtype == torch.int64
    order = numbers_of(images, data)
    epochs = order.reshape(3, 20)
    assert (np.sort(epochs) == np.arange(20)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert labels.tolist() == data.labels[torch.from_numpy(order)].tolist()


def test_the_seed_and_the_window_select_the_order(folder):
    orders = [
        first(stream(folder, seed, window=window), 20)[0].numpy().tobytes()
        for seed, window in [(0, 7), (0, 7), (1, 7), (0, 20), (0, 1)]
    ]
    assert orders[0] == orders[1]
    assert len(set(orders)) == 4


def test_every_window_and_epoch_has_an_order_of_its_own(folder, tmp_path):
    write_shards(tmp_path, dict(sorted(FILES.items())), per_shard=20)
    data = load_dataset(tmp_path, 8, 3)
    order = numbers_of(first(stream(tmp_path, window=10), 40)[0], data).reshape(4, 10)
    assert (np.sort(order) == np.arange(20).reshape(2, 10)[[0, 1, 0, 1]]).all()
    assert len({tuple(window % 10) for window in order}) == 4
    # With a window of an epoch all shards mix; with one of one image, only their order changes.
    shard = np.array([list(FILES).index(member) // 6 for member in sorted(FILES)])
    for window in (1, 20):
        epochs = shard[numbers_of(first(stream(folder, window=window), 80)[0], data)].reshape(4, 20)
        runs = 1 + (np.diff(epochs[0]) != 0).sum()
        assert runs == 4 if window == 1 else runs > 8
        assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_every_batch(folder, world_size):
    """A batch may be larger than a window, or than an epoch."""
    for size in (4, 24):
        whole = first(stream(folder), 2 * size, 5)
        parts = [
            take(batches(stream(folder), 5, size, rank, world_size), 2)
            for rank in range(world_size)
        ]
        for kind in range(2):
            shares = [part[kind].unflatten(0, (2, size // world_size)) for part in parts]
            assert torch.equal(torch.cat(shares, 1).flatten(0, 1), whole[kind])


def test_positions_may_begin_anywhere_and_have_gaps_and_an_end(folder):
    """As a process has them that resumes, or takes its share of several micro-batches."""
    whole, labels = first(stream(folder), 60)
    resumed = [[np.arange(start, 60)] for start in (3, 6, 7, 13, 19, 20, 33, 47)]
    gaps = [np.array([3, 4, 17]), np.array([18, 30, 31, 32]), np.array([39])]
    for chosen in (gaps, *resumed):
        found = list(stream(folder).batches(chosen))
        for (images, numbers), places in zip(found, chosen, strict=True):
            assert torch.equal(images, whole[places])
            assert torch.equal(numbers, labels[places])


def test_resuming_reads_no_shard_before(folder, read):
    whole = stream(folder, window=1)
    read.clear()
    list(whole.batches([np.arange(20)]))
    order = read[:4]
    sizes = dict(zip(sorted(order), whole.counts, strict=True))
    start = sizes[order[0]] + sizes[order[1]]
    read.clear()
    list(whole.batches([np.arange(start, 20)]))
    assert read[:2] == order[2:]


def test_closing_ends_the_threads(folder):
    before = threading.active_count()
    begun = batches(stream(folder), 0, 4)
    next(begun)
    assert threading.active_count() > before
    begun.close()
    assert threading.active_count() == before


def test_shards_are_counted_once_whatever_names_them(folder, tmp_path, read):
    index = tmp_path / "index.json"
    begun = stream(folder, index=index)
    assert (begun.counts, len(begun), begun.num_classes) == ([6, 6, 6, 2], 20, 2)
    read.clear()
    files = sorted(folder.glob("*.tar"))
    for urls in (str(folder), f"{folder}/train-{{0000..0003}}.tar", f"{folder}/*.tar", files):
        again = stream(urls, index=index)
        assert (again.counts, again.fingerprint, read) == (begun.counts, begun.fingerprint, [])
    assert stream(folder, index=index, window=8).fingerprint != begun.fingerprint
    assert stream(files[:1], index=index).fingerprint != begun.fingerprint
    addresses = [file.as_uri() for file in files]
    assert "give a path for the index" in refusal(stream, addresses)
    from_addresses = stream(addresses, index=index)
    assert from_addresses.counts == begun.counts
    assert torch.equal(first(begun, 40)[0], first(from_addresses, 40)[0])


def test_a_corrupt_image_is_replaced_in_the_same_way_everywhere(tmp_path, caplog):
    write_shards(tmp_path, cut_short(FILES, "cat/0003.png", "dog/0004.png"))
    whole, labels = first(stream(tmp_path), 60)
    parts = [take(batches(stream(tmp_path), 20, 10, rank, 2), 1) for rank in range(2)]
    assert torch.equal(torch.cat([images for images, _ in parts]), whole[20:30])
    assert torch.equal(torch.cat([labels for _, labels in parts]), labels[20:30])
    assert len({image.numpy().tobytes() for image in whole[:20]}) == 18
    assert caplog.text.count("skipped the corrupt image train-") >= 2
    assert "is corrupt" in refusal(take, batches(stream(tmp_path, strict=True), 0, 10), 2)
    write_shards(tmp_path / "all", dict.fromkeys(FILES, b"no image"))
    of_all = batches(stream(tmp_path / "all"), 0, 10)
    assert "all images of its window are corrupt" in refusal(take, of_all, 2)


def test_16_bit_images_that_become_dark_are_named_once(tmp_path, caplog):
    write_shards(tmp_path, dict.fromkeys(FILES, wide(4095)))
    first(stream(tmp_path), 20)
    assert len(caplog.messages) == 1
    assert "has no level over 4095 of 65535 and becomes dark" in caplog.text


def test_labels_are_numbers_or_names_of_the_classes(tmp_path):
    write_shards(tmp_path / "names", FILES, label="json")
    write_shards(tmp_path / "numbers", FILES)
    one, other = (first(stream(tmp_path / kind), 20) for kind in ("names", "numbers"))
    assert all(map(torch.equal, one, other))
    unconditional = ShardStream(tmp_path / "names", 8, 1, (), 0)
    images, labels = first(unconditional, 20)
    assert images.shape == (20, 1, 8, 8)
    assert not labels.any()
    assert (unconditional.num_classes, unconditional.histogram()) == (0, [])


def test_shards_that_changed_since_they_were_counted_are_refused(tmp_path):
    write_shards(tmp_path, FILES, per_shard=10)
    begun, shard = stream(tmp_path), tmp_path / "train-0001.tar"
    whole = shard.read_bytes()
    for size in (len(whole) // 1024 * 512, len(whole) // 2 + 100, 700, 0):
        shard.write_bytes(whole[:size])
        assert str(shard) in refusal(take, batches(begun, 0, 20), 6)
        message = refusal(stream, tmp_path)
        assert message.startswith(f"cannot read the shard {shard}: ")
        assert size != 700 or message.endswith(": unexpected end of data")
    write_shards(tmp_path, dict(list(FILES.items())[:15]), per_shard=10)
    assert "no longer contains the 10 samples" in refusal(take, batches(begun, 0, 20), 6)
    files = {name.replace("dog", "eel"): content for name, content in FILES.items()}
    write_shards(tmp_path, files, per_shard=10, label="json")
    line = refusal(take, batches(begun, 0, 5), 4)
    assert re.search(r"train-.*\.png has the label '(cat|eel)', which did not exist", line)


def test_a_stream_says_what_a_dataset_says(tmp_path):
    files = dict(list(FILES.items())[:17])
    write_shards(tmp_path, files, per_shard=3)
    streamed, loaded = stream(tmp_path), load_dataset(tmp_path, 8, 3)
    assert len(streamed) == len(loaded) == 17
    assert streamed.histogram() == loaded.histogram()
    assert streamed.class_names == loaded.class_names == CLASSES
    assert streamed.source == loaded.source == tmp_path.name
    stored = sum(map(len, files.values()))
    assert streamed.window_bytes == 14 * stored // 17
    assert stream(tmp_path, window=100).window_bytes == 2 * stored


def test_the_fingerprint_tells_that_the_shards_changed(tmp_path):
    def fingerprint(files, names=CLASSES, shard="train-0001.tar"):
        folder = tmp_path / "shards"
        shutil.rmtree(folder, ignore_errors=True)
        write_shards(folder, files, per_shard=10)
        (folder / "train-0001.tar").rename(folder / shard)
        return ShardStream(folder, 8, 3, names, 0).fingerprint

    whole = fingerprint(FILES)
    assert fingerprint(FILES) == fingerprint(FILES, names=None) == whole
    (name, data), *others = FILES.items()
    other = "dog/x.png" if name.startswith("cat") else "cat/x.png"
    changed = [
        fingerprint(dict(others)),
        fingerprint({other: data, **dict(others)}),
        fingerprint(FILES, names=("cat", "eel")),
        fingerprint(FILES, shard="train-0002.tar"),
    ]
    assert len({whole, *changed}) == 5


def test_other_mistakes(folder, tmp_path, monkeypatch):
    assert "is not a .tar shard" in refusal(stream, tmp_path)
    assert "no such file" in refusal(stream, tmp_path / "a.tar")
    other = tmp_path / "a.zip"
    other.touch()
    assert "a.zip is not a .tar shard, and only those are streamed" in refusal(stream, other)
    assert "no shards are named" in refusal(stream, [])
    assert "hold no images" in refusal(stream, write_tar(tmp_path / "a.tar", [("a.txt", b"")]))
    assert "1 channel" in refusal(ShardStream, folder, 8, 2, CLASSES, 0)
    assert "at least 1" in refusal(stream, folder, window=0)
    assert "the window" in refusal(stream, folder, window=2.5)
    assert "the seed" in refusal(stream, folder, seed="1")
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    assert "pip install 'biggan[data]'" in refusal(stream, folder, index=tmp_path / "index")


def urls_in(folder):
    return [str(path) for path in sorted(folder.glob("*.tar"))]


def counted(folder):
    urls = urls_in(folder)
    assert count_shards(urls, folder / INDEX, workers=1)
    return read_index(urls, folder / INDEX)


def test_the_index_tells_samples_labels_and_sizes(tmp_path):
    members = [("0.png", IMAGE), ("1.png", IMAGE), ("1.cls", b"7"), ("2.png", IMAGE)]
    members += [("2.json", b'{"label": "hen"}'), ("3.png", IMAGE), ("3.cls", b"-1")]
    members += [("4.png", IMAGE), ("4.cls", b"7"), ("5.txt", b"a caption")]
    write_tar(tmp_path / "a.tar", members)
    write_tar(tmp_path / "b.tar", [("0.png", b"x"), ("0.cls", b"7")])
    one, other = counted(tmp_path)
    assert dict(one.labels) == {None: 1, 7: 2, "hen": 1, -1: 1}
    assert {type(label) for label, _ in one.labels} == {type(None), int, str}
    assert (one.samples, one.stored_bytes) == (5, 5 * len(IMAGE))
    assert other == ShardContents(((7, 1),), 1)


def test_counting_goes_on_where_it_was_stopped(tmp_path, read):
    write_shards(tmp_path, FILES, per_shard=4)
    urls, file = urls_in(tmp_path), tmp_path / INDEX
    turns = 0
    while not count_shards(urls, file, workers=1, seconds=0):
        turns += 1
        assert (read_index(urls, file) is None) is (turns < 5)
    assert turns == 4
    assert set(read) == set(urls)
    read.clear()
    assert [shard.samples for shard in counted(tmp_path)] == [4] * 5
    assert read == []
    # A shard that was replaced is counted again. Damage of another one loses no counting.
    write_shards(tmp_path, dict(list(FILES.items())[:14]), per_shard=4)
    assert read_index(urls, file) is None
    damaged = tmp_path / "train-0004.tar"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:700])
    assert "cannot read the shard" in refusal(count_shards, urls, file, workers=1)
    damaged.write_bytes(whole)
    read.clear()
    assert [shard.samples for shard in counted(tmp_path)] == [4, 4, 4, 2, 4]
    assert read == [str(damaged)]


def test_another_process_writes_the_index_meanwhile(tmp_path, monkeypatch):
    write_shards(tmp_path, FILES, per_shard=4)
    urls, file = urls_in(tmp_path), tmp_path / INDEX
    monkeypatch.setattr(shards, "_write", lambda *_: None)  # and it has other shards
    assert [shard.samples for shard in count_shards(urls, file, workers=1)] == [4] * 5


@pytest.mark.parametrize(
    "held",
    ['"a"', '{"a": {"bytes": 1}}', '{"a": {"bytes": "1", "labels": []}}']
    + [f'{{"a": {{"bytes": 1, "labels": {labels}}}}}' for labels in ("[1]", "[[[], 1]]")],
)
def test_a_damaged_index_is_named(tmp_path, held):
    file = tmp_path / INDEX
    current = f'{{"format": "biggan shard index, version 2", "shards": {held}}}'
    for content in (current, "[]", "{", '{"format": "x", "shards": {}}'):
        file.write_text(content)
        assert "delete it to count again" in refusal(read_index, [], file)


def test_where_the_index_lies(tmp_path, monkeypatch):
    shard, run = str(tmp_path / "shards" / "a.tar"), tmp_path / "run"
    (tmp_path / "shards").mkdir()
    assert index_file([shard]) == index_file([shard], run) == tmp_path / "shards" / INDEX
    assert index_file(["https://host/a.tar"], run) == run / INDEX
    assert "give a path for the index" in refusal(index_file, ["pipe:cat a.tar"])
    monkeypatch.setattr("os.access", lambda *_: False)
    assert index_file([shard], run) == run / INDEX
    (tmp_path / "shards" / INDEX).touch()  # others have counted them
    assert index_file([shard], run) == tmp_path / "shards" / INDEX
    write_shards(tmp_path, FILES)
    missing = tmp_path / "none" / INDEX
    assert "no such folder" in refusal(count_shards, urls_in(tmp_path), missing)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("/data/train-0000.tar", "train-0000.tar"),
        ("a/train-{0000..0009}.tar", "train-{0000..0009}.tar"),
        ("https://user:word@host/set/x-{00..99}.tar?token=abc.def", "x-{00..99}.tar"),
        ("pipe:curl -s -H 'Authorization: abc' https://host/0001.tar", "0001.tar"),
        ("pipe:aws s3 cp s3://bucket/a.tar -", "a.tar"),
        ("pipe:cat secret", "shards"),
        ("https://host/secret?key=abc", "shards"),
        ("/data/shards", "shards"),
    ],
)
def test_a_shards_name_tells_nothing_of_the_way_to_it(url, name):
    assert shard_name(url) == name


def test_classes_are_those_given_or_beside_the_shards_or_the_labels(tmp_path):
    def held(*labels):
        return [ShardContents(((label, 2),), 1) for label in labels]

    urls = [str(tmp_path / name) for name in ("a.tar", "b.tar")]
    assert number_classes(urls, held("dog", "cat"), None)[1] == ("cat", "dog")
    assert number_classes(urls, held("dog", None), ())[1] == ()
    (tmp_path / "classes.txt").write_text("cat\n\ndog\n")
    assert number_classes(urls, held(0, 1), None)[1] == ("cat", "dog")
    assert number_classes(urls, held(0, 1), ("hen", "eel"))[1] == ("hen", "eel")
    addresses = [f"https://host{url}" for url in urls]
    assert number_classes(addresses, held(0, 1), None)[1] == ("0", "1")
    message = refusal(number_classes, urls, held("cat", None), CLASSES)
    assert message.startswith("the shards: b.tar has no label")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"tabby, tabby cat\n  dog \n\n", ("tabby, tabby cat", "dog")),
        ("\ufefftabby\r\ndog\r\n".encode(), ("tabby", "dog")),  # as Notepad writes it
        (b"dog\n\ndog\n", "names.txt: two classes are named 'dog'"),
        (b"dog\n", "several classes, and there is one"),
        (b"\xff\n", "not a text file in UTF-8"),
        (None, "cannot read the class names"),
    ],
)
def test_class_names_come_from_a_text_file(tmp_path, content, names):
    file = tmp_path / "names.txt"
    if content is not None:
        file.write_bytes(content)
    if isinstance(names, str):
        assert names in refusal(read_class_names, file)
    else:
        assert read_class_names(file) == names
