"""Videos are read again by other software: FFmpeg, libwebp and Pillow's reader of GIFs."""

import dataclasses
import json
import subprocess
import sys
import weakref
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biggan import provenance, video
from biggan.errors import InputError
from biggan.interpolation import there_and_back
from biggan.provenance import Keyframe, VideoProvenance, provenance_from_json, read_provenance
from biggan.video import check_video, make_frame, save_video

RECIPE = VideoProvenance(
    model="biggan-deep-256",
    sha256="0" * 64,
    keyframes=(Keyframe(207, "golden retriever, ñandú", 3), Keyframe(8, "hen", 0)),
    frames=24,
    fps=30.0,
    loop="around",
    num=2,
    truncation=0.4,
    noise="hub",
    path="slerp",
    version="0.1.0",
)

MP4 = pytest.param(".mp4", marks=pytest.mark.skipif(find_spec("av") is None, reason="needs PyAV"))
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
    save_video(iter(frames), path, 30, provenance=RECIPE)
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
    assert read_provenance(path) == RECIPE
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_grey_pictures_are_exact(tmp_path, ending):
    frames = [waves(number, mode="L") for number in range(5)]
    save_video(frames, tmp_path / f"x{ending}", 10)
    found, seconds = decoded(tmp_path / f"x{ending}", "L")
    np.testing.assert_array_equal(found, pixels(frames, "L"))
    np.testing.assert_allclose(seconds, 0.1)


def test_equal_frames_are_frames_of_their_own(tmp_path):
    for ending in (".gif", ".webp"):
        save_video([waves(0)] * 3, tmp_path / f"x{ending}", 10)
        found, _ = decoded(tmp_path / f"x{ending}")
        assert len(found) == 3


def test_webp_keeps_transparency(tmp_path):
    frames = [waves(number, mode="RGBA") for number in range(3)]
    save_video(frames, tmp_path / "x.webp", 10)
    found, _ = decoded(tmp_path / "x.webp", "RGBA")
    np.testing.assert_array_equal(found, pixels(frames, "RGBA"))


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
    save_video([waves(number) for number in range(10)], path, 12.5, provenance=RECIPE)
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


def test_without_pyav_one_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "find_spec", lambda name: None)
    check_video(tmp_path / "x.webp", 20)
    with pytest.raises(InputError, match=r"pip install 'biggan\[video\]'"):
        check_video(tmp_path / "x.mp4", 20)
    (tmp_path / "x.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom")
    with pytest.raises(InputError, match=r"pip install 'biggan\[video\]'"):
        read_provenance(tmp_path / "x.mp4")


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


def test_a_pyav_that_cannot_be_loaded_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "av", None)
    for call in (check_video, lambda path, _: read_provenance(path)):
        (tmp_path / "x.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom")
        with pytest.raises(InputError, match="installed, but cannot be loaded: .*webp and .gif"):
            call(tmp_path / "x.mp4", 20)


@EVERY_FORMAT
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    path.write_bytes(b"old")

    def frames():
        yield waves(0)
        raise InputError("out of memory")

    with pytest.raises(InputError, match="out of memory"):
        save_video(frames(), path, 20)
    with pytest.raises(ValueError, match="share one size and one mode"):
        save_video([waves(0), waves(1, 10, 10)], path, 20)
    with pytest.raises(ValueError, match="share one size and one mode"):
        save_video([waves(0), waves(1, mode="L")], path, 20)
    with pytest.raises(ValueError, match="at least one frame"):
        save_video([], path, 20)
    with pytest.raises(InputError, match="would be 70000 x 2 pixels"):
        save_video([Image.new("L", (70_000, 2))], path, 20)
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


@EVERY_FORMAT
def test_files_without_a_recipe_are_refused_in_one_line(tmp_path, ending):
    expected = {
        "absent": "no such file",
        "text": "cannot be read as a PNG, GIF, WebP or MP4",
        "cut": "cannot be read as a PNG, GIF, WebP or MP4",
        "bare": "holds no provenance",
        "damaged": "missing 'fps'",
    }
    names = {name: tmp_path / f"{name}{ending}" for name in expected}
    names["text"].write_text("no video")
    save_video([waves(0), waves(1)], names["bare"], 20)
    names["cut"].write_bytes(names["bare"].read_bytes()[:20])
    damaged = json.loads(RECIPE.to_json())
    del damaged["fps"]
    broken = type("Broken", (), {"to_json": lambda self: json.dumps(damaged)})()
    save_video([waves(0), waves(1)], names["damaged"], 20, provenance=broken)
    for name, message in expected.items():
        with pytest.raises(InputError, match=message) as caught:
            read_provenance(names[name])
        assert str(names[name]) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["ab", "abc"])
def test_the_lengths_in_a_webp_add_up(tmp_path, model):
    path = tmp_path / "x.webp"
    recipe = dataclasses.replace(RECIPE, model=model)
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


def test_other_programs_comments_are_no_recipes(tmp_path):
    path = tmp_path / "x.gif"
    waves(0).save(path, comment=b"Created with another program")
    with pytest.raises(InputError, match="holds no provenance"):
        read_provenance(path)
    exif = Image.Exif()
    exif[0x010E] = "a holiday"
    waves(0).save(tmp_path / "x.webp", exif=exif)
    with pytest.raises(InputError, match="holds no provenance"):
        read_provenance(tmp_path / "x.webp")


@EVERY_FORMAT
def test_a_recipe_of_many_keyframes_fits(tmp_path, ending):
    recipe = dataclasses.replace(RECIPE, keyframes=RECIPE.keyframes * 500, truncation=None)
    save_video([waves(0), waves(1)], tmp_path / f"x{ending}", 20, provenance=recipe)
    assert read_provenance(tmp_path / f"x{ending}") == recipe


def test_a_recipe_survives_json():
    text = RECIPE.to_json()
    assert text.isascii()
    assert provenance_from_json(text) == RECIPE
    whole = provenance_from_json(text.replace("30.0", "30"))
    assert repr(whole.fps) == "30.0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keyframes": "hen@1"}, "'keyframes' must be a list"),
        ({"keyframes": [3]}, "'keyframes' must be a list"),
        ({"keyframes": [{}]}, "missing 'class_index'"),
        ({"frames": 2.5}, "'frames' cannot be 2.5"),
        ({"fps": True}, "'fps' cannot be True"),
        ({"fps": 10**400}, "'fps' cannot be"),
        ({"loop": None}, "'loop' cannot be None"),
        ({"steps": 3}, "unknown 'steps'"),
    ],
)
def test_a_recipe_is_read_strictly(changes, message):
    with pytest.raises(InputError, match=message):
        provenance_from_json(json.dumps(json.loads(RECIPE.to_json()) | changes))


@pytest.mark.skipif(find_spec("av") is None, reason="needs PyAV")
def test_the_example(tmp_path):
    script = Path(__file__).parents[1] / "examples" / "morph_video.py"
    result = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for path in tmp_path.iterdir():
        assert len(decoded(path)[0]) == read_provenance(path).frames
    assert {path.suffix for path in tmp_path.iterdir()} == {".mp4", ".webp"}
