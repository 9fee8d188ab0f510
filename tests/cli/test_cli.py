"""The command line as a user types it: results, help, and one clear line for each mistake."""

import io
import json
import logging
import signal
import socket
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from biggan.cli import VERBS, main
from biggan.models import DiscriminatorConfig, build_discriminator, get_preset
from biggan.weights.files import Description, save_discriminator, save_generator
from foreign_networks import RandomWeights, ivclab_generator
from tiny import TINY_RECIPE, tiny_generator


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


def biggan(*arguments):
    """Run the command line in this process (a process of its own takes seconds to import torch)."""
    stdout, stderr = io.StringIO(), io.StringIO()
    log = logging.getLogger()
    handlers, level = log.handlers[:], log.level
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signals = {number: signal.getsignal(number) for number in handled}
    log.handlers.clear()  # so that main sets up logging to the redirected stderr
    try:
        with (
            mock.patch.object(sys, "argv", ["biggan", *map(str, arguments)]),
            redirect_stdout(stdout),
            redirect_stderr(stderr),
        ):
            main()
    except SystemExit as end:
        return Result(end.code or 0, stdout.getvalue(), stderr.getvalue())
    finally:
        log.handlers[:] = handlers
        log.setLevel(level)
        for number, handler in signals.items():
            signal.signal(number, handler)
    raise AssertionError("main() returned instead of exiting")


