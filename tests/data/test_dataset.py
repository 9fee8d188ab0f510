import io
import logging
import os
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

import biggan.data
from biggan.data import ImageDataset, load_dataset
from biggan.errors import InputError
from biggan.images import make_grid, to_pil

SHARED = Path(os.environ.get("BIGGAN_SHARED", Path(__file__).parents[2].parent / "shared"))


def png(seed, size=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue(), torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def fill(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pack(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


PICTURES = [png(seed) for seed in range(5)]
NAMES = ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "dog/2.png"]
FILES = dict(zip(NAMES, (data for data, _ in PICTURES), strict=True))
PIXELS = torch.stack([pixels for _, pixels in PICTURES])


def refusal(*arguments, **options):
    with pytest.raises(InputError) as caught:
        load_dataset(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "zip", "wrapped zip"])
def test_a_folder_and_a_zip_give_the_same_dataset(tmp_path, kind):
    if kind == "folder":
        path = fill(tmp_path / "pets", FILES)
    else:
        wrap = "train/" if kind == "wrapped zip" else ""
        path = pack(tmp_path / "pets.zip", {wrap + name: data for name, data in FILES.items()})
    data = load_dataset(str(path), 8, 3)
    assert torch.equal(data.images, PIXELS)
    assert data.images.dtype == torch.uint8
    assert data.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.labels.dtype == torch.int64
    assert data.class_names == ("cat", "dog")
    assert data.source == path.name
    assert data.skipped == ()
    assert len(data) == 5
    assert data.num_classes == 2
    assert data.histogram() == [2, 3]


def test_a_zip_is_read_in_place(tmp_path):
    path = pack(tmp_path / "pets.zip", FILES)
    load_dataset(path, 8, 3)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("resolution", "channels"), [(4, 3), (16, 1)])
def test_images_have_the_asked_form(tmp_path, resolution, channels):
    data = load_dataset(fill(tmp_path, FILES), resolution, channels)
    assert data.images.shape == (5, channels, resolution, resolution)


def test_the_result_does_not_depend_on_the_number_of_threads(tmp_path):
    files = {f"{'ab'[i % 2]}/{i:03}.png": png(i, 2)[0] for i in range(300)}
    path = fill(tmp_path, files)
    one, many = (load_dataset(path, 2, 3, workers=workers) for workers in (1, 7))
    assert torch.equal(one.images, many.images)
    assert torch.equal(one.images[-1], png(299, 2)[1])


def test_the_name_for_people_is_no_path(tmp_path, monkeypatch):
    fill(tmp_path / "pets", FILES)
    monkeypatch.chdir(tmp_path / "pets")
    assert load_dataset(".", 8, 3).source == "pets"


def test_a_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path / "pets", FILES)
    assert len(load_dataset("~/pets", 8, 3)) == 5


def test_the_word_digits_means_the_built_in_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(fill(tmp_path, {f"digits/{name}": data for name, data in FILES.items()}))
    data = load_dataset("digits", 16, 1)
    assert data.images.shape == (1797, 1, 16, 16)
    assert data.class_names[3] == "three"
    assert data.source == "digits"
    assert sum(data.histogram()) == 1797
    assert min(data.histogram()) > 170
    for folder in ("./digits", Path("digits")):
        assert load_dataset(folder, 8, 3).class_names == ("cat", "dog")


def test_without_classes_labels_are_zero_and_names_are_none(tmp_path):
    flat = {f"{index}.png": data for index, (data, _) in enumerate(PICTURES)}
    for source in (fill(tmp_path, flat), "digits"):
        data = load_dataset(source, 8, 3, unconditional=True)
        assert not data.labels.any()
        assert len(data.labels) == len(data.images)
        assert data.class_names == ()
        assert data.num_classes == 0
        assert data.histogram() == []


