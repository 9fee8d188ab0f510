"""Paths that the system refuses: one line, wherever they are given."""

import json
import os
import subprocess
import sys

import pytest

from command_line import biggan, fails

NOBODY = 65534

# Where a command takes a path, and whether it is one to read.
PLACES = {
    "sample --model": "sample --model @",
    "sample --like": "sample --like @",
    "sample --out": "sample --out @",
    "interpolate --out": "interpolate --from 0 --to 1 --out @/a.png",
    "interpolate --like": "interpolate --like @.gif --out a.gif",
    "train RECIPE": "train @ --dry-run",
    "train --data": "train small-folder --data @ --out run",
    "train --out": "train digits --out @",
    "train stream": "train small-folder --data @ --set stream=true --dry-run",
    "train fine_tuning": "train digits --set fine_tuning.generator=@ --dry-run",
    "evaluate --model": "evaluate --model @ --data digits --metrics cas",
    "evaluate --data": "evaluate --data @ --metrics cas",
    "evaluate --images": "evaluate --images @ --data digits --metrics cas",
    "evaluate --extractor": "evaluate --data digits --extractor @",
    "classifier DATA": "classifier @ --resolution 8 --out c.safetensors",
    "report RUN": "report @",
    "data pack SOURCE": "data pack @ packed --resolution 8",
    "data info": "data info @",
    "data verify": "data verify @",
    "convert SOURCE": "convert @ c.safetensors",
    "convert OUT": "convert digits @/c.safetensors",
    "export OUT": "export @/c.onnx",
    "export --model": "export --model @ c.onnx",
    "models": "models @",
    "classes --model": "classes --model @",
}

PATHS = {
    "not to be entered": "locked",
    "in what is not to be entered": "locked/none/x",
    "a long name": "n" * 300,
    "a longer name": "n" * 5000,
    "a deep path": "a/" * 2000 + "x",
    "a loop": "loop/x",
    "a file as a folder": "file/x",
    "a zero byte": "a\0b",
    "a lone surrogate": "a\ud800",
}


def refuse_all():
    """Print what every command says of every path, as a user whom the system refuses things."""
    for place, line in PLACES.items():  # what is imported late may be readable to root alone
        if "--out" not in place and "OUT" not in place:
            biggan(line.replace("@", "missing"))
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    said = {}
    for place, line in PLACES.items():
        words = line.split()
        for name, path in PATHS.items():
            try:
                result = biggan("", *(word.replace("@", path) for word in words))
                said[f"{place}: {name}"] = (result.returncode, result.stderr)
            except Exception as error:
                said[f"{place}: {name}"] = (1, repr(error))
    print(json.dumps(said))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_path_that_the_system_refuses_is_one_line(tmp_path):
    (tmp_path / "locked" / "in").mkdir(parents=True)
    (tmp_path / "locked").chmod(0)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o777)
    environment = os.environ | {"BIGGAN_OFFLINE": "1", "BIGGAN_CACHE": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", "import test_paths; test_paths.refuse_all()"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for case, (status, said) in json.loads(done.stdout.splitlines()[-1]).items():
        assert status == 2, (case, said)
        assert said.splitlines()[-1].startswith("error: "), (case, said)
        assert "Traceback" not in said, case
        assert len(said.splitlines()[-1]) < 700, (case, said)


def test_a_path_of_a_file_or_variable_is_held_to_the_same(tmp_path, monkeypatch):
    """The shell gives no zero byte, but a recipe may."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('preset = "biggan-32"\ndata = "a\\u0000b"\n')
    line = fails(f"train {recipe} --out {tmp_path}/run")
    assert "zero byte" in line or "no such file" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "line",
    [
        "sample --out ''",
        "sample --latents ''",
        "interpolate --from 0 --to 1 --out=",
        "train digits --out ''",
        "train ''",
        "data pack '' packed --resolution 8",
        "classifier '' --out c.safetensors",
        "evaluate --data ''",
        "evaluate --data digits --images ''",
        "evaluate --data digits --extractor ''",
        "report run --compare ''",
        "export page --format web --runtime ''",
        "invert a.png --sheet ''",
    ],
)
def test_an_empty_path_is_not_the_working_directory(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "the path is empty" in fails(line)
    assert not list(tmp_path.iterdir())


def test_a_report_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "config.toml").touch()
    (tmp_path / "file").touch()
    for line in (
        f"{tmp_path} --figures {tmp_path}/file/x",
        f"{tmp_path} --out {tmp_path}/file/x.html",
    ):
        assert "is not a folder" in fails(f"report {line}")
