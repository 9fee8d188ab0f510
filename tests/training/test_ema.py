import torch

from biggan.training.ema import EmaConfig, update_ema
from tiny import tiny_generator


def test_parameters_are_averaged_and_buffers_copied():
    ema, generator = tiny_generator(), tiny_generator()
    with torch.no_grad():
        for value in (*generator.parameters(), *generator.buffers()):
            value.add_(1)
    before = {name: value.clone() for name, value in ema.named_parameters()}
    update_ema(ema, generator, EmaConfig(decay=0.9, start=5), step=5)
    for name, value in generator.named_parameters():
        torch.testing.assert_close(ema.get_parameter(name), 0.9 * before[name] + 0.1 * value)
    for name, value in generator.named_buffers():
        assert torch.equal(ema.get_buffer(name), value), name


def test_before_its_start_the_average_is_a_copy():
    ema, generator = tiny_generator(), tiny_generator()
    with torch.no_grad():
        for value in generator.parameters():
            value.mul_(2)
    update_ema(ema, generator, EmaConfig(decay=0.9, start=5), step=4)
    for name, value in generator.named_parameters():
        torch.testing.assert_close(ema.get_parameter(name), value.detach())
