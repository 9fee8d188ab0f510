"""`biggan evaluate` and `biggan report`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from biggan.cli.evaluate import command as evaluate
from biggan.cli.report import command as report
from biggan.errors import InputError
from command_line import next_command
from simple_features import SimpleFeatures
from tiny import TINY_CLASSES


@pytest.fixture(autouse=True)
def extractor(monkeypatch, tmp_path):
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "biggan.evaluation.features.open_extractor", lambda *_, **__: SimpleFeatures()
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    random = np.random.RandomState(0)
    for i in range(12):
        Image.fromarray(random.randint(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def run(line, command=evaluate):
    return CliRunner().invoke(command, line, catch_exceptions=False)


def uniform_images(folder, sizes):
    folder.mkdir()
    for i, size in enumerate(sizes):
        Image.new("RGB", size, (i % 256, 9, 9)).save(folder / f"{i:03}.png")
    return folder


def test_a_sweep_of_a_model(tiny_file, folder, tmp_path):
    out = tmp_path / "figures" / "sweep.json"
    sweep = f"--truncations 0.2,none --out {out}"
    result = run(f"--model {tiny_file} --data {folder} -n 12 {sweep}")
    assert result.exit_code == 0
    assert "12 images of tiny against 12 of data" in result.stdout
    written = json.loads(out.read_text())
    assert [row["truncation"] for row in written["rows"]] == [0.2, None]
    assert set(written["points"]) >= {"no truncation", "best frechet_distance"}
    assert out.with_suffix(".csv").read_text().count("\n") == 3
    assert out.with_suffix(".png").exists()


def test_samples_as_arrays_against_samples_as_arrays(folder, tmp_path):
    pixels = np.stack([np.asarray(Image.open(folder / f"{i}.png")) for i in range(12)])
    np.savez(tmp_path / "a.npz", pixels)
    np.save(tmp_path / "b.npy", pixels)
    for images, data in (("a.npz", "b.npy"), ("b.npy", "a.npz")):
        line = f"--images {tmp_path / images} --data {tmp_path / data} --metrics fid --json"
        result = run(f"{line} --out {tmp_path}/x.json")
        figures = json.loads(result.stdout)
        assert figures["rows"][0]["scores"]["frechet_distance"] == pytest.approx(0, abs=1e-8)
        assert figures["reference"]["num"] == 12


def test_a_ranking_of_classes(tiny_file, tmp_path):
    for name in TINY_CLASSES:
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.RandomState(i).randint(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    base = f"--model {tiny_file} --data {tmp_path}/data -n 12 --out {tmp_path}/x.json"
    result = run(f"{base} --metrics intra-fid --ranking {tmp_path}/ranking.png")
    assert result.stdout.splitlines()[-1] == f"{tmp_path}/ranking.png"
    with Image.open(tmp_path / "ranking.png") as page:
        assert page.size == (190 + 4 * 66, 3 * 66 + 2)
    with pytest.raises(InputError, match="needs --metrics intra-fid"):
        run(f"{base} --metrics fid --ranking {tmp_path}/ranking.png")
    with pytest.raises(InputError, match="must end in .png"):
        run(f"{base} --metrics intra-fid --ranking {tmp_path}/ranking.jpg")


def test_images_against_images(folder, tmp_path):
    result = run(f"--images {folder} --data {folder} --json --out {tmp_path}/x.json")
    assert result.exit_code == 0
    figures = json.loads(result.stdout)
    assert figures["rows"][0]["scores"]["frechet_distance"] == pytest.approx(0, abs=1e-8)
    assert figures["subject"]["name"] == folder.name
    assert sorted(path.name for path in tmp_path.glob("x.*")) == ["x.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--metrics fid,beauty", "there is no metric beauty"),
        ("--metrics ''", "choose from fid"),
        ("--truncations 2", "at most 1"),
        ("--truncations 0.2,0.2", "once"),
        ("--num 9", "at least 10"),
        ("--seed -1", "seed"),
        ("--images there", "give --model or --images"),
        ("--resolution 16", "--resolution applies to --images"),
        ("--neighbors near.jpg", "near.jpg must end in .png"),
        ("--save-statistics s.pt", "s.pt must end in .safetensors"),
        ("--save-statistics s.npz --seed 1", "has no use for --seed"),
        ("--out x.csv", "x.csv must end in .json"),
    ],
)
def test_mistakes(tiny_file, folder, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        run(f"--model {tiny_file} --data {folder} --out {tmp_path}/x.json {arguments}")
    assert not (tmp_path / "x.json").exists()


def test_figures_of_classes_and_a_picture_of_neighbours(tiny_file, tmp_path, monkeypatch):
    monkeypatch.setattr("biggan.evaluation.scores.default_steps", lambda _: 2)
    classes = tmp_path / "classes"
    random = np.random.RandomState(0)
    for name in TINY_CLASSES:
        (classes / name).mkdir(parents=True)
        for i in range(5):
            pixels = random.randint(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(classes / name / f"{i}.png")
    near = tmp_path / "pictures" / "near.png"
    arguments = f"--model {tiny_file} --data {classes} -n 12 --metrics intra-fid,cas"
    result = run(f"{arguments} --neighbors {near} --out {tmp_path}/x.json")
    assert result.stdout.splitlines()[-2:] == [str(tmp_path / "x.json"), str(near)]
    [row] = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert set(row["scores"]) == {"intra_class_frechet_distance", "cas"}
    assert [line["name"] for line in row["per_class"]] == list(TINY_CLASSES)
    with Image.open(near) as picture:
        assert picture.size[1] > 10 * 96


def test_statistics_instead_of_images(tiny_file, folder, tmp_path):
    def scores():
        return json.loads((tmp_path / "x.json").read_text())["rows"][0]["scores"]

    arguments = f"--model {tiny_file} -n 12 --out {tmp_path}/x.json"
    run(f"{arguments} --data {folder} --metrics fid,is")
    expected = scores()
    for name in ("s.npz", "s.safetensors"):
        file = tmp_path / "new" / name
        assert run(f"--data {folder} --save-statistics {file}").stdout == f"{file}\n"
        run(f"{arguments} --data {file}")
        assert scores() == pytest.approx(expected)
    save = f"--save-statistics {tmp_path}/t.npz"
    for line, message in {
        f"--data {file} {save}": "already contains statistics",
        f"--model {tiny_file} --resolution 16 {save} --data {folder}": "give --model.* or --resol",
        f"{arguments} --data {file} --neighbors {tmp_path}/n.png": "--neighbors needs images",
        f"--images {file} --data {folder} --resolution 16": r"\(--images\) must be images",
        f"--data digits {save}": r"give the resolution \(--resolution\), because digits",
    }.items():
        with pytest.raises(InputError, match=message):
            run(line)
    run(f"--model {tiny_file} --data {folder} --save-statistics {tmp_path}/of_model.npz")
    one, other = (np.load(tmp_path / name)["mu"] for name in ("of_model.npz", "new/s.npz"))
    np.testing.assert_array_equal(one, other)
    named = f"evaluate --data {file} --extractor inception"
    assert (
        next_command(f"{named.replace(str(file), str(folder))} --save-statistics {file}") == named
    )


def test_the_resize_goes_to_the_extractor(folder, tmp_path, monkeypatch):
    asked = []

    def opened(source, **options):
        asked.append((source, options["resize"]))
        return SimpleFeatures()

    monkeypatch.setattr("biggan.evaluation.features.open_extractor", opened)
    arguments = f"--images {folder} --data {folder} --metrics fid --out {tmp_path}/x.json"
    run(f"{arguments} --resize pil-bicubic --extractor w.pth")
    run(arguments)
    assert asked == [("w.pth", "pil-bicubic"), ("inception", None)]


def test_images_of_several_sizes_need_a_resolution(folder, tmp_path):
    mixed = uniform_images(tmp_path / "mixed", [(16, 16)] * 10 + [(24, 16)] * 2)
    arguments = f"--images {mixed} --data {folder} --out {tmp_path}/x.json"
    with pytest.raises(InputError, match=r"10 of 16x16, 2 of 24x16.*--resolution"):
        run(arguments)
    assert run(f"{arguments} --resolution 16").exit_code == 0


def test_a_report_lies_in_the_runs_folder(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "d_loss": 2.0}\n')
    result = run(str(tmp_path), report)
    assert result.stdout.strip() == str(tmp_path / "report.html")
    assert "Missing: the recipe" in (tmp_path / "report.html").read_text()


def test_a_report_with_everything(tiny_file, tmp_path, monkeypatch, undrawn):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("biggan.reporting.truncation.TRUNCATIONS", (None, 0.2))
    runs = [tmp_path / "one", tmp_path / "two"]
    for folder in runs:
        folder.mkdir()
        (folder / "metrics.jsonl").write_text('{"step": 1, "d_loss": 2.0}\n')
    shutil.copy(tiny_file, runs[0] / "generator.safetensors")
    (runs[1] / "generator.safetensors").write_bytes(b"no weights")
    arguments = f"{runs[0]} --compare {runs[1]} --figures {tmp_path}/figures"
    result = run(arguments, report)
    page, *figures = result.stdout.splitlines()
    names = ["losses.png", "truncation.png", "compared-d_loss.png"]
    assert [Path(figure).name for figure in figures] == names
    assert all(Path(figure).read_bytes()[:4] == b"\x89PNG" for figure in figures)
    assert "Images of one" in Path(page).read_text()
    assert "Missing" in Path(page).read_text()
    unmeasured = run(f"{runs[1]} --no-measure", report)
    assert "the generator" not in Path(unmeasured.stdout.strip()).read_text()
    damaged = run(str(runs[1]), report)
    assert "the generator (" in Path(damaged.stdout.strip()).read_text()


def test_the_extractor_is_found_from_the_packages_name():
    code = "import biggan; print(biggan.metrics.inception.InceptionFeatures.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "InceptionFeatures"


def test_data_of_a_smaller_resolution_are_refused(tiny_file, folder, tmp_path):
    small = uniform_images(tmp_path / "small", [(15, 15)] + [(12, 15)] * 299)  # not all looked at
    out = f"--out {tmp_path}/x.json"
    of_model, of_images = f"--model {tiny_file} -n 12", f"--images {folder}"
    for subject in (of_model, of_images):
        with pytest.raises(InputError, match="small have at most 1[25] pixels a.* at 16: enlarged"):
            run(f"{subject} --data {small} {out}")
    assert not (tmp_path / "x.json").exists()
    run(f"{of_images} --data {small} --resolution 16 {out}")  # somebody asks for it
    assert (tmp_path / "x.json").exists()
    Image.new("RGB", (20, 16)).save(small / "000.png")  # in most sets some are small
    run(f"{of_images} --data {small} {out}")


def test_data_without_classes_say_what_needs_them(tiny_file, folder, tmp_path):
    with pytest.raises(InputError, match="no class folders.* omit intra-fid and cas"):
        run(f"--model {tiny_file} --data {folder} -n 12 --out {tmp_path}/x.json --metrics cas")


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK"])
def test_images_of_every_mode_are_looked_at(folder, tmp_path, mode):
    made = tmp_path / "made"
    made.mkdir()
    for file in folder.iterdir():
        with Image.open(file) as image:
            image.convert(mode).save(made / file.with_suffix(".tif").name)
    arguments = f"--images {made} --data {folder} --metrics fid --out {tmp_path}/x.json"
    assert run(arguments).exit_code == 0
    assert json.loads((tmp_path / "x.json").read_text())["subject"]["num"] == 12


def test_corrupt_images_are_left_out_and_counted(folder, tmp_path, caplog):
    made = shutil.copytree(folder, tmp_path / "made")
    (made / "3.png").write_bytes((made / "3.png").read_bytes()[:60])
    arguments = f"--images {made} --data {folder} --metrics fid --out"
    run(f"{arguments} {tmp_path}/x.json")
    assert json.loads((tmp_path / "x.json").read_text())["subject"]["skipped"] == 1
    assert "3.png" in caplog.text
    for file in made.iterdir():
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(InputError, match="no image can be read"):
        run(f"{arguments} {tmp_path}/y.json --resolution 16")
    assert not (tmp_path / "y.json").exists()


def test_the_digits_may_be_looked_at_themselves(tmp_path):
    arguments = f"--images digits --data digits --metrics fid --out {tmp_path}/x.json"
    with pytest.raises(InputError, match=r"give the resolution \(--resolution\), because digits"):
        run(arguments)
    run(f"{arguments} --resolution 8")
    assert json.loads((tmp_path / "x.json").read_text())["subject"]["num"] == 1797


def test_a_picture_of_neighbours_does_not_replace_the_plot(tiny_file, folder, tmp_path):
    arguments = f"--model {tiny_file} --data {folder} -n 12 --out {tmp_path}/x.json"
    with pytest.raises(InputError, match=r"x.png is the plot of the sweep"):
        run(f"{arguments} --neighbors {tmp_path}/y/../x.png --truncations 0.2,none")
    ranking = f"{arguments} --metrics intra-fid --ranking"
    with pytest.raises(InputError, match=r"x.png is the plot of the sweep.* --ranking"):
        run(f"{ranking} {tmp_path}/x.png --truncations 0.2,none")
    with pytest.raises(InputError, match=r"y.png is also the file of --neighbors"):
        run(f"{ranking} {tmp_path}/y.png --neighbors {tmp_path}/y.png")
    assert not (tmp_path / "x.json").exists()
    assert run(f"{arguments} --neighbors {tmp_path}/x.png").exit_code == 0  # no sweep, no plot


@pytest.mark.parametrize("option", ["--num", "--truncations", "--seed", "--batch-size"])
def test_what_is_for_models_is_not_ignored_beside_images(folder, tmp_path, option):
    with pytest.raises(InputError, match=f"{option} applies to a model, not to --images"):
        run(f"--images {folder} --data {folder} {option} 1 --out {tmp_path}/x.json")


def test_statistics_are_not_of_enlarged_or_too_few_images(tiny_file, tmp_path):
    small = uniform_images(tmp_path / "small", [(12, 12)] * 12)
    one = uniform_images(tmp_path / "one", [(16, 16)])
    save = f"--save-statistics {tmp_path}/s.safetensors"
    with pytest.raises(InputError, match="at most 12 pixels a side"):
        run(f"--model {tiny_file} --data {small} {save}")
    with pytest.raises(InputError, match="at least 10 images, and 1 are in one"):
        run(f"--data {one} {save}")
    assert not (tmp_path / "s.safetensors").exists()
    run(f"--data {small} --resolution 16 {save}")  # somebody asks for it
    assert (tmp_path / "s.safetensors").exists()


def test_statistics_do_not_replace_their_extractor(folder, tmp_path):
    file = tmp_path / "c.safetensors"
    with pytest.raises(InputError, match="c.safetensors is the extractor's own file"):
        run(f"--data {folder} --extractor {file} --save-statistics {file}")


def test_one_image_is_too_few(folder, tmp_path):
    one = uniform_images(tmp_path / "one", [(16, 16)])
    for images, data in ((one, folder), (folder, one)):
        with pytest.raises(InputError, match="at least 10 images, and 1 are in one"):
            run(f"--images {images} --data {data} --out {tmp_path}/x.json")
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("name", ["s.npz", "s.safetensors"])
def test_statistics_that_are_cut_short_are_refused(tiny_file, folder, tmp_path, name):
    file = tmp_path / name
    run(f"--data {folder} --save-statistics {file}")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match=f"{name} is (not a whole|damaged)"):
        run(f"--model {tiny_file} --data {file} -n 12 --out {tmp_path}/x.json")
    assert not (tmp_path / "x.json").exists()
