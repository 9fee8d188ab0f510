"""On a CUDA device: the same pictures as on the CPU, and training that runs and resumes."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import biggan
from biggan.data import load_dataset
from biggan.engine_names import PRECISIONS
from biggan.engines import build_engine
from biggan.engines.engine import TOLERANCE
from biggan.models.folded import FoldedGenerator
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
