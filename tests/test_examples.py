"""The examples and the documents' Python run, and the bundled model is what its card says."""

import functools
import io
import logging
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

import biggan
from biggan import Gan
from biggan.classifier import train_classifier
from biggan.data import load_dataset
from biggan.demo.drawing import draw_grid
from biggan.demo.forms import EXPLORE, INTERPOLATE, SWEEP
from biggan.demo.models import ModelCache
from biggan.export import export_generator
from biggan.provenance_files import read_provenance
from biggan.weights.files import BUNDLED, Description
from data_forms import pictures, write_shards
from demo_app import running
from tiny import TINY_CLASSES, tiny_generator

ROOT = Path(__file__).parents[1]


def run_example(name, *arguments):
    """What an example prints; in this process, since another one takes seconds to import torch."""
    script, printed, log = ROOT / "examples" / name, io.StringIO(), logging.getLogger()
    handlers, level = log.handlers[:], log.level
    with (
        mock.patch.object(sys, "argv", [str(script), *map(str, arguments)]),
        redirect_stdout(printed),
    ):
        try:
            runpy.run_path(str(script), run_name="__main__")
        finally:
            log.handlers[:] = handlers
            log.setLevel(level)
    return printed.getvalue()


def test_sample_and_morph(tmp_path):
    run_example("sample_and_morph.py", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"apples.png", "morph.png", "mixed.png"}


def test_morph_video(tmp_path):
    pytest.importorskip("av")
    run_example("morph_video.py", tmp_path)
    recipes = {path.suffix: read_provenance(path) for path in tmp_path.iterdir()}
    assert set(recipes) == {".mp4", ".webp"}
    with Image.open(next(tmp_path.glob("*.webp"))) as video:
        assert video.n_frames == recipes[".webp"].frames


@pytest.mark.parametrize(
    ("form", "changes"),
    [
        ({"truncation": "dynamic", "batch": 2}, {}),
        ({"truncation": None}, {"num_classes": 0, "image_channels": 1}),
    ],
)
def test_onnx_sample(tmp_path, form, changes):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, picture = tmp_path / "tiny.onnx", tmp_path / "row.png"
    names = () if changes else TINY_CLASSES
    description = Description(name="tiny", class_names=names)
    export_generator(Gan(tiny_generator(**changes), description, "5ha256"), model, **form)
    run_example("onnx_sample.py", model, "siamese", picture)
    with Image.open(picture) as row:
        assert row.mode == ("L" if changes else "RGB")
        assert row.size == (form.get("batch", 5) * 16, 16)
        assert np.std(row) > 1


@pytest.fixture(scope="module")
def address():
    """A server with the page; yields its address."""
    pytest.importorskip("gradio")
    with running(ModelCache(BUNDLED, functools.partial(biggan.load, engine="pytorch"))) as (own, _):
        yield own


def test_api_client(tmp_path, address):
    said = run_example("api_client.py", address, tmp_path)
    assert "models: fruits, cifar10, digits" in said
    assert "refused: truncation must be" in said
    gan = biggan.load(engine="pytorch")
    for name, form, values in (
        ("samples.png", EXPLORE, {"seed": 3, "category": "apricot"}),
        ("path.png", INTERPOLATE, {"steps": 8}),
        ("sweep.png", SWEEP, {"noise": "hub", "category": "strawberry"}),
    ):
        with Image.open(tmp_path / name) as picture:
            assert np.array_equal(picture, draw_grid(gan, form.plan(gan, **values))), name


def test_evolve_image(tmp_path):
    said = run_example("evolve_image.py", 4, tmp_path / "evolved.png")
    values = [float(value) for value in re.findall(r"generation \d+: (-?[\d.]+)", said)]
    assert len(values) == 20
    assert values[-1] > -0.01 > -0.5 > values[0]
    with Image.open(tmp_path / "evolved.png") as row:
        assert row.size == (10 * 33 - 1, 32)


def test_clip_guidance(tmp_path):
    pytest.importorskip("open_clip")
    arguments = ("a banana", tmp_path / "guided.png", "--steps", 2, "--pretrained", "none")
    said = run_example("clip_guidance.py", *arguments)
    assert "step 1: similarity" in said
    with Image.open(tmp_path / "guided.png") as picture:
        assert picture.size == (64, 64)


