"""`biggan data` as a user types it."""

import json

import pytest
from PIL import Image

from biggan.data import load_dataset
from command_line import biggan, fails, succeeds, write_recipe
from data_forms import pictures, write_folder

FILES = pictures(3)


@pytest.fixture
def folder(tmp_path):
    broken = {"dog/0002.png": FILES["dog/0002.png"][:-40]}
    return write_folder(tmp_path / "pets", FILES | broken)


def test_pack_verify_and_info(folder, tmp_path):
    out = tmp_path / "out"
    result = biggan(f"data pack {folder} {out} --resolution 8 --workers 2")
    assert result.returncode == 0
    assert result.stdout == f"{out}\n"
    assert result.stderr.splitlines() == [
        "skipped 1 corrupt image of 6: dog/0002.png (image file is truncated)",
        "5 images of pets, 8 px, colour, 2 classes",
    ]
    again = biggan(f"data pack {folder} {out} --resolution 8")
    assert (again.returncode, again.stdout) == (0, f"{out}\n")
    whole = f"{out} is whole: 5 images of pets, 8 px, colour, 2 classes\n"
    assert succeeds(f"data verify {out}") == whole
    fingerprint = load_dataset(folder, 8, 3).fingerprint
    assert succeeds(f"data info {out}").splitlines() == [
        "5 images of pets, 8 px, colour, 2 classes",
        f"0.0 MiB, fingerprint {fingerprint}",
        "skipped 1: dog/0002.png",
        "       3  cat",
        "       2  dog",
    ]
    assert json.loads(succeeds(f"data info {out} --json")) == {
        "images": 5,
        "channels": 3,
        "resolution": 8,
        "bytes": 5 * 3 * 64,
        "source": "pets",
        "skipped": ["dog/0002.png"],
        "fingerprint": fingerprint,
        "classes": {"cat": 3, "dog": 2},
    }


def test_names_of_files_do_not_command_the_terminal(folder, tmp_path):
    for name in ("\x1b[2J.png", "x.\x1b[2J"):
        (folder / "cat" / name).write_bytes(b"")
    result = biggan(f"data pack {folder} {tmp_path}/out --resolution 8")
    assert result.stderr.splitlines() == [
        r"skipped 1 file that are not images: 1 .\x1b[2j",
        r"skipped 2 corrupt images of 7: cat/\x1b[2J.png (the file is empty); "
        "dog/0002.png (image file is truncated)",
        "5 images of pets, 8 px, colour, 2 classes",
    ]


def test_grey_and_unconditional(folder, tmp_path):
    out = tmp_path / "out"
    succeeds(f"data pack {folder} {out} --resolution 4 --channels 1 --unconditional")
    assert succeeds(f"data info {out}").startswith("5 images of pets, 4 px, grey, no classes\n")
    assert json.loads(succeeds(f"data info {out} --json"))["classes"] == {}


def test_mistakes_are_one_line(folder, tmp_path):
    out = tmp_path / "out"
    for line, message in {
        f"pack {folder} {out} --resolution 8 --strict": "1 corrupt image of 6",
        f"pack {folder} {out}": "resolution",
        f"pack {folder} {out} --resolution 0": "resolution",
        f"pack {tmp_path}/no {out} --resolution 8": "no such file",
        f"pack {folder} {folder}/cat/0000.png/out --resolution 8": "is not a folder",
        f"verify {folder}": "is not a packed dataset",
        f"info {folder}": "is not a packed dataset",
    }.items():
        assert message in fails(f"data {line}")


def test_damage_has_exit_status_2(folder, tmp_path):
    out = tmp_path / "out"
    succeeds(f"data pack {folder} {out} --resolution 8")
    content = bytearray((out / "images.bin").read_bytes())
    content[100] ^= 1
    (out / "images.bin").write_bytes(content)
    assert "is damaged" in fails(f"data verify {out}")


def test_without_a_verb_the_help_is_shown():
    assert "biggan data pack" in succeeds("data")
    assert "biggan data pack" in succeeds("data pack --help").split("Example")[1]


def test_the_column_of_labels_and_the_way_to_squares_are_options(tmp_path):
    for number in range(4):
        image = Image.new("RGB", (24, 8), (0, 0, 0))
        image.paste((255, 255, 255), (0, 0, 4, 8))
        (tmp_path / "wide").mkdir(exist_ok=True)
        image.save(tmp_path / "wide" / f"{number}.png")
    rows = "".join(f"{number}.png,{number % 2},{'ab'[number % 2]}\n" for number in range(4))
    (tmp_path / "wide" / "labels.csv").write_text(f"file,size,shape\n{rows}")
    options = "--resolution 8 --label-column shape --resize"
    for how, has_white in (("crop", False), ("pad", True), ("stretch", True)):
        out = tmp_path / how
        succeeds("data pack", tmp_path / "wide", out, *options.split(), how)
        assert json.loads((out / "dataset.json").read_text())["class_names"] == ["a", "b"]
        assert (max((out / "images.bin").read_bytes()) > 200) == has_white
    line = ["train", write_recipe(tmp_path / "r.toml"), "--data", tmp_path / "wide", "--dry-run"]
    plan = json.loads(
        succeeds(*line, "--json", "--label-column", "shape", "--resize", "pad", "--device", "cpu")
    )
    assert (plan["recipe"]["label_column"], plan["recipe"]["resize"]) == ("shape", "pad")
    assert "2 classes" in plan["data"]
    told = fails("data pack", tmp_path / "wide", tmp_path / "none", "--resolution", "8")
    assert told.endswith("columns size, shape: choose that of the labels with --label-column")