def succeeds(*arguments):
    result = biggan(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def fails(*arguments):
    """The one line on stderr of a mistake."""
    result = biggan(*arguments)
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.endswith("training on cpu")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error:")
    return lines[0]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_help_of_every_verb_shows_an_example():
    assert all(verb in succeeds("--help") for verb in VERBS)
    for verb in VERBS:
        assert f"biggan {verb}" in succeeds(verb, "--help").split("Example")[1], verb


def test_help_and_version_need_no_torch():
    code = (
        "import sys, biggan.cli.options as cli; cli.group(['sample', '--help'], "
        "standalone_mode=False); sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert succeeds("--version").startswith("biggan 0.")


def test_importing_biggan_imports_nothing_heavier_than_torch():
    code = (
        "import sys, biggan; biggan.build_generator; biggan.load; "
        "heavy = ('scipy', 'sklearn', 'gradio', 'tensorboard', 'click'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_sample_and_like(tiny_file, tmp_path):
    out = succeeds(
        "sample",
        "--model",
        tiny_file,
        "--class",
        "tabby",
        "--num",
        3,
        "--seed",
        5,
        "--out",
        tmp_path / "a",
    )
    paths = out.split()
    assert len(paths) == 3
    again = succeeds("sample", "--model", tiny_file, "--like", paths[2], "--out", tmp_path / "b")
    assert (pixels(again.strip()) == pixels(paths[2])).all()
    assert (pixels(paths[0]) != pixels(paths[2])).any()


def test_sample_json_and_grid(tiny_file, tmp_path):
    arguments = [
        "sample",
        "--model",
        tiny_file,
        "--class",
        0,
        "--class",
        2,
        "--num",
        4,
        "--out",
        tmp_path,
    ]
    entries = json.loads(succeeds(*arguments, "--json"))
    assert [entry["recipe"]["class_index"] for entry in entries] == [0] * 4 + [2] * 4
    grid = succeeds(*arguments, "--grid").strip()
    assert pixels(grid).shape == (2 * 16 + 1, 4 * 16 + 3, 3)


def test_interpolate_writes_a_grid_or_an_animation(tiny_file, tmp_path):
    arguments = ["interpolate", "--model", tiny_file, "--from", "tabby", "--to", "golden retriever"]
    grid = succeeds(*arguments, "--steps", 3, "--num", 2, "--out", tmp_path / "new" / "grid.png")
    assert pixels(grid.strip()).shape == (2 * 16 + 1, 3 * 16 + 2, 3)
    for ending in ("gif", "webp"):
        path = succeeds(*arguments, "--steps", 4, "--out", tmp_path / f"morph.{ending}").strip()
        with Image.open(path) as animation:
            assert animation.n_frames == 6  # there and back


def test_models_prints_exact_parameter_counts():
    table = succeeds("models")
    for count in ("70,433,988", "87,982,370", "50,244,484", "50,388,609", "56,163,905"):
        assert count in table
    rows = {row["name"]: row for row in json.loads(succeeds("models", "--json"))["architectures"]}
    assert rows["biggan-256"]["discriminator_parameters"] == 99_225_890


def test_models_says_what_is_published_and_what_it_is_worth():
    table = succeeds("models")
    assert "Licence not established" in table
    rows = {row["name"]: row for row in json.loads(succeeds("models", "--json"))["published"]}
    assert rows["biggan-512"]["parameters"] == 82_296_804
    assert rows["biggan-deep-256"]["parameters"] == 55_880_833
    assert rows["biggan-deep-128"]["statistics"] == "51 truncations, 0.00 to 1.00"


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """An empty cache, and an error for whoever asks a host."""
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    asked = mock.Mock(side_effect=AssertionError("a host is asked"))
    monkeypatch.setattr(socket, "create_connection", asked)


def test_models_of_one(tiny_file, tmp_path, no_network):
    card = json.loads(succeeds("models", tiny_file, "--json"))
    assert (card["name"], card["kind"], card["classes"]) == ("tiny", "generator", 3)
    assert "2,000 steps on digits" in succeeds("models", "digits")
    assert "downloaded on first use" in succeeds("models", "biggan-deep-512")
    path = tmp_path / "d.safetensors"
    network = build_discriminator(DiscriminatorConfig("biggan", 16, 8, (1, 2, 4), 2, 3, 8))
    save_discriminator(path, network, Description("judge"))
    assert json.loads(succeeds("models", path, "--json"))["kind"] == "discriminator"


def test_no_file_and_no_mistake_commands_the_terminal(tmp_path, no_network):
    escape, path = "a\x1b[2J\x07\u202e", tmp_path / "x.safetensors"
    for step in (1000, "many", None):
        description = Description(
            escape, (escape,) * 3, escape, escape, {"step": step, "data": escape}
        )
        save_generator(path, tiny_generator(), description)
        shown = succeeds("models", path) + succeeds("classes", "--model", path)
        assert shown.count(r"a\x1b[2J\x07\u202e") == (7 if step == 1000 else 6)
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    assert r"a\x1b[2J" in fails("models", escape)


def test_convert_makes_the_same_pictures(tmp_path, no_network):
    network = RandomWeights()
    ivclab_generator(
        network, torch.randn(1, 12), torch.tensor([0]), [128, 64, 32, 16], 16, truncation=1.0
    )
    foreign, ours = tmp_path / "release.pt", tmp_path / "new" / "ours.safetensors"
    torch.save(network.tensors, foreign)
    result = biggan("convert", foreign, ours)
    assert result.stdout.strip() == str(ours)
    assert "generator, 32 px" in result.stderr
    sample = ["--class", 3, "--num", 2, "--truncation", "0.41"]
    paths = [
        succeeds("sample", "--model", model, *sample, "--out", tmp_path / name).split()
        for model, name in ((foreign, "a"), (ours, "b"))
    ]
    for before, after in zip(*paths, strict=True):
        assert (pixels(before) == pixels(after)).all()
    # a picture of one is a picture of the other
    succeeds("sample", "--model", ours, "--like", paths[0][1], "--out", tmp_path / "c")
    hub = tmp_path / "hub.safetensors"
    succeeds("convert", foreign, hub, "--off-grid", "hub")
    assert "made by" in fails("sample", "--model", hub, "--like", paths[0][1])


def test_convert_to_half_precision_changes_pictures_little(tmp_path, no_network):
    small = tmp_path / "small.safetensors"
    succeeds("convert", "digits", small, "--precision", "float16")
    sample = ["--class", "seven", "--num", 1]
    before, after = (
        pixels(succeeds("sample", "--model", model, *sample, "--out", tmp_path / name).strip())
        for model, name in (("digits", "a"), (small, "b"))
    )
    difference = before.astype(int) - after
    assert np.abs(difference).max() <= 1


def test_mistakes_in_converting_write_nothing(tiny_file, tmp_path, no_network):
    out = tmp_path / "out" / "x.safetensors"
    assert "must end in .safetensors" in fails("convert", tiny_file, tmp_path / "x.pth")
    assert "is the source: choose" in fails("convert", tiny_file, tiny_file)
    assert "are for ajbrock's files" in fails("convert", tiny_file, out, "--bn-eps", "1e-4")
    assert "no model 'nothing'" in fails("convert", "nothing", out)
    torch.save(torch.optim.SGD([torch.ones(1)]).state_dict(), tmp_path / "G_optim.pth")
    assert "an optimizer's state" in fails("convert", tmp_path / "G_optim.pth", out)
    line = fails("convert", "biggan-128", out, "--offline")
    assert "biggan128-release.pt" in line
    assert "nothing is fetched offline" in line
    assert not out.parent.exists()


def test_offline_holds_for_every_verb_that_loads(no_network, tmp_path):
    for verb in ("sample", "interpolate", "demo", "classes"):
        arguments = ["--port", 0] if verb == "demo" else []
        line = fails(verb, "--model", "hf://some/repository", "--offline", *arguments)
        assert "nothing is fetched offline" in line, verb


def test_classes(tiny_file):
    assert succeeds("classes", "--model", tiny_file, "--search", "CAT").splitlines() == [
        "0) tabby, tabby cat",
        "1) siamese cat",
    ]
    digits = json.loads(succeeds("classes", "--model", "digits", "--json"))
    assert [row["index"] for row in digits] == list(range(10))
    assert digits[7] == {"index": 7, "name": "seven", "wordnet_id": None}
    assert json.loads(succeeds("classes", "--search", "qqqq", "--json")) == []
    assert "contains or resembles 'qqqq'" in fails("classes", "--search", "qqqq")


def test_classes_of_imagenet_need_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with mock.patch("biggan.gan.load", side_effect=AssertionError("a model is loaded")):
        lines = succeeds("classes", "--imagenet").splitlines()
        assert (len(lines), lines[933]) == (1000, "933) cheeseburger\tn07697313")
        for name in ("biggan-128", "biggan-256", "biggan-512"):
            for model in (name, name.replace("biggan", "biggan-deep")):
                assert get_preset(model).generator.num_classes == 1000
                found = succeeds("classes", "--model", model, "--search", "golden retreiver")
                assert found == "207) golden retriever\tn02099601\n"
        found = succeeds("classes", "--imagenet", "--search", "n02099601", "--json")
        assert json.loads(found) == [
            {"index": 207, "name": "golden retriever", "wordnet_id": "n02099601"}
        ]
        assert "omit one" in fails("classes", "--imagenet", "--model", "digits")
    Path("biggan-128").mkdir()  # a folder of samples, say
    assert "hen" in succeeds("classes", "--model", "biggan-128", "--search", "hen")
    Path("biggan-128", "G.pth").write_bytes(b"")  # weights go before the name
    assert "G.pth is empty" in fails("classes", "--model", "biggan-128")


def test_classes_of_imagenet_need_no_torch():
    code = (
        "import sys, biggan.cli.options as cli; "
        "cli.group(['classes', '--imagenet', '--search', 'hen'], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class", "tabby catt"], "tabby cat"),
        (["--class", "cat"], "siamese cat"),
        (["--class", "17"], "17"),
        (
            ["--class", "0", "--truncation", "1.5"],
            "truncation must be above 0 and at most 1, not 1.5",
        ),
        (["--class", "0", "--truncation", "0"], "truncation must be above 0"),
        (["--class", "0", "--truncation", "nan"], "truncation must be above 0"),
        (["--class", "0", "--truncation", "half"], "neither a number nor 'none'"),
        (["--class", "0", "--num", "0"], "at least 1"),
        (["--class", "0", "--seed", "-1"], "seed must be between"),
        (["--class", "0", "--device", "tpu9"], "there is no device 'tpu9'"),
        (["--like", "missing.png"], "missing.png"),
        (["--like", "missing.png", "--seed", "3"], "omit --seed"),
        (["--num", "many"], "many"),
        (["--class", "0", "--device", "meta"], "there is no device 'meta'"),
    ],
)
def test_mistakes_in_sampling_write_nothing(tiny_file, tmp_path, arguments, message):
    line = fails("sample", "--model", tiny_file, *arguments, "--out", tmp_path / "out")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_models_that_cannot_be_loaded(tiny_file, tmp_path):
    whole = tiny_file.read_bytes()
    short, flipped = tmp_path / "short.safetensors", tmp_path / "flipped.safetensors"
    short.write_bytes(whole[:-1000])
    flipped.write_bytes(whole[:-500] + bytes([whole[-500] ^ 4]) + whole[-499:])
    sample = ["sample", "--out", tmp_path / "out", "--model"]
    assert "cut short" in fails(*sample, short)
    assert "damaged" in fails(*sample, flipped)
    assert "no model 'nothing'" in fails(*sample, "nothing")
    assert "sagan-128 is an architecture" in fails(*sample, "sagan-128")
    (tmp_path / "empty").mkdir()
    assert "holds no generator.safetensors" in fails(*sample, tmp_path / "empty")
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written(tiny_file, tmp_path):
    (tmp_path / "file").write_text("in the way")
    inside = tmp_path / "file" / "out"
    assert "cannot write" in fails("sample", "--model", tiny_file, "--out", inside)
    assert "cannot write" in fails(
        "interpolate", "--model", tiny_file, "--from", 0, "--to", 1, "--out", inside / "x.png"
    )


