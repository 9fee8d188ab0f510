"""Whole runs: what they leave, that they resume to the bit, and what they refuse."""

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import biggan
from biggan.atomic_write import TEMPORARY_SUFFIX, temporary_prefix
from biggan.data import ShardStream
from biggan.errors import InputError
from biggan.supervision.settings import EvaluationConfig
from biggan.training import export
from biggan.training.checkpoint import CheckpointDirectory
from biggan.training.config import differing_keys
from biggan.weights.files import FORMAT, load_tensors, save_tensors
from data_forms import pictures, shuffled, write_shards
from runs import (
    IMAGES,
    assert_same_run,
    assert_same_tensors,
    final_tensors,
    lines,
    recipe,
    run,
    steps,
    until,
)
from tiny import refusal

CONFIG = recipe(total_steps=6, checkpoint_every=3, d_steps=2, statistics_images=16)


def shortened(**changes: Any) -> Any:
    return dataclasses.replace(CONFIG, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    run(CONFIG, folder)
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first half of it."""
    folder = tmp_path_factory.mktemp("run") / "half"
    run(shortened(total_steps=3), folder)
    return folder


def test_generators_of_earlier_steps_are_kept(tmp_path: Path) -> None:
    config = recipe(total_steps=8, checkpoint_every=1, keep_every=3, statistics_images=8)
    run(config, tmp_path)
    names = sorted(path.name for path in (tmp_path / "generators").iterdir())
    assert names == ["step-00000003.safetensors", "step-00000006.safetensors"]
    assert biggan.load(f"{tmp_path}@3").description.training["step"] == 3
    for word, message in (
        ("4", "has no generator of step 4: it keeps those of steps 3, 6 (keep_every"),
        ("best", "has no best generator: it keeps those of steps 3, 6"),
    ):
        assert message in refusal(biggan.load, f"{tmp_path}@{word}")
    assert recipe(total_steps=100_000, checkpoint_every=300).kept_interval == 10_200
    with pytest.raises(InputError, match="keep_every must be a multiple of checkpoint_every"):
        recipe(checkpoint_every=2, keep_every=3)
    assert not differing_keys(config, dataclasses.replace(config, keep_every=2))


def test_a_run_leaves_what_its_user_needs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "biggan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "HUB_GRID", tuple(round(0.02 * i, 2) for i in range(1, 51)))
        run(CONFIG, tmp_path)
    assert caplog.messages[-2:] == [
        "step 6 of 6: recording statistics for 50 truncations",
        "step 6 of 6: checkpoint and preview",
    ]
    gan = biggan.load(tmp_path)
    assert gan.class_names == ("blue", "red")
    assert gan.description.training["step"] == 6
    assert "events" not in gan.description.training
    assert len(gan.sample("red", 2)) == 2
    assert (gan.generator.head.bn.grid[-1], len(gan.generator.head.bn.grid)) == (1.0, 50)
    discriminator = biggan.load_discriminator(tmp_path)
    assert discriminator(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])).shape == (2, 1)
    metrics = lines(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    assert {"d_loss", "g_loss", "d_real", "d_fake", "orthogonal"} <= metrics[0].keys()
    assert len(list((tmp_path / "previews").glob("step-*.png"))) == 2
    assert (tmp_path / "previews" / "real.png").exists()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    for step in (3, 6):  # a tenth of the run is less than a checkpoint's interval
        assert biggan.load(f"{tmp_path}@{step}").description.training["step"] == step
    assert list((tmp_path / "tensorboard").iterdir())
    assert "channels = 4" in (tmp_path / "config.toml").read_text()
    start = biggan.build_generator(CONFIG.generator).state_dict()["blocks.0.conv1.weight"]
    assert not torch.equal(final_tensors(tmp_path)["generator.blocks.0.conv1.weight"], start)


def test_stopping_and_resuming_changes_no_bit(tmp_path: Path, whole: Path) -> None:
    for more, step in ((1, 1), (2, 3), (1, 4)):
        assert run(CONFIG, tmp_path, should_stop=until(more)).step == step
    assert run(CONFIG, tmp_path).step == 6
    assert_same_run(tmp_path, whole, "signals.jsonl")


def test_a_shorter_run_goes_on_where_it_ended_and_kills_leave_no_lines(
    tmp_path: Path, whole: Path
) -> None:
    run(shortened(total_steps=2), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:  # as a process that was killed leaves it
        file.write('{"step": 3, "d_loss": 99.0}\n{"step": 4, "d_lo')
    run(CONFIG, tmp_path)
    assert_same_run(tmp_path, whole, "signals.jsonl")
    assert steps(tmp_path / "metrics.jsonl") == [1, 2, 3, 4, 5, 6]
    assert all(line["d_loss"] != 99 for line in lines(tmp_path / "metrics.jsonl"))


def test_an_interrupt_breaks_off_the_last_export_and_the_same_call_makes_it(
    tmp_path: Path, whole: Path
) -> None:
    with pytest.raises(export.RunInterruptedError):  # asked once after step 3, then at every batch
        run(CONFIG, tmp_path, interrupted=until(4))
    assert (tmp_path / "checkpoints/step-00000006.safetensors").exists()
    assert biggan.load(tmp_path).description.training["step"] == 3
    with pytest.raises(export.RunInterruptedError):
        run(CONFIG, tmp_path, interrupted=until(1))
    run(CONFIG, tmp_path)
    assert_same_run(tmp_path, whole, "signals.jsonl")
    exported = (folder / "generator.safetensors" for folder in (tmp_path, whole))
    assert_same_tensors(*map(load_file, exported))


def test_an_interrupt_during_an_export_before_the_end_starts_no_further_step(
    tmp_path: Path,
) -> None:
    assert run(CONFIG, tmp_path, interrupted=lambda: True).step == 3
    assert biggan.load(tmp_path).description.training["step"] == 3


def test_a_run_with_more_steps_than_asked_for_says_so(
    tmp_path: Path, half: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "biggan")
    folder = shutil.copytree(half, tmp_path / "run")
    (folder / "generator.safetensors").unlink()
    assert run(shortened(total_steps=2), folder).step == 3
    beyond = "step 3, beyond total_steps=2"
    assert caplog.messages[0] == f"resuming {folder} at {beyond}; no step is left to train"
    assert caplog.messages[1].startswith(f"{beyond}: recording statistics for ")


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    run(CONFIG, tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


def test_another_recipe_or_other_data_in_the_same_folder_are_refused(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert "another recipe (seed: 0 -> 5)" in refusal(run, shortened(seed=5), whole)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    fewer = dataclasses.replace(IMAGES, images=IMAGES.images[1:], labels=IMAGES.labels[1:])
    with pytest.raises(
        InputError, match=r"noise now contains \(31 images instead of 32\): restore"
    ):
        run(CONFIG, whole, fewer)
    small = dataclasses.replace(IMAGES, images=IMAGES.images[..., ::2, ::2])
    with pytest.raises(InputError, match="has resolution, channels and classes .*, and the recipe"):
        run(CONFIG, whole, small)
    with pytest.raises(InputError, match="other data"):
        run(CONFIG, whole, dataclasses.replace(IMAGES, images=255 - IMAGES.images))


def test_a_generator_of_no_run_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "generator.safetensors").write_bytes(b"somebody's")
    assert "generator.safetensors is of no run" in refusal(run, CONFIG, tmp_path)
    assert (tmp_path / "generator.safetensors").read_bytes() == b"somebody's"


def test_divergence_stops_before_it_is_saved(tmp_path: Path) -> None:
    reckless = dataclasses.replace(CONFIG.optimizer, g_lr=1e30, d_lr=1e30)
    with pytest.raises(InputError, match="training diverged: .* is (nan|inf)"):
        run(shortened(optimizer=reckless), tmp_path)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    def start_another() -> bool:
        with pytest.raises(InputError, match="another process is training in .*run"):
            run(CONFIG, tmp_path / "run")
        return True

    assert run(CONFIG, tmp_path / "run", should_stop=start_another).step == 1
    assert run(CONFIG, tmp_path / "run").step == 6


@pytest.mark.parametrize("victim", ["checkpoints/", "generator", "previews/"])
def test_a_full_disk_keeps_the_checkpoint_before(
    tmp_path: Path, whole: Path, half: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    folder, before = shutil.copytree(half, tmp_path / "run"), final_tensors(half)
    replace = Path.replace

    def fail(path: Path, target: Path) -> Path:
        if victim in str(target.relative_to(folder)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    with monkeypatch.context() as full:
        full.setattr(type(tmp_path), "replace", fail)
        with pytest.raises(InputError, match="cannot write .*: No space left on device"):
            run(CONFIG, folder)
    kept = load_file(folder / "checkpoints" / "step-00000003.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in before.items())
    assert not list(folder.rglob("*.tmp"))
    run(CONFIG, folder)
    assert_same_run(folder, whole)


def test_a_kill_before_an_export_is_made_good(tmp_path: Path, whole: Path, half: Path) -> None:
    folder = shutil.copytree(half, tmp_path / "run")
    for name in ("previews/step-00000003.png", "generator.safetensors"):
        (folder / name).unlink()
    (folder / "discriminator.safetensors").unlink()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    unfinished = temporary_prefix().replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    (folder / "previews" / f"{unfinished}12345678{TEMPORARY_SUFFIX}").touch()
    foreign = folder / "previews" / ".notes.tmp"
    foreign.mkdir()
    run(shortened(total_steps=3), folder)
    assert biggan.load(folder).description.training["step"] == 3
    assert biggan.load_discriminator(folder)
    assert list(folder.rglob(".*.tmp")) == [foreign]
    assert (folder / "previews" / "step-00000003.png").exists()
    run(CONFIG, folder)
    assert_same_run(folder, whole)


def test_unconditional_training(tmp_path: Path) -> None:
    unlabelled = dataclasses.replace(IMAGES, labels=torch.zeros_like(IMAGES.labels), class_names=())
    assert run(shortened(total_steps=2).fitted(0), str(tmp_path), unlabelled).step == 2
    assert len(biggan.load(tmp_path).sample(num=2)) == 2


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    folder = tmp_path_factory.mktemp("short") / "run"
    run(shortened(total_steps=1, data="not UTF-8: \udcff"), folder)
    return folder


@pytest.fixture
def copied(short: Path, tmp_path: Path) -> Path:
    """A copy of it whose checkpoint may be changed."""
    return shutil.copytree(short, tmp_path / "run")


def change(folder: Path, header: Any = None, **tensors: torch.Tensor | None) -> None:
    """Change the header of a run's only checkpoint, and tensors; None removes one."""
    (path,) = (folder / "checkpoints").iterdir()
    metadata, old, _ = load_tensors(path)
    if header is not None:
        metadata = {**metadata, "header": json.dumps(header(json.loads(metadata["header"])))}
    new = {name: value for name, value in (old | tensors).items() if value is not None}
    save_tensors(path, metadata, new)


def test_a_run_of_before_there_was_lecam_goes_on(copied: Path) -> None:
    def without_sources(header: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in header.items() if name != "sources"}

    lecam = {f"lecam.{name}": None for name in ("real", "fake", "observed")}
    change(copied, without_sources, **lecam)
    assert run(shortened(total_steps=2), copied).step == 2


def test_a_path_that_is_no_unicode_can_be_written_down(short: Path) -> None:
    assert 'data = "not UTF-8: ?"' in (short / "config.toml").read_text("utf-8")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "generator"),
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
def test_a_checkpoint_that_says_what_cannot_be_is_refused(
    copied: Path, key: str, value: Any
) -> None:
    def changed(header: dict[str, Any]) -> dict[str, Any]:
        merged = {**header[key], **value} if key == "recipe" and value != 3 else value
        return header | {key: merged}

    change(copied, changed)
    name = "step-00000001.safetensors"
    message = refusal(CheckpointDirectory(copied / "checkpoints").read_newest)
    assert re.search(f"{name} is not a checkpoint of a run", message)
    assert len(message) < 600 + len(str(copied))


