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
from simple_features import SimpleFeatures


@pytest.fixture(autouse=True)
def extractor(monkeypatch, tmp_path):
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("biggan.metrics.choice.open_extractor", lambda *_, **__: SimpleFeatures())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    random = np.random.RandomState(0)
    for i in range(12):
        Image.fromarray(random.randint(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def run(*arguments):
    return CliRunner().invoke(evaluate, [str(a) for a in arguments], catch_exceptions=False)


def test_a_sweep_of_a_model(tiny_file, folder, tmp_path):
    out = tmp_path / "figures" / "sweep.json"
    result = run(
        "--model", tiny_file, "--data", folder, "-n", 12, "--truncations", "0.2,none", "--out", out
    )
    assert result.exit_code == 0
    assert "12 images of tiny against 12 of data" in result.stdout
    written = json.loads(out.read_text())
    assert [row["truncation"] for row in written["rows"]] == [0.2, None]
    assert set(written["points"]) >= {"no truncation", "best frechet_distance"}
    assert out.with_suffix(".csv").read_text().count("\n") == 3
    assert out.with_suffix(".png").exists()


def test_images_against_images(folder, tmp_path):
    result = run("--images", folder, "--data", folder, "--json", "--out", tmp_path / "x.json")
    assert result.exit_code == 0
    figures = json.loads(result.stdout)
    assert figures["rows"][0]["scores"]["frechet_distance"] == pytest.approx(0, abs=1e-8)
    assert figures["subject"]["name"] == folder.name
    assert sorted(path.name for path in tmp_path.glob("x.*")) == ["x.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "fid,beauty"], "there is no metric beauty"),
        (["--metrics", ""], "choose of fid"),
        (["--truncations", "2"], "at most 1"),
        (["--truncations", "0.2,0.2"], "once"),
        (["--num", "9"], "at least 10"),
        (["--seed", "-1"], "seed"),
        (["--images", "there"], "give --model or --images"),
    ],
)
def test_mistakes(tiny_file, folder, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        run("--model", tiny_file, "--data", folder, "--out", tmp_path / "x.json", *arguments)
    assert not (tmp_path / "x.json").exists()


def test_images_of_several_sizes_need_a_resolution(folder, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for i in range(12):
        Image.new("RGB", (16 if i < 10 else 24, 16), (9 * i, i, i)).save(mixed / f"{i}.png")
    with pytest.raises(InputError, match=r"10 of 16x16, 2 of 24x16.*--resolution"):
        run("--images", mixed, "--data", folder, "--out", tmp_path / "x.json")
    result = run(
        "--images", mixed, "--data", folder, "--resolution", 16, "--out", tmp_path / "x.json"
    )
    assert result.exit_code == 0


def test_a_report_lies_in_the_runs_folder(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "d_loss": 2.0}\n')
    result = CliRunner().invoke(report, [str(tmp_path)], catch_exceptions=False)
    assert result.stdout.strip() == str(tmp_path / "report.html")
    assert "Missing: the recipe" in (tmp_path / "report.html").read_text()


def test_a_report_with_everything(tiny_file, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("biggan.training.report.page.as_svg", lambda chart, number: "<svg></svg>")
    monkeypatch.setattr("biggan.training.report.truncation.TRUNCATIONS", (None, 0.2))
    runs = [tmp_path / "one", tmp_path / "two"]
    for run in runs:
        run.mkdir()
        (run / "metrics.jsonl").write_text('{"step": 1, "d_loss": 2.0}\n')
    shutil.copy(tiny_file, runs[0] / "generator.safetensors")
    (runs[1] / "generator.safetensors").write_bytes(b"no weights")
    arguments = [runs[0], "--compare", runs[1], "--figures", tmp_path / "figures"]
    result = CliRunner().invoke(report, [str(a) for a in arguments], catch_exceptions=False)
    page, *figures = result.stdout.splitlines()
    assert [Path(figure).name for figure in figures] == [
        "losses.png",
        "truncation.png",
        "compared-d_loss.png",
    ]
    assert all(Path(figure).read_bytes()[:4] == b"\x89PNG" for figure in figures)
    assert "Pictures of one" in Path(page).read_text()
    assert "Missing" in Path(page).read_text()
    unmeasured = CliRunner().invoke(report, [str(runs[1]), "--no-measure"], catch_exceptions=False)
    assert "the generator" not in Path(unmeasured.stdout.strip()).read_text()
    damaged = CliRunner().invoke(report, [str(runs[1])], catch_exceptions=False)
    assert "the generator (" in Path(damaged.stdout.strip()).read_text()


def test_the_extractor_is_found_from_the_packages_name():
    code = "import biggan; print(biggan.metrics.inception.InceptionFeatures.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "InceptionFeatures"
