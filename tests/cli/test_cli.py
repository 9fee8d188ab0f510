"""The command line as a user types it: results, help, and one clear line for each mistake."""

import json
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from biggan.classes import resolve_class
from biggan.cli import VERBS, options
from biggan.models import DiscriminatorConfig, build_discriminator, get_preset
from biggan.weights.files import Description, save_network
from biggan.weights.load import load_class_names
from command_line import biggan, fails, next_command, pixels, succeeds, write_images
from foreign_networks import IVCLAB, random_generator
from tiny import tiny_generator


def test_help_of_every_verb_shows_an_example():
    assert all(verb in succeeds("--help") for verb in VERBS)
    for verb in VERBS:
        assert f"biggan {verb}" in succeeds(verb, "--help").split("Example")[1], verb
    assert succeeds("--help") == succeeds("-h") == succeeds("")
    assert succeeds("--version").startswith("biggan 0.")


def test_the_bundled_model_has_the_classes_of_the_examples():
    _, names = load_class_names(None)
    found = []
    for verb in ("sample", "interpolate", "directions"):
        for line in succeeds(verb, "--help").split("Examples:")[1].split("\n\n")[0].splitlines():
            for option, value in pairwise(shlex.split(line)):
                if option == "--through":
                    found += [keyframe.rpartition("@")[0] for keyframe in value.split(", ")]
                elif option in ("--class", "--from", "--to"):
                    found.append(value)
    assert len(found) > 10
    for name in found:
        resolve_class(name, names)


def test_the_version_with_all_that_a_bug_report_needs():
    lines = succeeds("--version --verbose").splitlines()
    assert lines[0] == succeeds("--version").strip()
    assert lines[1].startswith("Python 3.")
    assert f"torch {torch.__version__}" in lines
    assert any(line.startswith("openvino ") for line in lines)
    assert fails("--verbose") == "error: Missing command."


GROUP = "from biggan.cli.options import group; group({}, standalone_mode=False)"


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("from biggan.cli import main; main()", "torch numpy click"),
        (GROUP.format(["sample", "-h"]), "torch numpy tqdm"),
        (GROUP.format(["classes"]), "torch numpy tqdm"),
        (GROUP.format(["classes", "--imagenet", "--search", "hen"]), "torch"),
        (
            "import biggan; biggan.load; biggan.metrics.inception.InceptionFeatures",
            "scipy sklearn gradio tensorboard click",
        ),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(code, heavy):
    """Help, a verb's help, two commands that read no weights, the package."""
    code = f"import atexit, sys\natexit.register(lambda: print(*sys.modules))\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(heavy.split()) & set(done.stdout.splitlines()[-1].split())


def test_sample_json_and_grid(tiny_file, tmp_path):
    sample = f"sample --model {tiny_file} --class 0 --class 2 --num 4 --out {tmp_path}"
    entries = json.loads(succeeds(sample, "--json"))
    assert [entry["recipe"]["class_index"] for entry in entries] == [0] * 4 + [2] * 4
    assert pixels(succeeds(sample, "--grid").strip()).shape == (2 * 16 + 1, 4 * 16 + 3, 3)


def test_models_lists_what_is_published_and_exact_parameter_counts():
    table, tables = succeeds("models"), json.loads(succeeds("models --json"))
    counts = ("70,433,988", "87,982,370", "50,244,484", "50,388,609", "56,163,905")
    for text in (*counts, "Licence: not established", "Licence: MIT"):
        assert text in table
    rows = {row["name"]: row for row in tables["architectures"]}
    assert rows["biggan-256"]["discriminator_parameters"] == 99_225_890
    rows = {row["name"]: row for row in tables["published"]}
    assert rows["biggan-512"]["parameters"] == 82_296_804
    assert rows["biggan-deep-256"]["parameters"] == 55_880_833
    assert rows["biggan-deep-128"]["statistics"] == "51 truncations, 0.00 to 1.00"


