"""What pictures and videos say of their making: written, read again, and read strictly."""

import dataclasses
import json
import sys
from importlib.util import find_spec

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from biggan import provenance_files
from biggan.errors import InputError
from biggan.images import save_png
from biggan.provenance import GridProvenance, Keyframe, MorphProvenance, Provenance, VideoProvenance
from biggan.provenance_files import provenance_from_json, read_provenance
from biggan.video import check_video, save_video

SHARED = {"model": "biggan-deep-256", "sha256": "0" * 64, "noise": "hub", "version": "0.1.0"}
NAME = "golden retriever, ñandú"
PICTURE = Provenance(class_index=207, class_name=NAME, truncation=0.4, seed=0, index=3, **SHARED)
GRID = GridProvenance(2, (PICTURE, dataclasses.replace(PICTURE, index=4), PICTURE))
MORPH = MorphProvenance(
    class_a=207,
    class_a_name=NAME,
    class_b=None,
    class_b_name=None,
    steps=5,
    num=2,
    truncation=1.0,
    seed_a=0,
    seed_b=1,
    path="slerp",
    **SHARED,
)
VIDEO = VideoProvenance(
    keyframes=(Keyframe(207, NAME, 3), Keyframe(8, "hen", 0)),
    frames=24,
    fps=30.0,
    loop="around",
    num=2,
    truncation=0.4,
    path="slerp",
    **SHARED,
)

MP4 = pytest.param(".mp4", marks=pytest.mark.skipif(find_spec("av") is None, reason="needs PyAV"))
ENDINGS = [".png", MP4, ".gif", ".webp"]
STILL = Image.new("L", (64, 64))


def save(path, said=None):
    """A picture or a video that says this."""
    if path.suffix == ".png":
        save_png(STILL, path, said)
    else:
        save_video([STILL, STILL], path, 20, provenance=said)


@pytest.mark.parametrize(
    "made",
    [
        PICTURE,
        dataclasses.replace(PICTURE, class_index=None, class_name=None, truncation=None),
        dataclasses.replace(PICTURE, truncation=1.0),
        GRID,
        MORPH,
        VIDEO,
    ],
)
def test_every_kind_survives_json_and_a_png(tmp_path, made):
    text = made.to_json()
    assert text.isascii()
    assert "\n" not in text
    assert provenance_from_json(text) == made
    save_png(STILL, tmp_path / "image.png", made)
    assert read_provenance(tmp_path / "image.png") == made


def test_json_does_not_tell_1_from_1_0():
    whole = provenance_from_json(PICTURE.to_json().replace("0.4", "1"))
    assert repr(whole.truncation) == "1.0"
    assert repr(provenance_from_json(VIDEO.to_json().replace("30.0", "30")).fps) == "30.0"


def test_the_version_makes_no_other_picture():
    assert dataclasses.replace(PICTURE, version="0.2") == PICTURE
    assert dataclasses.replace(PICTURE, seed=1) != PICTURE


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_lot_of_provenance_fits(tmp_path, ending):
    much = GridProvenance(100, (PICTURE,) * 10_000)  # megabytes, which a reader of PNGs may refuse
    if ending != ".png":
        much = dataclasses.replace(VIDEO, keyframes=VIDEO.keyframes * 500, truncation=None)
    save(tmp_path / f"x{ending}", much)
    assert read_provenance(tmp_path / f"x{ending}") == much


