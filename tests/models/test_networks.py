"""What the networks do with their inputs, against a second way of computing it."""

import pytest
import torch
from torch.nn import functional as F

import biggan
from biggan.models import PRESETS, build_discriminator, build_generator

SMALL = {"channels": 8, "num_classes": 6}
FAMILIES = ["biggan-32", "biggan-deep-128", "sagan-128"]


def small_generator(name):
    return build_generator(PRESETS[name].generator.updated(SMALL), seed=3).eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_labels_class_weights_and_embeddings_make_the_same_images(name):
    generator = small_generator(name)
    z, labels = torch.randn(3, generator.config.z_dim), torch.tensor([1, 4, 1])
    z[1] = z[0]
    images = generator(z, labels)
    for other in (1, 2):  # another class, other noise
        assert not torch.allclose(images[0], images[other], atol=1e-3)
    assert torch.equal(generator(z, F.one_hot(labels, 6).float()), images)
    torch.testing.assert_close(generator.synthesize(z, generator.embed(labels)), images)
    between = generator.embed(torch.tensor([[0.5, 0.5, 0, 0, 0, 0]]))
    torch.testing.assert_close(between[0], generator.embed(torch.tensor([0, 1])).mean(dim=0))


def test_every_chunk_of_the_noise_reaches_its_own_block():
    """Changing chunk i must change block i - 1's output and none before it."""
    generator = small_generator("biggan-32")
    size = generator.config.chunk_dim
    z = torch.randn(1, generator.config.z_dim)
    labels = torch.tensor([0])

    def block_outputs(z):
        outputs = []
        hooks = [
            layer.register_forward_hook(lambda _m, _i, o: outputs.append(o))
            for layer in (generator.linear, *generator.blocks)
        ]
        generator(z, labels)
        for hook in hooks:
            hook.remove()
        return outputs

    base = block_outputs(z)
    for chunk in range(len(base)):
        changed = z.clone()
        changed[:, chunk * size : (chunk + 1) * size] += 1
        same = [torch.equal(a, b) for a, b in zip(base, block_outputs(changed), strict=True)]
        assert same == [True] * chunk + [False] * (len(base) - chunk)


def test_a_discriminator_block_equals_figure_15c():
    discriminator = build_discriminator(PRESETS["biggan-32"].discriminator.updated(SMALL)).eval()
    first, second, third = discriminator.blocks[:3]
    image = torch.randn(2, 3, 32, 32)
    h = F.avg_pool2d(first.conv2(F.relu(first.conv1(image))), 2)
    expected = h + F.avg_pool2d(first.shortcut(image), 2)
    torch.testing.assert_close(first(image), expected)
    x = torch.randn(2, 16, 16, 16)
    h = F.avg_pool2d(second.conv2(F.relu(second.conv1(F.relu(x)))), 2)
    torch.testing.assert_close(second(x), h + F.avg_pool2d(second.shortcut(x), 2))
    torch.testing.assert_close(third(x), third.conv2(F.relu(third.conv1(F.relu(x)))) + x)


def conv(layer, x):
    padding = layer.weight.shape[-1] // 2
    return F.conv2d(x, layer.weight / layer.sigma(), layer.bias, padding=padding)


def norm(layer, x, condition):
    gain = 1 + condition @ (layer.gain.weight / layer.gain.sigma()).T
    bias = condition @ (layer.bias.weight / layer.bias.sigma()).T
    x = F.batch_norm(x, layer.running_mean, layer.running_var, eps=1e-4)
    return x * gain[:, :, None, None] + bias[:, :, None, None]


