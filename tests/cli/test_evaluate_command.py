"""`biggan evaluate` and `biggan report`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from biggan.cli.evaluate import command as evaluate
from biggan.cli.report import command as report
from biggan.errors import InputError
from command_line import next_command
from data_forms import pictures, write_folder
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


def test_images_and_arrays_against_images_and_arrays(folder, tmp_path):
    pixels = np.stack([np.asarray(Image.open(folder / f"{i}.png")) for i in range(12)])
    arrays = tmp_path / "a.npz", tmp_path / "b.npy"
    np.savez(arrays[0], pixels)
    np.save(arrays[1], pixels)
    for images, data in (arrays, arrays[::-1], (folder, folder)):
        line = f"--images {images} --data {data} --metrics fid --json --out {tmp_path}/x.json"
        figures = json.loads(run(line).stdout)
        assert figures["rows"][0]["scores"]["frechet_distance"] == pytest.approx(0, abs=1e-8)
        assert figures["reference"]["num"] == 12
        assert figures["subject"]["name"] == images.name
    assert [path.name for path in tmp_path.glob("x.*")] == ["x.json"]
    run(f"--images digits --data digits --metrics fid --out {tmp_path}/d.json --resolution 8")
    assert json.loads((tmp_path / "d.json").read_text())["subject"]["num"] == 1797


def test_a_ranking_of_classes(tiny_file, tmp_path):
    write_folder(tmp_path / "data", pictures(4, TINY_CLASSES, size=16))
    base = f"--model {tiny_file} --data {tmp_path}/data -n 12 --out {tmp_path}/x.json"
    result = run(f"{base} --metrics intra-fid --ranking {tmp_path}/ranking.png")
    assert result.stdout.splitlines()[-1] == f"{tmp_path}/ranking.png"
    with Image.open(tmp_path / "ranking.png") as page:
        assert page.size == (190 + 4 * 66, 3 * 66 + 2)


MODEL = "--model {tiny} --data {folder} --out {out} "
IMAGES = "--images {folder} --data {folder} --out {out} "


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (MODEL + "--metrics fid,beauty", "there is no metric beauty"),
        (MODEL + "--metrics ''", "choose from fid"),
        (MODEL + "--metrics cas -n 12", "no class folders.* omit intra-fid and cas"),
        (MODEL + "--metrics fid --ranking r.png", "needs --metrics intra-fid"),
        (MODEL + "--metrics intra-fid --ranking r.jpg", "must end in .png"),
        (MODEL + "--truncations 2", "at most 1"),
        (MODEL + "--truncations 0.2,0.2", "once"),
        (MODEL + "--num 9", "at least 10"),
        (MODEL + "--seed -1", "seed"),
        (MODEL + "--images there", "give --model or --images"),
        (MODEL + "--resolution 16", "--resolution applies to --images"),
        (MODEL + "--neighbors near.jpg", "near.jpg must end in .png"),
        (MODEL + "--save-statistics s.pt", "s.pt must end in .safetensors"),
        (MODEL + "--save-statistics s.npz --seed 1", "has no use for --seed"),
        (MODEL + "--out x.csv", "x.csv must end in .json"),
        *(
            (f"{IMAGES}{option} 1", f"{option} applies to a model, not to --images")
            for option in ("--num", "--truncations", "--seed", "--batch-size")
        ),
        ("--images digits --data digits", r"the resolution \(--resolution\), because digits"),
        (
            "--data {folder} --extractor c.safetensors --save-statistics c.safetensors",
            "c.safetensors is the extractor's own file",
        ),
    ],
)
def test_mistakes(tiny_file, folder, tmp_path, line, message):
    out = tmp_path / "x.json"
    with pytest.raises(InputError, match=message):
        run(line.format(tiny=tiny_file, folder=folder, out=out))
    assert not out.exists()


@pytest.mark.parametrize("line", ["--data {folder}s", "--images no.npz --data {folder}"])
def test_a_missing_source_is_named_before_the_extractor_is_opened(folder, monkeypatch, line):
    monkeypatch.setattr(
        "biggan.evaluation.features.open_extractor", lambda *_, **__: pytest.fail("opened")
    )
    with pytest.raises(InputError, match="no such file or folder"):
        run(line.format(folder=folder))


def test_figures_of_classes_and_a_picture_of_neighbours(tiny_file, tmp_path, monkeypatch):
    monkeypatch.setattr("biggan.evaluation.scores.default_steps", lambda _: 2)
    classes = write_folder(tmp_path / "classes", pictures(5, TINY_CLASSES, size=16))
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