def test_models_of_one(tiny_file, tmp_path, no_network):
    card = json.loads(succeeds(f"models {tiny_file} --json"))
    assert (card["name"], card["kind"], card["classes"]) == ("tiny", "generator", 3)
    assert "2,000 steps on digits" in succeeds("models digits")
    assert "downloaded on first use" in succeeds("models biggan-deep-512")
    assert "MIT (StudioGAN's model card)" in succeeds("models studiogan-cifar10-32")
    path = tmp_path / "d.safetensors"
    network = build_discriminator(DiscriminatorConfig("biggan", 16, 8, (1, 2, 4), 2, 3, 8))
    save_network(path, network, Description("judge"))
    assert json.loads(succeeds(f"models {path} --json"))["kind"] == "discriminator"


def test_no_file_and_no_mistake_commands_the_terminal(tmp_path, no_network):
    escape, path = "a\x1b[2J\x07\u202e", tmp_path / "x.safetensors"
    for step in (1000, "many", None):
        about = (escape, (escape,) * 3, escape, escape, {"step": step, "data": escape})
        save_network(path, tiny_generator(), Description(*about))
        shown = succeeds("models", path) + succeeds("classes --model", path)
        assert shown.count(r"a\x1b[2J\x07\u202e") == (7 if step == 1000 else 6)
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    assert r"a\x1b[2J" in fails("models", escape)


def test_convert_makes_the_same_pictures(tmp_path, no_network):
    foreign, ours = tmp_path / "release.pt", tmp_path / "new" / "ours.safetensors"
    torch.save(random_generator([128, 64, 32, 16], 16, 12, IVCLAB)[0], foreign)
    result = biggan(f"convert {foreign} {ours}")
    assert result.stdout.strip() == str(ours)
    assert "generator, 32 px" in result.stderr
    sample = "--class 3 --num 2 --truncation 0.41 --out"
    before = succeeds(f"sample --model {foreign} {sample} {tmp_path}/a").split()
    after = succeeds(f"sample --model {ours} {sample} {tmp_path}/b").split()
    for pair in zip(before, after, strict=True):
        assert (pixels(pair[0]) == pixels(pair[1])).all()
    # a picture of one is a picture of the other
    succeeds(f"sample --model {ours} --like {before[1]} --out {tmp_path}/c")
    hub = tmp_path / "hub.safetensors"
    succeeds(f"convert {foreign} {hub} --off-grid hub")
    assert "made by" in fails(f"sample --model {hub} --like {before[1]}")


def test_convert_to_half_precision_changes_pictures_little(tmp_path, no_network):
    small = tmp_path / "small.safetensors"
    succeeds(f"convert digits {small} --precision float16")
    before, after = (
        pixels(succeeds(f"sample --model {model} --class seven --out {tmp_path}/{name}").strip())
        for model, name in (("digits", "a"), (small, "b"))
    )
    assert np.abs(before.astype(int) - after).max() <= 1


def test_mistakes_in_converting_write_nothing(tiny_file, tmp_path, no_network):
    out = tmp_path / "out" / "x.safetensors"
    torch.save(torch.optim.SGD([torch.ones(1)]).state_dict(), tmp_path / "G_optim.pth")
    for line, message in {
        f"{tiny_file} {tmp_path}/x.pth": "must end in .safetensors",
        f"{tiny_file} {tiny_file}": "is the source: choose",
        f"{tiny_file} {out} --bn-eps 1e-4": "apply only to ajbrock's files",
        f"nothing {out}": "no model 'nothing'",
        f"{tmp_path}/G_optim.pth {out}": "an optimizer's state",
        f"biggan-128 {out} --offline": "nothing is downloaded offline",
    }.items():
        assert message in fails(f"convert {line}")
    assert "biggan128-release.pt" in fails(f"convert biggan-128 {out} --offline")
    assert not out.parent.exists()


@pytest.mark.parametrize("verb", ["sample", "interpolate", "demo --port 0", "classes"])
def test_offline_holds_for_every_verb_that_loads(no_network, verb):
    line = fails(f"{verb} --model hf://some/repository --offline")
    assert "nothing is downloaded offline" in line


