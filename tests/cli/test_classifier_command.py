"""`biggan classifier` as a user types it."""

import json

import pytest
from PIL import Image

from biggan.classifier import ClassifierFeatures
from command_line import biggan, fails, succeeds
from data_forms import pictures, write_folder

QUICK = "--steps 3 --width 2 --device cpu"


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "pets", pictures(10))


def about(line):
    return json.loads(succeeds(f"classifier {line} {QUICK} --json"))


def test_digits(tmp_path):
    out = tmp_path / "new" / "digits.safetensors"
    said = succeeds(f"classifier digits --out {out} --resolution 8 {QUICK}")
    classifier = ClassifierFeatures(out)
    accuracy = classifier.training["accuracy"]
    assert said == (
        f"{out}: {classifier.name}, 3 steps, {accuracy:.2%} of 179 held-out images correct\n"
    )
    assert classifier.class_names[3] == "three"
    assert (classifier.channels, classifier.config.resolution) == (1, 8)
    assert classifier.training["flip"] is False
    again = about(f"digits --out {out} --resolution 8")
    assert (again["sha256"], again["accuracy"]) == (classifier.sha256, accuracy)


def test_digits_have_a_size_of_their_own(tmp_path):
    digits = about(f"digits --out {tmp_path}/a.safetensors --flip")
    assert (digits["resolution"], digits["channels"], digits["flip"]) == (32, 1, True)
    assert (digits["classes"], digits["features"], digits["data"]) == (10, 8, "digits")


def test_a_folder_and_the_same_packed(folder, tmp_path):
    whole = about(f"{folder} --out {tmp_path}/folder.safetensors")  # images of one size keep it
    assert (whole["resolution"], whole["channels"], whole["flip"]) == (8, 3, True)
    assert (whole["images"], whole["held_out"], whole["seed"]) == (20, 2, 0)
    succeeds(f"data pack {folder} {tmp_path}/packed --resolution 8")
    packed = about(f"{tmp_path}/packed --out {tmp_path}/packed.safetensors")
    assert packed["sha256"] == whole["sha256"]
    how = "--resolution 6 --channels 1 --no-flip --seed 4"
    grey = about(f"{folder} --out {tmp_path}/other.safetensors {how}")
    assert (grey["resolution"], grey["channels"], grey["flip"], grey["seed"]) == (6, 1, False, 4)


def test_mistakes_are_one_line(folder, tmp_path):
    out = tmp_path / "a.safetensors"
    Image.new("RGB", (9, 8)).save(folder / "cat/wide.png")
    for line, message in {
        f"{folder} --out {out}": "(--resolution)",
        f"digits --out {tmp_path}/a.pt": "must end in .safetensors",
        f"{tmp_path}/no --out {out} --resolution 8": "no such file",
        f"digits --out {folder}/cat/0000.png/a.safetensors": "is not a folder",
    }.items():
        assert message in fails(f"classifier {line}")
    assert not out.exists()
    right = f"classifier {folder} --out {out} --resolution 8 {QUICK}"
    succeeds(right)
    assert "seed 0, not 1" in fails(f"{right} --seed 1")
    out.write_bytes(out.read_bytes()[:-3])
    assert "cut short" in fails(right)
    assert biggan("classifier digits").returncode == 2