@pytest.mark.parametrize(
    ("made", "changes", "message"),
    [
        (PICTURE, {"extra": 1}, "unknown 'extra'"),
        (PICTURE, {"seed": ..., "index": ...}, "missing 'index', missing 'seed'"),
        (PICTURE, {"seed": "0"}, "'seed' cannot be '0'"),
        (PICTURE, {"seed": None}, "'seed' cannot be None"),
        (PICTURE, {"seed": True}, "'seed' cannot be True"),
        (PICTURE, {"truncation": True}, "'truncation' cannot be True"),
        (PICTURE, {"class_index": 1.5}, "'class_index' cannot be 1.5"),
        (GRID, {"columns": 0}, "'columns' cannot be 0"),
        (GRID, {"columns": True}, "'columns' cannot be True"),
        (GRID, {"columns": 10**6}, "'columns' cannot be 1000000: it has 3 pictures"),
        (GRID, {"rows": 1}, "unknown 'rows'"),
        (GRID, {"pictures": []}, "'pictures' must be a list"),
        (GRID, {"pictures": {}}, "'pictures' must be a list"),
        (GRID, {"pictures": [3]}, "a picture cannot be 3"),
        (GRID, {"pictures": [{}]}, "missing 'class_index'"),
        (GRID, {"pictures": [{}] * 100_001}, "'pictures' must be a list of 1 to 100000"),
        (MORPH, {"steps": "5"}, "'steps' cannot be '5'"),
        (MORPH, {"path": None}, "'path' cannot be None"),
        (MORPH, {"class": 3}, "unknown 'class'"),
        (VIDEO, {"keyframes": "hen@1"}, "'keyframes' must be a list"),
        (VIDEO, {"keyframes": [3]}, "'keyframes' must be a list"),
        (VIDEO, {"keyframes": [{}]}, "missing 'class_index'"),
        (VIDEO, {"frames": 2.5}, "'frames' cannot be 2.5"),
        (VIDEO, {"fps": True}, "'fps' cannot be True"),
        (VIDEO, {"fps": 10**400}, "'fps' cannot be"),
        (VIDEO, {"loop": None}, "'loop' cannot be None"),
        (VIDEO, {"steps": 3}, "unknown 'steps'"),
        (PICTURE, {"index": -1}, "index"),
        (PICTURE, {"index": 10**6}, "index"),
        (PICTURE, {"index": 2**31}, "index"),
        (PICTURE, {"seed": -1}, "seed"),
        (PICTURE, {"seed": 2**32}, "seed"),
        (PICTURE, {"class_index": -1}, "class_index"),
        (PICTURE, {"class_index": 2**31}, "class_index"),
        (PICTURE, {"class_index": 10**4000}, "class_index"),
        (MORPH, {"class_b": 2**31}, "class_b"),
        (MORPH, {"num": -1}, "num"),
        (MORPH, {"num": 10**9}, "num"),
        (MORPH, {"steps": 1}, "steps"),
        (MORPH, {"steps": 10**9}, "steps"),
        (MORPH, {"path": "x" * 10**6, "steps": 0}, "steps"),
        (MORPH, {"x" * 10**6: 1}, "x" * 40),
        (MORPH, {"seed_b": "x" * 10**6}, "seed_b"),
    ],
)
def test_it_is_read_strictly_and_refused_in_one_short_line(made, changes, message):
    values = json.loads(made.to_json()) | changes
    text = json.dumps({key: value for key, value in values.items() if value is not ...})
    with pytest.raises(InputError, match=message) as caught:
        provenance_from_json(text)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "not a JSON object")])
def test_what_is_no_object_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        provenance_from_json(text)


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_without_provenance_are_refused_in_one_line(tmp_path, ending):
    expected = {
        "absent": "no such file",
        "text": "cannot be read as a PNG, JPEG, GIF, WebP or MP4",
        "cut": "cannot be read as a PNG, JPEG, GIF, WebP or MP4",
        "bare": "contains no provenance",
        "damaged": "missing 'noise'",
    }
    files = {name: tmp_path / f"{name}{ending}" for name in expected}
    files["text"].write_text("no picture")
    save(files["bare"])
    files["cut"].write_bytes(files["bare"].read_bytes()[:20])
    values = {"seed": 0} if ending == ".png" else json.loads(VIDEO.to_json())
    values.pop("noise", None)
    save(files["damaged"], type("Text", (), {"to_json": lambda _: json.dumps(values)})())
    for name, message in expected.items():
        with pytest.raises(InputError, match=message) as caught:
            read_provenance(files[name])
        assert str(files[name]) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_files_of_other_programs_hold_none(tmp_path):
    exif, texts = Image.Exif(), PngInfo()
    exif[0x010E] = "a holiday"
    texts.add_text("Software", "another program")
    STILL.save(tmp_path / "x.gif", comment=b"Created with another program")
    STILL.save(tmp_path / "x.webp", exif=exif)
    STILL.save(tmp_path / "x.png", pnginfo=texts)
    STILL.save(tmp_path / "x.jpg", comment=b"Created with another program")
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match="contains no provenance"):
            read_provenance(path)
    STILL.save(tmp_path / "photo.bmp")
    for path in (tmp_path, tmp_path / "photo.bmp"):
        with pytest.raises(InputError, match="cannot be read as a PNG"):
            read_provenance(path)


@pytest.mark.parametrize("is_installed", [False, True])
def test_without_pyav_one_line_says_why_an_mp4_cannot_be_read_or_written(
    tmp_path, monkeypatch, is_installed
):
    spec = object() if is_installed else None
    monkeypatch.setattr(provenance_files, "find_spec", lambda name: spec)
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "x.mp4"
    path.write_bytes(b"\x00\x00\x00\x18ftypisom")
    message = r"pip install 'biggan\[video\]'"
    if is_installed:
        message = "installed, but cannot be loaded: .*webp and .gif"
    for call in (read_provenance, lambda path: check_video(path, 20)):
        with pytest.raises(InputError, match=message):
            call(path)
    check_video(tmp_path / "x.webp", 20)
