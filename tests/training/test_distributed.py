"""Several processes against one: the same run, and the same end where one of them fails.

What several processes must do together is done in one launch of them; the tests look at what came
out of it.
"""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn import functional as F

from biggan.data import load_dataset
from biggan.distributed import (
    asked_processes,
    averages,
    check_same,
    check_shares,
    gather,
    is_first,
    num_processes,
    on_any_process,
    own_device,
    own_range,
    own_share,
    process_group,
    raising_together,
)
from biggan.errors import InputError
from biggan.nn.synchronization import synchronized_batch_norm
from biggan.training.config import TrainConfig
from biggan.training.export import finish
from biggan.training.loop import train
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step, update_ema
from runs import ADDITIONS, BOUNDS, SMALL, float64, short_exports
from several_processes import launch
from tiny import refusal

CPU = torch.device("cpu")
STEPS = 8
PROCESSES = 3
BATCH = 12  # divides by the processes, with 1 and with 2 micro-batches
RECIPE = {
    **SMALL,
    "total_steps": STEPS,
    "batch_size": BATCH,
    "checkpoint_every": 100,
    "statistics_images": BATCH,
    "generator": SMALL["generator"] | {"channels": 8, "widths": [1, 1], "attention_resolution": 8},
    "d_steps": 2,
    "watch": {"every": STEPS},
}

# The next BatchNorm takes these biases of the generator out again. Their gradient is nothing but
# rounding, which Adam blows up to steps as long as any other: in float32 no two runs agree on them.
REMOVED_AGAIN = re.compile(
    r"(generator|ema|g_optimizer)\..*((conv1|conv2|shortcut)\.bias|running_mean)"
)


def recipe(**changes):
    return TrainConfig.from_dict({**RECIPE, **changes}).fitted(2)


def rank():
    return torch.distributed.get_rank() if num_processes() > 1 else 0


def normalize_share(images, dtype):
    """This process's part of a batch, normalized, with its gradient and the moving averages."""
    random = torch.Generator().manual_seed(0)
    # A mean that is large beside the deviation: sums of squares would cancel in float32.
    x = 1000 + torch.randn(images, 3, 4, 4, generator=random, dtype=torch.float64)
    weight = torch.randn(x.shape, generator=random, dtype=torch.float64)
    x, weight = own_share(x.to(dtype)).requires_grad_(), own_share(weight.to(dtype))
    running = torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)
    if num_processes() == 1:
        y = F.batch_norm(x, *running, training=True, momentum=0.1, eps=1e-4)
    else:
        y = synchronized_batch_norm(x, *running, momentum=0.1, eps=1e-4)
    (y.sin() * weight).sum().backward()
    return y.detach(), x.grad, *running


def steps_in_float64(steps=STEPS, **changes):
    """Losses and state after steps in which rounding hides nothing."""
    config = recipe(**changes)
    micro_batches = config.accumulation
    losses = []
    with float64():
        state = TrainState.create(config, CPU)
        for step in range(steps):
            random = torch.Generator().manual_seed(step)
            real = torch.rand(BATCH, 3, 8, 8, generator=random) * 2 - 1
            labels = torch.randint(2, (BATCH,), generator=random)
            batch = own_share(real, micro_batches), own_share(labels, micro_batches)
            metrics = discriminator_step(state, batch, config) | generator_step(state, config)
            update_ema(state, config)
            state.step += 1
            losses.append(averages(metrics))
    return losses, state.tensors()


def statistics(images):
    """A finished generator's tensors; its batches have as many images, or twelve at most."""
    ema = TrainState.create(recipe(), CPU).ema
    return finish(ema, recipe(), (), [0.5, 1.0], images).state_dict()


