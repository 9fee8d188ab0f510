"""`biggan train --dry-run` as a user types it; training itself is tested in test_cli."""

import functools
import json
import re
import signal
import tomllib
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from biggan import load
from biggan.cli import dry_run
from biggan.cli.train import DurationType, StopRequest, command
from biggan.data import ShardStream
from biggan.training.config import load_recipe
from biggan.training.plan import make_plan
from command_line import biggan, fails, succeeds, write_images
from data_forms import pictures, shuffled, write_shards
from runs import simulated_once


@pytest.fixture(scope="module", autouse=True)
def _planned_and_measured_once():
    """What takes the time of a dry run."""
    measure = functools.cache(dry_run.measure_rate)
    with simulated_once(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(dry_run, "measure_rate", measure)
        yield


def test_a_dry_run_prints_the_recipe_and_the_plan_and_writes_nothing(recipe, data, tmp_path):
    run = tmp_path / "run"
    planning = f"train {recipe} --data {data} --set batch_size=4 --dry-run"
    result = biggan(f"{planning} --verbose --out {run}")
    assert (result.returncode, result.stderr) == (0, "")
    head, _, rest = result.stdout.partition('name = "')
    written, _, table = f'name = "{rest}'.partition("\nNetworks\n")
    expected = load_recipe(recipe, ["batch_size=4"], str(data)).fitted(2)
    assert tomllib.loads(written) == expected.to_dict()
    rows = dict(line.strip().split("  ", 1) for line in table.splitlines() if "  " in line.strip())
    assert rows["images in the dataset"].strip() == "6"
    assert rows["steps per epoch"].strip() == "0.8"
    assert re.match(
        r"About [\d.]+ seconds on this machine \(cpu\): 2 steps of [\d.]+ seconds.\n"
        r"First preview after [\d.]+ seconds, at step \d. Memory about 0.3 GiB, disk ",
        head,
    )
    assert f"at step 0; there is no checkpoint in {run}" in head
    assert "Data\n  6 images of data, 2 classes (not decoded yet)\n" in head
    assert table.endswith("To train: the same command without --dry-run\n")
    brief = succeeds(f"{planning} --out {run}")
    assert "Networks" not in brief
    assert brief.endswith("--verbose prints the resolved recipe and all figures\n")
    assert not run.exists()

    values = json.loads(succeeds(f"{planning} --json"))
    assert values["recipe"] == expected.to_dict()
    assert (values["plan"]["images"], values["plan"]["steps_per_epoch"]) == (6, 0.75)
    assert "without --out" in values["start"]


def test_a_dry_run_without_data_says_what_it_cannot_know(recipe):
    plan = succeeds(f"train {recipe} --dry-run --verbose")
    assert plan.endswith("To train: the same command without --dry-run, with --out FOLDER\n")
    assert "steps per epoch                    unknown without data" in plan


def test_a_run_that_is_too_long_for_a_cpu_gets_settings_that_end_over_night(monkeypatch):
    monkeypatch.setattr("biggan.cli.dry_run.measure_rate", lambda *_: 5e10)
    said = succeeds("train fruits --dry-run --device cpu")
    assert re.match(
        r"About \d+ hours on this machine \(cpu\): 60,000 steps of 1.\d seconds.\n", said
    )
    (line,) = (line for line in said.splitlines() if line.startswith("On this CPU"))
    assert re.search(r"within 8 hours: --set total_steps=\d\d000 --set checkpoint_every=\d+$", line)
    monkeypatch.setattr("biggan.cli.dry_run.measure_rate", lambda *_: 1e10)
    said = succeeds("train fruits --dry-run --device cpu")
    assert "within 8 hours, at 32 px instead of 64" in said


def test_a_dry_run_says_at_a_terminal_that_it_measures(recipe):
    said = biggan(f"train {recipe} --dry-run", at_terminal=True).stderr
    assert said == "measuring a few updates ...\n"


@pytest.mark.parametrize(("low", "is_proposed"), [(1e11, True), (5.5e10, False)])
def test_bfloat16_is_proposed_where_a_cpu_is_faster_with_it(low, is_proposed, monkeypatch):
    rates = {"float32": 5e10, "bfloat16": low}
    monkeypatch.setattr("biggan.cli.dry_run.has_bfloat16", lambda: True)
    monkeypatch.setattr(
        "biggan.cli.dry_run.measure_rate", lambda config, _: rates[config.precision]
    )
    said = succeeds("train fruits --dry-run --device cpu")
    hours, *faster = map(int, re.findall(r"about (\d+) hours", said, re.IGNORECASE))
    (line,) = (line for line in said.splitlines() if line.startswith("On this CPU"))
    assert ("8 hours: --set precision=bfloat16 --set total_steps=" in line) == is_proposed
    assert len(faster) == is_proposed
    assert all(abs(fewer - hours / 2) <= 1 for fewer in faster)  # both are rounded


@pytest.mark.parametrize(("recipe", "channels"), [("small-folder", 16), ("cifar10", 24)])
def test_a_recipe_with_a_form_for_cpus_is_trained_in_it_there(
    recipe, channels, data, tmp_path, any_plan
):
    train = f"train {recipe} --data {data} --out {tmp_path}/run --dry-run --json --device cpu"
    result = biggan(train)
    assert json.loads(result.stdout)["recipe"]["generator"]["channels"] == channels
    assert f"no accelerator here: training with the recipe {recipe}-cpu" in result.stderr


@pytest.fixture
def any_plan(recipe, monkeypatch):
    """One plan for all recipes: making it is what takes long."""
    plan = make_plan(load_recipe(recipe), None)

    def make(*_, data_bytes=None, **__):
        return plan | {"data_bytes": data_bytes}

    monkeypatch.setattr("biggan.cli.dry_run.make_plan", make)


def test_a_dry_run_says_where_a_run_would_resume(recipe, data, tmp_path, any_plan):
    run = tmp_path / "run"
    train = f"train {recipe} --data {data} --out {run}"
    succeeds(train)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    def start(more=""):
        return json.loads(succeeds(f"{train} --dry-run --json {more}"))["start"]

    assert start() == f"nothing to do: {run} is at step 2 of 2"
    going_on = f"resumes {run} at step 2 of 5, if its images are still the same"
    assert start("--set total_steps=5") == going_on  # none was decoded to see
    assert "another recipe (seed: 0 -> 3)" in start("--set seed=3")
    write_images(data / "fish")
    assert start().startswith("refused")
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_a_dry_run_under_torchrun_speaks_once_and_for_all(recipe, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    plan = json.loads(succeeds(f"train {recipe} --dry-run --json"))["plan"]
    assert (plan["processes"], plan["micro_batch"]) == (2, 4)
    assert "is not divisible over 2" in fails(f"train {recipe} --dry-run --set batch_size=5")
    monkeypatch.setenv("RANK", "1")
    assert succeeds(f"train {recipe} --dry-run") == ""


def test_mistakes_around_dry_run(recipe, data, tmp_path):
    for arguments, message in {
        f"--data {data}": "give a folder for the run, such as --out runs/",
        f"--out {tmp_path}/x --json": "--json applies to --dry-run only",
        "--dry-run --set batchsize=3": "did you mean batch_size?",
        f"--dry-run --data {tmp_path}/none": "no such file or folder",
    }.items():
        assert message in fails(f"train {recipe} {arguments}")


def test_a_run_is_not_written_into_its_data(recipe, data, monkeypatch):
    before = sorted(data.rglob("*"))
    for out in (data, data / "run", data / "cat"):
        for more in ("", " --dry-run"):
            message = fails(f"train {recipe} --data {data} --out {out}{more}")
            assert f"{out} is inside the data" in message
    monkeypatch.chdir(data)
    assert f"such as {data}-run" in fails(f"train {recipe} --data . --out run")
    assert sorted(data.rglob("*")) == before
    (data / "run/checkpoints").mkdir(parents=True)
    message = fails(f"train {recipe} --data {data} --out {data}/run")
    assert f"move it to {data}-run and continue it there" in message


@pytest.fixture
def shards(tmp_path):
    files = shuffled(pictures(6, size=32))
    return write_shards(tmp_path / "shards", files, per_shard=5)  # 5 5 2, and classes.txt


def test_a_dry_run_of_a_stream_tells_the_truth(recipe, shards, tmp_path, any_plan):
    dry = f"train {recipe} --data {shards} --set stream=true --out {tmp_path}/run --dry-run --json"
    before = json.loads(succeeds(dry))
    assert before["data"] == (
        "3 shards to stream; before the first step training counts how many images they hold"
    )
    assert before["recipe"]["generator"]["num_classes"] == 2
    assert not (tmp_path / "run").exists()
    assert not (shards / "shards-index.json").exists()
    (shards / "classes.txt").unlink()
    assert "and of which classes" in json.loads(succeeds(dry))["data"]

    stream = ShardStream(shards, 32, 3, None, seed=0)
    after = json.loads(succeeds(dry))
    assert after["data"] == "12 images of shards, 2 classes, a stream of 3 shards"
    assert after["plan"]["data_bytes"] == stream.window_bytes
    loaded = json.loads(succeeds(f"{dry} --set stream=false"))
    assert loaded["data"] == "12 images of shards, 2 classes (not decoded yet)"
    nothing = json.loads(succeeds(f"train {recipe} --dry-run --json"))
    assert nothing["data"] == "not given"


def test_training_from_a_stream(recipe, shards, tmp_path):
    names, run = tmp_path / "names.txt", tmp_path / "run"
    names.write_text("hen\neel\n")
    train = (
        f"train {recipe} --data {shards}/train-{{0000..0002}}.tar --device cpu --set stream=true"
    )
    train += f" --set classes={names} --out"
    window = "--set stream_window=4"
    result = biggan(f"{train} {run} {window}")
    assert result.returncode == 0, result.stderr
    assert "12 images of train-{0000..0002}.tar, 2 classes, a stream of 3 shards" in result.stderr
    assert "hen" in succeeds(f"classes --model {run}")
    start = json.loads(succeeds(f"{train} {run} {window} --dry-run --json"))["start"]
    assert start == f"nothing to do: {run} is at step 2 of 2"
    assert "stream_window: 4 -> 5" in fails(f"{train} {run} --set stream_window=5")
    names.write_text("hen\ncod\n")
    told = fails(f"{train} {run} {window}")
    assert (
        "than train-{0000..0002}.tar now contains (the class 'cod' is new; the class 'eel'" in told
    )
    start = json.loads(succeeds(f"{train} {run} {window} --dry-run --json"))["start"]
    assert told.strip() == f"error: {start.removeprefix('refused: ')}"
    way_out = told[told.index("--set") :]
    assert biggan(f"{train} {tmp_path}/more {window} {way_out}").returncode == 0


def test_mistakes_around_streams(recipe, shards, tmp_path):
    names = tmp_path / "names.txt"
    stream = "--set stream=true"
    for arguments, message in {
        f"--data digits {stream}": "no such file: digits",
        "--data https://host/{0..9}.tar": "--set stream=true",
        f"--data {shards} --set classes=names.txt": "classes applies to streams",
        f"--data {shards} {stream} --set classes={names}": "cannot read the class names",
    }.items():
        assert message in fails(f"train {recipe} --out {tmp_path}/run {arguments}")
    assert not (tmp_path / "run").exists()
    names.write_text("hen\neel\ncod\n")
    line = fails(f"train {recipe} --out {tmp_path}/run {arguments}")
    assert "1 of 3 classes have no image, such as 'cod'" in line


@pytest.fixture
def stop_on_signal(monkeypatch):
    now = [100.0]
    # Not the process's clock: a server of other tests would sleep until that reaches the real time.
    monkeypatch.setattr("biggan.cli.train.time", SimpleNamespace(monotonic=lambda: now[0]))
    heeded = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in heeded}
    stop = StopRequest()
    stop.watch_signals()
    stop.wait = lambda seconds: now.__setitem__(0, now[0] + seconds)
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_terminal_that_is_closed_leaves_a_checkpoint_unless_nohup_ignores_it(
    stop_on_signal, is_ignored
):
    if is_ignored:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        stop_on_signal.watch_signals()
    signal.raise_signal(signal.SIGHUP)
    assert bool(stop_on_signal()) != is_ignored


def test_a_launcher_and_a_scheduler_that_both_signal_leave_time_for_the_checkpoint(stop_on_signal):
    assert not stop_on_signal()
    for _ in range(3):
        signal.raise_signal(signal.SIGTERM)
        stop_on_signal.wait(5)
    assert stop_on_signal()


def test_a_second_ctrl_c_ends_at_once_but_not_one_that_comes_with_the_first(stop_on_signal):
    signal.raise_signal(signal.SIGINT)
    stop_on_signal.wait(0.2)
    signal.raise_signal(signal.SIGINT)
    assert stop_on_signal()
    stop_on_signal.wait(2)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("50m", 3000), ("1h30m", 5400), ("90s", 90), ("1.5h", 5400), ("2H 5M", 7500), ("0.5s", 0.5)],
)
def test_a_time_is_read_in_hours_minutes_and_seconds(text, seconds):
    assert DurationType().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "50", "m", "0s", "-5m", "5m1h", "nan", "1e9s", "9" * 5000 + "s"]
)
def test_what_is_no_time_is_refused_in_one_line(recipe, text):
    line = fails(f"train {recipe} --out run --stop-after", text)
    assert "is not a time; write 50m, 1h30m or 90s" in line
    assert len(line) < 300