def test_the_fingerprint_tells_datasets_apart(tmp_path):
    data = load_dataset(fill(tmp_path / "a", FILES), 8, 3)
    same = load_dataset(pack(tmp_path / "b.zip", FILES), 8, 3)
    assert data.fingerprint == same.fingerprint
    assert len(data.fingerprint) == 64
    changed = data.images.clone()
    changed[4, 2, 7, 7] ^= 1
    others = [
        ImageDataset(changed, data.labels, data.class_names, "a"),
        ImageDataset(data.images, data.labels.flip(0), data.class_names, "a"),
        ImageDataset(data.images, data.labels, ("cat", "fox"), "a"),
        ImageDataset(data.images.reshape(5, 3, 4, 16), data.labels, data.class_names, "a"),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_the_representation_is_short(tmp_path):
    assert len(repr(load_dataset(fill(tmp_path, FILES), 8, 3))) < 200


def corrupt_some(*names):
    return FILES | {name: FILES[name][:-40] for name in names}


def test_corrupt_images_are_left_out_with_one_warning(tmp_path, caplog):
    path = fill(tmp_path, corrupt_some("cat/0.png", "dog/1.png"))
    with caplog.at_level(logging.WARNING, "biggan.data"):
        data = load_dataset(path, 8, 3)
    assert [record.getMessage() for record in caplog.records] == [
        "skipped 2 corrupt images of 5: cat/0.png, dog/1.png (image file is truncated)"
    ]
    assert torch.equal(data.images, PIXELS[[1, 2, 4]])
    assert data.labels.tolist() == [0, 1, 1]
    assert data.skipped == ("cat/0.png", "dog/1.png")


def test_a_damaged_member_of_a_zip_is_left_out(tmp_path, caplog):
    path = pack(tmp_path / "pets.zip", FILES)
    content = bytearray(path.read_bytes())
    content[content.find(FILES["dog/0.png"]) + 60] ^= 255
    path.write_bytes(content)
    assert load_dataset(path, 8, 3).skipped == ("dog/0.png",)
    assert "dog/0.png" in caplog.text


def test_truncated_images_are_corrupt_whatever_pillow_is_set_to(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = fill(tmp_path, corrupt_some("dog/1.png"))
    assert load_dataset(path, 8, 3).skipped == ("dog/1.png",)


def bmp():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "BMP")
    return buffer.getvalue()


def test_corrupt_images_with_the_same_reason_are_named_together(tmp_path, caplog):
    others = {"cat/x.png": b"", "dog/x.png": b"text"}
    others |= {f"cat/{place}.bmp": bmp()[:-place] for place in (1, 2)}
    files = corrupt_some("cat/0.png", "dog/0.png") | others
    load_dataset(fill(tmp_path, files), 8, 3)
    assert caplog.messages == [
        "skipped 6 corrupt images of 9: cat/0.png, dog/0.png (image file is truncated); "
        "cat/1.bmp, cat/2.bmp (image file is truncated (23 bytes not processed)); "
        "cat/x.png (the file is empty); dog/x.png (not in an image format that Pillow reads)"
    ]


def test_what_is_no_image_is_counted_by_ending(tmp_path, caplog):
    others = ["cat/a.heic", "dog/b.HEIC", "dog/c.txt", "cat/.hidden", "dog/README"]
    files = FILES | dict.fromkeys(others, b"")
    for path in (fill(tmp_path / "pets", files), pack(tmp_path / "pets.zip", files)):
        caplog.clear()
        load_dataset(path, 8, 3)
        assert caplog.messages == [
            "left out 4 files not used as images: 2 .heic, 1 without an ending, 1 .txt"
        ]


def wide(level):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), level, np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def test_images_with_16_bits_share_the_range_that_they_use(tmp_path, caplog):
    files = {
        "a/0.png": wide(4095),
        "a/1.png": wide(2047),
        "b/0.png": wide(300),
        "b/1.png": png(0)[0],
    }
    path = fill(tmp_path, files)
    data = load_dataset(path, 8, 1)
    assert data.images[:3, 0, 0, 0].tolist() == [255, 127, 19]
    assert caplog.messages == [
        "the 3 images with 16 bits use 12 bits, up to level 4095: that level is white"
    ]
    fill(path, {"b/2.png": wide(65000)})
    caplog.clear()
    assert load_dataset(path, 8, 1).images[:3, 0, 0, 0].tolist() == [16, 8, 1]
    assert caplog.messages == [
        "3 of 4 images with 16 bits are nearly black, with no level over 4095 of 65535, such as "
        "a/0.png: if they use fewer bits than the others, save them with 8"
    ]


def test_many_corrupt_images_are_counted_and_not_all_named(tmp_path, caplog):
    files = FILES | {f"dog/x{index}.png": b"" for index in range(8)}
    load_dataset(fill(tmp_path, files), 8, 3)
    assert caplog.messages == [
        "skipped 8 corrupt images of 13: "
        "dog/x0.png, dog/x1.png, dog/x2.png, dog/x3.png, dog/x4.png and 3 more (the file is empty)"
    ]


def test_strict_loading_refuses_corrupt_images(tmp_path):
    path = fill(tmp_path, corrupt_some("cat/0.png"))
    assert refusal(path, 8, 3, strict=True) == (
        f"{path} has 1 corrupt image of 5: cat/0.png (image file is truncated)"
    )


