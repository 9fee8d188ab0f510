"""The folder that `biggan export --format web` writes."""

import base64
import errno
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import record
from biggan import web
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.nn import StandingBatchNorm2d
from biggan.web import export_page, runtime
from biggan.weights.files import Description
from command_line import fails, succeeds
from tiny import TINY_CLASSES, tiny_generator


def tiny_gan(**changes):
    small = {"resolution": 8, "widths": [2, 1]}
    generator = tiny_generator(**small | changes)
    names = TINY_CLASSES if generator.config.num_classes else ()
    return Gan(generator, Description(name="tiny", class_names=names, licence="any"), "5ha256")


def manifest(folder):
    return json.loads((folder / "model.json").read_text())


def joined(folder, parts):
    contents = [(folder / part["file"]).read_bytes() for part in parts]
    assert list(map(len, contents)) == [part["bytes"] for part in parts]
    return b"".join(contents)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_scripts_compute_what_python_does():
    folder = Path(__file__).parent
    assert json.loads(record.RECORDED.read_text()) == record.record()
    tests = subprocess.run(
        ["node", "--test", *folder.glob("*.test.js")], capture_output=True, text=True
    )
    assert tests.returncode == 0, tests.stdout


def test_the_folder_has_all_that_the_page_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "PART", 1000)
    gan, out = tiny_gan(), tmp_path / "new" / "site"
    page = export_page(gan, out, runtime="cdn")
    assert page.difference < 1e-5
    assert page.runtime == 0
    model = manifest(out)
    assert model["classes"] == list(TINY_CLASSES)
    assert (model["name"], model["sha256"], model["z_dim"]) == ("tiny", "5ha256", 12)
    files = model["files"]
    assert len(files["weights"]) > 2
    assert max(part["bytes"] for parts in files.values() for part in parts) == 1000
    for part in files["weights"]:
        digest = hashlib.sha256((out / part["file"]).read_bytes())
        assert part["file"] == f"weights-{digest.hexdigest()[:12]}.bin"
        assert part["integrity"] == f"sha256-{base64.b64encode(digest.digest()).decode()}"
    assert page.weights == sum(len(joined(out, parts)) for parts in files.values())

    table = np.frombuffer(joined(out, files["statistics"]), "<f4").reshape(51, 2, -1)
    norms = [m for m in gan.generator.modules() if isinstance(m, StandingBatchNorm2d)]
    for k, name in enumerate(("mean", "var")):  # rows of the table, then those of untruncated noise
        rows = torch.cat([getattr(norm, f"table_{name}") for norm in norms], dim=1)
        last = torch.cat([getattr(norm, f"running_{name}") for norm in norms])
        expected = torch.cat([rows, last[None]]).numpy()
        np.testing.assert_array_equal(np.sort(table[:, k]), np.sort(expected))

    names = {path.name for path in out.iterdir()}
    sources = {path.name for path in Path(web.__file__).with_name("page").iterdir()}
    written = {part["file"] for parts in files.values() for part in parts}
    assert names == sources | written | {"model.json"}


def test_a_cdn_is_named_with_digests_and_allowed_by_the_page(tmp_path):
    export_page(tiny_gan(num_classes=0), str(tmp_path / "site"), runtime="cdn")
    model = manifest(tmp_path / "site")
    assert model["classes"] == []
    assert model["runtime"]["address"] == runtime.CDN
    assert all(
        file["integrity"].startswith("sha384-") and len(file["integrity"]) == 71
        for file in model["runtime"]["files"].values()
    )
    html = (tmp_path / "site" / "index.html").read_text()
    assert "connect-src 'self' https://cdn.jsdelivr.net;" in html