def test_a_deadline_ends_a_run_after_the_current_step_with_status_0(stop_on_signal):
    stop = StopRequest(60)
    assert not stop()
    stop_on_signal.wait(59)
    assert not stop()
    stop_on_signal.wait(1)
    assert stop()
    stop.finish("here")


def test_a_signal_before_the_deadline_ends_a_run_with_status_130(stop_on_signal):
    signal.raise_signal(signal.SIGTERM)
    assert stop_on_signal()
    with pytest.raises(SystemExit, match="130"):
        stop_on_signal.finish("here")


def test_a_deadline_within_the_first_step_keeps_the_step_and_warns(recipe, data, tmp_path):
    train = f"train {recipe} --data {data} --set total_steps=3 --set checkpoint_every=3 --out"
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    for step, exported in ((1, 1), (2, 2), (3, 2)):  # the last export is broken off
        result = biggan(f"{train} {parts} --stop-after 0.001s")
        assert result.returncode == 0, result.stderr
        assert "the time ended within the first step" in result.stderr
        assert "error" not in result.stderr
        assert (parts / f"checkpoints/step-{step:08d}.safetensors").exists()
        assert load(parts).description.training["step"] == exported
    result = biggan(f"{train} {parts} --stop-after 0.001s")
    assert result.returncode == 2
    assert "the time ended before anything was done" in result.stderr.splitlines()[-1]
    succeeds(f"{train} {parts} --stop-after 1h")
    succeeds(f"{train} {whole}")
    one, other = ((run / "generator.safetensors").read_bytes() for run in (parts, whole))
    assert one == other


