"""What is said of a dataset without decoding it, against what loading it finds."""

import pytest

from biggan.data import load_dataset, pack_dataset
from biggan.data.outline import outline_dataset
from biggan.errors import InputError
from data_forms import pictures, write_folder, write_parquet, write_shards, write_zip

FILES = pictures(3)
FORMS = {
    "folder": lambda path: write_folder(path / "pets", FILES),
    "zip": lambda path: write_zip(path / "pets.zip", FILES),
    "parquet": lambda path: write_parquet(path / "pets.parquet", FILES),
    "shards": lambda path: write_shards(path / "pets", FILES),
    "digits": lambda path: "digits",
}


@pytest.fixture
def packed(tmp_path):
    pack_dataset(write_folder(tmp_path / "pets", FILES), tmp_path / "packed", 8)
    return tmp_path / "packed"


def assert_agrees(outline, data):
    assert (len(outline), outline.class_names) == (len(data), data.class_names)
    assert (outline.num_classes, outline.source) == (data.num_classes, data.source)


@pytest.mark.parametrize("unconditional", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_an_outline_agrees_with_the_dataset_and_decodes_nothing(
    tmp_path, monkeypatch, form, unconditional
):
    path = FORMS[form](tmp_path)
    data = load_dataset(path, 8, 3, unconditional=unconditional)
    monkeypatch.setattr("biggan.data.reading.decode_image", None)
    outline = outline_dataset(path, 8, 3, unconditional=unconditional)
    assert_agrees(outline, data)
    assert outline.fingerprint == (data.fingerprint if form == "digits" else None)
    assert not outline.is_mapped


def test_a_packed_dataset_says_everything_of_itself(packed, monkeypatch):
    data = load_dataset(packed, 8, 3)
    monkeypatch.setattr("biggan.data.dataset.fingerprint_start", None)
    outline = outline_dataset(packed, 8, 3)
    assert_agrees(outline, data)
    assert outline.fingerprint == data.fingerprint
    assert outline.is_mapped
    # Without its classes it is another dataset, whose fingerprint nobody has recorded.
    assert outline_dataset(packed, 8, 3, unconditional=True).fingerprint is None


def test_what_loading_would_refuse_is_refused(tmp_path, packed, monkeypatch):
    def refused(source, message, resolution=8, channels=3, **options):
        with pytest.raises(InputError, match=message):
            outline_dataset(source, resolution, channels, **options)

    refused(tmp_path / "none", "no such file or folder")
    refused(packed, "packed at 8 px", resolution=16)
    refused(packed, "not 2", channels=2)
    folder = write_folder(tmp_path / "bad", FILES | {"cat/9.png": b"no picture"})
    assert len(outline_dataset(folder, 8, 3)) == 7  # whether it is one, nobody has looked
    refused(folder, "1 corrupt image of 7: cat/9.png", strict=True)
    monkeypatch.setattr("biggan.data.dataset._default_memory_limit", lambda: 100)
    refused(folder, "7 images at 8 px need .* choose a smaller resolution")