@pytest.mark.parametrize("header", ["", "3", "[]", "{}", "[" * 20_000])
def test_a_checkpoint_whose_header_is_damaged_is_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "step-00000001.safetensors"
    save_tensors(path, {"format": FORMAT, "header": header}, {"a": torch.zeros(1)})
    for header_only in (False, True):
        with pytest.raises(InputError, match="step-00000001.safetensors is not a checkpoint"):
            CheckpointDirectory(tmp_path).read_newest(header_only=header_only)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("g_optimizer.linear.weight.exp_avg", torch.zeros(3)),
        ("g_optimizer.linear.weight.exp_avg", None),
        ("g_optimizer.linear.weight.extra", torch.zeros(3)),
        ("generator.linear.weight", torch.zeros(3)),
        ("generator.linear.weight", None),
    ],
)
def test_a_checkpoint_of_other_tensors_is_refused(
    copied: Path, name: str, value: torch.Tensor | None
) -> None:
    change(copied, **{name: value})
    with pytest.raises(InputError, match="step 1 does not fit its recipe"):
        run(shortened(total_steps=1), copied)


def test_watching_starts_anew_from_directions_that_are_none(copied: Path) -> None:
    for block in (torch.full((8, 8), float("nan")), torch.zeros(8, 8, dtype=torch.int64)):
        change(copied, **{"singular_values.generator.linear": block})
        state = run(shortened(total_steps=1), copied)
        assert "linear" not in state.singular_values["generator"]