def test_a_run_goes_on_from_its_weights_alone(recipe, data, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    train = f"train {recipe} --data {data}"
    succeeds(f"{train} --out {first}")
    for name in ("generator", "discriminator"):  # as they are given away: half as large
        weights = tmp_path / f"{name}.safetensors"
        succeeds(f"convert {first / weights.name} {weights} --precision float16")
        train += f" --set fine_tuning.{name}={weights}"
    line = fails(f"{train} --set generator.channels=16 --out {second}")
    assert "the recipe has generator.channels = 16" in line
    assert "set it to the source's with --set" in line
    # A step too small to move anything: the networks are those that were loaded.
    still = "--set total_steps=1 --set optimizer.g_lr=1e-30 --set optimizer.d_lr=1e-30"
    succeeds(f"{train} {still} --set ema.start=0 --out {second}")
    loaded = load(tmp_path / "generator.safetensors").generator.state_dict()
    trained = load(second).generator.state_dict()
    parameters = [name for name in loaded if name.endswith("weight")]
    assert parameters
    for name in parameters:
        assert torch.equal(trained[name], loaded[name]), name
    training = load(second).description.training
    for name in ("generator", "discriminator"):  # without their folders
        recorded = (
            training["fine_tuning"][name]["source"],
            training["recipe"]["fine_tuning"][name],
        )
        assert recorded == (f"{name}.safetensors",) * 2


def test_a_mistyped_recipe_gets_its_nearest_name(tmp_path):
    result = CliRunner().invoke(command, ["digit", "--out", str(tmp_path / "run")])
    assert "did you mean digits?" in str(result.exception)
