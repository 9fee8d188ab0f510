"""Videos are read again by other software: FFmpeg, libwebp and Pillow's reader of GIFs."""

import dataclasses
import json
import subprocess
import sys
import weakref
from fractions import Fraction
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from biggan import video
from biggan.errors import InputError
from biggan.interpolation import there_and_back
from biggan.provenance_files import read_provenance
from biggan.video import check_video, make_frame, save_video
from test_provenance import MP4, VIDEO

EVERY_FORMAT = pytest.mark.parametrize("ending", [MP4, ".gif", ".webp"])


def waves(number, width=64, height=48, mode="RGB"):
    """A smooth picture that moves; none is like another."""
    y, x = np.mgrid[:height, :width]
    phases = (x / 20 + number / 3, y / 25 - number / 5, (x + y) / 30 + number / 4)
    channels = [(127.5 + 120 * np.sin(phase)).astype(np.uint8) for phase in phases]
    if mode == "RGBA":
        channels.append((x * 4 % 256).astype(np.uint8))
    return Image.fromarray(channels[0] if mode == "L" else np.stack(channels, -1))


def decoded(path, mode="RGB"):
    """Pixels (N, H, W, C) and seconds of each frame."""
    if path.suffix == ".mp4":
        import av

        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        times = [frame.pts * frame.time_base for frame in frames]
        times.append(frames[-1].pts * frames[-1].time_base + Fraction(1, 30))
        pixels = [frame.to_ndarray(format="rgb24") for frame in frames]
        return np.stack(pixels), np.diff([float(time) for time in times])
    pixels, seconds = [], []
    with Image.open(path) as animation:
        for number in range(animation.n_frames):
            animation.seek(number)
            pixels.append(np.asarray(animation.convert(mode)))
            seconds.append(animation.info["duration"] / 1000)
    return np.stack(pixels), np.array(seconds)


def pixels(frames, mode="RGB"):
    return np.stack([np.asarray(frame.convert(mode)) for frame in frames])


@EVERY_FORMAT
@pytest.mark.parametrize("size", [(64, 48), (65, 47)])
def test_a_video_holds_its_frames_for_as_long_as_asked(tmp_path, ending, size):
    frames = [waves(number, *size) for number in range(24)]
    path = tmp_path / f"waves{ending}"
    save_video(iter(frames), str(path), 30, provenance=VIDEO)
    found, seconds = decoded(path)
    assert len(found) == 24
    assert seconds.sum() == pytest.approx(24 / 30, abs=1e-6)
    np.testing.assert_allclose(np.cumsum(seconds), np.arange(1, 25) / 30, atol=0.00501)
    if ending == ".mp4":  # whose sides are even: the last column and row are repeated
        assert found.shape[1:3] == tuple(side + side % 2 for side in reversed(size))
        expected = np.pad(
            pixels(frames), [(0, 0), (0, size[1] % 2), (0, size[0] % 2), (0, 0)], "edge"
        )
    else:
        expected = pixels(frames)
    error = np.abs(found.astype(float) - expected)
    most = {".mp4": (2.5, 30), ".gif": (9, 70), ".webp": (0, 0)}[ending]
    assert error.mean() <= most[0]
    assert error.max() <= most[1]
    every = np.abs(found[:, None, ::4, ::4].astype(float) - expected[None, :, ::4, ::4])
    assert every.mean((2, 3, 4)).argmin(axis=1).tolist() == list(range(24))  # in their order
    assert read_provenance(path) == VIDEO
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("ending", "mode"), [(".gif", "L"), (".webp", "L"), (".webp", "RGBA")])
def test_grey_and_transparent_pictures_are_exact(tmp_path, ending, mode):
    frames = [waves(number, mode=mode) for number in (0, 1, 1, 2)]  # two of them are equal
    save_video(frames, tmp_path / f"x{ending}", 10)
    found, seconds = decoded(tmp_path / f"x{ending}", mode)
    np.testing.assert_array_equal(found, pixels(frames, mode))
    np.testing.assert_allclose(seconds, 0.1)