def test_metrics_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    assert re.search("cannot write .*metrics.jsonl", refusal(run, CONFIG, tmp_path))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = shuffled(pictures(8, ("blue", "red"), size=8))
    return write_shards(tmp_path_factory.mktemp("shards"), files, per_shard=5)


def opened(shards: Path, names: tuple[str, ...] | None = None) -> ShardStream:
    """A stream as a new process opens it."""
    return ShardStream(shards, 8, 3, names, seed=0, window=6, workers=1)


def test_a_streamed_run_resumes_to_the_bit(shards: Path, tmp_path: Path) -> None:
    config = shortened(
        stream=True,
        stream_window=6,
        classes="a folder/names.txt",
        label_sampling="empirical",
        accumulation=2,
        total_steps=3,
        evaluation=EvaluationConfig(extractor="a folder/classifier.safetensors", data="~/others"),
    )
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(config, whole, opened(shards))
    run(config, stopped, opened(shards), should_stop=until(2))
    run(config, stopped, opened(shards))
    assert_same_run(stopped, whole)
    gan = biggan.load(stopped)
    assert gan.class_names == ("blue", "red")
    card: Any = gan.description.training
    assert (card["images"], card["data"]) == (16, shards.name)
    told = card["recipe"]["evaluation"]
    found = (card["recipe"]["classes"], told["extractor"], told["data"])
    assert found == ("names.txt", "classifier.safetensors", "others")  # and not where they lie


def test_shards_that_changed_are_refused_on_resuming(shards: Path, tmp_path: Path) -> None:
    config = shortened(stream=True, total_steps=1)
    run(config, tmp_path / "run", opened(shards))
    files = shuffled(pictures(8, ("blue", "red"), size=8), seed=1)
    changed = write_shards(tmp_path / "shards", files, per_shard=4)
    with pytest.raises(InputError, match="trained on other data than shards now contains"):
        run(config, tmp_path / "run", opened(changed))
    with pytest.raises(InputError, match="trained on other data"):
        run(config, tmp_path / "run", opened(shards, ("hen", "eel")))
