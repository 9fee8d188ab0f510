"""`biggan export` as a user types it."""

import json

import pytest

from biggan import export
from biggan.models import DiscriminatorConfig, build_discriminator, get_preset
from biggan.weights.files import Description, save_network
from command_line import biggan, fails, succeeds

onnxruntime = pytest.importorskip("onnxruntime")
for package in ("onnxscript", "openvino"):
    pytest.importorskip(package)


def test_an_onnx_file_is_written_once_and_replaced_if_asked(tiny_file, tmp_path):
    out = tmp_path / "new" / "tiny.onnx"
    export_tiny = f"export --model {tiny_file} --format onnx {out}"
    result = biggan(export_tiny)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{out}\n"
    assert result.stderr.startswith("tiny, 16 px, onnx; images differ from PyTorch's by at most")
    assert result.stderr.count("\n") == 1  # none of the exporter's remarks
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["truncation"] == "0.4"
    assert "exists: choose another name, or replace it with --force" in fails(export_tiny)

    how = "--truncation none --batch 1 --force --json"
    entry = json.loads(succeeds(f"{export_tiny} {how}"))
    assert (entry["file"], entry["format"], entry["model"]) == (str(out), "onnx", "tiny")
    assert (entry["truncation"], entry["batch"]) == (None, 1)
    assert entry["inputs"] == {"z": [1, 12], "class_weights": [1, 3]}
    assert entry["difference"] < export.TOLERANCE
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["truncation"] == "none"


def test_openvino_writes_two_files(tiny_file, tmp_path):
    line = f"export --model {tiny_file} --format openvino {tmp_path}/tiny"
    assert succeeds(line) == f"{tmp_path}/tiny.xml\n"
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.xml", "tiny.bin"}
    assert "tiny.xml exists" in fails(line)


def test_mistakes_are_one_line(tiny_file, tmp_path, monkeypatch):
    out = tmp_path / "a.onnx"

    def refused(arguments):
        line = fails(f"export --model {tiny_file} {arguments}")
        assert not out.exists()
        return line

    for arguments, message in {
        f"{out} --truncation low": "neither a number nor 'none' or 'dynamic'",
        f"{out} --truncation 2": "truncation must be above 0 and at most 1",
        f"{out} --batch 1.5": "neither a whole number nor 'dynamic'",
        f"{out} --batch 0": "the batch must be 1 to 1024, or dynamic, not 0",
        f"{tmp_path}/a.xml": "has the ending of openvino",
        f"{out} --format openvino": "has the ending of onnx",
        f"{tiny_file} --force": "is the model: choose",
        f"{tiny_file}/a.onnx": "is not a folder",
        f"{out} --format web": "is the name of a file: give that of a folder",
        f"{tmp_path}/site.html --format web": "is the name of a file: give that of a folder",
    }.items():
        assert message in refused(arguments)
    monkeypatch.setattr(export, "_onnx_program", lambda *_: 1 / 0)
    assert "nothing was written: ONNX failed: division by zero" in refused(out)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert "needs onnxruntime: pip install 'biggan[export]'" in refused(out)


def test_a_discriminator_is_refused(tmp_path):
    path = tmp_path / "d.safetensors"
    small = {"channels": 4, "widths": [2, 2, 4, 4]}
    config = get_preset("biggan-32").discriminator.updated(small)
    assert isinstance(config, DiscriminatorConfig)
    save_network(path, build_discriminator(config), Description(name="judge"))
    line = fails(f"export --model {path} {tmp_path}/a.onnx")
    assert "holds a discriminator, not a generator" in line
    assert list(tmp_path.iterdir()) == [path]