@EVERY_FORMAT
def test_the_slowest_video(tmp_path, ending):
    save_video([waves(0), waves(1)], tmp_path / f"x{ending}", 0.1)
    if ending == ".mp4":
        import av

        with av.open(str(tmp_path / "x.mp4")) as container:
            assert container.duration == 20_000_000
    else:
        np.testing.assert_allclose(decoded(tmp_path / f"x{ending}")[1], 10)


def test_whether_viewers_shall_repeat(tmp_path):
    for repeat, gif, webp in ((True, 0, 0), (False, None, 1)):
        for ending, expected in ((".gif", gif), (".webp", webp)):
            save_video([waves(0), waves(1)], tmp_path / f"x{ending}", 10, repeat=repeat)
            with Image.open(tmp_path / f"x{ending}") as animation:
                assert animation.info.get("loop") == expected


def test_an_mp4_is_what_browsers_play(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "x.mp4"
    save_video([waves(number) for number in range(10)], path, 12.5, provenance=VIDEO)
    contents = path.read_bytes()
    assert contents.index(b"moov") < contents.index(b"mdat")  # playable before it is all there
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_range) == (1, 1)
        assert (context.color_primaries, context.color_trc) == (1, 1)
        assert stream.average_rate == Fraction(25, 2)
        assert container.duration == 800_000
        assert json.loads(container.metadata["comment"].removeprefix("biggan: "))["num"] == 2


@EVERY_FORMAT
def test_frames_are_written_as_they_come_and_not_kept(tmp_path, ending):
    references = []
    most = 0

    def frames():
        nonlocal most
        for number in range(60):
            frame = waves(number)
            references.append(weakref.ref(frame))
            yield frame
            del frame
            most = max(most, sum(reference() is not None for reference in references))

    save_video(frames(), tmp_path / f"x{ending}", 20)
    assert len(decoded(tmp_path / f"x{ending}")[0]) == 60
    assert most <= 2


def test_there_and_back_makes_each_frame_once():
    made = []

    def frames():
        for number in range(4):
            made.append(number)
            yield [waves(number), waves(number + 10, mode="L")]

    played = there_and_back(frames())
    first = next(played)
    assert made == [0]
    rest = list(played)
    assert made == [0, 1, 2, 3]
    numbers = [0, 1, 2, 3, 2, 1]
    for number, (colour, grey) in zip(numbers, [first, *rest], strict=True):
        np.testing.assert_array_equal(np.asarray(colour), np.asarray(waves(number)))
        np.testing.assert_array_equal(np.asarray(grey), np.asarray(waves(number + 10, mode="L")))


def test_there_and_back_says_where_it_could_not_write(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match="way back in .*No space left.*TMPDIR"):
        list(there_and_back([[waves(0)], [waves(1)]]))


@pytest.mark.parametrize(
    ("side", "expected"), [(16, 256), (32, 256), (40, 240), (64, 256), (65, 65), (128, 128)]
)
def test_small_pictures_are_enlarged_by_whole_numbers(side, expected):
    frame = make_frame([waves(0, side, side), waves(1, side, side)])
    assert frame.size == (2 * expected + 1, expected)
    step = expected // side
    large = np.asarray(frame)[:, expected + 1 :]
    np.testing.assert_array_equal(large[::step, ::step], np.asarray(waves(1, side, side)))
    np.testing.assert_array_equal(large[step - 1 :: step, step - 1 :: step], large[::step, ::step])
    assert (np.asarray(frame)[:, expected] == 255).all()
    with pytest.raises(InputError, match="at least one picture"):
        make_frame([])


