"""Whole runs: what they leave, that they resume to the bit, and what they refuse."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import biggan
from biggan.atomic_write import TEMPORARY_SUFFIX, temporary_prefix
from biggan.data import ShardStream, load_dataset
from biggan.errors import InputError
from biggan.training import TrainConfig, loop, run_export, train
from biggan.training.checkpoint import CheckpointDirectory
from biggan.weights.files import FORMAT, load_tensors, save_tensors
from data_forms import pictures, shuffled, write_shards
from tiny import TINY_RECIPE

CPU = torch.device("cpu")


def run(config, dataset, folder, **changes):
    return train(dataclasses.replace(config, **changes), dataset, folder, device=CPU)


def final_tensors(folder):
    (path,) = sorted((folder / "checkpoints").glob("*.safetensors"))[-1:]
    return load_file(path)


def assert_same_run(folder, other):
    found, expected = final_tensors(folder), final_tensors(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    config = TrainConfig.from_dict(TINY_RECIPE).fitted(dataset.num_classes)
    run(config, dataset, folder)
    return folder


def test_a_run_leaves_what_its_user_needs(uninterrupted):
    gan = biggan.load(uninterrupted)
    assert gan.class_names == ("blue", "red")
    assert gan.description.training["step"] == 6
    assert len(gan.sample("red", 2)) == 2
    assert gan.generator.head.bn.grid[-1] == 1.0
    assert len(gan.generator.head.bn.grid) == 50
    logits = biggan.load_discriminator(uninterrupted)(
        torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])
    )
    assert logits.shape == (2, 1)
    lines = [
        json.loads(line) for line in (uninterrupted / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"d_loss", "g_loss", "d_real", "d_fake", "orthogonal"} <= lines[0].keys()
    assert len(list((uninterrupted / "previews").glob("*.png"))) == 2
    assert len(list((uninterrupted / "checkpoints").iterdir())) == 2
    assert list((uninterrupted / "tensorboard").iterdir())
    assert "channels = 4" in (uninterrupted / "config.toml").read_text()


def test_a_log_file_tells_of_the_statistics_before_they_are_recorded(
    config, dataset, tmp_path, caplog, monkeypatch
):
    def finish(*arguments, **options):
        assert caplog.messages[-1] == "step 1 of 1: recording statistics for 50 truncations"
        raise KeyboardInterrupt

    monkeypatch.setattr(run_export, "finish", finish)
    caplog.set_level("INFO", "biggan")
    with pytest.raises(KeyboardInterrupt):
        run(config, dataset, tmp_path, total_steps=1)


def test_the_weights_have_moved(uninterrupted, config):
    start = biggan.build_generator(config.generator).state_dict()
    trained = final_tensors(uninterrupted)
    assert not torch.equal(
        trained["generator.blocks.0.conv1.weight"], start["blocks.0.conv1.weight"]
    )


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_stopping_and_resuming_changes_no_bit(config, dataset, tmp_path, uninterrupted, stop_at):
    folder = tmp_path / "run"
    steps = iter(range(1, 100))
    state = train(config, dataset, folder, device=CPU, should_stop=lambda: next(steps) == stop_at)
    assert state.step == stop_at
    assert run(config, dataset, folder).step == 6
    assert_same_run(folder, uninterrupted)


def test_a_shorter_run_goes_on_where_it_ended(config, dataset, tmp_path, uninterrupted):
    folder = tmp_path / "run"
    run(config, dataset, folder, total_steps=2)
    run(config, dataset, folder)
    assert_same_run(folder, uninterrupted)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_metrics_after_the_last_checkpoint_are_written_anew(config, dataset, tmp_path):
    run(config, dataset, tmp_path, total_steps=2)
    log = tmp_path / "metrics.jsonl"
    with log.open("a") as file:  # as a process that was killed leaves them
        file.write('{"step": 3, "d_loss": 99.0}\n{"step": 4, "d_lo')
    run(config, dataset, tmp_path, total_steps=4)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["d_loss"] != 99 for line in lines)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    config, dataset, tmp_path, uninterrupted
):
    folder = tmp_path / "run"
    run(config, dataset, folder)
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    run(config, dataset, folder)
    assert_same_run(folder, uninterrupted)


@pytest.mark.slow
def test_kill_9_at_any_moment_and_the_same_command_again(folder, tmp_path):
    recipe = tmp_path / "recipe.toml"
    tables = {key: value for key, value in TINY_RECIPE.items() if isinstance(value, dict)}
    scalars = {key: value for key, value in TINY_RECIPE.items() if not isinstance(value, dict)}
    scalars |= {"total_steps": 9, "checkpoint_every": 2}
    lines = [f"{key} = {json.dumps(value)}" for key, value in scalars.items()]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    recipe.write_text("\n".join(lines))

    def command(out):
        arguments = [
            "train",
            str(recipe),
            "--data",
            str(folder),
            "--out",
            str(out),
            "--device",
            "cpu",
        ]
        return [sys.executable, "-m", "biggan", *arguments]

    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    killed = tmp_path / "killed"
    kills = 0
    for delay in (0.05, 0.4):
        process = subprocess.Popen(
            command(killed), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        known = set(killed.glob("checkpoints/*"))
        while process.poll() is None and set(killed.glob("checkpoints/*")) <= known:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(delay)  # somewhere between two checkpoints, or in the middle of writing one
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills
    subprocess.run(command(killed), check=True, capture_output=True)
    assert_same_run(killed, tmp_path / "whole")
    assert not list(killed.rglob("*.tmp"))
    generators = [load_file(out / "generator.safetensors") for out in (killed, tmp_path / "whole")]
    for name, value in generators[1].items():
        assert torch.equal(generators[0][name], value), name


def test_another_recipe_in_the_same_folder_is_refused(config, dataset, uninterrupted):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}
    with pytest.raises(biggan.InputError, match=r"another recipe \(seed: 0 -> 5\)"):
        run(config, dataset, uninterrupted, seed=5)
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")} == before


def test_other_data_in_the_same_run_is_refused(config, dataset, uninterrupted):
    changed = dataclasses.replace(dataset, images=255 - dataset.images)
    with pytest.raises(biggan.InputError, match="other data"):
        run(config, changed, uninterrupted)


def test_divergence_stops_before_it_is_saved(config, dataset, tmp_path):
    reckless = dataclasses.replace(config.optimizer, g_lr=1e30, d_lr=1e30)
    with pytest.raises(biggan.InputError, match="training diverged: .* is (nan|inf)"):
        run(config, dataset, tmp_path, optimizer=reckless)
    assert not list(tmp_path.glob("checkpoints/*"))


@pytest.mark.parametrize(
    ("network", "name"), [("generator", "linear.weight"), ("ema", "head.bn.running_mean")]
)
def test_an_update_to_nothing_finite_is_not_saved(
    config, dataset, tmp_path, monkeypatch, network, name
):
    """The losses of the step are still good: only the tensors tell."""

    def spoil(state, *arguments):
        metrics = real_step(state, *arguments)
        if state.step == 3:
            getattr(state, network).state_dict()[name][0] = float("inf")
        return metrics

    real_step = loop.generator_step
    monkeypatch.setattr(loop, "generator_step", spoil)
    monkeypatch.setattr(loop, "update_ema", lambda *_: None)
    with pytest.raises(biggan.InputError, match=rf"diverged: {network}.{name} .* at step 4"):
        run(config, dataset, tmp_path, log_every=100, checkpoint_every=2, total_steps=4)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [
        "step-00000002.safetensors"
    ]


def test_a_folder_in_use_is_refused(config, dataset, tmp_path):
    def start_another():
        with pytest.raises(biggan.InputError, match="another process is training in .*run"):
            run(config, dataset, tmp_path / "run")
        return True

    state = train(config, dataset, tmp_path / "run", device=CPU, should_stop=start_another)
    assert state.step == 1
    assert run(config, dataset, tmp_path / "run").step == 6


@pytest.mark.parametrize("victim", ["checkpoints/", "generator", "previews/"])
def test_a_full_disk_keeps_the_checkpoint_before(
    config, dataset, tmp_path, uninterrupted, monkeypatch, victim
):
    folder = tmp_path / "run"
    run(config, dataset, folder, total_steps=3)
    before = final_tensors(folder)
    replace = type(folder).replace

    def fail(path, target):
        if victim in str(target.relative_to(folder)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    with monkeypatch.context() as full:
        full.setattr(type(folder), "replace", fail)
        with pytest.raises(biggan.InputError, match="cannot write .*: No space left on device"):
            run(config, dataset, folder)
    kept = load_file(folder / "checkpoints" / "step-00000003.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in before.items())
    assert not list(folder.rglob("*.tmp"))
    run(config, dataset, folder)
    assert_same_run(folder, uninterrupted)


def test_a_disk_that_is_really_full(config, dataset, tmp_path, uninterrupted):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(path.stat().st_size for path in uninterrupted.rglob("*") if path.is_file())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={4 * size}", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting is not permitted here")
    try:
        run(config, dataset, disk / "run", total_steps=3)
        filler = disk / "filler"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
        filler.write_bytes(bytes(free - 50_000))  # room for some of a checkpoint
        with pytest.raises(biggan.InputError, match="cannot write .*(No space left|os error 28)"):
            run(config, dataset, disk / "run")
        assert not list(disk.rglob("*.tmp"))
        filler.unlink()
        run(config, dataset, disk / "run")
        assert_same_run(disk / "run", uninterrupted)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_mirroring_reaches_the_discriminator(config, dataset, tmp_path, uninterrupted):
    run(config, dataset, tmp_path, flip=False)
    found, mirrored = final_tensors(tmp_path), final_tensors(uninterrupted)
    name = "discriminator.blocks.0.conv1.weight"
    assert not torch.equal(found[name], mirrored[name])


def test_a_kill_between_checkpoint_and_export_is_made_good(config, dataset, tmp_path):
    run(config, dataset, tmp_path, total_steps=1)
    for name in ("generator.safetensors", "discriminator.safetensors"):
        (tmp_path / name).unlink()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    unfinished = temporary_prefix().replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    (tmp_path / "previews" / f"{unfinished}12345678{TEMPORARY_SUFFIX}").touch()
    foreign = tmp_path / "previews" / ".notes.tmp"
    foreign.mkdir()
    run(config, dataset, tmp_path, total_steps=1)
    assert biggan.load(tmp_path).description.training["step"] == 1
    assert biggan.load_discriminator(tmp_path)
    assert list(tmp_path.rglob(".*.tmp")) == [foreign]


def test_a_kill_before_the_export_of_an_earlier_step_is_made_good_too(config, dataset, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        run(config, dataset, folder, total_steps=2, checkpoint_every=1)
    preview = "previews/step-00000002.png"
    for name in (preview, "discriminator.safetensors", "generator.safetensors"):
        (killed / name).unlink()
    for folder in (whole, killed):
        run(config, dataset, folder, total_steps=3, checkpoint_every=1)
    assert_same_run(whole, killed)
    assert [path.name for path in sorted((killed / "previews").iterdir())] == [
        "step-00000001.png",
        "step-00000002.png",
        "step-00000003.png",
    ]


def test_unconditional_training(config, folder, tmp_path):
    dataset = load_dataset(folder, 32, 3, unconditional=True)
    state = run(config.fitted(0), dataset, tmp_path / "run", total_steps=2)
    assert state.step == 2
    assert len(biggan.load(tmp_path / "run").sample(num=2)) == 2


def test_a_run_of_before_there_was_lecam_goes_on(config, dataset, tmp_path):
    short = dataclasses.replace(config, total_steps=3)
    train(short, dataset, tmp_path, device=CPU)
    (path,) = (tmp_path / "checkpoints").glob("*.safetensors")
    metadata, tensors, _ = load_tensors(path)
    header = json.loads(metadata["header"])
    del header["sources"]
    old = {name: value for name, value in tensors.items() if not name.startswith("lecam.")}
    assert len(old) == len(tensors) - 3
    save_tensors(path, {**metadata, "header": json.dumps(header)}, old)
    state = train(dataclasses.replace(config, total_steps=4), dataset, tmp_path, device=CPU)
    assert state.step == 4


def test_a_checkpoint_that_does_not_fit_or_is_none_is_named(config, dataset, tmp_path):
    short = dataclasses.replace(config, total_steps=1)
    train(short, dataset, tmp_path, device=CPU)
    (path,) = (tmp_path / "checkpoints").glob("*.safetensors")
    metadata, tensors, _ = load_tensors(path)
    some = {name: value for name, value in tensors.items() if "conv1" not in name}
    save_tensors(path, metadata, some)
    with pytest.raises(InputError, match="step 1 does not fit its recipe"):
        train(short, dataset, tmp_path, device=CPU)
    header = json.dumps({"kind": "generator"})
    save_tensors(path, {**metadata, "header": header}, tensors)
    with pytest.raises(InputError, match="is no checkpoint of a run"):
        train(short, dataset, tmp_path, device=CPU)


@pytest.fixture(scope="module")
def short_run(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("short") / "run"
    values = {"total_steps": 1, "statistics_images": 1, "data": "not UTF-8: \udcff"}
    config = TrainConfig.from_dict({**TINY_RECIPE, **values})
    train(config.fitted(dataset.num_classes), dataset, folder, device=CPU)
    return folder


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("recipe", 3),
        ("recipe", {"batch_size": 2**63}),
        ("recipe", {"batch_size": "8"}),
        ("recipe", {"generator": {"bn_eps": 0.0}}),
        ("recipe", {"optimizer": {"g_lr": float("nan")}}),
        ("recipe", {"é" * 5000: 1}),
        ("step", -1),
        ("step", 2**63),
        ("step", True),
        ("step", "1"),
        ("data_fingerprint", None),
        ("sources", 3),
        ("attempt", [1]),
        ("attempt", {"number": -1}),
        ("attempt", {"number": 1, "g_lr": float("nan")}),
        ("attempt", {"number": 1, "x": 1}),
    ],
)
def test_a_checkpoint_that_says_what_cannot_be_is_refused(short_run, tmp_path, key, value):
    (path,) = (short_run / "checkpoints").iterdir()
    metadata, tensors, _ = load_tensors(path)
    header = json.loads(metadata["header"])
    header[key] = {**header[key], **value} if key == "recipe" and value != 3 else value
    save_tensors(tmp_path / path.name, {**metadata, "header": json.dumps(header)}, tensors)
    with pytest.raises(InputError, match=f"{path.name} is no checkpoint of a run") as caught:
        CheckpointDirectory(tmp_path).read_newest()
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


def test_a_path_that_is_no_unicode_can_be_written_down(short_run):
    assert 'data = "not UTF-8: ?"' in (short_run / "config.toml").read_text("utf-8")


@pytest.mark.parametrize("header", ["", "3", "[]", "{}", "[" * 20_000])
def test_a_checkpoint_whose_header_is_damaged_is_refused(tmp_path, header):
    save_tensors(
        tmp_path / "step-00000001.safetensors",
        {"format": FORMAT, "header": header},
        {"a": torch.zeros(1)},
    )
    for read in ("read_newest", "read_newest_header"):
        with pytest.raises(InputError, match="step-00000001.safetensors is no checkpoint"):
            getattr(CheckpointDirectory(tmp_path), read)()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("g_optimizer.linear.weight.exp_avg", torch.zeros(3)),
        ("g_optimizer.linear.weight.exp_avg", None),
        ("g_optimizer.linear.weight.extra", torch.zeros(3)),
        ("generator.linear.weight", torch.zeros(3)),
    ],
)
def test_a_checkpoint_of_other_tensors_is_refused(
    config, dataset, short_run, tmp_path, name, value
):
    shutil.copytree(short_run, tmp_path / "run")
    (path,) = (tmp_path / "run" / "checkpoints").iterdir()
    metadata, tensors, _ = load_tensors(path)
    tensors.pop(name, None)
    save_tensors(path, metadata, tensors if value is None else tensors | {name: value})
    with pytest.raises(InputError, match="step 1 does not fit its recipe"):
        run(config, dataset, tmp_path / "run", total_steps=1)


def test_watching_starts_anew_from_directions_that_are_none(config, dataset, short_run, tmp_path):
    shutil.copytree(short_run, tmp_path / "run")
    (path,) = (tmp_path / "run" / "checkpoints").iterdir()
    metadata, tensors, _ = load_tensors(path)
    blocks = {"x": torch.full((8, 8), float("nan")), "y": torch.zeros(8, 8, dtype=torch.int64)}
    name = "singular_values.generator.linear"
    for block in blocks.values():
        save_tensors(path, metadata, tensors | {name: block})
        state = run(config, dataset, tmp_path / "run", total_steps=1)
        assert "linear" not in state.singular_values["generator"].blocks


def test_metrics_that_cannot_be_written_are_named(config, dataset, tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(InputError, match="cannot write .*metrics.jsonl"):
        train(config, dataset, tmp_path, device=CPU)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    files = shuffled(pictures(8, ("blue", "red"), size=32))
    return write_shards(tmp_path_factory.mktemp("shards"), files, per_shard=5)


def opened(shards, **options):
    """A stream as a new process opens it."""
    return ShardStream(shards, 32, 3, None, seed=0, window=6, workers=1, **options)


def test_a_streamed_run_resumes_to_the_bit(config, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(run_export, "HUB_GRID", run_export.COARSE_GRID)  # less to export
    config = dataclasses.replace(
        config,
        stream=True,
        stream_window=6,
        classes="a folder/names.txt",
        label_sampling="empirical",
        accumulation=2,
        total_steps=3,
        checkpoint_every=100,
    )
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(config, opened(shards), whole)
    steps = iter(range(1, 100))
    train(config, opened(shards), stopped, device=CPU, should_stop=lambda: next(steps) == 2)
    run(config, opened(shards), stopped)
    assert_same_run(stopped, whole)
    gan = biggan.load(stopped)
    assert gan.class_names == ("blue", "red")
    told = gan.description.training
    assert (told["images"], told["data"]) == (16, shards.name)
    assert told["recipe"]["classes"] == "names.txt"  # and not where it lies


def test_shards_that_changed_are_refused_on_resuming(config, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(run_export, "HUB_GRID", run_export.COARSE_GRID)
    config = dataclasses.replace(config, stream=True, total_steps=1)
    run(config, opened(shards), tmp_path / "run")
    files = shuffled(pictures(8, ("blue", "red"), size=32), seed=1)
    changed = write_shards(tmp_path / "shards", files, per_shard=4)
    with pytest.raises(InputError, match="trained on other data than shards now holds"):
        run(config, opened(changed), tmp_path / "run", total_steps=2)
    named = ShardStream(shards, 32, 3, ("hen", "eel"), seed=0, window=6, workers=1)
    with pytest.raises(InputError, match="trained on other data"):
        run(config, named, tmp_path / "run", total_steps=2)
