"""Packed datasets: the same as loading, damage found, and packing killed at any moment."""

import json
import logging
import re
import resource
import shutil
import signal
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from biggan.data import ShuffledStream, fetch, load_dataset, packed, sources
from biggan.data.packed import pack_dataset, read_header, verify
from data_forms import FORMS, cut_short, encode, pictures, refusal, wide, write_folder

FILES = pictures(7)
NAMES = ["images.bin", "labels.npy", "dataset.json"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    pack_dataset(write_folder(folder / "pets", pictures(5)), folder / "out", 8)
    return folder / "out"


@pytest.fixture
def out(original, tmp_path):
    """A packed set of ten images."""
    return shutil.copytree(original, tmp_path / "out")


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of two pictures and moves of three, so that little data has many."""
    monkeypatch.setattr(packed, "_MOST_IN_CHUNK", 2)
    monkeypatch.setattr(packed, "_MOVE_BYTES", 3 * 3 * 8 * 8)


def contents(path):
    assert sorted(file.name for file in path.iterdir()) == sorted(NAMES)
    return {name: (path / name).read_bytes() for name in NAMES}


def refused(*arguments, **options):
    return refusal(pack_dataset, *arguments, **options)


def flip(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def test_the_files_are_what_the_guide_says_and_mapped(out, monkeypatch):
    monkeypatch.setattr("biggan.data.loading.memory_limit", lambda: 0)
    about = json.loads((out / "dataset.json").read_text())
    shape = tuple(about[key] for key in ("num_images", "image_channels", "resolution"))
    assert shape == (10, 3, 8)
    images = np.memmap(out / "images.bin", np.uint8, "r", shape=(10, 3, 8, 8))
    for file in out.iterdir():
        file.chmod(0o444)  # a copy needs no permission to write
    data = load_dataset(out, 8, 3)
    assert np.array_equal(images, data.images)
    assert np.load(out / "labels.npy").tolist() == data.labels.tolist() == [0] * 5 + [1] * 5
    (out / "images.bin").chmod(0o644)
    flip(out / "images.bin", 0)  # the pixels are not read before they are used
    assert data.images[0, 0, 0, 0] == (out / "images.bin").read_bytes()[0]
    assert data.fingerprint == read_header(out).fingerprint
    without = load_dataset(out, 8, 3, unconditional=True)
    assert without.class_names == ()
    assert not without.labels.any()
    assert without.fingerprint != data.fingerprint


@pytest.mark.parametrize("file", ["images.bin", "labels.npy"])
@pytest.mark.parametrize(("change", "fault"), [(-1, "truncated"), (1, "too long")])
def test_wrong_sizes_are_found_at_once(out, file, change, fault):
    data = (out / file).read_bytes()
    (out / file).write_bytes(data[:change] if change < 0 else data + b"0")
    sizes = f"{len(data) + change} bytes instead of {len(data)}"
    for check in (verify, read_header, lambda path: load_dataset(path, 8, 3)):
        assert refusal(check, out).startswith(f"{out / file} is {fault}: {sizes}")
    (out / file).unlink()
    assert str(out / file) in refusal(load_dataset, out, 8, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"cat"', '"cow"'),
        lambda text: text.replace('"num_images": 10', '"num_images": 9'),
        lambda text: text.replace('"skipped": []', '"skipped": ["cat/0009.png"]'),
        lambda text: text[:200],
        *[lambda text, other=other: other for other in ("[]", "{}", "")],
    ],
)
def test_an_edited_or_cut_header_is_found(out, change):
    before = (out / "dataset.json").read_text()
    (out / "dataset.json").write_text(change(before))
    assert (out / "dataset.json").read_text() != before
    for check in (verify, lambda path: load_dataset(path, 8, 3)):
        assert "was changed or is damaged" in refusal(check, out)


def test_other_versions_forms_and_damaged_labels_are_named(out):
    message = refusal(load_dataset, out, 16, 3)
    assert message == (
        f"{out} was packed at 8 px with 3 channels, and 16 px with 3 are needed: pack it again, "
        "`biggan data pack SOURCE OUT --resolution 16 --channels 3`"
    )
    assert "--resolution 8 --channels 1`" in refusal(load_dataset, out, 8, 1)
    flip(out / "labels.npy", -8)
    assert "labels.npy is damaged" in refusal(load_dataset, out, 8, 3)
    assert "labels.npy is damaged" in refusal(verify, out)
    text = (out / "dataset.json").read_text().replace("version 1", "version 2")
    (out / "dataset.json").write_text(text)
    assert "'biggan packed images, version 2'" in refusal(load_dataset, out, 8, 3)


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
    assert "and 2 more ranges" in refusal(verify, out)


def test_other_folders_are_no_packed_datasets(tmp_path):
    assert "is not a packed dataset" in refusal(read_header, tmp_path)
    assert "is not a packed dataset" in refusal(verify, tmp_path / "nowhere")
    # A folder of class folders may well hold a file of that name.
    folder = write_folder(tmp_path / "pets", {**pictures(2), "dataset.json": b"{}"})
    assert len(load_dataset(folder, 8, 3)) == 4


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_dataset_of_the_folder(tmp_path, monkeypatch, form):
    monkeypatch.setitem(FILES, "cat/0001.png", b"a corrupt image")
    plain = load_dataset(write_folder(tmp_path / "plain", FILES), 8, 3)
    source = FORMS[form](tmp_path, FILES)
    pack_dataset(source, tmp_path / "out", 8)
    mapped = load_dataset(tmp_path / "out", 8, 3)
    for data in (mapped, load_dataset(source, 8, 3)):
        assert torch.equal(data.images, plain.images)
        assert torch.equal(data.labels, plain.labels)
        assert data.labels.dtype == torch.int64
        assert (data.class_names, data.fingerprint) == (("cat", "dog"), plain.fingerprint)
        assert data.skipped == plain.skipped == ("cat/0001.png",)
    assert (mapped.recorded_fingerprint, mapped.source) == (plain.fingerprint, source.name)
    assert mapped.histogram() == [6, 7]
    contents(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    indices, mirrored = ShuffledStream(13, seed=3).indices(5, 30), np.arange(30) % 2 == 0
    batches = [fetch(data, indices, mirrored) for data in (plain, mapped)]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


@pytest.mark.parametrize(("resolution", "channels"), [(4, 3), (16, 1)])
def test_mixed_sizes_become_one_form(tmp_path, resolution, channels):
    large = {name.replace("/", "/large"): data for name, data in pictures(2, size=20).items()}
    folder = write_folder(tmp_path / "pets", pictures(2, size=8) | large)
    header = pack_dataset(folder, tmp_path / "out", resolution, channels)
    assert header.shape == (8, channels, resolution, resolution)
    assert header.fingerprint == load_dataset(folder, resolution, channels).fingerprint


@pytest.mark.parametrize("numbers", [[0], [13], [1, 2, 7, 12, 13]])
def test_corrupt_images_are_left_out_and_named(tmp_path, caplog, small_chunks, numbers):
    names = [list(FILES)[number] for number in numbers]
    folder, out = write_folder(tmp_path / "pets", cut_short(FILES, *names)), tmp_path / "out"
    header = pack_dataset(folder, out, 8)
    assert header.skipped == tuple(names)
    assert caplog.messages == [
        f"skipped {len(names)} corrupt image{'s' * (len(names) > 1)} of 14: {', '.join(names)}"
        " (image file is truncated)"
    ]
    mapped, plain = load_dataset(out, 8, 3), load_dataset(folder, 8, 3)
    assert torch.equal(mapped.images, plain.images)
    assert (mapped.fingerprint, mapped.skipped) == (plain.fingerprint, plain.skipped)
    assert verify(out) == header


def test_strict_packing_refuses_and_keeps_what_is_done(tmp_path, caplog, monkeypatch):
    folder = write_folder(tmp_path / "pets", cut_short(FILES, "cat/0000.png"))
    out, other = tmp_path / "out", tmp_path / "other"
    message = f"{folder} has 1 corrupt image of 14: cat/0000.png (image file is truncated)"
    for place in (out, other):
        assert refused(folder, place, 8, strict=True) == message
        assert not place.exists()
    with monkeypatch.context() as patch:  # nothing is decoded again
        patch.setattr(sources, "decode_image", None)
        assert pack_dataset(folder, out, 8).num_images == 13
    assert "packed without --strict" in refused(folder, out, 8, strict=True)
    message = refusal(load_dataset, out, 8, 3, strict=True)
    assert "without 1 corrupt images, such as cat/0000.png" in message
    # Deleting what was refused is a way out.
    (folder / "cat" / "0000.png").unlink()
    header = pack_dataset(folder, other, 8, strict=True)
    assert "has changed since its packing started: starting again" in caplog.text
    assert header.fingerprint == pack_dataset(folder, tmp_path / "fresh", 8).fingerprint
    assert not (tmp_path / ".other.packing").exists()


def test_the_same_again_does_nothing_and_another_is_refused(tmp_path, monkeypatch):
    folder, out = write_folder(tmp_path / "pets", FILES), tmp_path / "out"
    header = pack_dataset(folder, out, 8)
    with monkeypatch.context() as patch:
        patch.setattr(sources, "decode_image", None)
        assert pack_dataset(folder, out, 8, strict=True) == header
    for settings in ({"resolution": 4}, {"image_channels": 1}, {"unconditional": True}):
        assert "with other settings" in refused(folder, out, **{"resolution": 8} | settings)
    (folder / "cat" / "0000.png").write_bytes(FILES["cat/0001.png"])
    assert "from another source, before pets changed, or" in refused(folder, out, 8)
    assert "packed already" in refused(out, tmp_path / "again", 8)


def test_places_and_sources_that_will_not_do(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "pets", FILES)
    assert "not a packed dataset" in refused(folder, folder / "cat", 8)
    assert "not a folder" in refused(folder, folder / "cat" / "0000.png", 8)
    assert "among its class folders" in refused(folder, folder / "packed", 8)
    assert sorted(path.name for path in folder.iterdir()) == ["cat", "dog"]
    (tmp_path / "empty").mkdir()
    pack_dataset(folder, tmp_path / "empty", 8)
    pack_dataset(folder, tmp_path / "not" / "yet", 8)
    assert contents(tmp_path / "empty") == contents(tmp_path / "not" / "yet")
    assert "not 2" in refused("pets", tmp_path / "out", 8, 2)
    assert "not 0" in refused("pets", tmp_path / "out", 0)
    assert "no such file" in refused(tmp_path / "none", tmp_path / "out", 8)
    lost = cut_short(FILES, *(name for name in FILES if name.startswith("cat")))
    lost = write_folder(tmp_path / "lost", lost)
    assert "no image of class 'cat' can be read" in refused(lost, tmp_path / "lost-8", 8)
    monkeypatch.chdir(tmp_path)
    message = refused("digits", tmp_path / "out", 8)
    assert message.startswith("the built-in digits need no packing")
    write_folder(tmp_path / "digits", FILES)  # one's own
    assert pack_dataset("digits", tmp_path / "out", 8).source == "digits"


def test_two_packings_do_not_share_a_place(tmp_path):
    one = write_folder(tmp_path / "one", cut_short(FILES, "cat/0000.png"))
    refused(one, tmp_path / "out", 8, strict=True)
    two = write_folder(tmp_path / "two", FILES)
    message = refused(two, tmp_path / "out", 8)
    assert str(tmp_path / ".out.packing") in message
    assert "delete that folder" in message
    with packed.locked(tmp_path / ".out.packing" / "lock", ""):
        assert "another process is packing" in refused(one, tmp_path / "out", 8)


def test_what_cannot_fit_is_refused_before_it_is_begun(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(0, 0, 14 * 3 * 64 - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    folder = write_folder(tmp_path / "pets", FILES)
    assert "14 images at 8 px need 0 MiB" in refused(folder, tmp_path / "out", 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets"]
    # A kill just before the end leaves all in place: no more room is needed.
    monkeypatch.undo()
    pack_dataset(folder, tmp_path / "out", 8)
    (tmp_path / "out").rename(tmp_path / ".out.packing")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert pack_dataset(folder, tmp_path / "out", 8).num_images == 14


@pytest.mark.parametrize("form", ["folder", "parquet", "shards"])
def test_without_classes(tmp_path, form):
    source, out = FORMS[form](tmp_path, FILES), tmp_path / "out"
    header = pack_dataset(source, out, 8, unconditional=True)
    assert (header.class_names, header.histogram) == ((), ())
    data = load_dataset(out, 8, 3, unconditional=True)
    assert not data.labels.any()
    assert data.fingerprint == load_dataset(source, 8, 3, unconditional=True).fingerprint
    assert "packed without classes" in refusal(load_dataset, out, 8, 3)


def decoded_only(folder, out):
    """Pack up to the point where all is decoded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "check_findings", None)
        with pytest.raises(TypeError):
            pack_dataset(folder, out, 8)
    return out.with_name(f".{out.name}.packing")


