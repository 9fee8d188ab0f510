"""Damaged and hostile folders of runs: reported, resumed and loaded, or refused in one line."""

import json
import random
import resource
import shutil
import tomllib
import traceback

import pytest
import torch

import biggan
from biggan.errors import InputError
from biggan.reporting import measure_truncation, read_run, write_report
from biggan.supervision import log as run_log
from biggan.toml import to_toml
from biggan.training import TrainConfig
from biggan.weights.files import load_tensors, save_tensors
from mutations import MUTATIONS, mutated_bytes, mutated_value
from runs import SMALL, noise_images
from runs import run as run_training
from simple_features import SimpleFeatures

pytest.importorskip("matplotlib")

RECIPE = {
    **SMALL,
    "total_steps": 2,
    "batch_size": 4,
    "checkpoint_every": 1,
    "statistics_images": 4,
    "evaluation": {"every": 1, "num": 10, "metrics": "fid", "extractor": "simple"},
}
EVENT = {"step": 1, "event": "collapse", "reason": "It was told to.", "attempt": 0, "rule": "test"}
MEMORY = 512  # MiB


@pytest.fixture(autouse=True)
def _cheap(monkeypatch, tmp_path):
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run_log, "_tensorboard_writer", lambda *_: None)
    monkeypatch.setattr("biggan.reporting.truncation.TRUNCATIONS", (None, 0.2))
    extractor = SimpleFeatures()
    monkeypatch.setattr("biggan.evaluation.features.open_extractor", lambda *_, **__: extractor)


def resume(folder, total_steps=2):
    config = TrainConfig.from_dict({**RECIPE, "total_steps": total_steps}).fitted(2)
    return run_training(config, folder, noise_images(12))


def report(folder):
    record = read_run(folder)
    record.sweep = measure_truncation(folder)
    write_report(record, folder / "report.html")


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    resume(folder)
    (folder / "events.jsonl").write_text(json.dumps(EVENT) + "\n")
    measure_truncation(folder)
    return folder


def mutate_json(path, random):
    path.write_text(json.dumps(mutated_value(json.loads(path.read_text()), random)))


def mutate_lines(path, random):
    lines = path.read_text().splitlines()
    i = random.randrange(len(lines))
    lines[i] = json.dumps(mutated_value(json.loads(lines[i]), random))
    path.write_text("\n".join(lines) + "\n")


def mutate_toml(path, random):
    values = mutated_value(tomllib.loads(path.read_text()), random)
    try:
        path.write_text(to_toml(values))
    except (TypeError, ValueError, UnicodeEncodeError):
        path.write_text(f"total_steps = {10**5000 if random.random() < 0.5 else '[' * 20_000}")


def mutate_header(path, random):
    """What a safetensors file says of itself, with the right digest."""
    metadata, tensors, _ = load_tensors(path)
    header = mutated_value(json.loads(metadata["header"]), random)
    save_tensors(path, {**metadata, "header": json.dumps(header)}, tensors)


def mutate_tensors(path, random):
    metadata, tensors, _ = load_tensors(path)
    name = random.choice(list(tensors))
    value = tensors.pop(name)
    changed = (
        None,
        value.flatten()[:0],
        value[None],
        value.double(),
        torch.full_like(value, float("nan")),
        torch.zeros(3, dtype=torch.int64),
    )
    value = random.choice(changed)
    if value is not None:
        tensors[name if random.random() < 0.8 else f"{name}.x"] = value
    save_tensors(path, metadata, tensors)


def mutate_bytes(path, random):
    path.write_bytes(mutated_bytes(path.read_bytes(), random))


# What may change in each file besides its bytes, and who reads it.
FILES = {
    "config.toml": ((mutate_toml,), {report}),
    "metrics.jsonl": ((mutate_lines,), {report, resume}),
    "signals.jsonl": ((mutate_lines,), {report, resume}),
    "events.jsonl": ((mutate_lines,), {report, resume}),
    "evaluations/step-00000001.json": ((mutate_json,), {report, resume}),
    "truncation.json": ((mutate_json,), {report}),
    "previews/step-00000001.png": ((), {report}),
    "checkpoints/step-00000002.safetensors": ((mutate_header, mutate_tensors), {resume}),
    "generator.safetensors": ((mutate_header, mutate_tensors), {biggan.load}),
}


@pytest.mark.slow
def test_a_mutated_run_is_read_or_refused_in_one_line(run, tmp_path, monkeypatch):
    chance = random.Random(0)
    failures = []
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(MUTATIONS):
        folder = shutil.copytree(run, tmp_path / str(i))
        readers, changed = set(), []
        for _ in range(chance.choice((1, 1, 3))):
            name = chance.choice(list(FILES))
            change = chance.choice((*FILES[name][0], mutate_bytes))
            try:
                change(folder / name, chance)
            except ValueError:  # an earlier change has left nothing to parse
                mutate_bytes(folder / name, chance)
            readers |= FILES[name][1]
            changed.append(f"{change.__name__} {name}")
        for reader in sorted(readers, key=lambda reader: reader.__name__):
            with monkeypatch.context() as patch:
                if i % 100:  # drawing takes a second
                    patch.setattr("biggan.reporting.report.as_svg", lambda *_: "<svg></svg>")
                try:
                    reader(folder)
                    if reader is resume and i % 10 == 0:
                        resume(folder, total_steps=3)
                except InputError as error:
                    if len(str(error)) > 1000 or not str(error).isprintable():
                        failures.append((i, changed, str(error)[:1000]))
                except Exception:
                    failures.append((i, changed, traceback.format_exc()[-1000:]))
        shutil.rmtree(folder)
    assert not failures, "\n".join(f"mutation {i}, {c}: {what}" for i, c, what in failures)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < MEMORY * 1024
