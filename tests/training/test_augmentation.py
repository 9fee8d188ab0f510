"""What the discriminator sees: drawn from seed and place alone, and applied in its order."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from biggan.training.augmentation import Augmentation, Draws, InstanceNoiseConfig
from biggan.training.state import TrainState
from runs import CPU, assert_same_run, final_tensors, in_parts, recipe, run

EVERYTHING: dict[str, Any] = {
    "augmentation": {"kind": "ada"},
    "dropout": {"keep": 0.8},
    "instance_noise": {"std": 0.4, "until": 100},
}


def augmentation(**changes: Any) -> Augmentation:
    return TrainState.create(recipe(**changes), CPU).augmentation


def test_off_by_default() -> None:
    nothing, images = augmentation(), torch.rand(2, 3, 8, 8)
    draws = nothing.draw(2, 0, 0)
    assert draws == Draws(None, None, None)
    assert nothing(images, draws) is images


def test_images_are_augmented_and_then_get_noise() -> None:
    owner = augmentation(**EVERYTHING | {"augmentation": {"kind": "diffaugment"}})
    images = torch.rand(2, 3, 8, 8)
    draws = owner.draw(2, 0, 5)
    assert owner.transform is not None
    expected = owner.transform(images, draws.numbers) + draws.noise
    assert torch.equal(owner(images, draws), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(owner(images, draws), expected)


def test_draws_depend_on_seed_and_place_alone() -> None:
    owner = augmentation(**EVERYTHING)
    torch.manual_seed(1)
    first = owner.draw(4, 7, 5, 0, 1)
    torch.manual_seed(2)
    again = owner.draw(4, 7, 5, 0, 1)
    others = [owner.draw(4, *place) for place in ((8, 5, 0, 1), (7, 6, 0, 1), (7, 5, 1, 1))]
    for name in ("numbers", "noise", "mask"):
        value = getattr(first, name)
        assert torch.equal(getattr(again, name), value)
        assert not any(torch.equal(getattr(other, name), value) for other in others)


def test_masks_keep_their_share_and_the_mean() -> None:
    mask = augmentation(dropout={"keep": 0.8}).draw(1000, 0, 3).mask
    assert mask is not None
    assert mask.shape == (1000, 8)
    assert set(mask.unique().tolist()) == {0.0, 1.25}
    assert mask.mean().item() == pytest.approx(1, abs=0.02)


def test_noise_fades() -> None:
    fading = InstanceNoiseConfig(std=0.4, until=100)
    assert [fading.std_at(step) for step in (0, 25, 100, 500)] == [0.4, 0.4 * 0.75, 0, 0]
    assert InstanceNoiseConfig(std=0.4).std_at(10**6) == 0.4
    owner = augmentation(instance_noise={"std": 0.4, "until": 100})
    noise = owner.draw(64, 0, 50).noise
    assert noise is not None
    assert noise.shape == (64, 3, 8, 8)
    assert noise.std().item() == pytest.approx(0.2, rel=0.02)
    assert owner.draw(8, 0, 100).noise is None


def test_a_run_with_every_addition_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Matrices of this size are iterated on: their vectors must be found again.
    monkeypatch.setattr("biggan.training.singular_values.WHOLE", 4)
    config = recipe(
        total_steps=4,
        # Fast enough that ADA's probability moves within the run.
        augmentation={"kind": "ada", "target": -0.9, "images": 64},
        dropout={"keep": 0.8},
        instance_noise={"std": 0.4, "until": 100},
        r1={"gamma": 2.0},
        loss={"margin": 1.5},
        lecam={"strength": 0.1, "start": 1},
        spectrum={"generator": "clamp", "discriminator": "regularize", "bound": 0.9},
        d_steps=2,
    )
    run(config, tmp_path / "whole")
    in_parts(config, tmp_path / "parts", [1, 3])
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    tensors = final_tensors(tmp_path / "parts")
    assert [name for name in tensors if name.startswith("g_spectrum.")]
    assert tensors["augmentation.probability"] > 0
    line = json.loads((tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["lecam"] > 0
    assert {"r1", "d_spectrum"} <= line.keys()
