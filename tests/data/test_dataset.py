"""Datasets in memory: what is loaded, what is left out, and what is known before loading."""

import io
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from sklearn import datasets

from biggan.data import ImageDataset, load_dataset, loading, pack_dataset
from biggan.data.loading import outline_dataset
from data_forms import (
    FORMS,
    cut_short,
    encode,
    pictures,
    png,
    refusal,
    wide,
    write_folder,
    write_zip,
)

PICTURES = [png(seed) for seed in range(5)]
NAMES = ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "dog/2.png"]
FILES = dict(zip(NAMES, (data for data, _ in PICTURES), strict=True))
PIXELS = torch.stack([torch.from_numpy(pixels.copy()) for _, pixels in PICTURES])


@pytest.mark.parametrize("kind", ["folder", "zip", "wrapped zip"])
def test_a_folder_and_a_zip_give_the_same_dataset(tmp_path, kind):
    if kind == "folder":
        path = write_folder(tmp_path / "pets", FILES)
    else:
        wrap = "train/" if kind == "wrapped zip" else ""
        path = write_zip(tmp_path / "pets.zip", {wrap + name: data for name, data in FILES.items()})
    data = load_dataset(str(path), 8, 3)
    assert torch.equal(data.images, PIXELS)
    assert data.labels.tolist() == [0, 0, 1, 1, 1]
    assert (data.images.dtype, data.labels.dtype) == (torch.uint8, torch.int64)
    assert (data.class_names, data.num_classes) == (("cat", "dog"), 2)
    assert (data.source, data.skipped, len(data)) == (path.name, (), 5)
    assert data.histogram() == [2, 3]
    assert len(repr(data)) < 200
    assert list(tmp_path.iterdir()) == [path]  # a zip is read in place


def test_the_result_does_not_depend_on_the_number_of_threads(tmp_path):
    files = {f"{'ab'[i % 2]}/{i:03}.png": png(i, 2)[0] for i in range(300)}
    path = write_folder(tmp_path, files)
    one, many = (load_dataset(path, 2, 3, workers=workers).images for workers in (1, 7))
    assert torch.equal(one, many)
    assert (one[-1].numpy() == png(299, 2)[1]).all()


def test_the_path_may_be_the_working_folder_or_have_a_tilde(tmp_path, monkeypatch):
    write_folder(tmp_path / "pets", FILES)
    monkeypatch.chdir(tmp_path / "pets")
    assert load_dataset(".", 8, 3).source == "pets"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_dataset("~/pets", 8, 3)) == 5


def test_the_word_digits_means_the_built_in_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(write_folder(tmp_path, {f"digits/{name}": d for name, d in FILES.items()}))
    data, original = load_dataset("digits", 8, 1), datasets.load_digits()
    assert data.images.shape == (1797, 1, 8, 8)
    assert data.labels.tolist() == original.target.tolist()
    # At their own size the 17 levels are only stretched to 0..255.
    np.testing.assert_array_equal(data.images[:, 0].numpy(), np.round(original.images * 255 / 16))
    assert (data.class_names[0], data.class_names[7], data.source) == ("zero", "seven", "digits")
    grey, colour = load_dataset("digits", 32, 1).images, load_dataset("digits", 32, 3).images
    first = Image.fromarray(data.images[0, 0].numpy()).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(grey[0, 0].numpy(), np.asarray(first))
    assert torch.equal(colour, grey.expand(-1, 3, -1, -1))
    for folder in ("./digits", Path("digits")):
        assert load_dataset(folder, 8, 3).class_names == ("cat", "dog")
    monkeypatch.delattr("sklearn.datasets")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert "pip install 'biggan[train]'" in refusal(load_dataset, "digits", 8, 1)


