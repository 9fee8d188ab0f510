"""Packing: the same as loading, refused where it must be, and killed at any moment."""

import io
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from biggan.data import ShuffledStream, fetch, load_dataset, reading
from biggan.data import packed as packing_module
from biggan.data.packed import pack_dataset, read_header, verify
from biggan.errors import InputError
from data_forms import (
    pictures,
    shuffled,
    write_folder,
    write_parquet,
    write_shards,
    write_zip,
)

FILES = pictures(7)
NAMES = ["images.bin", "labels.npy", "dataset.json"]


def contents(path):
    return {name: (path / name).read_bytes() for name in NAMES}


def refusal(*arguments, **options):
    with pytest.raises(InputError) as caught:
        pack_dataset(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def corrupt_some(files, *names):
    return files | {name: files[name][:-40] for name in names}


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of two pictures and moves of three, so that little data has many."""
    monkeypatch.setattr(packing_module, "_MOST_IN_CHUNK", 2)
    monkeypatch.setattr(packing_module, "_MOVE_BYTES", 3 * 3 * 8 * 8)


FORMS = {
    "folder": lambda path: write_folder(path / "pets", FILES),
    "zip": lambda path: write_zip(path / "pets.zip", FILES),
    "parquet": lambda path: write_parquet(path / "pets.parquet", shuffled(FILES)),
    "parquet folder": lambda path: (
        write_parquet(path / "pets" / "train-00000-of-00002.parquet", shuffled(FILES)).parent
    ),
    "shards": lambda path: write_shards(path / "pets", shuffled(FILES)),
    "shards with names": lambda path: write_shards(path / "pets", shuffled(FILES), label="json"),
    "pattern": lambda path: write_shards(path / "pets", shuffled(FILES)) / "train-{0000..0003}.tar",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_dataset_of_the_folder(tmp_path, form):
    plain = load_dataset(write_folder(tmp_path / "plain", FILES), 8, 3)
    source = FORMS[form](tmp_path)
    pack_dataset(source, tmp_path / "out", 8)
    packed = load_dataset(tmp_path / "out", 8, 3)
    for data in (packed, load_dataset(source, 8, 3)):
        assert torch.equal(data.images, plain.images)
        assert torch.equal(data.labels, plain.labels)
        assert data.labels.dtype == torch.int64
        assert data.class_names == ("cat", "dog")
        assert data.fingerprint == plain.fingerprint
    assert packed.recorded_fingerprint == plain.fingerprint
    assert packed.source == source.name
    assert packed.histogram() == [7, 7]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(NAMES)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_batches_are_those_of_the_folder(tmp_path):
    folder = write_folder(tmp_path / "pets", FILES)
    pack_dataset(folder, tmp_path / "out", 8)
    indices = ShuffledStream(14, seed=3).indices(5, 30)
    mirrored = np.arange(30) % 2 == 0
    (a, b), (c, d) = (
        fetch(load_dataset(path, 8, 3), indices, mirrored) for path in (folder, tmp_path / "out")
    )
    assert torch.equal(a, c)
    assert torch.equal(b, d)


@pytest.mark.parametrize(("resolution", "channels"), [(4, 3), (16, 1)])
def test_mixed_sizes_become_one_form(tmp_path, resolution, channels):
    files = pictures(2, size=8) | {
        name.replace("/", "/large"): data for name, data in pictures(2, size=20).items()
    }
    folder = write_folder(tmp_path / "pets", files)
    header = pack_dataset(folder, tmp_path / "out", resolution, channels)
    assert header.shape == (8, channels, resolution, resolution)
    plain = load_dataset(folder, resolution, channels)
    assert torch.equal(load_dataset(tmp_path / "out", resolution, channels).images, plain.images)
    assert header.fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    "names",
    [
        ["cat/0000.png"],
        ["dog/0006.png"],
        ["cat/0001.png", "cat/0002.png", "dog/0000.png", "dog/0005.png", "dog/0006.png"],
    ],
)
def test_corrupt_images_are_left_out_and_named(tmp_path, caplog, small_chunks, names):
    folder = write_folder(tmp_path / "pets", corrupt_some(FILES, *names))
    header = pack_dataset(folder, tmp_path / "out", 8)
    assert header.skipped == tuple(names)
    assert caplog.messages == [
        f"skipped {len(names)} corrupt image{'s' * (len(names) > 1)} of 14: {', '.join(names)}"
        " (image file is truncated)"
    ]
    packed, plain = load_dataset(tmp_path / "out", 8, 3), load_dataset(folder, 8, 3)
    assert torch.equal(packed.images, plain.images)
    assert packed.fingerprint == plain.fingerprint
    assert packed.skipped == plain.skipped
    assert verify(tmp_path / "out") == header


def wide(seed):
    """A picture with 12 bits in 16, as a file."""
    levels = np.random.default_rng(seed).integers(0, 4096, (8, 8), np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("last", [1, 4, 5, 6, 9])
def test_the_range_of_16_bit_images_is_found_whenever_packing_is_interrupted(
    tmp_path, small_chunks, caplog, last
):
    folder = write_folder(tmp_path / "pets", {f"{'ab'[i % 2]}/{i}.png": wide(i) for i in range(7)})
    plain = load_dataset(folder, 8, 1)
    assert plain.images.max() > 240
    real, noted = packing_module._note, []

    def note(lines, what, about):
        real(lines, what, about)
        noted.append(what)
        if len(noted) == last:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing_module, "_note", note)
        with pytest.raises(KeyboardInterrupt):
            pack_dataset(folder, tmp_path / "out", 8, 1)
    assert noted == ["0", "1", "2", "3", "white", "0", "1", "2", "3"][:last]
    caplog.clear()
    pack_dataset(folder, tmp_path / "out", 8, 1)
    assert caplog.messages[-1:] == [
        "the 7 images with 16 bits use 12 bits, up to level 4095: that level is white"
    ]
    assert load_dataset(tmp_path / "out", 8, 1).fingerprint == plain.fingerprint
    assert torch.equal(load_dataset(tmp_path / "out", 8, 1).images, plain.images)


def test_a_packing_that_another_version_began_begins_anew(tmp_path):
    folder = write_folder(tmp_path / "pets", FILES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing_module, "check_findings", None)
        with pytest.raises(TypeError):
            pack_dataset(folder, tmp_path / "out", 8)
    work = tmp_path / ".out.packing"
    plan = (work / "plan.json").read_text()
    (work / "plan.json").write_text(plan.replace(" 4\n", "\n"))
    (work / "journal.jsonl").write_text('["closed", [[1, 2]]]\n')
    assert pack_dataset(folder, tmp_path / "out", 8).skipped == ()


def test_an_image_that_vanished_is_no_reason_to_begin_anew(tmp_path):
    folder = write_folder(tmp_path / "pets", FILES)
    with packing_module.open_source(folder) as source:
        (folder / "cat" / "0000.png").unlink()
        with pytest.raises(InputError, match="cat/0000.png: No such file.* start again"):
            packing_module._signature(folder, source, 8, 3)


def test_strict_packing_refuses_and_keeps_what_is_done(tmp_path):
    folder = write_folder(tmp_path / "pets", corrupt_some(FILES, "cat/0000.png"))
    message = f"{folder} has 1 corrupt image of 14: cat/0000.png (image file is truncated)"
    assert refusal(folder, tmp_path / "out", 8, strict=True) == message
    assert not (tmp_path / "out").exists()
    pack_dataset(folder, tmp_path / "out", 8)
    assert "packed without --strict" in refusal(folder, tmp_path / "out", 8, strict=True)
    with pytest.raises(InputError, match="without 1 corrupt images, such as cat/0000.png"):
        load_dataset(tmp_path / "out", 8, 3, strict=True)


def test_a_lost_class_is_refused(tmp_path):
    files = corrupt_some(FILES, *(name for name in FILES if name.startswith("cat")))
    folder = write_folder(tmp_path / "pets", files)
    assert "no image of class 'cat' can be read" in refusal(folder, tmp_path / "out", 8)


def test_the_same_again_does_nothing_and_another_is_refused(tmp_path, monkeypatch):
    folder, out = write_folder(tmp_path / "pets", FILES), tmp_path / "out"
    header = pack_dataset(folder, out, 8)
    with monkeypatch.context() as patch:
        patch.setattr(reading, "decode_image", None)
        assert pack_dataset(folder, out, 8, strict=True) == header
    for settings in ({"resolution": 4}, {"resolution": 8, "image_channels": 1}):
        assert "with other settings" in refusal(folder, out, **settings)
    assert "with other settings" in refusal(folder, out, 8, unconditional=True)
    (folder / "cat" / "0000.png").write_bytes(FILES["cat/0001.png"])
    assert "from another source, before pets changed, or" in refusal(folder, out, 8)
    assert "packed already" in refusal(out, tmp_path / "again", 8)


def test_places_that_are_taken_are_refused_and_empty_ones_used(tmp_path):
    folder = write_folder(tmp_path / "pets", FILES)
    assert "no packed dataset" in refusal(folder, folder / "cat", 8)
    assert "no folder" in refusal(folder, folder / "cat" / "0000.png", 8)
    (tmp_path / "empty").mkdir()
    pack_dataset(folder, tmp_path / "empty", 8)
    pack_dataset(folder, tmp_path / "not" / "yet", 8)
    assert contents(tmp_path / "empty") == contents(tmp_path / "not" / "yet")


def test_the_built_in_digits_need_no_packing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal("digits", tmp_path / "out", 8)
    assert message.startswith("the built-in digits need no packing")
    write_folder(tmp_path / "digits", FILES)  # one's own
    assert pack_dataset("digits", tmp_path / "out", 8).source == "digits"


def test_another_source_does_not_continue_what_was_begun(tmp_path):
    one = write_folder(tmp_path / "one", corrupt_some(FILES, "cat/0000.png"))
    refusal(one, tmp_path / "out", 8, strict=True)
    two = write_folder(tmp_path / "two", FILES)
    message = refusal(two, tmp_path / "out", 8)
    assert str(tmp_path / ".out.packing") in message
    assert "delete that folder" in message


def test_mending_what_strict_refused_is_a_way_out(tmp_path, caplog):
    folder, out = (
        write_folder(tmp_path / "pets", corrupt_some(FILES, "cat/0000.png")),
        tmp_path / "out",
    )
    assert "0000.png" in refusal(folder, out, 8, strict=True)
    (folder / "cat" / "0000.png").unlink()
    header = pack_dataset(folder, out, 8, strict=True)
    assert "has changed since its packing began: beginning anew" in caplog.text
    fresh = pack_dataset(folder, tmp_path / "fresh", 8)
    assert header.fingerprint == fresh.fingerprint
    assert not (tmp_path / ".out.packing").exists()


def test_two_processes_do_not_pack_to_one_place(tmp_path):
    folder = write_folder(tmp_path / "pets", FILES)
    (tmp_path / ".out.packing").mkdir()
    with packing_module.locked(tmp_path / ".out.packing" / "lock", ""):
        assert "another process is packing" in refusal(folder, tmp_path / "out", 8)


def test_what_cannot_fit_is_refused_before_it_is_begun(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(0, 0, 14 * 3 * 64 - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    folder = write_folder(tmp_path / "pets", FILES)
    assert "14 images at 8 px need 0 MiB" in refusal(folder, tmp_path / "out", 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets"]


def test_a_disk_that_fills_is_one_line_and_keeps_what_is_done(tmp_path, small_chunks, caplog):
    """The system refuses to write beyond a size, as a full disk would."""
    folder = write_folder(tmp_path / "pets", FILES)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    full = 9 * 3 * 64
    real = packing_module._Work.begin

    def begin(work, path, signature):
        real(work, path, signature)
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, before[1]))

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packing_module._Work, "begin", begin)
            message = refusal(folder, tmp_path / "out", 8, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert re.fullmatch(
        f"cannot write {tmp_path}/out: .*; what is done is kept, and the same command continues",
        message,
    )
    with caplog.at_level(logging.INFO, "biggan.data"):
        pack_dataset(folder, tmp_path / "out", 8)
    assert caplog.messages == ["continuing: 8 of 14 images are done"]
    assert (
        load_dataset(tmp_path / "out", 8, 3).fingerprint == load_dataset(folder, 8, 3).fingerprint
    )


def killed_at_every_step(tmp_path, monkeypatch, folder, *, step):
    """Pack, stopped before the first call of `step`, before the second, and so on; then whole."""

    class Killed(BaseException):
        pass

    owner = packing_module if hasattr(packing_module, step) else packing_module._Work
    real = getattr(owner, step)
    for survived in range(100):
        calls = iter(range(survived + 1))

        def counted(*arguments, calls=calls, last=survived, **options):
            if next(calls, None) == last:
                raise Killed
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, step, counted)
            try:
                pack_dataset(folder, tmp_path / "out" / str(survived), 8, workers=1)
            except Killed:
                pack_dataset(folder, tmp_path / "out" / str(survived), 8, workers=2)
            else:
                return survived
    raise AssertionError


@pytest.mark.parametrize("step", ["_note", "_read", "write_atomically", "_labels_file", "_digests"])
def test_killed_before_any_step_the_same_command_gives_the_same_bytes(
    tmp_path, monkeypatch, small_chunks, step
):
    names = ["cat/0001.png", "cat/0005.png", "dog/0001.png"]
    folder = write_folder(tmp_path / "pets", corrupt_some(FILES, *names))
    pack_dataset(folder, tmp_path / "whole", 8)
    times = killed_at_every_step(tmp_path, monkeypatch, folder, step=step)
    assert times > 0
    for survived in range(times):
        assert contents(tmp_path / "out" / str(survived)) == contents(tmp_path / "whole")
        assert {p.name for p in (tmp_path / "out" / str(survived)).iterdir()} == set(NAMES)


def test_what_is_done_is_not_decoded_again(tmp_path, monkeypatch, small_chunks):
    folder = write_folder(tmp_path / "pets", corrupt_some(FILES, "dog/0006.png"))
    refusal(folder, tmp_path / "out", 8, strict=True)
    monkeypatch.setattr(reading, "decode_image", None)
    assert pack_dataset(folder, tmp_path / "out", 8).num_images == 13


def test_lost_pixels_and_torn_lines_are_done_again(tmp_path, small_chunks, caplog):
    """After a power cut the journal may know more than the disk."""
    folder = write_folder(tmp_path / "pets", FILES)
    pack_dataset(folder, tmp_path / "whole", 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing_module, "check_findings", None)
        with pytest.raises(TypeError):
            pack_dataset(folder, tmp_path / "out", 8)
    work = tmp_path / ".out.packing"
    lines = (work / "journal.jsonl").read_text().strip().splitlines()
    assert json.loads(lines[-1])[0] == "6"
    (work / "journal.jsonl").write_text("\n".join(lines[:5]) + "\n" + lines[5][:20])
    with (work / "images.bin").open("r+b") as pixels:
        pixels.seek(2 * 3 * 64)
        pixels.write(bytes(3 * 64))  # an image of the second chunk
    with caplog.at_level(logging.INFO, "biggan.data"):
        pack_dataset(folder, tmp_path / "out", 8)
    assert caplog.messages == ["continuing: 8 of 14 images are done"]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_kill_9_in_the_middle(tmp_path):
    files = pictures(150, size=64)
    folder = write_folder(tmp_path / "pets", corrupt_some(files, "cat/0003.png"))
    pack_dataset(folder, tmp_path / "whole", 64)
    code = (
        "import sys; from biggan.data import packed; packed._MOST_IN_CHUNK = 4; "
        "packed.pack_dataset(sys.argv[1], sys.argv[2], 64, workers=1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, folder, tmp_path / "out"], env=os.environ
    )
    journal = tmp_path / ".out.packing" / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 300):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing_module, "_MOST_IN_CHUNK", 4)
        pack_dataset(folder, tmp_path / "out", 64)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("form", ["folder", "parquet", "shards"])
def test_without_classes(tmp_path, form):
    source = FORMS[form](tmp_path)
    header = pack_dataset(source, tmp_path / "out", 8, unconditional=True)
    assert header.class_names == ()
    assert header.histogram == ()
    data = load_dataset(tmp_path / "out", 8, 3, unconditional=True)
    assert not data.labels.any()
    assert data.fingerprint == load_dataset(source, 8, 3, unconditional=True).fingerprint
    with pytest.raises(InputError, match="packed without classes"):
        load_dataset(tmp_path / "out", 8, 3)


def test_classes_of_a_packed_dataset_may_be_ignored(tmp_path):
    pack_dataset(write_folder(tmp_path / "pets", FILES), tmp_path / "out", 8)
    data = load_dataset(tmp_path / "out", 8, 3, unconditional=True)
    assert data.class_names == ()
    assert not data.labels.any()
    assert data.fingerprint != read_header(tmp_path / "out").fingerprint


def test_numbers_of_pixels_and_channels_are_checked(tmp_path):
    assert "not 2" in refusal("pets", tmp_path / "out", 8, 2)
    assert "not 0" in refusal("pets", tmp_path / "out", 0)
    assert "no such file" in refusal(Path(tmp_path / "pets"), tmp_path / "out", 8)