@pytest.mark.parametrize("last", [1, 4, 5, 8])
def test_the_range_of_16_bit_images_is_found_whenever_packing_is_interrupted(
    tmp_path, small_chunks, caplog, last
):
    random = np.random.default_rng(0)
    files = {f"{'ab'[i % 2]}/{i}.png": wide(random.integers(0, 4096, (8, 8))) for i in range(7)}
    folder = write_folder(tmp_path / "pets", files)
    plain = load_dataset(folder, 8, 1)
    assert plain.images.max() > 240
    real, noted = packed._note, []

    def note(lines, about):
        real(lines, about)
        noted.append(about[:2])
        if len(noted) == last:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "_note", note)
        with pytest.raises(KeyboardInterrupt):
            pack_dataset(folder, tmp_path / "out", 8, 1)
        assert len(noted) == last
        caplog.clear()
        pack_dataset(folder, tmp_path / "out", 8, 1)
    assert noted == [[n, white] for white in (65535, 4095) for n in range(4)]  # each once
    assert caplog.messages[-1:] == [
        "the 7 images with 16 bits use 12 bits, up to level 4095: that level is white"
    ]
    assert load_dataset(tmp_path / "out", 8, 1).fingerprint == plain.fingerprint


def test_an_image_that_vanished_is_no_reason_to_begin_anew(tmp_path):
    folder = write_folder(tmp_path / "pets", FILES)
    with packed.open_source(folder) as source:
        (folder / "cat" / "0000.png").unlink()
        message = refusal(packed._signature, source, 8, 3)
    assert re.search("cat/0000.png: No such file.* start again", message)


