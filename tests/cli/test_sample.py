"""`biggan sample` as a user types it: file names, grids that are made again, several processes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from biggan import cli
from biggan.cli import options
from biggan.images import save_png
from biggan.provenance import read_provenance
from command_line import biggan, fails, pixels, succeeds
from several_processes import free_port, launch


def test_two_models_in_one_folder_keep_apart(tiny_file, tmp_path):
    tiny = succeeds(f"sample --model {tiny_file} --class 0 --out {tmp_path}")
    fruit = succeeds(f"sample --class 0 --out {tmp_path}")
    assert tiny == f"{tmp_path}/tiny-000-tabby-hub0.4-seed0-0000.png\n"
    assert fruit == f"{tmp_path}/fruits-000-apricot-hub0.4-seed0-0000.png\n"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("several", ["--class 2 --class 0 -n 3", "-n 7"])
def test_a_grid_is_made_again(tiny_file, tmp_path, several):
    how = f"{several} --truncation 0.7 --seed 4 --noise paper --grid"
    grid = succeeds(f"sample --model {tiny_file} {how} --out {tmp_path}/a").strip()
    like = f"sample --model {tiny_file} --like {grid}"
    again = succeeds(f"{like} --out {tmp_path}/b").strip()
    assert Path(again).read_bytes() == Path(grid).read_bytes()
    entry = json.loads(succeeds(f"{like} --out {tmp_path}/b --json"))[0]
    recipes = [dataclasses.asdict(recipe) for recipe in read_provenance(Path(grid)).pictures]
    assert entry == {"file": again, "recipes": recipes}
    assert "by tiny" in fails(f"sample --like {grid} --out {tmp_path}/b")
    assert "omit --num" in fails(f"{like} -n 2")


def test_a_path_is_made_again(tiny_file, tmp_path):
    grid, again = tmp_path / "grid.png", tmp_path / "again.png"
    interpolate = f"interpolate --model {tiny_file}"
    ends = "--from tabby --to 2 --seed-a 1 --seed-b 2 --path slerp"
    succeeds(f"{interpolate} {ends} --steps 3 --num 4 --truncation none --out {grid}")
    recipe = read_provenance(grid)
    assert (recipe.class_a_name, recipe.class_b) == ("tabby, tabby cat", 2)
    succeeds(f"{interpolate} --like {grid} --out {again}")
    assert again.read_bytes() == grid.read_bytes()

    save_png(Image.fromarray(pixels(grid)), again, dataclasses.replace(recipe, path="zigzag"))
    picture = succeeds(f"sample --model {tiny_file} --out {tmp_path}").strip()
    for line, message in {
        f"{interpolate} --like {grid} --seed-a 0 --out {again}": "omit --seed-a",
        f"sample --model {tiny_file} --like {grid}": "use biggan interpolate --like",
        f"interpolate --like {grid} --out {again}": "made by tiny",
        f"{interpolate} --like {again} --out {grid}": "must be one of linear, slerp",
        f"{interpolate} --like {picture} --out {again}": "use biggan sample --like",
    }.items():
        assert message in fails(line)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("line", ["--help", "--version", "classes --imagenet --json"])
@pytest.mark.parametrize("buffered", [True, False])
def test_results_that_cannot_be_printed_are_one_line(buffered, line):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    environment |= {} if buffered else {"PYTHONUNBUFFERED": "1"}
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "biggan", *line.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    assert result.returncode == 2
    assert result.stderr == "error: cannot print the results: No space left on device\n"


def test_other_failures_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(options.group, "invoke", lambda _: Path("nothing there").read_text())
    with pytest.raises(FileNotFoundError):
        biggan("models")


def test_of_several_processes_one_names_a_mistake_in_the_command(monkeypatch):
    monkeypatch.setattr(cli, "_LAST_WORD", 0.0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "many" in fails("sample --num many")
    monkeypatch.setenv("RANK", "1")
    result = biggan("sample --num many")
    assert (result.returncode, result.stderr) == (2, "")
    monkeypatch.setenv("WORLD_SIZE", "1")  # a RANK that means something else
    assert "many" in fails("sample --num many")


def run_all(lines, ports):
    """In each process: the results of commands, one after the other."""
    results = []
    for line, port in zip(lines, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        results.append(biggan(line))
    return results


SEVERAL = {
    "files": "-n 7",
    "few": "-n 1 --json",
    "grid": "--class 0 --class 1 -n 4 --grid",
}


@pytest.fixture(scope="module")
def two(tiny_file, tmp_path_factory):
    """What two processes say to commands, and where."""
    out = tmp_path_factory.mktemp("two")
    (out / "blocked" / "tiny-001-siamese-cat-hub0.4-seed0-0004.png").mkdir(parents=True)
    sample = f"sample --model {tiny_file}"
    lines = {name: f"{sample} {how} --out {out}/{name}" for name, how in SEVERAL.items()}
    lines |= {
        "no class": f"{sample} --class dog --out {out}/none",
        "no model": f"sample --model nothing --out {out}/none",
        "no device": f"{sample} --device tpu9 --out {out}/none",
        "blocked": f"{sample} -n 7 --out {out}/blocked",
        "interpolate": f"interpolate --from 0 --to 1 --out {out}/none.png",
    }
    ports = [free_port() for _ in lines]
    results = launch(run_all, 2, list(lines.values()), ports, joined=False)
    return out, dict(zip(lines, zip(*results, strict=True), strict=True))


def test_two_processes_make_what_one_makes(two, tiny_file, tmp_path):
    def files_of(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    out, said = two
    for name, how in SEVERAL.items():
        printed = succeeds(f"sample --model {tiny_file} {how} --out {tmp_path}/{name}")
        assert files_of(out / name) == files_of(tmp_path / name), name
        assert [code for code, _, _ in said[name]] == [0, 0]
        assert said[name][0][1] == printed.replace(str(tmp_path), str(out))
        assert said[name][1][1] == ""
    assert len(json.loads(said["few"][0][1])) == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no class", "no class is named 'dog'"),
        ("no model", "no model 'nothing'"),
        ("no device", "there is no device 'tpu9'"),
        ("blocked", "cannot write"),
        ("interpolate", "start it without torchrun"),
    ],
)
def test_what_one_process_fails_at_ends_all_with_one_line(two, command, message):
    out, said = two
    assert [code for code, _, _ in said[command]] == [2, 2]
    assert [stdout for _, stdout, _ in said[command]] == ["", ""]
    lines = [line for _, _, stderr in said[command] for line in stderr.splitlines()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error:")
    assert message in lines[0]
    assert not (out / "none").exists()
    assert not (out / "none.png").exists()


@pytest.mark.slow
def test_a_process_that_dies_ends_all_with_one_line(tiny_file, tmp_path):
    out = tmp_path / "out"
    command = ["sample", "--model", tiny_file, "--num", "100000", "--out", out]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "biggan", *command],
            env=os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank)} | shared,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    deadline = time.monotonic() + 120
    while not (out.exists() and len(list(out.iterdir())) > 20):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started[1].kill()
    started[0].send_signal(signal.SIGTERM)  # as torchrun does then
    printed, said = started[0].communicate(timeout=60)
    started[1].communicate()
    assert (started[0].returncode, printed) == (2, "")
    assert said == (
        "error: torchrun stopped all processes because one failed or the run was stopped; run the "
        "same command again\n"
    )
    assert not list(out.glob(f".biggan-*-{started[0].pid}-*.tmp"))
