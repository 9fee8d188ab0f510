"""Standing statistics against activations collected by hooks, in one large batch."""

import dataclasses

import torch

from biggan.latents import make_noise
from biggan.nn import StandingBatchNorm2d
from biggan.training.export import finish, record_statistics
from biggan.training.randomness import Purpose, derive_seed
from biggan.training.state import TrainState


def test_one_batch_is_what_the_layers_see(config):
    config = dataclasses.replace(config, batch_size=64)
    generator = TrainState.create(config, torch.device("cpu")).generator
    generator.head.bn.set_grid([0.5])
    for layer in generator.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.set_grid([0.5])
    inputs = {}
    hooks = [
        layer.register_forward_hook(lambda m, args, _: inputs.update({m: args[0]}))
        for layer in generator.modules()
        if isinstance(layer, StandingBatchNorm2d)
    ]
    names = ("head.bn.running_mean", "linear.u", "blocks.0.conv1.u")  # of power iteration: u
    before = [generator.get_buffer(name).clone() for name in names]
    record_statistics(generator, config, (), 0.5, 64)
    for hook in hooks:
        hook.remove()
    assert len(inputs) == 7
    for layer, x in inputs.items():
        torch.testing.assert_close(layer.table_mean[0], x.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.table_var[0], x.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
        assert layer.momentum == 0.1
    assert all(map(torch.equal, map(generator.get_buffer, names), before))
    assert not generator.training


def test_several_batches_pool_means_and_variances(config):
    """The first layer sees a linear map of noise: its pooled moments can be computed directly."""
    config = dataclasses.replace(config, batch_size=16)
    generator = TrainState.create(config, torch.device("cpu")).generator
    record_statistics(generator, config, (), None, 64)
    dim = config.generator.z_dim
    seeds = [derive_seed(config.seed, Purpose.STATISTICS, i, 0) for i in range(4)]
    z = torch.cat([torch.from_numpy(make_noise(16, dim, None, seed)).float() for seed in seeds])
    generator.eval()
    x = generator.linear(z[:, : config.generator.chunk_dim]).unflatten(1, (-1, 4, 4))
    first = generator.blocks[0].bn1
    torch.testing.assert_close(first.running_mean, x.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(first.running_var, x.var(dim=(0, 2, 3)), rtol=5e-3, atol=0)


def test_finishing_leaves_the_original_alone_and_fills_the_grid(config):
    ema = TrainState.create(config, torch.device("cpu")).ema
    random = torch.Generator().manual_seed(0)
    for parameter in ema.parameters():  # as an average moves away from the weights of u and v
        parameter.copy_(torch.randn(parameter.shape, generator=random))
    before = {name: value.clone() for name, value in ema.state_dict().items()}
    finished = finish(ema, config, (), [0.2, 0.6, 1.0], 16)
    for name, value in ema.state_dict().items():
        assert torch.equal(value, before[name]), name
    norm = finished.blocks[1].bn1
    assert norm.grid == (0.2, 0.6, 1.0)
    assert not torch.equal(norm.table_var[0], norm.table_var[2])
    for layer in (finished.linear, finished.blocks[0].conv1):
        sigma = torch.linalg.svdvals(layer.normalized_weight().detach().flatten(1))[0]
        assert abs(sigma.item() - 1) < 0.02