def test_a_class_or_a_dataset_that_is_lost_is_refused(tmp_path):
    path = fill(tmp_path / "a", corrupt_some("cat/0.png", "cat/1.png"))
    assert refusal(path, 8, 3).startswith(
        f"{path}: no image of class 'cat' can be read, 2 corrupt images of 5"
    )
    path = fill(tmp_path / "b", corrupt_some(*FILES))
    assert refusal(path, 8, 3).startswith(f"{path}: no image can be read, 5 corrupt images of 5")
    assert refusal(path, 8, 3, unconditional=True).startswith(f"{path}: no image can")


def test_an_image_of_too_many_pixels_is_corrupt(tmp_path, monkeypatch):
    path = fill(tmp_path, FILES | {"dog/big.png": png(0, 10)[0]})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64)
    assert load_dataset(path, 8, 3).skipped == ("dog/big.png",)


def test_what_does_not_fit_in_memory_is_refused_before_decoding(tmp_path, monkeypatch):
    path = fill(tmp_path, FILES)
    needed = 5 * 3 * 8 * 8
    assert len(load_dataset(path, 8, 3, memory_limit=needed)) == 5
    monkeypatch.setattr("biggan.data.reading.decode_image", None)
    assert "choose a smaller resolution or fewer images" in refusal(
        path, 8, 3, memory_limit=needed - 1
    )
    assert f"{path}: 5 images at 131072 px need 240.00 GiB of memory and the limit is 1.50" in (
        refusal(path, 131072, 3, memory_limit=3 * 2**29)
    )


def test_the_memory_limit_is_a_share_of_the_machine(monkeypatch):
    machine = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr("os.sysconf", machine.__getitem__)
    assert biggan.data.dataset._default_memory_limit() == int(0.6 * 4096000)
    monkeypatch.delattr("os.sysconf")
    assert biggan.data.dataset._default_memory_limit() is None


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_numbers_of_channels_are_refused(channels):
    assert refusal("digits", 8, channels) == (
        f"images have 1 channel (grey) or 3 (colour), not {channels}"
    )


def test_a_resolution_of_nothing_is_refused():
    assert refusal("digits", 0, 1) == "the resolution must be at least 1 pixel, not 0"


def test_mistakes_about_the_path_reach_the_user(tmp_path):
    assert refusal(tmp_path / "nowhere", 8, 3).startswith("no such file or folder")
    fill(tmp_path / "ImageNet" / "train", FILES)
    message = refusal(tmp_path, 8, 3)
    assert f"did you mean {tmp_path / 'ImageNet' / 'train'}?" in message
    path = pack(
        tmp_path / "both.zip",
        {f"{part}/{n}": d for part in ("train", "val") for n, d in FILES.items()},
    )
    assert refusal(path, 8, 3).endswith("make a zip of train alone")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("progress", [True, False])
def test_the_bar_shows_on_a_slow_loading_at_a_terminal_only(tmp_path, monkeypatch, progress):
    from biggan.data import dataset

    path = fill(tmp_path, FILES)
    bars = []

    def impatient(**options):
        assert options.pop("delay") == 2
        bars.append(options)
        return REAL_BAR(**options)

    REAL_BAR = dataset.tqdm
    monkeypatch.setattr(dataset, "tqdm", impatient)
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        load_dataset(path, 8, 3, progress=progress)
        assert ("5/5" in stream.getvalue()) is (progress and stream.isatty())
    assert [bar["total"] for bar in bars] == [5, 5]


@pytest.mark.parametrize("where", ["dataset.tqdm.update", "reading.decode_image"])
def test_an_interrupt_ends_the_work(tmp_path, monkeypatch, where):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    def slowly(path):  # so that the interrupt gets its turn on a busy machine
        time.sleep(0.005)
        read.append(path)
        return PICTURES[0][0]

    read = []
    monkeypatch.setattr(Path, "read_bytes", slowly)
    monkeypatch.setattr(f"biggan.data.{where}", interrupt)
    files = {f"{'ab'[i % 2]}/{i}.png": b"" for i in range(2000)}
    with pytest.raises(KeyboardInterrupt):
        load_dataset(fill(tmp_path, files), 8, 3, workers=1)
    assert len(read) < 1000


def test_real_images_in_a_zip():
    path = SHARED / "data" / "cifar10-test.zip"
    if not path.is_file():
        pytest.skip(
            f"no {path.name} in the folder that BIGGAN_SHARED names, or beside the checkout"
        )
    data = load_dataset(path, 32, 3)
    assert data.images.shape == (10000, 3, 32, 32)
    assert data.class_names[3] == "cat"
    assert data.histogram() == [1000] * 10
    assert data.source == "cifar10-test.zip"
    with zipfile.ZipFile(path) as archive, archive.open("ship/0007.jpg") as member:
        expected = np.asarray(Image.open(member).convert("RGB"))
    found = data.images[data.labels == 8][7]
    np.testing.assert_array_equal(make_grid(to_pil(found[None]), 1), expected)