def test_fine_tune(tmp_path):
    run_example("fine_tune.py", tmp_path, 2)
    assert (tmp_path / "crosses.png").is_file()
    gan = biggan.load(tmp_path / "run")
    assert gan.class_names == ("cross", "one")
    assert gan.config == biggan.load("digits").config.updated({"num_classes": 2})


BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = {
    str(path.relative_to(ROOT)): BLOCK.findall(path.read_text(encoding="utf-8"))
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
# A document's sizes, in a test's.
SMALLER = {
    "docs/api.md": [('api_name="/video"', 'seconds=1, api_name="/video"')],
    "docs/data.md": [("https://example.org/train-{0000..0999}.tar", "."), ("2048", "4")],
    "docs/evaluation.md": [
        ("num=2048", "num=64"),
        ('f"cifar10-{part}.zip", 32, 3', '"digits", 32, 3'),
        ("300", "10"),
    ],
    "docs/fine_tuning.md": [
        ("generator=G_ema.pth", 'generator=digits", "batch_size=4", "total_steps=1'),
        ('"fine-tune"', '"digits"'),
        ("pets", "digits"),
    ],
    "docs/guide.md": [("1000", "5")],
    "docs/research.md": [
        ("num=6", "num=6, samples=40"),
        ("seconds=20", "seconds=1"),
        ("steps=40", "steps=3"),
    ],
    "docs/video.md": [("seconds(6, ", "seconds(1, ")],
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "docs/export.md" else [])
        for name, blocks in DOCUMENTS.items()
        if blocks
    ],
)
def test_the_python_of_a_document_runs(tmp_path, monkeypatch, request, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    blocks, changes = DOCUMENTS[name], list(SMALLER.get(name, []))
    if name == "docs/api.md":
        changes.append(("http://127.0.0.1:7860", request.getfixturevalue("address")))
    elif name == "docs/data.md":
        pytest.importorskip("webdataset")
        write_shards(tmp_path, pictures(4))
    elif name == "docs/evaluation.md":
        digits = load_dataset("digits", 32, 1)
        train_classifier(digits, Path("digits-classifier.safetensors"), steps=1, width=2)
    elif name == "docs/export.md":
        pytest.importorskip("onnxscript")
        pytest.importorskip("openvino")
        blocks = reversed(blocks)  # the second writes what the first reads
    elif name == "docs/notebook.md":
        pytest.importorskip("ipywidgets")
    elif name == "docs/video.md":
        pytest.importorskip("av")
    for block in blocks:
        for large, small in changes:
            block = block.replace(large, small)
        exec(compile(block, name, "exec"), {"__name__": "__main__"})


@pytest.mark.slow
def test_an_independent_classifier_recognizes_the_bundled_models_digits():
    real, half, _ = run_example("judge_digits.py").splitlines()
    assert half.startswith("truncation 0.5")
    assert float(re.search(r"([\d.]+)% recognized", half)[1]) >= 95
    smallest = [float(re.search(r"smallest ([\d.]+)", line)[1]) for line in (real, half)]
    assert smallest[1] > smallest[0] / 2  # not nearer to a real digit than those are to each other


@pytest.mark.parametrize(
    ("name", "index", "class_name", "preset"),
    [("fruits", 32, "red-apple", "biggan-64"), ("digits", 7, "seven", "biggan-32")],
)
def test_the_bundled_models_describe_themselves(name, index, class_name, preset):
    gan = biggan.load(name)
    assert gan.name == name
    assert gan.class_names[index] == class_name
    assert gan.description.source
    assert gan.description.licence
    assert gan.description.training["recipe"]["preset"] == preset
    assert len(gan.generator.head.bn.grid) == 50


def test_the_default_model_and_its_discriminator_agree():
    gan = biggan.load()
    assert gan.name == "fruits"
    judge = biggan.load_discriminator("fruits")
    z = biggan.truncated_noise(1, gan.config.z_dim, 0.5, seed=0)
    assert judge(gan.generate(z, torch.tensor([32])), torch.tensor([32])).shape == (1, 1)


def test_the_bundled_weights_are_small():
    folder = ROOT / "src/biggan/weights/bundled"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 25e6
