"""`biggan sample` as a user types it: file names, grids that are made again, several processes."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import biggan as package
from biggan import cli
from biggan.cli import options
from biggan.data import load_dataset
from biggan.directions import find_directions, load_directions, save_directions, with_names
from biggan.images import save_png, to_pil, to_uint8
from biggan.inversion import Latents, load_latents, save_latents
from biggan.latents import make_noise
from biggan.provenance import class_folders
from biggan.provenance_files import read_provenance
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


@pytest.fixture
def directions_file(tiny, tmp_path):
    file = tmp_path / "directions.safetensors"
    save_directions(with_names(find_directions(tiny, "sefa", 4, layers=[1, 2]), {1: "size"}), file)
    return file


def test_images_move_along_directions(tiny_file, tiny, directions_file, tmp_path):
    line = f"sample --model {tiny_file} --class siamese -n 2 --truncation 0.6 --seed 3"
    moves = f"--direction {directions_file}:3=2.0 --direction {directions_file}:size=-1.5"
    entries = json.loads(succeeds(f"{line} {moves} --out {tmp_path}/moved --json"))
    z = torch.from_numpy(make_noise(2, 12, 0.6, 3)).float()
    moved = load_directions(directions_file).apply(z, {3: 2.0, 1: -1.5})
    expected = to_pil(to_uint8(tiny.generate(moved, [1, 1], 0.6)))
    for entry, right in zip(entries, expected, strict=True):
        assert np.array_equal(pixels(entry["file"]), right)
    stem = "tiny-001-siamese-cat-hub0.6-seed3-0001-3+2-size-1.5"
    assert Path(entries[1]["file"]).stem == stem

    like = f"sample --model {tiny_file} --like {entries[0]['file']} --out {tmp_path}/again"
    assert Path(succeeds(like).strip()).read_bytes() == Path(entries[0]["file"]).read_bytes()
    back = f"--direction {directions_file}:3=-2 --direction {directions_file}:size=1.5"
    plain = succeeds(f"{line} --out {tmp_path}/plain").split()[0]
    unmoved = pixels(succeeds(f"{like} {back}").strip()).astype(int)
    assert abs(unmoved - pixels(plain)).max() <= 1  # float32 there and back


def test_the_models_own_directions_need_no_file(tiny_file, tiny, tmp_path):
    line = f"sample --model {tiny_file} --class siamese --truncation 0.6 --seed 3 --out {tmp_path}"
    made = succeeds(f"{line} --direction sefa:0=2 --direction sefa:1=-1.5").strip()
    z = torch.from_numpy(make_noise(1, 12, 0.6, 3)).float()
    found = find_directions(tiny, "sefa", 4, layers=[0])
    right = tiny.edit(z, found, {0: 2.0, 1: -1.5}, [1], 0.6)
    assert np.array_equal(pixels(made), to_pil(to_uint8(right))[0])
    assert Path(made).stem == "tiny-001-siamese-cat-hub0.6-seed3-0000-0+2-1-1.5"
    assert "there is no direction 4; there are 0 to 3" in fails(f"{line} --direction sefa:4=1")


def test_images_of_latents_and_the_way_between_them(tiny_file, tiny, tmp_path):
    z, vectors = torch.randn(3, 12), tiny.embed([0, 1, 2])
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file, rows in zip(files, ([0], [1, 2]), strict=True):
        found = Latents(z[rows], vectors[rows], 0.5, "tiny", tiny.sha256, file.stem)
        save_latents(found, file)
    line = f"sample --model {tiny_file} --latents {files[0]} --latents {files[1]}"
    written = succeeds(f"{line} --out {tmp_path}/out").split()
    assert [Path(file).name for file in written] == ["a.png", "b-0000.png", "b-0001.png"]
    images = to_pil(to_uint8(tiny.generate(z, [0, 1, 2], 0.5)))
    for file, right in zip(written, images, strict=True):
        assert np.array_equal(pixels(file), right)
    grid = succeeds(f"{line} --grid --out {tmp_path}/out").strip()
    again = succeeds(f"sample --model {tiny_file} --like {grid} --out {tmp_path}/again").strip()
    assert Path(again).read_bytes() == Path(grid).read_bytes()

    save_latents(dataclasses.replace(load_latents(files[0]), z=z[2:], name="c"), files[1])
    morph = f"interpolate --model {tiny_file} --from-latents {files[0]} --to-latents {files[1]}"
    way = succeeds(f"{morph} --steps 3 --out {tmp_path}/way.png").strip()
    middle = tiny.generate((z[:1] + z[2:]) / 2, [0], 0.5)
    assert np.array_equal(pixels(way)[:, :16], images[0])
    assert np.array_equal(pixels(way)[:, 17:33], to_pil(to_uint8(middle))[0])
    again = succeeds(f"sample --model {tiny_file} --like {way} --out {tmp_path}/way").strip()
    assert Path(again).read_bytes() == Path(way).read_bytes()

    save_latents(dataclasses.replace(load_latents(files[0]), truncation=0.6), files[1])
    for wrong, message in {
        f"{line} --seed 1": "takes all settings from the file: omit --seed",
        f"sample --latents {files[0]} --out {tmp_path}": "the latents are of tiny",
        f"sample --model {tiny_file} --latents {tiny_file}": "contains no latents",
        f"{morph} --out {tmp_path}/x.png": "of truncation 0.5 .* of 0.6",
        f"{morph} --num 3 --out {tmp_path}/x.png": "omit --num",
        f"{morph} --out {tmp_path}/x.webp": "must end in .png",
        f"interpolate --from-latents {files[0]} --out {tmp_path}/x.png": "give both",
    }.items():
        assert re.search(message, fails(wrong)), wrong


def test_mistakes_in_directions(tiny_file, directions_file, tmp_path):
    base = f"sample --model {tiny_file} --out {tmp_path}/out --direction"
    for text, message in {
        "3=2.0": "such as directions.safetensors:3=2.0, not '3=2.0'",
        f"{directions_file}:3": "such as directions.safetensors:3=2.0",
        f"{directions_file}:3=far": "such as directions.safetensors:3=2.0",
        f"{directions_file}:9=1": "there is no direction 9; there are 0 to 3",
        f"{directions_file}:age=1": "there is no direction 'age': size",
        f"{tiny_file}:3=1": "contains no directions",
    }.items():
        assert message in fails(f"{base} {text}")
    other = f"sample --out {tmp_path}/out --direction {directions_file}:0=1"
    assert "the directions are of tiny" in fails(other)
    assert not (tmp_path / "out").exists()


def test_a_sweep_has_a_row_for_each_truncation(tiny_file, tiny, tmp_path):
    line = f"sample --model {tiny_file} --class 2 --sweep 2,1,none -n 3 --out {tmp_path}"
    grid = succeeds(line).strip()
    rows = [tiny.sample(2, 3, t, noise="paper") for t in (2, 1, None)]
    for row, pictures in enumerate(rows):
        for column, right in enumerate(pictures):
            place = pixels(grid)[17 * row : 17 * row + 16, 17 * column : 17 * column + 16]
            assert np.array_equal(place, right)
    again = succeeds(f"sample --model {tiny_file} --like {grid} --out {tmp_path}/again").strip()
    assert Path(again).read_bytes() == Path(grid).read_bytes()
    assert "at most 1, not 2" in fails(f"{line} --noise hub")
    assert "omit --truncation" in fails(f"{line} --truncation 1")
    assert "'x' is neither" in fails(f"sample --sweep 1,x --out {tmp_path}")
    assert "at least one truncation" in fails(f"sample --sweep , --out {tmp_path}")


def test_folders_of_jpegs_are_data_to_train_on(tiny_file, tmp_path):
    out = tmp_path / "made"
    line = f"sample --model {tiny_file} -n 7 --format jpg --folders --out {out}"
    files = succeeds(line).splitlines()
    assert {Path(file).parent.name for file in files} == set(package.load(tiny_file).class_names)
    found = load_dataset(str(out), 16, 3)
    assert found.class_names == tuple(sorted(package.load(tiny_file).class_names))
    assert found.histogram() == [2, 2, 3]

    again = succeeds(f"sample --model {tiny_file} --out {tmp_path}/a --like", files[0]).strip()
    exact = pixels(again).astype(int)
    assert abs(pixels(files[0]).astype(int) - exact).mean() < 6  # of a JPEG of noise
    assert succeeds(line).splitlines() == files  # the same pictures replace themselves
    for wrong, message in {
        f"{line} --grid": "omit --grid",
        f"{line} --sweep 1": "omit --folders",
    }.items():
        assert message in fails(wrong)


def test_folders_of_classes_differ():
    names = ["crane", "Crane", "tabby, tabby cat", "a/b", "...", "a-b"]
    made = ["crane 0", "Crane 1", "tabby, tabby cat", "a-b 3", "4", "a-b 5"]
    assert class_folders(names) == made


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