def test_a_generator_block_equals_figure_15b():
    block = small_generator("biggan-32").blocks[0]
    x, condition = torch.randn(2, 32, 8, 8), torch.randn(2, 148)
    h = F.interpolate(F.relu(norm(block.bn1, x, condition)), scale_factor=2)
    h = conv(block.conv2, F.relu(norm(block.bn2, conv(block.conv1, h), condition)))
    expected = h + conv(block.shortcut, F.interpolate(x, scale_factor=2))
    torch.testing.assert_close(block(x, condition, None), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("index", [2, 3])
def test_deep_generator_blocks_equal_figure_16b(index):
    block = small_generator("biggan-deep-128").blocks[index]
    x, condition = torch.randn(2, 128, 8, 8), torch.randn(2, 256)
    h = conv(block.conv1, F.relu(norm(block.bn1, x, condition)))
    h = F.relu(norm(block.bn2, h, condition))
    shortcut = x[:, : block.out_channels]
    if block.up:
        h, shortcut = (F.interpolate(t, scale_factor=2) for t in (h, shortcut))
    h = conv(block.conv3, F.relu(norm(block.bn3, conv(block.conv2, h), condition)))
    h = conv(block.conv4, F.relu(norm(block.bn4, h, condition)))
    torch.testing.assert_close(block(x, condition, None), h + shortcut, rtol=1e-4, atol=1e-5)
    assert block.up == (index % 2 == 1)


@pytest.mark.parametrize("index", [0, 1])
def test_deep_discriminator_blocks_equal_figure_16c(index):
    discriminator = build_discriminator(PRESETS["biggan-deep-128"].discriminator.updated(SMALL))
    block = discriminator.eval().blocks[index]
    x = torch.randn(2, 8 if index == 0 else 16, 8, 8)
    h = conv(block.conv2, F.relu(conv(block.conv1, F.relu(x))))
    h = F.relu(conv(block.conv3, F.relu(h)))
    shortcut = x
    if index == 0:
        h, shortcut = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        shortcut = torch.cat([shortcut, conv(block.widening, shortcut)], dim=1)
    torch.testing.assert_close(block(x), conv(block.conv4, h) + shortcut, rtol=1e-4, atol=1e-5)


def test_the_rgb_head_is_norm_relu_conv_tanh():
    head = small_generator("biggan-32").head
    torch.nn.init.normal_(head.bn.bias)
    x = torch.randn(2, 32, 8, 8)
    mean, var = head.bn.running_mean, head.bn.running_var
    h = F.batch_norm(x, mean, var, head.bn.gain, head.bn.bias, eps=1e-4)
    torch.testing.assert_close(head(x, None), torch.tanh(conv(head.conv, F.relu(h))))


def test_projection_head_sums_positions():
    discriminator = build_discriminator(PRESETS["biggan-32"].discriminator.updated(SMALL)).eval()
    head = discriminator.head
    x, labels = torch.randn(3, 16, 8, 8), torch.tensor([0, 5, 2])
    h = F.relu(x).sum(dim=(2, 3))
    weight = head.embedding.normalized_weight()
    expected = head.linear(h)[:, 0] + torch.einsum("nc,nc->n", weight[labels], h)
    torch.testing.assert_close(head(x, labels)[:, 0], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_dim": 81}, "z_dim 81 is not divisible into 4"),
        ({"resolution": 64}, "end at 32 pixels"),
        ({"attention_resolution": 64}, "attention_resolution must be one of"),
        ({"image_channels": 2}, "image_channels must be 1 or 3"),
        ({"chanels": 8}, "unknown GeneratorConfig field 'chanels'"),
        ({"channels": "8"}, "channels cannot be '8'"),
        ({"channels": True}, "channels cannot be True"),
        ({"num_classes": 0, "skip_z": False}, "skip_z must be true"),
        ({"channels": 1}, "attention needs at least 8 channels, not 4"),
        ({"bn_eps": -1.0}, "bn_eps must be at least 1e-12"),
        ({"bn_eps": 0}, "bn_eps must be at least 1e-12"),
        ({"sn_eps": 2}, "sn_eps must be at least 1e-12 and at most 1, not 2"),
        ({"widths": (1,) * 20_000}, "widths cannot have 20000 entries"),
    ],
)
def test_impossible_networks_are_refused_by_name(changes, message):
    with pytest.raises(biggan.InputError, match=message):
        PRESETS["biggan-32"].generator.updated(changes)


def test_configurations_survive_plain_data():
    for preset in PRESETS.values():
        for config in (preset.generator, preset.discriminator):
            assert type(config).from_dict(config.to_dict()) == config