@pytest.mark.parametrize(
    ("name", "fps", "message"),
    [
        ("x.avi", 20, "must be .mp4, .png, .gif or .webp"),
        ("x", 20, "must be .mp4, .png, .gif or .webp"),
        ("x.gif", 0, "at least 0.1 and at most 50, not 0"),
        ("x.gif", 51, "at least 0.1 and at most 50, not 51"),
        ("x.webp", 61, "at least 0.1 and at most 60, not 61"),
        ("x.webp", float("nan"), "not nan"),
        ("x.mp4", 121, "at least 0.1 and at most 120, not 121"),
        ("x.mp4", -1, "not -1"),
        ("x.gif", 0.01, "not 0.01"),
    ],
)
def test_what_cannot_be_written_is_refused_first(tmp_path, name, fps, message):
    with pytest.raises(InputError, match=message):
        check_video(tmp_path / name, fps)


@pytest.mark.skipif(find_spec("av") is None, reason="needs PyAV")
def test_without_an_encoder_one_line_names_it_and_the_other_formats(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_ENCODER", "libx263")  # there is none, nor was there
    expected = "no encoder libx264 for MP4: .* write .webp or .gif"
    for call in (
        lambda: check_video(tmp_path / "x.mp4", 20),
        lambda: save_video([waves(0)], tmp_path / "x.mp4", 20),
        lambda: video._write_mp4(tmp_path / "x.mp4", iter([waves(0)]), 20, None),
    ):
        with pytest.raises(InputError, match=expected):
            call()
    check_video(tmp_path / "x.webp", 20)


@pytest.mark.skipif(find_spec("av") is None, reason="needs PyAV")
def test_what_ffmpeg_refuses_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(video._QUALITY, "x264-params", "keyint=nonsense:bframes=x")
    monkeypatch.setitem(video._QUALITY, "preset", "nonsense")
    with pytest.raises(InputError, match=r"FFmpeg cannot write the MP4: .*; write .webp or .gif"):
        save_video([waves(0)], tmp_path / "x.mp4", 20)
    assert list(tmp_path.iterdir()) == []


@EVERY_FORMAT
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    path.write_bytes(b"old")

    def frames():
        yield waves(0)
        raise InputError("out of memory")

    for made, message in (
        (frames(), "out of memory"),
        ([waves(0), waves(1, 10, 10)], "share one size and one mode"),
        ([waves(0), waves(1, mode="L")], "share one size and one mode"),
        ([], "at least one frame"),
        ([Image.new("L", (70_000, 2))], "would be 70000 x 2 pixels"),
    ):
        with pytest.raises(InputError, match=message):
            save_video(made, path, 20)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    with pytest.raises(InputError, match="cannot write .*folder"):
        save_video([waves(0)], tmp_path / "folder" / "file" / f"x{ending}", 20)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of file sizes")
def test_a_disk_that_is_full_is_one_line(tmp_path):
    code = """
import resource, signal, sys
from importlib.util import find_spec
from pathlib import Path
from PIL import Image
from biggan.video import save_video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for ending in (".gif", ".webp", *([".mp4"] if find_spec("av") else [])):
    try:
        frames = (Image.effect_noise((256, 256), 90) for _ in range(20))
        save_video(frames, Path(sys.argv[1], "x" + ending), 20)
    except Exception as error:
        print(type(error).__name__, error)
"""
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert len(lines) == 2 + (find_spec("av") is not None), result.stderr
    for line in lines:
        assert line.startswith(f"InputError cannot write {tmp_path}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", ["ab", "abc"])
def test_the_lengths_in_a_webp_add_up(tmp_path, model):
    path = tmp_path / "x.webp"
    recipe = dataclasses.replace(VIDEO, model=model)
    save_video([waves(0), waves(1)], path, 20, provenance=recipe)
    contents = path.read_bytes()
    assert int.from_bytes(contents[4:8], "little") == len(contents) - 8
    position, names = 12, []
    while position < len(contents):
        names.append(contents[position : position + 4])
        length = int.from_bytes(contents[position + 4 : position + 8], "little")
        position += 8 + length + length % 2
    assert position == len(contents)
    assert names == [b"VP8X", b"ANIM", b"ANMF", b"ANMF", b"EXIF"]
