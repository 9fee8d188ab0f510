"""What shards hold: counted once, kept through interruptions, and fitted to the classes."""

import json
from collections import Counter

import pytest

from biggan.data import shards as shard_index
from biggan.data.shards import (
    INDEX,
    ShardContents,
    count_shards,
    index_file,
    number_classes,
    read_index,
    shard_name,
)
from biggan.data.tars import read_class_names, read_stream
from biggan.errors import InputError
from data_forms import pictures, shuffled, write_shards, write_tar

FILES = shuffled(pictures(10))


def shards(folder):
    return [str(path) for path in sorted(folder.glob("*.tar"))]


def refusal(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def counted(folder, workers=1):
    urls = shards(folder)
    assert count_shards(urls, folder / INDEX, workers=workers)
    return urls, read_index(urls, folder / INDEX)


def expected(files, label):
    """What a shard of these files holds."""
    labels = [label(name.split("/")[0]) for name in files]
    counts = tuple((value, labels.count(value)) for value in sorted(set(labels)))
    return ShardContents(counts, sum(map(len, files.values())))


@pytest.mark.parametrize("form", ["cls", "json"])
def test_the_index_tells_samples_labels_and_sizes(tmp_path, form):
    write_shards(tmp_path, FILES, per_shard=6, label=form)
    label = str if form == "json" else ("cat", "dog").index
    items = list(FILES.items())
    parts = [dict(items[start : start + 6]) for start in range(0, 20, 6)]
    _, contents = counted(tmp_path)
    assert contents == [expected(part, label) for part in parts]
    assert [shard.samples for shard in contents] == [6, 6, 6, 2]


def test_labels_of_all_kinds_survive_the_index(tmp_path):
    image = FILES["cat/0000.png"]
    members = [("0.png", image), ("1.png", image), ("1.cls", b"7"), ("2.png", image)]
    members += [("2.json", b'{"label": "hen"}'), ("3.png", image), ("3.cls", b"-1")]
    write_tar(tmp_path / "a.tar", members)
    _, (shard,) = counted(tmp_path)
    assert dict(shard.labels) == {None: 1, 7: 1, "hen": 1, -1: 1}
    assert {type(label) for label, _ in shard.labels} == {type(None), int, str}


def test_counting_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    write_shards(tmp_path, FILES, per_shard=4)
    urls, file = shards(tmp_path), tmp_path / INDEX
    read = []
    real = shard_index.read_stream
    monkeypatch.setattr(
        shard_index, "read_stream", lambda url, *more: read.append(url) or real(url, *more)
    )
    turns = 0
    while not count_shards(urls, file, workers=1, seconds=0):
        turns += 1
        assert (read_index(urls, file) is None) is (turns < 5)
    assert turns == 4
    assert set(read) == set(urls)
    assert [shard.samples for shard in read_index(urls, file)] == [4] * 5
    read.clear()
    assert count_shards(urls, file)
    assert read == []


def test_what_was_counted_before_a_damaged_shard_stays_counted(tmp_path, monkeypatch):
    write_shards(tmp_path, FILES, per_shard=4)
    urls, file = shards(tmp_path), tmp_path / INDEX
    whole = (tmp_path / "train-0003.tar").read_bytes()
    (tmp_path / "train-0003.tar").write_bytes(whole[:700])
    assert "cannot read the shard" in refusal(count_shards, urls, file, workers=1)
    assert len(json.loads(file.read_text())["shards"]) == 3


def test_a_shard_that_was_replaced_is_counted_again(tmp_path):
    write_shards(tmp_path, FILES, per_shard=10)
    assert [shard.samples for shard in counted(tmp_path)[1]] == [10, 10]
    write_shards(tmp_path, dict(list(FILES.items())[:15]), per_shard=10)
    assert read_index(shards(tmp_path), tmp_path / INDEX) is None
    assert [shard.samples for shard in counted(tmp_path)[1]] == [10, 5]


@pytest.mark.parametrize(
    "shards",
    ['"a"', '{"a": {"bytes": 1}}', '{"a": {"bytes": "1", "labels": []}}']
    + [f'{{"a": {{"bytes": 1, "labels": {labels}}}}}' for labels in ("[1]", "[[[], 1]]")],
)
def test_a_damaged_index_is_named(tmp_path, shards):
    file = tmp_path / INDEX
    current = f'{{"format": "biggan shard index, version 2", "shards": {shards}}}'
    for content in (current, "[]", "{", '{"format": "x", "shards": {}}'):
        file.write_text(content)
        assert "delete it to count again" in refusal(read_index, [], file)


def test_where_the_index_lies(tmp_path, monkeypatch):
    shard, run = str(tmp_path / "shards" / "a.tar"), tmp_path / "run"
    (tmp_path / "shards").mkdir()
    assert index_file([shard]) == index_file([shard], run) == tmp_path / "shards" / INDEX
    assert index_file(["https://host/a.tar"], run) == run / INDEX
    assert "say where" in refusal(index_file, ["pipe:cat a.tar"])
    monkeypatch.setattr("os.access", lambda *_: False)
    assert index_file([shard], run) == run / INDEX
    (tmp_path / "shards" / INDEX).touch()  # others have counted them
    assert index_file([shard], run) == tmp_path / "shards" / INDEX
    write_shards(tmp_path, FILES)
    missing = tmp_path / "none" / INDEX
    assert "no such folder" in refusal(count_shards, shards(tmp_path), missing)


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


def held(*labels):
    """Shards with one label each."""
    names = [f"/data/{number}.tar" for number in range(len(labels))]
    return names, [ShardContents(((label, 2),), 1) for label in labels]


def test_classes_are_those_given_or_beside_the_shards_or_the_labels(tmp_path):
    assert number_classes(*held("dog", "cat", "dog"), None)[1] == ("cat", "dog")
    assert number_classes(*held(2, 0, 1), None)[1] == ("0", "1", "2")
    assert number_classes(*held("dog", 0), ("cat", "dog"))[1] == ("cat", "dog")
    assert number_classes(*held("dog", None), ())[1] == ()
    (tmp_path / "classes.txt").write_text("cat\n\ndog\n")
    _, contents = held(0, 1)
    urls = [str(tmp_path / "a.tar"), str(tmp_path / "b.tar")]
    assert number_classes(urls, contents, None)[1] == ("cat", "dog")
    assert number_classes(urls, contents, ("hen", "eel"))[1] == ("hen", "eel")
    addresses = [f"https://host{url}" for url in urls]
    assert number_classes(addresses, contents, None)[1] == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        (("cat", None), ("cat", "dog"), "1.tar has no label.*unconditional=true"),
        (("cat", 2), ("cat", "dog"), "1.tar has the label 2, which none of the 2 class names"),
        ((0, -1), None, "1.tar has no label"),
        (("cat", "hen"), ("cat", "dog"), "1.tar has the label 'hen'"),
        (("cat", "cat"), ("cat", "dog"), "1 of 2 classes have no image.*'dog'"),
        ((0, 3), None, "2 of 4 classes have no image.*'1'"),
        (("cat", "cat"), None, "several classes, and there is one.*unconditional=true"),
        ((3, "cat"), None, "some labels are numbers and some are names, such as 3 and 'cat'"),
        ((0, 1), ("cat", "cat"), "two classes are called 'cat'"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels, given, message):
    with pytest.raises(InputError, match=message):
        number_classes(*held(*labels), given)


def test_class_names_come_from_a_text_file(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("tabby, tabby cat\n  dog \n\n")
    assert read_class_names(file) == ("tabby, tabby cat", "dog")
    file.write_bytes("\ufefftabby\r\ndog\r\n".encode())  # as Notepad writes it
    assert read_class_names(file) == ("tabby", "dog")
    file.write_text("dog\n\ndog\n")
    assert "names.txt: two classes are called 'dog'" in refusal(read_class_names, file)
    file.write_text("dog\n")
    assert "several classes, and there is one" in refusal(read_class_names, file)
    file.write_bytes(b"\xff\n")
    assert "not a text file in UTF-8" in refusal(read_class_names, file)
    assert "cannot read the class names" in refusal(read_class_names, tmp_path / "none.txt")


def test_files_of_the_system_are_no_samples(tmp_path):
    image = FILES["cat/0000.png"]
    names = ["a/0.jpg", "a/._0.jpg", "@eaDir/0.jpg/thumb.jpg", "a/.ipynb_checkpoints/0.jpg"]
    path = write_tar(tmp_path / "a.tar", [(name, image) for name in names])
    assert [sample.place for sample in read_stream(str(path), path.name, Counter())] == [
        "a.tar/a/0.jpg"
    ]


def test_both_spellings_of_an_accent_are_one_class():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    contents = [ShardContents(((composed, 1), (decomposed, 2), ("tea", 1)), 10)]
    for given in (None, ["tea", decomposed]):
        numbers, table = number_classes(["https://example.org/a.tar"], contents, given)
        assert set(table) == {composed, "tea"}
        assert numbers[composed] == numbers[decomposed] == table.index(composed)


def test_a_number_of_any_size_makes_no_table():
    contents = [ShardContents(((0, 1), (10**12, 1)), 10)]
    with pytest.raises(InputError, match="999999999999 of 1000000000001 classes have no image"):
        number_classes(["https://example.org/a.tar"], contents, None)