def test_half_precision_halves_the_weights(tmp_path):
    gan = tiny_gan()
    half = export_page(gan, tmp_path / "half", storage="float16", runtime="cdn")
    (weights,) = manifest(half.folder)["files"]["weights"]
    assert weights["bytes"] < 2.4 * sum(p.numel() for p in gan.generator.parameters())
    assert 1e-5 < half.difference < 0.01
    gan.generator.linear.weight.data[0, 0] = 1e9  # beyond float16
    gan.generator.linear.u.zero_()
    with pytest.raises(InputError, match="nothing was written: .* differ from PyTorch's by"):
        export_page(gan, tmp_path / "large", storage="float16", runtime="cdn")
    assert not (tmp_path / "large").exists()


def test_a_folder_that_is_in_use_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "_write_network", lambda *_: ({}, 0.0))  # takes seconds
    gan, out = tiny_gan(), tmp_path / "site"
    (out / "photos").mkdir(parents=True)
    for force, message in ((False, "is not empty: choose .* --force"), (True, "something other")):
        with pytest.raises(InputError, match=message):
            export_page(gan, out, runtime="cdn", force=force)
    assert [path.name for path in out.iterdir()] == ["photos"]
    (out / "photos").rmdir()
    export_page(gan, out, runtime="cdn")
    (out / "old.bin").touch()
    with pytest.raises(InputError, match="is not empty"):
        export_page(gan, out, runtime="cdn")
    export_page(gan, out, runtime="cdn", force=True)
    assert not (out / "old.bin").exists()
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(InputError, match="is the name of a file"):
        export_page(gan, out / "model.json", runtime="cdn")


def test_a_runtime_must_be_of_the_version(tmp_path):
    gan, out = tiny_gan(), tmp_path / "site"
    folder = tmp_path / "runtime"
    version = f"{folder} is not onnxruntime-web {runtime.VERSION}: "
    with pytest.raises(InputError, match=f"{version}ort.wasm.* No such file"):
        export_page(gan, out, runtime=folder)
    (folder / "dist").mkdir(parents=True)
    for name, file in runtime.FILES.items():
        (folder / "dist" / name).write_bytes(bytes(file.size))
    with pytest.raises(InputError, match="is not onnxruntime-web .*: ort.wasm.* other contents"):
        export_page(gan, out, runtime=folder)
    assert not out.exists()


def test_without_npm_the_ways_out_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm is not installed: .* --runtime DIR.* --runtime cdn"):
        export_page(tiny_gan(), tmp_path / "site")
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho npm error code E404 >&2\necho npm error no network >&2\nexit 1")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(InputError, match="npm cannot fetch onnxruntime-web .*: no network; give"):
        export_page(tiny_gan(), tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("biggan.web._write_json", refuse)
    with pytest.raises(InputError, match="cannot write .*site: No space left"):
        export_page(tiny_gan(), tmp_path / "site", runtime="cdn")
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_too_large_is_refused_with_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "MAX_WEIGHTS", 1000)
    with pytest.raises(InputError, match=r"tiny is too large .* float32 weights, .* --format onnx"):
        export_page(tiny_gan(), tmp_path / "site", runtime="cdn")


def test_the_command(tiny_file, tmp_path):
    out = tmp_path / "site"
    line = f"export --model {tiny_file} --format web {out}"
    entry = json.loads(succeeds(f"{line} --runtime cdn --precision float16 --json"))
    assert (entry["folder"], entry["format"], entry["model"]) == (str(out), "web", "tiny")
    assert entry["precision"] == manifest(out)["precision"] == "float16"
    assert "is not empty" in fails(f"{line} --runtime cdn")
    for options, message in {
        "--truncation 0.5": "--truncation is not for --format web",
        "--batch 2": "--batch is not for --format web",
        f"--force --runtime {tmp_path}/none": "is not onnxruntime-web",
    }.items():
        assert message in fails(f"{line} {options}")
    for options in ("--precision float16", "--runtime cdn"):
        message = fails(f"export --model {tiny_file} {tmp_path}/a.onnx {options}")
        assert "is for --format web" in message
