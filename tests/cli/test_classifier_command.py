"""`biggan classifier` as a user types it."""

import json

import pytest
from PIL import Image
from test_cli import biggan, fails, succeeds

from biggan.classifier import ClassifierFeatures
from data_forms import pictures, write_folder

QUICK = ("--steps", 3, "--width", 2, "--device", "cpu")


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "pets", pictures(10))


def test_digits(tmp_path):
    out = tmp_path / "new" / "digits.safetensors"
    said = succeeds("classifier", "digits", "--out", out, "--resolution", 8, *QUICK)
    classifier = ClassifierFeatures(out)
    accuracy = classifier.training["accuracy"]
    assert said == (
        f"{out}: {classifier.name}, 3 steps, {accuracy:.2%} of 179 held-out images correct\n"
    )
    assert classifier.class_names[3] == "three"
    assert (classifier.channels, classifier.config.resolution) == (1, 8)
    assert classifier.training["flip"] is False
    again = json.loads(
        succeeds("classifier", "digits", "--out", out, "--resolution", 8, *QUICK, "--json")
    )
    assert again["sha256"] == classifier.sha256
    assert again["accuracy"] == accuracy


def test_digits_have_a_size_of_their_own(tmp_path):
    about = succeeds(
        "classifier", "digits", "--out", tmp_path / "a.safetensors", *QUICK, "--flip", "--json"
    )
    about = json.loads(about)
    assert (about["resolution"], about["channels"], about["flip"]) == (32, 1, True)
    assert (about["classes"], about["features"], about["data"]) == (10, 8, "digits")


def test_a_folder_and_the_same_packed(folder, tmp_path):
    out = tmp_path / "folder.safetensors"
    about = json.loads(
        succeeds("classifier", folder, "--out", out, "--resolution", 8, *QUICK, "--json")
    )
    assert (about["resolution"], about["channels"], about["flip"]) == (8, 3, True)
    assert (about["images"], about["held_out"], about["seed"]) == (20, 2, 0)
    succeeds("data", "pack", folder, tmp_path / "packed", "--resolution", 8)
    again = tmp_path / "packed.safetensors"
    packed = json.loads(
        succeeds("classifier", tmp_path / "packed", "--out", again, *QUICK, "--json")
    )
    assert packed["sha256"] == about["sha256"]
    other = tmp_path / "other.safetensors"
    grey = json.loads(
        succeeds(
            *("classifier", folder, "--out", other, "--resolution", 6, "--channels", 1),
            *(*QUICK, "--no-flip", "--seed", 4, "--json"),
        )
    )
    assert (grey["resolution"], grey["channels"], grey["flip"], grey["seed"]) == (6, 1, False, 4)


def test_images_of_one_size_keep_it(folder, tmp_path):
    about = succeeds("classifier", folder, "--out", tmp_path / "a.safetensors", *QUICK, "--json")
    assert json.loads(about)["resolution"] == 8


def test_mistakes_are_one_line(folder, tmp_path):
    out = tmp_path / "a.safetensors"
    Image.new("RGB", (9, 8)).save(folder / "cat/wide.png")
    assert "say with --resolution" in fails("classifier", folder, "--out", out)
    assert "must end in .safetensors" in fails("classifier", "digits", "--out", tmp_path / "a.pt")
    assert "no such file" in fails("classifier", tmp_path / "no", "--out", out, "--resolution", 8)
    assert "is not a folder" in fails(
        "classifier", "digits", "--out", folder / "cat/0000.png" / "a.safetensors"
    )
    assert not out.exists()
    succeeds("classifier", folder, "--out", out, "--resolution", 8, *QUICK)
    assert "seed 0, not 1" in fails(
        "classifier", folder, "--out", out, "--resolution", 8, *QUICK, "--seed", 1
    )
    out.write_bytes(out.read_bytes()[:-3])
    assert "cut short" in fails("classifier", folder, "--out", out, "--resolution", 8, *QUICK)
    assert biggan("classifier", "digits").returncode == 2
