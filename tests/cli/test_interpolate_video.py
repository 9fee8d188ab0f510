"""`biggan interpolate` as a user types it, where it writes videos."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

import biggan
from biggan import provenance_files
from biggan.cli.options import progress
from biggan.provenance_files import read_provenance
from biggan.video import make_frame
from biggan.weights.files import Description, save_network
from command_line import fails, succeeds
from tiny import tiny_generator

needs_pyav = pytest.mark.skipif(find_spec("av") is None, reason="needs PyAV")
MP4 = pytest.param("mp4", marks=needs_pyav)


@pytest.fixture
def interpolate(tiny_file):
    return f"interpolate --model {tiny_file}"


def pixels_of(path):
    if path.suffix == ".mp4":
        import av

        with av.open(str(path)) as container:
            return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    with Image.open(path) as animation:
        frames = []
        for number in range(animation.n_frames):
            animation.seek(number)
            frames.append(np.asarray(animation.convert("RGB")))
    return np.stack(frames)


@pytest.mark.parametrize("ending", [MP4, "gif", "webp"])
def test_through_keyframes_and_again(interpolate, tiny_file, tmp_path, ending):
    out, again = tmp_path / "new" / f"morph.{ending}", tmp_path / f"again.{ending}"
    through = "--through 'tabby, tabby cat@3, golden retriever@7, 1@1'"
    how = "--loop around --seconds 0.75 --fps 16 --path slerp -n 2"
    assert succeeds(f"{interpolate} {through} {how} --out {out}") == f"{out}\n"
    recipe = read_provenance(out)
    assert (recipe.frames, recipe.fps, recipe.loop, recipe.num) == (12, 16, "around", 2)
    assert [(k.class_index, k.seed) for k in recipe.keyframes] == [(0, 3), (2, 7), (1, 1)]

    gan = biggan.load(tiny_file)
    expected = np.stack([np.asarray(make_frame(p)) for p in gan.draw_video(recipe)])
    found = pixels_of(out)[:, :, : expected.shape[2]].astype(float)
    assert found.shape == expected.shape == (12, 256, 513, 3)
    most = {"mp4": 4, "gif": 10, "webp": 0}[ending]
    assert np.abs(found - expected).mean() <= most
    for number, (class_, seed) in {0: (0, 3), 4: (2, 7), 8: (1, 1)}.items():
        sampled = make_frame(gan.sample(class_, 2, 0.2, seed))
        assert np.abs(found[number] - np.asarray(sampled)).mean() <= most

    succeeds(f"{interpolate} --like {out} --out {again}")
    assert again.read_bytes() == out.read_bytes()


def test_a_video_is_made_again_in_another_format(interpolate, tmp_path):
    gif, webp = tmp_path / "x.gif", tmp_path / "x.webp"
    succeeds(f"{interpolate} --from 0 --to 2 --seed-b 5 --steps 3 --out {gif}")
    assert [k.seed for k in read_provenance(gif).keyframes] == [0, 5]
    succeeds(f"{interpolate} --like {gif} --out {webp}")
    assert read_provenance(webp) == read_provenance(gif)
    assert np.abs(pixels_of(webp) - pixels_of(gif).astype(float)).mean() < 10


def test_how_long_a_video_is(interpolate, tmp_path):
    out = tmp_path / "x.webp"
    for options, frames in {
        "": 80,  # two seconds there, two back
        "--fps 2": 8,
        "--loop none --fps 2": 5,
        "--seconds 1.5": 30,
        "--steps 4": 6,
        "--loop around --steps 4": 6,
        "--seconds 0.25 --fps 7.9 --loop none": 2,
    }.items():
        succeeds(f"{interpolate} --from 0 --to 1 -n 1 --out {out} {options}")
        assert read_provenance(out).frames == frames, options
        with Image.open(out) as animation:
            assert animation.n_frames == frames
            assert animation.info["loop"] == (1 if "none" in options else 0)


def test_an_unconditional_model_has_seeds_alone(tmp_path):
    model, out = tmp_path / "plain.safetensors", tmp_path / "x.webp"
    save_network(model, tiny_generator(num_classes=0), Description(name="plain"))
    how = f"--through '@3, @4' --steps 3 --loop around --out {out}"
    succeeds(f"interpolate --model {model} {how}")
    keyframes = read_provenance(out).keyframes
    assert [(k.class_index, k.seed) for k in keyframes] == [(None, 3), (None, 4)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--from 0 --to 1 --fps 0", "at least 0.1 and at most 60, not 0"),
        ("--from 0 --to 1 --fps 200", "at least 0.1 and at most 60, not 200"),
        ("--from 0 --to 1 --fps nan", "at most 60, not nan"),
        ("--from 0 --to 1 --fps fast", "fast"),
        ("--from 0 --to 1 --seconds 0", "longer than 0 seconds, not 0"),
        ("--from 0 --to 1 --seconds nan", "longer than 0 seconds, not nan"),
        ("--from 0 --to 1 --seconds 1e9", "at most 100000"),
        ("--from 0 --to 1 --seconds 0.01", "0 frames are too few for 2 keyframes"),
        ("--from 0 --to 1 --seconds 1 --steps 3", "omit --steps"),
        ("--from 0 --to 1 --steps 1", "at least 2 steps, not 1"),
        ("--from 0 --to 1 --loop twice", "twice"),
        ("--from 0", "one per keyframe"),
        ("--through '0@1, 1@2' --from 0", "omit --from"),
        ("--through '0@1, 1@2' --seed-b 0", "omit --seed-b"),
        ("--through '0@1, dog@2'", "no class is named 'dog'"),
        ("--through '0@1, cat@2'", "class 'cat' is ambiguous"),
        ("--through '0@1, 3@2'", "class 3 is out of range"),
        ("--through '0@1, 1'", "'1' is not a keyframe"),
        ("--through 0@1", "'0@1' is not two keyframes or more"),
        ("--through '0@1, @2'", "one per keyframe"),
        ("--through '0@1, 1@4294967296'", "seed must be between"),
        ("--through '0@1, 1@2, 2@3' --seconds 0.1", "2 frames are too few for 3 keyframes"),
        ("--from 0 --to 1 -n 0", "0 paths"),
        ("--from 0 --to 1 -n 90 --steps 2", "use fewer paths"),
    ],
)
def test_mistakes_write_nothing(interpolate, tmp_path, options, message):
    assert message in fails(f"{interpolate} {options} --out {tmp_path}/x.webp")
    assert list(tmp_path.iterdir()) == []


def test_what_fits_no_grid(interpolate, tmp_path):
    for option in ("--fps 20", "--seconds 1", "--loop none", "--through '0@1, 1@2'"):
        line = fails(f"{interpolate} --from 0 --to 1 {option} --out {tmp_path}/x.png")
        assert f"{option.split()[0]} applies to videos, not to a .png: omit it" in line


def test_what_cannot_be_made_again(interpolate, tmp_path):
    grid, film, broken = (tmp_path / name for name in ("x.png", "x.gif", "z.gif"))
    for out in (grid, film):
        succeeds(f"{interpolate} --from 0 --to 1 --steps 2 --out {out}")
    assert read_provenance(grid).steps == 2
    broken.write_bytes(b"GIF89a?")
    for options, message in {
        f"{grid} --out {tmp_path}/y.gif": "is a grid: --out must end in .png",
        f"{film} --out {tmp_path}/y.png": "is a video: --out must end in",
        f"{film} --fps 1 --out {film}": "omit --fps",
        f"{film} --seconds 1 --out {film}": "omit --seconds",
        f"{film} --through '0@1, 1@2' --out {film}": "omit --through",
        f"{tmp_path}/none.webp --out {film}": "no such file",
        f"{broken} --out {film}": "cannot be read",
    }.items():
        assert message in fails(f"{interpolate} --like {options}")
    assert "made by tiny" in fails(f"interpolate --like {film} --out {tmp_path}/y.gif")
    assert {path.name for path in tmp_path.iterdir()} == {"x.gif", "x.png", "z.gif"}


def test_a_recipe_from_elsewhere_is_checked(interpolate, tmp_path):
    film, odd = tmp_path / "x.gif", tmp_path / "odd.gif"
    succeeds(f"{interpolate} --from 0 --to 1 --steps 2 --out {film}")
    recipe = json.loads(read_provenance(film).to_json())
    mistakes = {
        "frames": (3, "even number of frames"),
        "fps": (1000, "at most 50, not 1000"),
        "loop": ("zigzag", "must be one of there-and-back"),
        "path": ("zigzag", "must be one of linear"),
        "noise": ("pink", "noise must be one of"),
        "num": (0, "0 paths"),
        "keyframes": ([], "at least 2 keyframes"),
    }
    for key, (value, message) in mistakes.items():
        comment = "biggan: " + json.dumps(recipe | {key: value})
        Image.new("L", (2, 2)).save(odd, comment=comment.encode())
        assert message in fails(f"{interpolate} --like {odd} --out {tmp_path}/new/y.gif")
    assert not (tmp_path / "new").exists()


def test_without_pyav_one_line_names_the_extra(interpolate, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance_files, "find_spec", lambda name: None)
    line = fails(f"{interpolate} --from 0 --to 1 --out {tmp_path}/x.mp4")
    assert "pip install 'biggan[video]'" in line
    assert list(tmp_path.iterdir()) == []


def test_progress_is_for_terminals(interpolate, tmp_path, monkeypatch, capsys):
    bars = []

    def bar(frames, total, unit):
        bars.append((total, unit))
        return frames

    monkeypatch.setattr("biggan.cli.options.progress", bar)
    for name in ("x.webp", "x.png"):
        succeeds(f"{interpolate} --from 0 --to 1 --steps 3 --out {tmp_path}/{name}")
    assert bars == [(4, "frame"), (6, "picture")]
    assert list(progress(range(3), 3, "frame")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