def test_a_disk_that_fills_is_one_line_and_keeps_what_is_done(tmp_path, small_chunks, caplog):
    """The system refuses to write beyond a size, as a full disk would."""
    folder, out = write_folder(tmp_path / "pets", FILES), tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    full = 9 * 3 * 64
    real = packed._Work.begin

    def begin(work, path, signature):
        real(work, path, signature)
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, before[1]))

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packed._Work, "begin", begin)
            message = refused(folder, out, 8, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    kept = "finished images are kept; the same command continues"
    assert re.fullmatch(f"cannot write {out}: .*; {kept}", message)
    with caplog.at_level(logging.INFO, "biggan.data"):
        pack_dataset(folder, out, 8)
    assert caplog.messages == ["continuing: 8 of 14 images are done"]
    assert load_dataset(out, 8, 3).fingerprint == load_dataset(folder, 8, 3).fingerprint


@pytest.mark.parametrize("step", ["_note", "_read", "write_atomically", "_labels_file", "_pieces"])
def test_killed_before_any_step_the_same_command_gives_the_same_bytes(
    tmp_path, monkeypatch, small_chunks, step
):
    class Killed(BaseException):
        pass

    names = ["cat/0001.png", "cat/0005.png", "dog/0001.png"]
    folder = write_folder(tmp_path / "pets", cut_short(FILES, *names))
    pack_dataset(folder, tmp_path / "whole", 8)
    expected = contents(tmp_path / "whole")
    owner = packed if hasattr(packed, step) else packed._Work
    real = getattr(owner, step)
    for survived in range(100):
        out, calls = tmp_path / "out" / str(survived), iter(range(survived + 1))

        def counted(*arguments, calls=calls, last=survived, **options):
            if next(calls, None) == last:
                raise Killed
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, step, counted)
            try:
                pack_dataset(folder, out, 8, workers=1)
            except Killed:
                pass
            else:
                break
        pack_dataset(folder, out, 8, workers=2)
        assert contents(out) == expected
    assert 0 < survived < 99


