"""What is written under a name that nobody chose replaces nothing but the same."""

import json

import pytest
import torch

import biggan
from biggan.atomic_write import write_atomically
from biggan.cli import sample
from biggan.cli.options import unused_name
from biggan.evaluation.result import Evaluation, is_of_same
from biggan.provenance_files import read_provenance
from biggan.weights.files import Description, save_network
from biggan.weights.load import load_network
from command_line import fails, pixels, succeeds
from tiny import TINY_CLASSES, tiny_generator


@pytest.fixture
def other_file(tmp_path):
    """Another model of the same name."""
    generator = tiny_generator()
    with torch.no_grad():
        next(generator.parameters()).add_(1)
    path = tmp_path / "other.safetensors"
    save_network(path, generator, Description(name="tiny", class_names=TINY_CLASSES))
    return path


def test_a_grid_leaves_those_of_other_classes(tiny_file, tmp_path):
    grid = f"sample --model {tiny_file} -n 2 --grid --out {tmp_path} --class"
    names = [succeeds(f"{grid} {number}").strip() for number in (0, 1, 0, 1)]
    assert names == [str(tmp_path / name) for name in ("grid.png", "grid-2.png") * 2]
    assert (pixels(names[0]) != pixels(names[1])).any()


def test_a_grid_leaves_one_that_another_command_writes_meanwhile(tiny_file, tmp_path):
    gan = biggan.load(tiny_file)
    first, second = (gan.plan([label], 2, 0.5, 0) for label in (0, 1))
    output = sample.Output(tmp_path, "png", columns=2, folders=None)

    class Interrupted:
        def draw(self, recipes):
            yield from gan.draw(recipes)
            names.extend(sample.write_pictures(gan.draw(first), first, output))

    names = []
    names.extend(sample.write_pictures(Interrupted().draw(second), second, output))
    assert [path.name for path in names] == ["grid.png", "grid-2.png"]
    assert read_provenance(tmp_path / "grid.png").pictures == tuple(first)


def test_pictures_leave_those_of_another_model_of_the_same_name(tiny_file, other_file, tmp_path):
    models = (tiny_file, other_file, tiny_file)
    sample = f"sample --class 0 --out {tmp_path}/out --model"
    names = [succeeds(f"{sample} {model}").strip() for model in models]
    assert names[0] == names[2]
    assert names[1] == names[0].replace(".png", "-2.png")
    assert (pixels(names[0]) != pixels(names[1])).any()


