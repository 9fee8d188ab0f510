"""On a CUDA device: the same pictures as on the CPU, and training that runs and resumes."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import biggan
from biggan.data import load_dataset
from biggan.inference import PRECISIONS
from biggan.inference.engine import TOLERANCE, build_engine, check_engine
from biggan.inference.folded import FoldedGenerator
from biggan.inference.pytorch import CudaGraphEngine
from biggan.sampling import generate_batches
from biggan.training import TrainConfig, train
from biggan.training.batches import real_batches
from tiny import TINY_RECIPE, tiny_generator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("name", ["biggan-32", "biggan-64", "biggan-128", "biggan-deep-128"])
def test_the_same_images_as_on_the_cpu(name):
    generator = biggan.build_generator(name).eval()
    z = torch.randn(4, generator.config.z_dim, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3])
    with torch.inference_mode():
        expected = generator(z, labels)
        found = generator.cuda()(z.cuda(), labels.cuda()).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_sampling_through_the_public_interface():
    on_cpu, on_gpu = biggan.load(), biggan.load(device="cuda")
    for a, b in zip(on_cpu.sample(7, 5), on_gpu.sample(7, 5), strict=True):
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 2


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", 32, 1)


def recipe(**changes):
    grey = {"image_channels": 1}
    return TrainConfig.from_dict(
        {
            **TINY_RECIPE,
            "generator": {**TINY_RECIPE["generator"], **grey},
            "discriminator": {**TINY_RECIPE["discriminator"], **grey},
            **changes,
        }
    ).fitted(10)


ALL_AT_ONCE = {
    "precision": "bfloat16",
    "checkpoint_activations": True,
    "accumulation": 2,
    "augmentation": {"kind": "ada"},
    "lecam": {"strength": 0.1, "start": 1},
}


@pytest.mark.parametrize(
    "changes", [{}, {"precision": "bfloat16", "compile": True}, ALL_AT_ONCE], ids=str
)
def test_training_runs_and_resumes(tmp_path, digits, changes):
    config = recipe(**changes)
    device = torch.device("cuda")
    train(dataclasses.replace(config, total_steps=3), digits, tmp_path, device=device)
    state = train(config, digits, tmp_path, device=device)
    assert state.step == 6
    assert all(value.isfinite().all() for value in state.tensors().values())
    assert len(biggan.load(tmp_path).sample(num=3)) == 3


def test_the_first_losses_are_those_of_the_cpu(tmp_path, digits):
    losses = []
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        train(recipe(total_steps=1), digits, folder, device=torch.device(device))
        losses.append(json.loads((folder / "metrics.jsonl").read_text())["d_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_data_on_the_device_are_those_of_memory(digits):
    on_cpu, on_gpu = (
        next(real_batches(recipe(flip=True), digits, torch.device(device), start=3))
        for device in ("cpu", "cuda")
    )
    for expected, found in zip(on_cpu, on_gpu, strict=True):
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("precision", PRECISIONS)
@torch.inference_mode()
def test_graphs_make_the_generators_images(precision):
    generator = tiny_generator().cuda()
    engine = build_engine(generator, "pytorch", precision)
    assert (engine.name, engine.precision) == ("pytorch", precision)
    z = torch.randn(5, generator.config.z_dim, device="cuda")
    labels = torch.arange(5, device="cuda") % 3
    for truncation in (0.4, None):
        for rows in (slice(0, 4), slice(1, 5), slice(4, 5)):  # replays, and another batch size
            images = engine(z[rows], labels[rows], truncation)
            difference = (images - generator(z[rows], labels[rows], truncation)).abs().max()
            assert difference < TOLERANCE[precision]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@torch.inference_mode()
def test_graphs_of_a_device_that_is_not_the_current_one():
    """Each replay is of its own inputs, whichever device the first graph was recorded on."""
    assert torch.cuda.current_device() == 0
    for device in ("cuda:0", "cuda:1", "cuda:0"):
        generator = tiny_generator().to(device)
        engine = build_engine(generator, "pytorch")
        assert type(engine) is CudaGraphEngine  # nothing took its place
        for seed in range(3):
            random = torch.Generator().manual_seed(seed)
            z = torch.randn(3, generator.config.z_dim, generator=random).to(device)
            labels = torch.arange(3, device=device)
            torch.testing.assert_close(
                engine(z, labels, 0.4), generator(z, labels, 0.4), atol=1e-3, rtol=0
            )


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_training_and_sampling_on_the_second_device_leave_the_first_alone(tmp_path, digits):
    train(recipe(), digits, tmp_path / "second", device=torch.device("cuda:1"))
    assert len(biggan.load(tmp_path / "second", device="cuda:1").sample(num=3)) == 3
    assert torch.cuda.memory_reserved("cuda:1") > 0
    code = (
        "import sys, torch, biggan; biggan.load(sys.argv[1], device='cuda:1').sample(num=3); "
        "print(torch.cuda.memory_reserved('cuda:0'))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "second"], capture_output=True, text=True
    )
    assert result.stdout.strip() == "0", result.stderr


def test_a_graph_that_replays_an_old_picture_is_not_used(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda self: None)
    generator = tiny_generator().cuda()
    engine = build_engine(generator, "pytorch")
    assert "differ from PyTorch's" in caplog.text
    assert check_engine(engine, generator) is None


def test_a_smaller_last_batch_keeps_the_graph_of_the_full_one():
    engine = build_engine(tiny_generator().cuda(), "pytorch")
    z, labels = torch.randn(7, engine.config.z_dim), torch.arange(7) % 3
    list(generate_batches(engine, labels, z, 0.4, 3))
    graphs = dict(engine._graphs)
    list(generate_batches(engine, labels, z, 0.4, 3))
    assert engine._graphs == graphs
    assert set(graphs) == {3, 1}


def test_a_model_that_does_not_fit_is_one_line_and_stays_where_it_was(tiny):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.0)
    try:
        with pytest.raises(biggan.InputError, match=r"out of memory on cuda: .* GiB are free"):
            tiny.to("cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert tiny.device == torch.device("cpu")
    assert len(tiny.to("cuda").sample(0)) == 1


def test_a_device_that_is_not_there_is_one_line():
    count = torch.cuda.device_count()
    with pytest.raises(biggan.InputError, match=f"'cuda:{count}': this machine has {count}"):
        biggan.load(device=f"cuda:{count}")


def test_a_batch_that_exceeds_the_memory_is_made_in_halves(monkeypatch):
    generator = tiny_generator().cuda()
    z, labels = torch.randn(9, generator.config.z_dim), torch.arange(9) % 3
    expected = torch.cat([b.images for b in generate_batches(generator, labels, z, 0.4, 3)])
    render = FoldedGenerator.render

    def within_memory(self, grid, scale, shift):
        if len(grid) > 2:
            torch.empty(1 << 46, device="cuda")
        return render(self, grid, scale, shift)

    monkeypatch.setattr(FoldedGenerator, "render", within_memory)
    batches = list(generate_batches(generator, labels, z, 0.4, 8))
    assert [len(batch.images) for batch in batches] == [2, 2, 2, 2, 1]
    made = torch.cat([batch.images for batch in batches])
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)
