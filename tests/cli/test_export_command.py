"""`biggan export` as a user types it."""

import json

import pytest
from test_cli import biggan, fails, succeeds

from biggan import export
from biggan.models import DiscriminatorConfig, build_discriminator, get_preset
from biggan.weights.files import Description, save_discriminator

onnxruntime = pytest.importorskip("onnxruntime")
for package in ("onnxscript", "openvino"):
    pytest.importorskip(package)


def test_an_onnx_file_is_written_once_and_replaced_if_asked(tiny_file, tmp_path):
    out = tmp_path / "new" / "tiny.onnx"
    arguments = ["export", "--model", tiny_file, "--format", "onnx", out]
    result = biggan(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{out}\n"
    assert result.stderr.startswith("tiny, 16 px, onnx; images differ from PyTorch's by at most")
    assert result.stderr.count("\n") == 1  # none of the exporter's remarks
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["truncation"] == "0.4"
    assert "exists: choose another name, or replace it with --force" in fails(*arguments)

    how = ["--truncation", "none", "--batch", 1, "--force", "--json"]
    entry = json.loads(succeeds(*arguments, *how))
    assert (entry["file"], entry["format"], entry["model"]) == (str(out), "onnx", "tiny")
    assert (entry["truncation"], entry["batch"]) == (None, 1)
    assert entry["inputs"] == {"z": [1, 12], "class_weights": [1, 3]}
    assert entry["difference"] < export.TOLERANCE
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["truncation"] == "none"


def test_openvino_writes_two_files(tiny_file, tmp_path):
    out = tmp_path / "tiny"
    arguments = ["export", "--model", tiny_file, "--format", "openvino", out]
    assert succeeds(*arguments) == f"{out}.xml\n"
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.xml", "tiny.bin"}
    assert "tiny.xml exists" in fails(*arguments)


def test_mistakes_are_one_line(tiny_file, tmp_path, monkeypatch):
    out = tmp_path / "a.onnx"

    def refused(*arguments):
        line = fails("export", "--model", tiny_file, *arguments)
        assert not out.exists()
        return line

    assert "neither a number nor 'none' or 'dynamic'" in refused(out, "--truncation", "low")
    assert "truncation must be above 0 and at most 1" in refused(out, "--truncation", "2")
    assert "neither a whole number nor 'dynamic'" in refused(out, "--batch", "1.5")
    assert "the batch must be 1 to 1024, or dynamic, not 0" in refused(out, "--batch", "0")
    assert "as files of openvino are" in refused(tmp_path / "a.xml")
    assert "as files of onnx are" in refused(out, "--format", "openvino")
    assert "is the model: choose" in refused(tiny_file, "--force")
    assert "is not a folder" in refused(tiny_file / "a.onnx")
    monkeypatch.setattr(export, "_onnx_program", lambda *_: 1 / 0)
    assert "nothing was written: ONNX failed: division by zero" in refused(out)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert "needs onnxruntime: pip install 'biggan[export]'" in refused(out)


def test_a_discriminator_is_refused(tmp_path):
    path = tmp_path / "d.safetensors"
    small = {"channels": 4, "widths": [2, 2, 4, 4]}
    config = get_preset("biggan-32").discriminator.updated(small)
    assert isinstance(config, DiscriminatorConfig)
    save_discriminator(path, build_discriminator(config), Description(name="judge"))
    line = fails("export", "--model", path, tmp_path / "a.onnx")
    assert "holds a discriminator, not a generator" in line
    assert list(tmp_path.iterdir()) == [path]
