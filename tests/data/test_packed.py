"""The packed form: opened without reading it, and damage found."""

import json
import shutil

import numpy as np
import pytest
import torch

from biggan.data import load_dataset, packed
from biggan.data.packed import pack_dataset, read_header, verify
from biggan.errors import InputError
from data_forms import pictures, write_folder


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    pack_dataset(write_folder(folder / "pets", pictures(5)), folder / "out", 8)
    return folder / "out"


@pytest.fixture
def out(original, tmp_path):
    return shutil.copytree(original, tmp_path / "out")


def refusal(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def flip(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def test_the_files_are_what_the_guide_says(out):
    about = json.loads((out / "dataset.json").read_text())
    shape = tuple(about[key] for key in ("num_images", "image_channels", "resolution"))
    assert shape == (10, 3, 8)
    images = np.memmap(out / "images.bin", np.uint8, "r", shape=(10, 3, 8, 8))
    data = load_dataset(out, 8, 3)
    assert np.array_equal(images, data.images)
    assert np.load(out / "labels.npy").tolist() == data.labels.tolist() == [0] * 5 + [1] * 5


def test_images_are_mapped_and_not_read(out, monkeypatch):
    monkeypatch.setattr("biggan.data.loading.memory_limit", lambda: 0)
    data = load_dataset(out, 8, 3)
    before = data.images[3, 0, 0, 0].item()
    flip(out / "images.bin", 0)
    assert data.images[0, 0, 0, 0] == (out / "images.bin").read_bytes()[0]
    assert data.images[3, 0, 0, 0] == before
    assert data.fingerprint == read_header(out).fingerprint


def test_a_copy_needs_no_permission_to_write(out):
    for file in out.iterdir():
        file.chmod(0o444)
    assert load_dataset(out, 8, 3).images.dtype == torch.uint8


@pytest.mark.parametrize("file", ["images.bin", "labels.npy"])
@pytest.mark.parametrize(("change", "fault"), [(-1, "truncated"), (1, "too long")])
def test_wrong_sizes_are_found_at_once(out, file, change, fault):
    data = (out / file).read_bytes()
    (out / file).write_bytes(data[:change] if change < 0 else data + b"0")
    sizes = f"{len(data) + change} bytes instead of {len(data)}"
    for check in (verify, read_header, lambda path: load_dataset(path, 8, 3)):
        message = refusal(check, out)
        assert message.startswith(f"{out / file} is {fault}: {sizes}")


def test_a_missing_file_is_named(out):
    (out / "images.bin").unlink()
    assert str(out / "images.bin") in refusal(load_dataset, out, 8, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"cat"', '"cow"'),
        lambda text: text.replace('"num_images": 10', '"num_images": 9'),
        lambda text: text.replace('"skipped": []', '"skipped": ["cat/0009.png"]'),
        lambda text: text[:200],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: "",
    ],
)
def test_an_edited_or_cut_header_is_found(out, change):
    before = (out / "dataset.json").read_text()
    (out / "dataset.json").write_text(change(before))
    assert (out / "dataset.json").read_text() != before
    assert "was changed or is damaged" in refusal(load_dataset, out, 8, 3)
    assert "was changed or is damaged" in refusal(verify, out)


def test_a_later_format_is_named(out):
    text = (out / "dataset.json").read_text().replace("version 1", "version 2")
    (out / "dataset.json").write_text(text)
    assert "'biggan packed images, version 2'" in refusal(load_dataset, out, 8, 3)


def test_damaged_labels_are_found_when_opened(out):
    flip(out / "labels.npy", -8)
    assert "labels.npy is damaged" in refusal(load_dataset, out, 8, 3)
    assert "labels.npy is damaged" in refusal(verify, out)


def test_damaged_pixels_are_found_and_placed(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "_PIECE", 400)  # two images and a bit
    out = tmp_path / "out"
    pack_dataset(write_folder(tmp_path / "pets", pictures(5)), out, 8)
    header = verify(out)
    assert header == read_header(out)
    assert len(header.images_sha256) == 5
    flip(out / "images.bin", 5 * 192 + 3)
    assert "somewhere in the images 4 to 6: pack it again" in refusal(verify, out)
    flip(out / "images.bin", 9 * 192 + 191)
    assert "the images 4 to 6, 8 to 9:" in refusal(verify, out)
    for position in range(0, 10 * 192, 192):
        flip(out / "images.bin", position)
    assert "and 2 more places" in refusal(verify, out)


@pytest.mark.parametrize(("resolution", "channels"), [(16, 3), (8, 1)])
def test_another_form_says_how_to_pack_again(out, resolution, channels):
    message = refusal(load_dataset, out, resolution, channels)
    assert message == (
        f"{out} was packed at 8 px with 3 channels, and {resolution} px with {channels} are "
        f"needed: pack it again, `biggan data pack SOURCE OUT --resolution {resolution} "
        f"--channels {channels}`"
    )


def test_other_folders_are_no_packed_datasets(tmp_path):
    assert "is no packed dataset" in refusal(read_header, tmp_path)
    assert "is no packed dataset" in refusal(verify, tmp_path / "nowhere")
    # A folder of class folders may well hold a file of that name.
    folder = write_folder(tmp_path / "pets", {**pictures(2), "dataset.json": b"{}"})
    assert len(load_dataset(folder, 8, 3)) == 4