def exchanges_of_one_update():
    """How often each network's gradients are exchanged while two micro-batches accumulate."""
    config = recipe(accumulation=2)
    state = TrainState.create(config, CPU)
    counts = {"discriminator": 0, "generator": 0}

    def counted(name, bucket):
        counts[name] += 1
        return allreduce_hook(None, bucket)

    for name in counts:
        getattr(state, f"parallel_{name}").register_comm_hook(name, counted)
    labels = own_share(torch.arange(BATCH) % 2, 2)
    discriminator_step(state, (torch.zeros(len(labels), 3, 8, 8), labels), config)
    generator_step(state, config)
    return counts


def message_of(function, *arguments):
    try:
        function(*arguments)
    except InputError as error:
        return str(error)
    return None


def fail_on_the_last_process(message):
    with raising_together():
        if rank() == num_processes() - 1:
            raise InputError(message)


def train_here(folder, run_dir, **changes):
    dataset = load_dataset(folder, 8, 3, workers=1)
    train(recipe(**changes), dataset, run_dir, device=CPU)


def stop_on_the_last_process(folder, run_dir):
    """Train until one process, and no other, is asked to stop halfway."""
    dataset = load_dataset(folder, 8, 3, workers=1)
    asked = iter(range(1, STEPS + 1))

    def should_stop():
        return next(asked) == STEPS // 2 and rank() == num_processes() - 1

    return train(recipe(), dataset, run_dir, device=CPU, should_stop=should_stop).step


@short_exports()  # in the other processes as well
def everything(folder, out):
    found = {
        "normalized": normalize_share(10, torch.float64),
        "normalized in float32": normalize_share(10, torch.float32),
        "normalized, few": normalize_share(2, torch.float64),
        "whole": steps_in_float64(),
        "micro-batches": steps_in_float64(4, accumulation=2, **ADDITIONS, spectrum=BOUNDS),
        "statistics": statistics(BATCH + 1),
        "statistics, few": statistics(2),
        "stopped at": stop_on_the_last_process(folder, out / "stopped"),
    }
    train_here(folder, out / "run")
    if num_processes() > 1:
        found |= {
            "exchanges": exchanges_of_one_update(),
            "flags": (on_any_process(rank() == 1), on_any_process(False)),
            "gathered": gather(rank()),
            "ranges": [own_range(size) for size in range(6)],
            "failure": message_of(fail_on_the_last_process, "the disk is full"),
            "difference": message_of(check_same, is_first(), "they differ"),
            "no difference": message_of(check_same, 1, "they differ"),
            "odd batch": message_of(check_shares, 11, 1),
            "odd micro-batch": message_of(check_shares, 10, 2),
            "small batch": message_of(check_shares, 1, 1),
        }
        train_here(folder, out / "stopped by one process")
    return found


@pytest.fixture(scope="module")
def one(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    return out, everything(folder, out)


@pytest.fixture(scope="module")
def several(folder, one, tmp_path_factory):
    out = tmp_path_factory.mktemp("several")
    shutil.copytree(one[0] / "stopped", out / "stopped by one process")
    return out, launch(everything, PROCESSES, folder, out)


def assert_close(found, expected, tolerance):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("batch", "tolerance"),
    [("normalized", 1e-11), ("normalized, few", 1e-11), ("normalized in float32", 3e-4)],
)
def test_batch_norm_is_that_of_all_images_together(one, several, batch, tolerance):
    """With shares of unequal sizes, and an empty one where there are two images."""
    expected = [part.double() for part in one[1][batch.removesuffix(" in float32")]]
    shares = [found[batch] for found in several[1]]
    for i in range(2):  # the result and the gradient
        assert_close(torch.cat([share[i] for share in shares]).double(), expected[i], tolerance)
    for share in shares:
        for i in (2, 3):  # the moving averages
            assert_close(share[i].double(), expected[i], tolerance)


@pytest.mark.parametrize(("batch", "tolerance"), [("whole", 1e-9), ("micro-batches", 1e-8)])
def test_steps_are_those_of_one_process(one, several, batch, tolerance):
    losses, tensors = one[1][batch]
    for found_losses, found_tensors in (found[batch] for found in several[1]):
        for step, expected in zip(found_losses, losses, strict=True):
            assert step == pytest.approx(expected, rel=1e-6, abs=1e-6)  # logged as float32
        assert_close(found_tensors, tensors, tolerance)
        for name, value in several[1][0][batch][1].items():
            assert torch.equal(found_tensors[name], value), name