def test_lost_pixels_and_torn_lines_are_done_again(tmp_path, small_chunks, caplog):
    """After a power cut the journal may know more than the disk."""
    folder = write_folder(tmp_path / "pets", FILES)
    pack_dataset(folder, tmp_path / "whole", 8)
    work = decoded_only(folder, tmp_path / "out")
    lines = (work / "journal.jsonl").read_text().strip().splitlines()
    assert json.loads(lines[-1])[0] == 6
    (work / "journal.jsonl").write_text("\n".join(lines[:5]) + "\n" + lines[5][:20])
    with (work / "images.bin").open("r+b") as pixels:
        pixels.seek(2 * 3 * 64)
        pixels.write(bytes(3 * 64))  # an image of the second chunk
    with caplog.at_level(logging.INFO, "biggan.data"):
        pack_dataset(folder, tmp_path / "out", 8)
    assert caplog.messages == ["continuing: 8 of 14 images are done"]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    # What another version began begins anew.
    work = decoded_only(folder, tmp_path / "other")
    plan = (work / "plan.json").read_text()
    (work / "plan.json").write_text(plan.replace(" 5\n", "\n"))
    (work / "journal.jsonl").write_text('["closed", [[1, 2]]]\n')
    assert pack_dataset(folder, tmp_path / "other", 8).skipped == ()


def test_a_packed_dataset_knows_how_its_images_became_squares(tmp_path):
    wide = {f"{name}/0.png": encode(Image.new("RGB", (16, 8), name)) for name in ("red", "blue")}
    source = write_folder(tmp_path / "wide", wide)
    packed = tmp_path / "packed"
    header = pack_dataset(source, packed, 8, resize="pad", progress=False)
    assert (header.resize, read_header(packed)) == ("pad", header)
    assert "was packed from another source" in refusal(pack_dataset, source, packed, 8)
    for resize in ("crop", "pad"):  # crop is the default, and no wish
        data = load_dataset(packed, 8, 3, resize=resize)
    assert data.fingerprint == load_dataset(source, 8, 3, resize="pad").fingerprint
    fault = "is packed already: give --resize and --label-column to `data pack`"
    assert fault in refusal(load_dataset, packed, 8, 3, resize="stretch")
    assert fault in refusal(load_dataset, packed, 8, 3, label_column="x")
    assert "have no label columns" in refusal(load_dataset, "digits", 8, 1, label_column="x")