def test_a_path_leaves_another_one_unless_its_name_was_given(tiny_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = f"interpolate --model {tiny_file} --from 0 --steps 2 -n 1 --to"
    names = [succeeds(f"{path} {number}").strip() for number in (1, 2, 1)]
    assert names == ["interpolation.png", "interpolation-2.png", "interpolation.png"]
    first = pixels(names[0])
    assert succeeds(f"{path} 2 --out interpolation.png").strip() == "interpolation.png"
    assert (pixels("interpolation.png") != first).any()


def test_a_file_that_was_named_is_written_and_replaced(tiny_file, tmp_path):
    sample = f"sample --model {tiny_file} --class"
    for number, (line, name) in enumerate(
        {"-n 3 --grid": "g.png", "--sweep 1,0.5 -n 2": "s.jpg", "": "one.png"}.items()
    ):
        file = tmp_path / f"new-{number}" / name
        for class_ in (1, 2):
            assert succeeds(f"{sample} {class_} {line} --out {file}").strip() == str(file)
            assert [*file.parent.iterdir()] == [file]
        first = read_provenance(file)
        again = tmp_path / f"again{file.suffix}"
        assert succeeds(f"sample --model {tiny_file} --like {file} --out {again}")
        assert read_provenance(again) == first
        assert again.read_bytes() == file.read_bytes()
    for line, message in {
        f"-n 3 --out {tmp_path}/x.png": "x.png is one file for 3 images: add --grid, or give a",
        f"--folders --out {tmp_path}/x.png": "--folders writes a file for each image",
        f"--format jpg --out {tmp_path}/x.png": "x.png is no file of --format jpg: omit one",
        f"--out {tmp_path}/x.png/y": "x.png is not a folder",
        f"--out {tmp_path}/folder.png": "folder.png: it is a folder",
        f"--grid --out {tmp_path}/x.webp": "x.webp: a file ends in .png or .jpg",
    }.items():
        (tmp_path / "x.png").touch()
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        assert message in fails(f"{sample} 1 {line}")


@pytest.mark.parametrize(
    "line", ["invert a.png --out", "report run --figures", "push model name --folder"]
)
def test_a_folder_is_not_named_as_a_file(line, tmp_path):
    message = fails(f"{line} {tmp_path}/x.png")
    assert "x.png' is the name of a file: give a folder" in message
    assert not (tmp_path / "x.png").exists()


def test_figures_leave_those_of_another_subject(tmp_path):
    about = {"reference": {}, "extractor": {}, "protocol": {}, "points": {}, "versions": {}}
    rows = [{"truncation": None, "scores": {"fid": 1.0}, "seconds": 1.0}]
    first, second = (
        Evaluation({"name": name}, rows=rows, date="today", **about) for name in ("a", "b")
    )
    file = tmp_path / "evaluation.json"
    write_atomically(file, first.to_json().encode())
    again = Evaluation(**(json.loads(first.to_json()) | {"date": "tomorrow"}))
    assert is_of_same(again, file)
    assert not is_of_same(second, file)
    assert unused_name(file, lambda there: is_of_same(second, there)).name == "evaluation-2.json"
    file.write_text("{")
    assert not is_of_same(first, file)


def test_the_files_of_a_sweep_leave_foreign_ones(tmp_path):
    (tmp_path / "figures.png").write_bytes(b"a picture")
    sweep = f"--truncations 0.5,1 --out {tmp_path}/figures.json"
    line = fails(f"evaluate --data digits --metrics cas {sweep}")
    assert "figures.png exists and does not belong to" in line


def test_converting_leaves_another_network(tiny_file, other_file, tmp_path):
    out = tmp_path / "out.safetensors"
    for _ in range(2):  # as after a kill that came late
        succeeds(f"convert {tiny_file} {out}")
    kept = out.read_bytes()
    assert "replace it with --force" in fails(f"convert {other_file} {out}")
    assert out.read_bytes() == kept
    succeeds(f"convert {other_file} {out} --force")
    assert load_network(out).sha256 == biggan.load(other_file).sha256


def test_a_file_of_another_kind_is_not_replaced(tiny_file, tmp_path):
    kept = {}
    for name in ("weights.safetensors", "photo.jpg", "photo.png"):
        kept[tmp_path / name] = tiny_file.read_bytes()
        (tmp_path / name).write_bytes(kept[tmp_path / name])
    succeeds(f"sample --model {tiny_file} --out {tmp_path}/tiny.png")
    kept[tmp_path / "tiny.png"] = (tmp_path / "tiny.png").read_bytes()
    weights, picture = tmp_path / "weights.safetensors", tmp_path / "tiny.png"
    (tmp_path / "config.toml").touch()
    for line, message in {
        f"directions {tiny_file} --method sefa -n 2 --out {weights}": "exists and is not replaced",
        f"evaluate --data digits --save-statistics {weights}": "exists and is not replaced",
        f"invert {picture} --model {tiny_file} --sheet {picture}": "one of the pictures",
        f"report {tmp_path} --out {tmp_path}/photo.jpg": "must end in .html",
    }.items():
        assert message in fails(line)
    assert {file: file.read_bytes() for file in kept} == kept
    own = f"directions {tiny_file} --method sefa -n 2 --out {tmp_path}/own.safetensors"
    assert succeeds(own) == succeeds(own)


def test_only_files_are_replaced(tiny_file, tmp_path):
    pipe = tmp_path / "pipe.png"
    pipe.symlink_to("/dev/null")
    path = f"interpolate --model {tiny_file} --from 0 --to 1 --out {pipe}"
    assert "it exists and is not a file" in fails(path)
    assert pipe.is_symlink()