def test_an_animation_in_an_unknown_format(tiny_file, tmp_path):
    line = fails(
        "interpolate", "--model", tiny_file, "--from", 0, "--to", 1, "--out", tmp_path / "x.avi"
    )
    assert ".png, .gif or .webp" in line


@pytest.fixture
def recipe(tmp_path):
    tables = {key: value for key, value in TINY_RECIPE.items() if isinstance(value, dict)}
    scalars = {key: value for key, value in TINY_RECIPE.items() if not isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**scalars, "total_steps": 2}.items()]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path = tmp_path / "recipe.toml"
    path.write_text("\n".join(lines))
    return path


def write_images(folder, num=3):
    folder.mkdir(parents=True)
    for i in range(num):
        Image.fromarray(np.full((40, 32, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")


@pytest.fixture
def data(tmp_path):
    for name in ("cat", "dog"):
        write_images(tmp_path / "data" / name)
    return tmp_path / "data"


def test_train_sample_resume(recipe, data, tmp_path):
    run = tmp_path / "run"
    train = ["train", recipe, "--data", data, "--out", run]
    assert succeeds(*train).strip() == str(run / "generator.safetensors")
    succeeds("sample", "--model", run, "--class", "dog", "--out", tmp_path / "out")
    longer = biggan(*train, "--set", "total_steps=3")
    assert longer.returncode == 0
    assert "resuming" in longer.stderr
    assert "another recipe (batch_size: 8 -> 4)" in fails(*train, "--set", "batch_size=4")


def test_train_straight_from_a_zip(recipe, data, tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for image in data.rglob("*.png"):
            archive.write(image, image.relative_to(data))
    succeeds("train", recipe, "--data", path, "--out", tmp_path / "run", "--set", "total_steps=1")


def test_mistakes_in_training_write_nothing(recipe, data, tmp_path):
    run = tmp_path / "run"

    def line(path, *more):
        return fails("train", recipe, "--data", path, "--out", run, *more)

    assert "no key 'batchsize'" in line(data, "--set", "batchsize=3")
    assert "has no data" in fails("train", recipe, "--out", run)
    assert str(tmp_path / "none") in line(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    line(tmp_path / "empty")
    assert "data" in line(tmp_path / "data" / "cat")
    write_images(tmp_path / "nested" / "train" / "cat")
    write_images(tmp_path / "nested" / "train" / "dog")
    assert str(Path("nested", "train")) in line(tmp_path / "nested")
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 cut short")
    assert "broken.zip" in line(broken)
    assert not run.exists()


def test_a_corrupt_image_is_skipped_by_name_or_refused(recipe, data, tmp_path):
    (data / "cat" / "bad.png").write_bytes(b"\x89PNG not really")
    train = ["train", recipe, "--data", data, "--out", tmp_path / "run", "--set", "total_steps=1"]
    assert "bad.png" in fails(*train, "--strict")
    assert not (tmp_path / "run").exists()
    result = biggan(*train)
    assert result.returncode == 0
    assert "skipped 1" in result.stderr
    assert "bad.png" in result.stderr


def test_a_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is in use" in fails("demo", "--port", port)