def test_without_classes_labels_are_zero_and_names_are_none(tmp_path):
    flat = {f"{index}.png": data for index, (data, _) in enumerate(PICTURES)}
    for source in (write_folder(tmp_path, flat), "digits"):
        data = load_dataset(source, 8, 3, unconditional=True)
        assert not data.labels.any()
        assert len(data.labels) == len(data.images)
        assert (data.class_names, data.num_classes, data.histogram()) == ((), 0, [])


def test_the_fingerprint_tells_datasets_apart(tmp_path):
    data = load_dataset(write_folder(tmp_path / "a", FILES), 8, 3)
    same = load_dataset(write_zip(tmp_path / "b.zip", FILES), 8, 3)
    assert data.fingerprint == same.fingerprint
    assert len(data.fingerprint) == 64
    changed = data.images.clone()
    changed[4, 2, 7, 7] ^= 1
    others = [
        ImageDataset(changed, data.labels, data.class_names, "a"),
        ImageDataset(data.images, data.labels.flip(0), data.class_names, "a"),
        ImageDataset(data.images, data.labels, ("cat", "fox"), "a"),
        ImageDataset(data.images.reshape(5, 12, 4, 4), data.labels, data.class_names, "a"),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_corrupt_images_are_left_out_with_one_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = write_folder(tmp_path / "a", cut_short(FILES, "cat/0.png", "dog/1.png"))
    data = load_dataset(path, 8, 3)
    what = "2 corrupt images of 5: cat/0.png, dog/1.png (image file is truncated)"
    assert torch.equal(data.images, PIXELS[[1, 2, 4]])
    assert data.labels.tolist() == [0, 1, 1]
    assert data.skipped == ("cat/0.png", "dog/1.png")
    assert refusal(load_dataset, path, 8, 3, strict=True) == f"{path} has {what}"
    # Those with the same reason are named together.
    bmp = encode(Image.new("RGB", (8, 8)), "BMP")
    others = {"cat/x.png": b"", "dog/x.png": b"text", "cat/1.bmp": bmp[:-1], "cat/2.bmp": bmp[:-2]}
    files = cut_short(FILES, "cat/0.png", "dog/0.png") | others
    load_dataset(write_folder(tmp_path / "b", files), 8, 3)
    many = FILES | {f"dog/x{index}.png": b"" for index in range(8)}
    load_dataset(write_folder(tmp_path / "c", many), 8, 3)
    assert caplog.messages == [
        f"skipped {what}",
        "skipped 6 corrupt images of 9: cat/0.png, dog/0.png (image file is truncated); "
        "cat/1.bmp, cat/2.bmp (image file is truncated (23 bytes not processed)); "
        "cat/x.png (the file is empty); dog/x.png (not in an image format that Pillow reads)",
        "skipped 8 corrupt images of 13: "
        "dog/x0.png, dog/x1.png, dog/x2.png, dog/x3.png, dog/x4.png and 3 more (the file is empty)",
    ]


def test_what_is_no_image_is_counted_by_ending(tmp_path, caplog):
    others = ["cat/a.heic", "dog/b.HEIC", "dog/c.txt", "cat/.hidden", "dog/README"]
    files = FILES | dict.fromkeys(others, b"")
    for path in (write_folder(tmp_path / "pets", files), write_zip(tmp_path / "pets.zip", files)):
        caplog.clear()
        load_dataset(path, 8, 3)
        assert caplog.messages == [
            "skipped 4 files that are not images: 2 .heic, 1 without an extension, 1 .txt"
        ]


def test_images_with_16_bits_share_the_range_that_they_use(tmp_path, caplog):
    files = {"a/0.png": wide(4095), "a/1.png": wide(2047), "b/0.png": wide(300)}
    path = write_folder(tmp_path, files | {"b/1.png": png(0)[0]})
    assert load_dataset(path, 8, 1).images[:3, 0, 0, 0].tolist() == [255, 127, 19]
    assert caplog.messages == [
        "the 3 images with 16 bits use 12 bits, up to level 4095: that level is white"
    ]
    write_folder(path, {"b/2.png": wide(65000)})
    caplog.clear()
    assert load_dataset(path, 8, 1).images[:3, 0, 0, 0].tolist() == [16, 8, 1]
    assert caplog.messages == [
        "3 of 4 images with 16 bits are nearly black, with no level over 4095 of 65535, such as "
        "a/0.png: if they use fewer bits than the others, save them with 8"
    ]


def test_a_class_or_a_dataset_that_is_lost_is_refused(tmp_path):
    path = write_folder(tmp_path / "a", cut_short(FILES, "cat/0.png", "cat/1.png"))
    assert refusal(load_dataset, path, 8, 3).startswith(
        f"{path}: no image of class 'cat' can be read, 2 corrupt images of 5"
    )
    path = write_folder(tmp_path / "b", cut_short(FILES, *FILES))
    for unconditional in (False, True):
        message = refusal(load_dataset, path, 8, 3, unconditional=unconditional)
        assert message.startswith(f"{path}: no image can be read, 5 corrupt images of 5")


def test_what_does_not_fit_in_memory_is_refused_before_decoding(tmp_path, monkeypatch):
    path = write_folder(tmp_path, FILES)
    needed = 5 * 3 * 8 * 8
    machine = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    with monkeypatch.context() as patch:
        patch.setattr("os.sysconf", machine.__getitem__)
        assert loading.memory_limit() == int(0.6 * 4096000)
        patch.delattr("os.sysconf")
        assert loading.memory_limit() is None
    monkeypatch.setattr(loading, "memory_limit", lambda: needed)
    assert len(load_dataset(path, 8, 3)) == 5
    monkeypatch.setattr("biggan.data.sources.decode_image", None)
    monkeypatch.setattr(loading, "memory_limit", lambda: needed - 1)
    assert "choose a smaller resolution or fewer images" in refusal(load_dataset, path, 8, 3)
    monkeypatch.setattr(loading, "memory_limit", lambda: 3 * 2**29)
    message = f"{path}: 5 images at 131072 px need 240.00 GiB of memory and the limit is 1.50"
    assert message in refusal(load_dataset, path, 131072, 3)


def test_mistakes_reach_the_user(tmp_path):
    for channels in (0, 2, 4):
        message = f"images have 1 channel (grey) or 3 (colour), not {channels}"
        assert refusal(load_dataset, "digits", 8, channels) == message
    assert "at least 1 pixel, not 0" in refusal(load_dataset, "digits", 0, 1)
    assert "must be a whole number, not '8'" in refusal(load_dataset, "digits", "8", 1)
    folder = write_folder(tmp_path / "ImageNet" / "train", FILES)
    assert f"did you mean {folder}?" in refusal(load_dataset, tmp_path, 8, 3)
    assert "must be one of" in refusal(load_dataset, folder, 8, 3, resize="fit")
    for workers in (0, -1, "two"):
        assert "number of workers must be" in refusal(load_dataset, folder, 8, 3, workers=workers)
    both = {f"{part}/{n}": d for part in ("train", "val") for n, d in FILES.items()}
    path = write_zip(tmp_path / "both.zip", both)
    assert "::train?" in refusal(load_dataset, path, 8, 3)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("progress", [True, False])
def test_the_bar_shows_on_a_slow_loading_at_a_terminal_only(tmp_path, monkeypatch, progress):
    from biggan.data import sources

    path = write_folder(tmp_path, FILES)
    bars = []

    def impatient(**options):
        assert options.pop("delay") == 2
        bars.append(options)
        return REAL_BAR(**options)

    REAL_BAR = sources.tqdm
    monkeypatch.setattr(sources, "tqdm", impatient)
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        load_dataset(path, 8, 3, progress=progress)
        assert ("5/5" in stream.getvalue()) is (progress and stream.isatty())
    assert [bar["total"] for bar in bars] == [5, 5]


@pytest.mark.parametrize("where", ["tqdm.update", "decode_image"])
def test_an_interrupt_ends_the_work(tmp_path, monkeypatch, where):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    def slowly(path):  # so that the interrupt gets its turn on a busy machine
        time.sleep(0.005)
        read.append(path)
        return PICTURES[0][0]

    read = []
    monkeypatch.setattr(Path, "read_bytes", slowly)
    monkeypatch.setattr(f"biggan.data.sources.{where}", interrupt)
    files = {f"{'ab'[i % 2]}/{i}.png": b"" for i in range(1000)}
    with pytest.raises(KeyboardInterrupt):
        load_dataset(write_folder(tmp_path, files), 8, 3, workers=1)
    assert len(read) < 700


PETS = pictures(7)


def assert_agrees(outline, data):
    assert (len(outline), outline.class_names) == (len(data), data.class_names)
    assert (outline.num_classes, outline.source) == (data.num_classes, data.source)


@pytest.mark.parametrize("form", [*FORMS, "digits"])
def test_an_outline_agrees_with_the_dataset_and_decodes_nothing(tmp_path, monkeypatch, form):
    path = "digits" if form == "digits" else FORMS[form](tmp_path, PETS)
    data = [load_dataset(path, 8, 3, unconditional=without) for without in (False, True)]
    monkeypatch.setattr("biggan.data.sources.decode_image", None)
    for without in (False, True):
        outline = outline_dataset(path, 8, 3, unconditional=without)
        assert_agrees(outline, data[without])
        assert outline.fingerprint == (data[without].fingerprint if form == "digits" else None)
        assert not outline.is_mapped


def test_the_outline_of_a_packed_dataset_reads_no_pixels(tmp_path, monkeypatch):
    pack_dataset(write_folder(tmp_path / "pets", PETS), tmp_path / "packed", 8)
    data = load_dataset(tmp_path / "packed", 8, 3)
    monkeypatch.setattr("biggan.data.dataset.fingerprint_start", None)
    outline = outline_dataset(tmp_path / "packed", 8, 3)
    assert_agrees(outline, data)
    assert outline.fingerprint == data.fingerprint
    assert outline.is_mapped
    # Without its classes it is another dataset, whose fingerprint is not recorded.
    assert outline_dataset(tmp_path / "packed", 8, 3, unconditional=True).fingerprint is None
    assert "packed at 8 px" in refusal(outline_dataset, tmp_path / "packed", 16, 3)


def test_what_loading_would_refuse_an_outline_refuses(tmp_path, monkeypatch):
    assert "no such file or folder" in refusal(outline_dataset, tmp_path / "none", 8, 3)
    assert "not 2" in refusal(outline_dataset, "digits", 8, 2)
    folder = write_folder(tmp_path / "bad", PETS | {"cat/9.png": b"no picture"})
    assert len(outline_dataset(folder, 8, 3)) == 15  # it is listed and not looked at
    message = refusal(outline_dataset, folder, 8, 3, strict=True)
    assert "1 corrupt image of 15: cat/9.png" in message
    monkeypatch.setattr(loading, "memory_limit", lambda: 100)
    assert "15 images at 8 px need" in refusal(outline_dataset, folder, 8, 3)


@pytest.mark.parametrize(
    ("images", "labels", "names"),
    [
        (torch.zeros(2, 3, 8, 8), [0, 1], "ab"),  # floats
        (torch.zeros(2, 3, 8, 9, dtype=torch.uint8), [0, 1], "ab"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), [0, 1, 1], "ab"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [0], "ab"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [0, 2], "ab"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [0, 1], ""),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [-1, 1], "ab"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [0.0, 1.0], "ab"),
        (np.zeros((2, 3, 8, 8), np.uint8), [0, 1], "ab"),
    ],
)
def test_tensors_that_are_no_dataset_are_refused(images, labels, names):
    message = refusal(ImageDataset, images, torch.tensor(labels), tuple(names), "mine")
    assert message.startswith(("a dataset has images uint8 (N, C, R, R)", "the labels"))
