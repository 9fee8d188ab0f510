"""Devices by their names, what is said where one is missing, and where memory runs out."""

import pytest
import torch

import biggan
from biggan import cli
from biggan.classifier import train_classifier
from biggan.cli import options
from biggan.data import load_dataset
from biggan.devices import (
    best_device,
    describe_out_of_memory,
    find_device,
    is_out_of_memory,
    naming_out_of_memory,
)
from biggan.errors import InputError, quoted
from biggan.evaluation import evaluate_images
from biggan.evaluation.features import open_extractor
from biggan.training import TrainConfig, train
from tiny import TINY_RECIPE

CPU = torch.device("cpu")
CUDA_IS_OUT = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8.00 GiB of "
    "which 1.00 GiB is free."
)


def allocate_too_much():
    torch.empty(2**46)  # 256 TiB


@pytest.fixture
def two_gpus(monkeypatch):
    """As if PyTorch were built for CUDA and found two devices."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


def test_devices_that_are_there(two_gpus):
    for name in ("cpu", "cuda", "cuda:0", "cuda:1"):
        assert find_device(name) == torch.device(name)
    assert find_device(CPU) == CPU
    assert find_device(None) == best_device()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("gpu", "the name is unknown"),
        ("", "the name is unknown"),
        ("cuda:-1", "the name is unknown"),
        ("x" * 10_000, "the name is unknown"),
        (2**63, "the name is unknown"),
        (2.5, "the name is unknown"),
        ("meta", "is not built for meta"),
        ("mps", "is not built for mps"),
        ("xpu", "is not built for xpu"),
        ("cuda:2", "this machine has 2"),
        ("cuda:99", "this machine has 2"),
    ],
)
def test_a_device_that_is_not_there_is_one_line_with_those_that_are(two_gpus, name, fault):
    with pytest.raises(InputError) as caught:
        find_device(name)
    message = str(caught.value)
    assert message.startswith(f"there is no device {quoted(name)}: ")
    assert fault in message
    assert message.endswith("; available: cpu, cuda:0, cuda:1")
    assert len(message) < 250


def test_a_build_for_cuda_without_a_gpu_names_the_driver(two_gpus, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"or its driver is missing; available: cpu$"):
        find_device("cuda")


@pytest.mark.skipif(
    torch.accelerator.current_accelerator() is not None, reason="of builds for CPUs alone"
)
def test_a_build_without_cuda_says_so(tiny, tiny_file):
    expected = r"no device 'cuda': PyTorch .* is not built for cuda; available: cpu$"
    with pytest.raises(InputError, match=expected):
        tiny.to("cuda")
    assert tiny.sample(0)  # where it was
    with pytest.raises(InputError, match=expected):
        biggan.load(tiny_file, device="cuda")


def test_every_function_that_takes_a_device_finds_it(tmp_path, tiny_file):
    digits = load_dataset("digits", 32, 1)
    config = TrainConfig.from_dict(TINY_RECIPE)
    for call in (
        lambda: biggan.load(tiny_file, device="cuda:99"),
        lambda: open_extractor("inception", device="cuda:99", offline=True),
        lambda: train_classifier(digits, tmp_path / "c.safetensors", steps=1, device="cuda:99"),
        lambda: train(config, digits, tmp_path / "run", device="cuda:99"),
        lambda: evaluate_images(digits, digits, None, ("cas",), device="cuda:99"),
    ):
        with pytest.raises(InputError, match="there is no device 'cuda:99'"):
            call()


def test_memory_that_runs_out_is_named_with_its_size():
    with (
        pytest.raises(
            InputError,
            match=r"^out of memory on cpu: 262144.00 GiB more is needed; lower batch_size$",
        ),
        naming_out_of_memory(CPU, "lower batch_size"),
    ):
        allocate_too_much()
    assert describe_out_of_memory(CUDA_IS_OUT, CPU).endswith(": 2.50 GiB more is needed")
    with pytest.raises(RuntimeError, match="size"), naming_out_of_memory(CPU, "no advice"):
        torch.zeros(2) + torch.zeros(3)


def test_an_error_that_out_of_memory_leads_to_is_out_of_memory():
    broken_capture = RuntimeError("operation failed due to a previous error during capture")
    broken_capture.__context__ = CUDA_IS_OUT
    assert is_out_of_memory(broken_capture)
    assert not is_out_of_memory(RuntimeError("something else"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (CUDA_IS_OUT, r"2.50 GiB more is needed, 1.00 of 8.00 GiB are free; .* weights of tiny"),
        (RuntimeError("CUDA error: busy\nmore"), "'cuda:1' cannot be used: CUDA error: busy more"),
    ],
)
def test_a_model_that_a_device_does_not_take_stays_where_it_was(
    tiny, two_gpus, monkeypatch, error, message
):
    move, part = tiny.generator.to, tiny.generator.linear

    def to(device):
        if device.type == "cuda":
            part.to("meta")  # some weights have been moved before it fails
            raise error
        part.to_empty(device=device)
        return move(device)

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**33))
    monkeypatch.setattr(tiny.generator, "to", to)
    with pytest.raises(InputError, match=message):
        tiny.to("cuda:1")
    assert tiny.device == CPU
    assert tiny.sample(0)


def test_training_that_runs_out_of_memory_names_a_smaller_setting(tmp_path, monkeypatch):
    monkeypatch.setattr("biggan.training.run.Run.open", lambda _: allocate_too_much())
    digits = load_dataset("digits", 32, 1)
    with pytest.raises(InputError, match=r"out of memory on cpu: .* GiB .*accumulation"):
        train(TrainConfig.from_dict(TINY_RECIPE).fitted(10), digits, tmp_path, device=CPU)


def test_a_command_that_runs_out_of_memory_ends_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["biggan", "models"])
    monkeypatch.setattr(options.group, "invoke", lambda _: allocate_too_much())
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: out of memory: ")
