"""The examples run, and the bundled model is what its card says."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import biggan
from biggan.demo.drawing import draw_grid, interpolation_recipe, sample_recipe, sweep_recipe
from biggan.export import export_onnx

ROOT = Path(__file__).parents[1]


def run_example(name, *arguments):
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_sample_and_morph(tmp_path):
    run_example("sample_and_morph.py", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"sevens.png", "morph.png", "mixed.png"}


def test_onnx_sample(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, picture = tmp_path / "digits.onnx", tmp_path / "row.png"
    export_onnx(biggan.load(), model, truncation="dynamic")
    run_example("onnx_sample.py", model, "seven", picture)
    with Image.open(picture) as row:
        assert (row.mode, row.size) == ("L", (5 * 32, 32))
        assert np.std(row) > 50  # strokes on a black ground


def test_api_client(tmp_path):
    pytest.importorskip("gradio")
    server = [sys.executable, "-m", "biggan", "demo", "--port=0", "--engine=pytorch"]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = run_example("api_client.py", process.stdout.readline().strip(), tmp_path)
        finally:
            process.terminate()
    assert "models: digits" in said
    assert "refused: truncation must be" in said
    gan = biggan.load(engine="pytorch")
    for name, function, rest in (
        ("samples.png", sample_recipe, (10, 0.4, 3, "zero")),
        ("path.png", interpolation_recipe, (2, 8, 0.2, 0, 0, "zero", "nine")),
        ("sweep.png", sweep_recipe, (2, 0, "hub", "nine")),
    ):
        with Image.open(tmp_path / name) as picture:
            assert np.array_equal(picture, draw_grid(gan, function(gan, *rest))), name


def test_fine_tune(tmp_path):
    run_example("fine_tune.py", tmp_path, 2)
    assert (tmp_path / "crosses.png").is_file()
    gan = biggan.load(tmp_path / "run")
    assert gan.class_names == ("cross", "one")
    assert gan.config == biggan.load().config.updated({"num_classes": 2})


@pytest.mark.slow
def test_an_independent_classifier_reads_the_bundled_models_digits():
    real, half, _ = run_example("judge_digits.py").splitlines()
    assert half.startswith("truncation 0.5")
    assert float(re.search(r"([\d.]+)% read right", half)[1]) >= 95
    smallest = [float(re.search(r"smallest ([\d.]+)", line)[1]) for line in (real, half)]
    assert smallest[1] > smallest[0] / 2  # not nearer to a real digit than those are to each other


def test_the_bundled_model_describes_itself():
    gan = biggan.load()
    assert gan.name == "digits"
    assert gan.class_names[7] == "seven"
    assert gan.description.source
    assert gan.description.licence
    assert gan.description.training["recipe"]["preset"] == "biggan-32"
    assert len(gan.generator.head.bn.grid) == 50
