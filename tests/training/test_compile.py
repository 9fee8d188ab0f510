"""torch.compile's tracing of the steps: nothing is left out, traced twice, or computed otherwise.

Compilers of the traced graphs (Inductor) are torch's own, and need a C compiler: not tested here.
"""

import copy

import pytest
import torch
import torch._dynamo
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from biggan.nn import BatchNorm2d
from biggan.training.config import TrainConfig
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step
from runs import CPU, SMALL, float64
from several_processes import launch

# Dynamo's own, which it hides from all but who makes errors of warnings.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]

STEPS = 2

# One stage: tracing is what takes long.
RECIPE = {**SMALL, "batch_size": 4}
WITH_ATTENTION = {"channels": 8, "attention_resolution": 8, "family": "biggan-deep"}
DEEP = {
    "generator": {**SMALL["generator"], **WITH_ATTENTION},
    "discriminator": {**SMALL["discriminator"], **WITH_ATTENTION, "attention_resolution": 4},
}
OPTIONS = {
    "accumulation": 2,
    "precision": "bfloat16",
    "augmentation": {"kind": "ada"},
    "lecam": {"strength": 0.3, "start": 0},
}


@pytest.fixture(autouse=True)
def nothing_traced_before():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def steps(config, compiler=None):
    """Losses and state after some steps, and how many graphs there were after each."""
    state = TrainState.create(config, CPU)
    if compiler is not None:  # in place of `compile = true`, which takes Inductor
        state.generator.compile(backend=compiler)
        state.discriminator.compile(backend=compiler)
    losses, graphs = [], []
    for step in range(STEPS):
        random = torch.Generator().manual_seed(step)
        real = torch.rand(4, 3, 8, 8, generator=random) * 2 - 1
        labels = torch.randint(2, (4,), generator=random)
        metrics = discriminator_step(state, (real, labels), config)
        metrics |= generator_step(state, config)
        state.step += 1
        losses.append(metrics)
        if compiler is not None:
            graphs.append(compiler.frame_count)
    return losses, state.tensors(), graphs


def assert_traced_once(graphs, expected):
    """All graphs are there after the first step, and are whole."""
    assert graphs == [expected] * STEPS
    assert not torch._dynamo.utils.counters["graph_break"]


def test_traced_forward_and_backward_are_the_eager_ones():
    config = TrainConfig.from_dict(RECIPE).fitted(2)
    compiler = CompileCounterWithBackend("aot_eager")
    with float64():
        losses, state, _ = steps(config)
        traced_losses, traced_state, graphs = steps(config, compiler)
    torch.testing.assert_close(traced_losses, losses, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(traced_state, state, rtol=1e-9, atol=1e-9)
    # Of each network, with and without gradients; of the discriminator, of its weights or not.
    assert_traced_once(graphs, 4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Twice as many: those of the second micro-batch leave power iteration out.
        pytest.param(OPTIONS, 8, id="options"),
        pytest.param(DEEP, 4, id="biggan-deep"),
    ],
)
def test_all_is_traced_whole_and_once(changes, expected):
    config = TrainConfig.from_dict({**RECIPE, **changes}).fitted(2)
    # Other steps attend by another algorithm, and MKL may round by the addresses of its operands.
    with float64():
        losses, state, _ = steps(config)
        traced_losses, traced_state, graphs = steps(config, CompileCounterWithBackend("eager"))
    torch.testing.assert_close(traced_losses, losses, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(traced_state, state, rtol=1e-9, atol=1e-9)
    assert_traced_once(graphs, expected)


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.bn = BatchNorm2d(4)
        self.bn.synchronized = True

    def forward(self, x):
        return self.bn(self.convolution(x)).relu()


def synchronized_eager_and_traced():
    """Output, gradients and moving averages of this process, of either."""
    torch.manual_seed(0)
    eager = Normalized().double()
    traced = copy.deepcopy(eager)
    compiler = CompileCounterWithBackend("aot_eager")
    traced.compile(backend=compiler)
    random = torch.Generator().manual_seed(torch.distributed.get_rank())
    x = torch.randn(4, 3, 6, 6, generator=random, dtype=torch.float64)
    results = []
    for network in (eager, traced):
        for _ in range(2):
            y = network(x)
            y.square().sum().backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        results.append([y.detach(), *gradients, network.bn.running_mean, network.bn.running_var])
    breaks = dict(torch._dynamo.utils.counters["graph_break"])
    return *results, compiler.frame_count, breaks


def test_synchronized_batch_norm_is_traced_with_its_exchanges():
    results = launch(synchronized_eager_and_traced, 2)
    for eager, traced, graphs, breaks in results:
        torch.testing.assert_close(traced, eager, rtol=1e-12, atol=1e-12)
        assert (graphs, breaks) == (1, {})
    first, second = (eager for eager, *_ in results)
    torch.testing.assert_close(first[-2:], second[-2:], rtol=0, atol=0)
    assert not torch.equal(first[0], second[0])