def test_classes(tiny_file):
    found = succeeds(f"classes --model {tiny_file} --search CAT")
    assert found == "0) tabby, tabby cat\n1) siamese cat\n"
    digits = json.loads(succeeds("classes --model digits --json"))
    assert [row["index"] for row in digits] == list(range(10))
    assert digits[7] == {"index": 7, "name": "seven", "wordnet_id": None}
    assert json.loads(succeeds("classes --search qqqq --json")) == []
    assert "contains or resembles 'qqqq'" in fails("classes --search qqqq")


def test_classes_of_imagenet_need_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with mock.patch("biggan.gan.load", side_effect=AssertionError("a model is loaded")):
        lines = succeeds("classes --imagenet").splitlines()
        assert (len(lines), lines[933]) == (1000, "933) cheeseburger\tn07697313")
        for family in ("biggan", "biggan-deep"):
            for size in (128, 256, 512):
                model = f"{family}-{size}"
                assert get_preset(model).generator.num_classes == 1000
                found = succeeds(f"classes --model {model} --search 'golden retreiver'")
                assert found == "207) golden retriever\tn02099601\n"
        [found] = json.loads(succeeds("classes --imagenet --search n02099601 --json"))
        assert found == {"index": 207, "name": "golden retriever", "wordnet_id": "n02099601"}
        assert "omit one" in fails("classes --imagenet --model digits")
    Path("biggan-128").mkdir()  # a folder of samples, say
    assert "hen" in succeeds("classes --model biggan-128 --search hen")
    Path("biggan-128", "G.pth").write_bytes(b"")  # weights go before the name
    assert "G.pth is empty" in fails("classes --model biggan-128")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--class 'tabby catt'", "tabby cat"),
        ("--class 0 --truncation 1.5", "truncation must be above 0 and at most 1, not 1.5"),
        ("--class 0 --truncation nan", "truncation must be above 0"),
        ("--class 0 --truncation half", "neither a number nor 'none'"),
        ("--like missing.png", "missing.png"),
        ("--like missing.png --seed 3", "omit --seed"),
        ("--num many", "many"),
        ("--class 0 --device meta", "there is no device 'meta'"),
        ("siamese cat", "'siamese cat' is no option: did you mean --class 'siamese cat'?"),
        ("--class hen", "; studiogan-imagenet-128, biggan-128, biggan-256 have such a class"),
    ],
)
def test_mistakes_in_sampling_write_nothing(tiny_file, tmp_path, arguments, message):
    assert message in fails(f"sample --model {tiny_file} {arguments} --out {tmp_path}/out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_person_is_told_what_comes_next(is_terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    options.name_next("biggan", "demo", model=Path("my runs/x"))
    said = "next: biggan demo --model 'my runs/x'\n" if is_terminal else ""
    assert capsys.readouterr() == ("", said)


@pytest.fixture(scope="module")
def made(tiny_file, tmp_path_factory):
    """A folder with a picture of the tiny model, and with data."""
    folder = tmp_path_factory.mktemp("made")
    succeeds(f"sample --model {tiny_file} --class tabby --out {folder}/made")
    for name in ("cat", "dog"):
        write_images(folder / "pictures" / name)
    succeeds(f"data pack {folder}/pictures {folder}/packed --resolution 16")
    return folder


@pytest.mark.parametrize(
    ("line", "follows"),
    [
        ("classes --model {}", "sample --class '0) tabby"),
        ("convert {} again.safetensors", "sample --model again.safetensors"),
        ("directions {} --num 2 --samples 60 --class tabby", "sample --class tabby --direction"),
        ("interpolate --model {} --from tabby --to 1 --steps 2", "interpolate --like"),
        ("invert made/tiny-000-tabby-hub0.4-seed0-0000.png --model {} --steps 2", None),
        ("models {}", "sample --model"),
        ("push {} me/tiny --folder published", "push"),
        ("sample --model {}", "sample --like"),
        ("data pack pictures packed --resolution 16", "train small-folder --data packed --dry-run"),
        ("data verify packed", "train small-folder --data packed --dry-run"),
        ("data info packed", "train small-folder --data packed --dry-run"),
        ("models", "sample --model fruits"),
    ],
)
def test_the_last_line_of_a_command_names_one_that_works(
    tiny_file, made, monkeypatch, line, follows
):
    monkeypatch.chdir(made)
    named = next_command(line.format(tiny_file))
    assert named.startswith(follows or "sample --latents inverted/"), named
    if not named.startswith(("push", "train")):  # to the Hub; seconds
        succeeds(named)


def test_a_misspelt_command_and_a_word_without_its_option_are_answered(tmp_path):
    for line, message in {
        "smaple": "there is no command 'smaple': did you mean sample?",
        "zzz": "there is no command 'zzz': there are sample, ",
        "help": "did you mean --help?",
        "demo digits": "extra argument (digits): did you mean --model?",
        "classes golden": "extra argument (golden): did you mean --search?",
        "interpolate 1 2": "arguments (1 2): did you mean --from and --to?",
        f"train {tmp_path}": f"biggan train small-folder --data {tmp_path})",
    }.items():
        assert message in fails(line)


def test_models_that_cannot_be_loaded(tiny_file, tmp_path):
    short = tmp_path / "short.safetensors"
    short.write_bytes(tiny_file.read_bytes()[:-1000])
    (tmp_path / "empty").mkdir()
    for model, message in {
        short: "cut short",
        "nothing": "no model 'nothing'",
        tmp_path / "empty": "holds no generator.safetensors",
    }.items():
        assert message in fails(f"sample --out {tmp_path}/out --model {model}")
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written(tiny_file, tmp_path):
    (tmp_path / "file").write_text("in the way")
    inside = tmp_path / "file" / "out"
    interpolate = f"interpolate --model {tiny_file} --from 0 --to 1 --out"
    assert "cannot write" in fails(f"sample --model {tiny_file} --out {inside}")
    assert "cannot write" in fails(f"{interpolate} {inside}/x.png")
    assert ".png, .gif or .webp" in fails(f"{interpolate} {tmp_path}/x.avi")


def test_train_sample_resume(recipe, data, tmp_path):
    run = tmp_path / "run"
    train = f"train {recipe} --data {data} --out {run}"
    assert succeeds(train).strip() == str(run / "generator.safetensors")
    succeeds(f"sample --model {run} --class dog --out {tmp_path}/out")
    longer = biggan(f"{train} --set total_steps=3")
    assert longer.returncode == 0
    assert "resuming" in longer.stderr
    line = fails(f"{train} --set batch_size=4 --set total_steps=4")
    assert "another recipe (batch_size: 8 -> 4)" in line
    resumed = biggan(f"{line.strip().partition(': biggan ')[2]} --set total_steps=4")
    assert f"resuming {run} at step 3 of 4" in resumed.stderr
    assert resumed.returncode == 0, resumed.stderr


def test_mistakes_in_training_write_nothing(recipe, data, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("cat", "dog"):
        write_images(tmp_path / "nested" / "train" / name)
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 cut short")
    for arguments, message in {
        f"--data {data} --set batchsize=3": "no key 'batchsize'",
        "": "has no data",
        f"--data {tmp_path}/none": str(tmp_path / "none"),
        f"--data {tmp_path}/empty": "",
        f"--data {data}/cat": "data",
        f"--data {tmp_path}/nested": str(Path("nested", "train")),
        f"--data {tmp_path}/broken.zip": "broken.zip",
    }.items():
        assert message in fails(f"train {recipe} --out {tmp_path}/run {arguments}")
    assert not (tmp_path / "run").exists()


def test_a_corrupt_image_is_skipped_by_name_or_refused(recipe, data, tmp_path):
    (data / "cat" / "bad.png").write_bytes(b"\x89PNG not really")
    train = f"train {recipe} --data {data} --out {tmp_path}/run --set total_steps=1"
    assert "bad.png" in fails(f"{train} --strict")
    assert not (tmp_path / "run").exists()
    result = biggan(train)
    assert result.returncode == 0
    assert "skipped 1" in result.stderr
    assert "bad.png" in result.stderr
