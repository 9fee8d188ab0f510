"""Parquet files: what Hugging Face writes, what others write, and what cannot be used."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from biggan.data import load_dataset
from biggan.data.decoding import CorruptImageError
from biggan.data.sources import open_source
from data_forms import pictures, png, refusal, shuffled, write_folder, write_parquet

FILES = pictures(4)
DATA = [png(seed)[0] for seed in range(3)]


def refused(path, **options):
    return refusal(load_dataset, path, 8, 3, **options)


def write(path, columns, names=None, **features):
    table = pa.table(columns)
    if names is not None:
        features["label"] = {"_type": "ClassLabel", "names": names}
    if features:
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": text})
    pq.write_table(table, path)
    return path


def test_images_may_be_plain_bytes_without_names_or_metadata(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", shuffled(FILES), named=False, metadata=False)
    data = load_dataset(path, 8, 3)
    assert data.class_names == ("0", "1")
    # Without names, images of a class stay in the order of the rows.
    order = [name for c in ("cat", "dog") for name in shuffled(FILES) if name.startswith(c)]
    folder = {f"{name[:3]}/{i:04}.png": FILES[name] for i, name in enumerate(order)}
    expected = load_dataset(write_folder(tmp_path / "folder", folder), 8, 3)
    assert torch.equal(data.images, expected.images)


@pytest.mark.parametrize(
    ("labels", "table", "names"),
    [
        (["b", "a", "b"], None, ("a", "b")),
        (pa.array(["b", "a", "b"], pa.large_string()), None, ("a", "b")),
        (pa.array(["b", "a", "b"]).dictionary_encode(), None, ("a", "b")),
        (pa.array([1, 0, 1], pa.uint8()), None, ("0", "1")),
        ([1, 0, 1], ["zebra", "ape"], ("zebra", "ape")),  # in the order of the table
    ],
)
@pytest.mark.parametrize("images", [DATA, pa.array(DATA).dictionary_encode()])
def test_labels_may_be_numbers_and_names_of_any_type(tmp_path, images, labels, table, names):
    path = write(tmp_path / "a.parquet", {"image": images, "label": labels}, table)
    data = load_dataset(path, 8, 3)
    assert (data.class_names, data.labels.tolist()) == (names, [0, 1, 1])
    assert torch.equal(data.images[0], torch.from_numpy(png(1)[1].copy()))


def test_columns_of_other_names_are_found_by_their_declared_types(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", FILES, image="img")
    assert len(load_dataset(path, 8, 3)) == 8
    path = write_parquet(tmp_path / "b.parquet", FILES, image="img", metadata=False)
    assert refused(path) == f"{path} has no column 'image', only img, label"


def test_a_column_of_labels_can_be_chosen(tmp_path):
    columns = {"image": DATA, "fine": [0, 1, 2], "coarse": [1, 0, 1]}
    features = {
        name: {"_type": "ClassLabel", "names": [f"{name} {number}" for number in range(3)][:size]}
        for name, size in (("fine", 3), ("coarse", 2))
    }
    path = write(tmp_path / "a.parquet", columns, **features)
    assert "image, fine, coarse: choose that of the labels with --label-column" in refused(path)
    data = load_dataset(path, 8, 3, label_column="coarse")
    assert data.class_names == ("coarse 0", "coarse 1")
    assert data.labels.tolist() == [0, 1, 1]
    assert "has no column 'bad', only image" in refused(path, label_column="bad")


def test_several_files_are_one_dataset(tmp_path):
    names = list(FILES)
    for part in range(2):
        mixed = {name: FILES[name] for name in names[part::2]}
        write_parquet(tmp_path / "all" / f"train-0000{part}-of-00002.parquet", mixed)
    folder = load_dataset(write_folder(tmp_path / "folder", FILES), 8, 3)
    for source in (tmp_path / "all", tmp_path / "all" / "train-*.parquet"):
        assert load_dataset(source, 8, 3).fingerprint == folder.fingerprint
    write_parquet(tmp_path / "all" / "test-00000-of-00001.parquet", FILES)
    message = refused(tmp_path / "all")
    assert "the splits of a dataset (test, train)" in message
    assert len(load_dataset(message.rpartition("such as ")[2], 8, 3)) == 8


def test_row_groups_are_read_once_in_reading_order(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", shuffled(FILES), row_group_size=2)
    with open_source(path) as source:
        read = []
        real = pq.ParquetFile.read_row_group

        def counting(file, group, **options):
            read.append(group)
            return real(file, group, **options)

        monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
        for position in source.order:
            source.read(position)
    assert read == [0, 1, 2, 3]


def test_a_damaged_page_is_told_in_one_line(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", FILES)

    def fail(*arguments, **options):
        raise OSError("Couldn't deserialize thrift:\nDeserializing page header failed.\n")

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", fail)
    with open_source(path) as source, pytest.raises(CorruptImageError) as caught:
        source.read(0)
    assert str(caught.value) == ("Couldn't deserialize thrift: Deserializing page header failed.")


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.struct({"bytes": pa.binary(), "path": pa.string()})]
)
def test_a_row_without_an_image_is_corrupt(tmp_path, kind):
    images = DATA if kind == pa.binary() else [{"bytes": data, "path": None} for data in DATA]
    columns = {"image": pa.array([*images, None], kind), "label": [0, 1, 1, 1]}
    data = load_dataset(write(tmp_path / "a.parquet", columns), 8, 3)
    assert data.skipped == ("a.parquet:00000003",)


@pytest.mark.parametrize(
    ("columns", "names", "fault"),
    [
        ({"text": ["a", "b", "c"], "label": [0, 1, 1]}, None, "has no column 'image', only text"),
        ({"image": ["a", "b", "c"], "label": [0, 1, 1]}, None, "contains string, not image files"),
        ({"image": [{"path": "a"}] * 3, "label": [0, 1, 1]}, None, "contains struct"),
        (
            {"image": DATA},
            None,
            "no column 'label', only image: choose that of the labels with --l",
        ),
        ({"image": DATA, "label": [0.5, 1, 1]}, None, "contains double, not numbers or names"),
        ({"image": DATA, "label": [[0], [1, 0], []]}, None, "contains list<"),
        ({"image": DATA, "label": [["a"], ["b"], ["a"]]}, ["a", "b"], "contains list<"),
        ({"image": DATA, "label": [{"point": 0}] * 3}, None, "contains struct<point"),
        ({"image": DATA, "label": [[0], None, [1]]}, None, "one label per image, or train with"),
        ({"image": [[data] for data in DATA], "label": [0, 1, 1]}, None, "contains list"),
        ({"image": [{"bytes": [DATA[0]]}] * 3, "label": [0, 1, 1]}, None, "contains st"),
        ({"image": DATA, "label": [0, 2, 1]}, ["a", "b"], "a.parquet:00000001 has the label 2"),
        ({"image": DATA, "label": [0, None, 1]}, ["a", "b"], "a.parquet:00000001 has no label"),
        (
            {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())},
            None,
            "holds no images",
        ),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, columns, names, fault):
    message = refused(write(tmp_path / "a.parquet", columns, names))
    assert message.startswith(str(tmp_path / "a.parquet"))
    assert fault in message


def test_cut_files_and_others_are_refused(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": DATA})
    assert load_dataset(path, 8, 3, unconditional=True).class_names == ()
    whole = path.read_bytes()
    for content in (whole[:-50], whole[:100], b"", b"no parquet"):
        path.write_bytes(content)
        assert refused(path) == f"{path} is not a whole parquet file: copy or download it again"


def test_files_of_one_folder_have_the_same_columns(tmp_path, monkeypatch):
    write_parquet(tmp_path / "a.parquet", FILES)
    write_parquet(tmp_path / "b.parquet", FILES, named=False)
    assert f"{tmp_path / 'b.parquet'} and a.parquet have different columns" in refused(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    assert "pip install 'biggan[data]'" in refused(tmp_path)