def test_gradients_are_exchanged_once_an_update(several):
    for found in several[1]:
        assert found["exchanges"] == {"discriminator": 1, "generator": 1}


@pytest.mark.parametrize("batch", ["statistics", "statistics, few"])
def test_standing_statistics_are_those_of_one_process(one, several, batch):
    for found in several[1]:
        assert_close(found[batch], one[1][batch], 1e-5)


def assert_same_run(folder, other, step):
    """The same to float32's rounding."""
    lines = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (folder, other)
    ]
    for found, expected in zip(*lines, strict=True):
        del found["steps_per_second"], expected["steps_per_second"]
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    name = f"checkpoints/step-{step:08d}.safetensors"
    found, expected = load_file(folder / name), load_file(other / name)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if not REMOVED_AGAIN.search(name):
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-5, msg=name)
    found, expected = (load_file(run / "generator.safetensors") for run in (folder, other))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-5)


def test_a_run_is_that_of_one_process(one, several):
    assert_same_run(several[0] / "run", one[0] / "run", STEPS)


def test_one_process_that_is_asked_to_stop_stops_all(one, several):
    assert [found["stopped at"] for found in several[1]] == [STEPS // 2] * PROCESSES
    assert_same_run(several[0] / "stopped", one[0] / "stopped", STEPS // 2)


def test_the_number_of_processes_may_change_on_resuming(one, several, folder, tmp_path):
    assert_same_run(several[0] / "stopped by one process", one[0] / "run", STEPS)
    shutil.copytree(several[0] / "stopped", tmp_path / "run")
    train_here(folder, tmp_path / "run")
    assert_same_run(tmp_path / "run", one[0] / "run", STEPS)


def test_what_one_process_decides_or_fails_at_reaches_all(several):
    for found in several[1]:
        assert found["flags"] == (True, False)
        assert found["failure"] == "the disk is full"
        assert found["difference"] == "they differ"
        assert found["no difference"] is None


def test_the_first_process_gathers_what_all_have(several):
    assert [found["gathered"] for found in several[1]] == [[0, 1, 2], [], []]
    assert gather("alone") == ["alone"]


def test_every_number_is_of_one_process(several):
    for size in range(6):
        parts = [found["ranges"][size] for found in several[1]]
        assert [number for part in parts for number in part] == list(range(size))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert own_range(size) == range(size)


def test_a_batch_that_does_not_divide_is_refused_by_all(several):
    for found in several[1]:
        assert "11 is not divisible by 3 processes" in found["odd batch"]
        assert "batch_size 10 in 2 micro-batches of 5 is not divisible" in found["odd micro-batch"]
        assert "batch_size 1 is not divisible by 3 processes" in found["small batch"]


def test_one_without_torchrun(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert asked_processes() == 1
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert asked_processes() == 8


@pytest.mark.parametrize("text", ["0", "-2", "x", "", "1.5"])
def test_what_is_no_number_of_processes_is_named(monkeypatch, text):
    monkeypatch.setenv("WORLD_SIZE", text)
    assert "WORLD_SIZE in the environment is not a number of processes" in refusal(asked_processes)


def test_each_process_has_its_own_gpu(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("cpu", "cuda", "cuda:1", "mps"):
        assert own_device(torch.device(device)) == torch.device(device)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device(torch.device("cuda")) == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]
    assert own_device(CPU) == CPU
    monkeypatch.setenv("LOCAL_RANK", "2")
    for device, message in (
        ("cuda", "start 2 per machine, or give --device cpu"),
        ("cuda:0", "give --device cuda without a number"),
        ("mps", "not mps: give --device cpu"),
    ):
        assert re.search(message, refusal(own_device, torch.device(device)))


def test_processes_that_nobody_started_are_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="or unset WORLD_SIZE"), process_group(torch.device("cpu")):
        pass
