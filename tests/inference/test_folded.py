"""The folded generator against the generator itself, which is tested elsewhere."""

from functools import partial

import pytest
import torch
from torch import nn

from biggan.devices import has_bfloat16
from biggan.inference.convolution import FrozenConv2d, packed_conv2d
from biggan.inference.differentiable import differentiable_conv2d
from biggan.inference.folded import FoldedGenerator
from tiny import ARCHITECTURES, DEEP, tiny_generator


@pytest.fixture(params=ARCHITECTURES)
def generator(request):
    generator = tiny_generator(**ARCHITECTURES[request.param])
    random = torch.Generator().manual_seed(6)
    for name, parameter in generator.named_parameters():
        if name.endswith(("bias", "gamma", "gain")) and parameter.ndim <= 1:
            with torch.no_grad():  # zero or one in a new network, where they would hide a mistake
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
    return generator


def inputs(generator, num=3):
    random = torch.Generator().manual_seed(7)
    config = generator.config
    z = torch.randn(num, config.z_dim, generator=random)
    return z, torch.arange(num) % max(config.num_classes, 1)


@pytest.mark.parametrize("truncation", [None, 0.405, 0.5])
@pytest.mark.parametrize("form", [FrozenConv2d, packed_conv2d])
@torch.inference_mode()
def test_it_makes_the_generators_images(generator, form, truncation):
    folded = FoldedGenerator(generator, form)
    z, labels = inputs(generator)
    expected = generator(z, labels, truncation)
    assert expected.std() > 0.1
    for rows in (slice(3), slice(1, 2)):  # an image depends on its own row alone
        made = folded(z[rows], labels[rows], truncation)
        torch.testing.assert_close(made, expected[rows], atol=2e-5, rtol=0)


@pytest.mark.parametrize("num", [1, 2])
@torch.inference_mode()
def test_every_layer_keeps_the_memory_in_which_convolutions_are_fastest(generator, num):
    folded = FoldedGenerator(generator, packed_conv2d)
    z, labels = inputs(generator, num)
    prepared = folded.prepare(z, folded.embed(labels))
    made = folded.activations(folded.layers, *prepared)
    planar = [k for k, x in made.items() if not x.is_contiguous(memory_format=torch.channels_last)]
    assert not planar


@torch.no_grad()
def test_the_algebra_is_exact(generator):
    """In float64 nothing but rounding is left: no approximation hides in the tolerances above."""
    generator = generator.double()
    folded = FoldedGenerator(generator)
    z, labels = (x.double() if x.is_floating_point() else x for x in inputs(generator))
    difference = generator(z, labels, 0.33) - folded(z, labels, 0.33)
    assert difference.abs().max() < 1e-10


@torch.inference_mode()
def test_soft_labels_and_class_vectors_between_classes():
    generator = tiny_generator()
    folded = FoldedGenerator(generator, packed_conv2d)
    z, _ = inputs(generator, num=2)
    weights = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(folded(z, weights), generator(z, weights), atol=2e-5, rtol=0)
    torch.testing.assert_close(
        folded.synthesize(z, folded.embed(weights), 0.4),
        generator.synthesize(z, generator.embed(weights), 0.4),
        atol=2e-5,
        rtol=0,
    )


def test_it_is_differentiable_in_noise_and_class(generator):
    folded = FoldedGenerator(generator)
    z, labels = inputs(generator)
    gradients = []
    for network in (generator, folded):
        noise = z.clone().requires_grad_()
        embedding = network.embed(labels).detach().requires_grad_()
        images = network.synthesize(noise, embedding, 0.4)
        images.square().sum().backward(inputs=[noise, embedding])
        gradients.append((noise.grad, embedding.grad))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
    folded(z.requires_grad_(), labels).sum().backward()
    for network in (generator, folded):  # only the inputs have gradients
        assert all(parameter.grad is None for parameter in network.parameters())


@torch.inference_mode()
def test_neither_the_generator_nor_the_inputs_are_changed(generator):
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    folded = FoldedGenerator(generator, packed_conv2d)
    z, labels = inputs(generator)
    first, kept = folded(z, labels, 0.4), z.clone()
    assert torch.equal(folded(z, labels, 0.4), first)
    assert torch.equal(z, kept)
    prepared = folded.prepare(z, folded.embed(labels), 0.4)
    copies = [tensor.clone() for tensor in prepared]
    folded.render(*prepared)
    assert all(map(torch.equal, prepared, copies))
    for name, tensor in generator.state_dict().items():
        assert torch.equal(tensor, before[name])
    folded.class_embedding.to("meta")
    assert next(generator.parameters()).device.type == "cpu"


@pytest.mark.parametrize("make", [FrozenConv2d, partial(packed_conv2d, dtype=torch.bfloat16)])
@torch.inference_mode()
def test_low_precision_makes_nearly_the_same_images(generator, make):
    if make is not FrozenConv2d and not has_bfloat16():
        pytest.skip("no bfloat16")
    folded = FoldedGenerator(generator, make)
    folded.convolve_in(torch.bfloat16)
    z, labels = inputs(generator)
    images = folded(z, labels, 0.4)
    assert images.dtype == torch.float32
    difference = (images - generator(z, labels, 0.4)).abs()
    assert 0 < difference.mean() < 0.02


@torch.inference_mode()
def test_operations_are_those_of_its_convolutions_and_products():
    """Counted by PyTorch from what runs, which knows nothing of our formula."""
    from torch.utils.flop_counter import FlopCounterMode

    generator = tiny_generator(**DEEP)
    folded = FoldedGenerator(generator)
    prepared = folded.prepare(*inputs(generator, num=1)[:1], torch.zeros(1, 16), 0.4)
    with FlopCounterMode(display=False) as counted:
        folded.render(*prepared)
    assert folded.operations == counted.get_total_flops()
    assert FoldedGenerator(generator, differentiable_conv2d).operations == folded.operations


def test_a_generator_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        FoldedGenerator(tiny_generator().train())


@torch.inference_mode()
def test_only_the_images_channels_are_computed():
    folded = FoldedGenerator(tiny_generator(**DEEP))
    assert folded.rgb.out_channels == 3
    assert not any(isinstance(m, nn.modules.conv._ConvNd) for m in folded.modules())


@pytest.mark.parametrize("family", ["biggan", "biggan-deep"])
@pytest.mark.parametrize("make", [FrozenConv2d, packed_conv2d])
def test_later_changes_of_the_generator_do_not_reach_it(family, make):
    generator = tiny_generator(**(DEEP if family == "biggan-deep" else {}))
    folded = FoldedGenerator(generator, make)
    z, labels = inputs(generator)
    with torch.inference_mode():
        before = folded(z, labels, 0.4)
    with torch.no_grad():
        for tensor in (*generator.parameters(), *generator.buffers()):
            tensor += 1
    with torch.inference_mode():
        assert torch.equal(folded(z, labels, 0.4), before)


@pytest.mark.parametrize(
    "mode",
    [torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)],
    ids=["inference mode", "autocast"],
)
@pytest.mark.parametrize("form", [FrozenConv2d, differentiable_conv2d])
def test_where_it_is_made_does_not_matter(mode, form):
    generator = tiny_generator()
    with mode:
        folded = FoldedGenerator(generator, form)
    z, labels = inputs(generator)
    images = folded(z.requires_grad_(), labels, 0.4)
    images.sum().backward()
    assert torch.equal(images, FoldedGenerator(generator, form)(z, labels, 0.4))


@pytest.mark.parametrize("form", [FrozenConv2d, differentiable_conv2d])
@torch.inference_mode()
def test_it_is_mapped_over_rows_also_in_inference_mode(form):
    generator = tiny_generator()
    folded = FoldedGenerator(generator, form)
    z, labels = inputs(generator)
    vectors = folded.embed(labels)
    images = torch.vmap(lambda *row: folded.synthesize(*(x[None] for x in row), 0.4)[0])(z, vectors)
    torch.testing.assert_close(images, folded(z, labels, 0.4), atol=2e-5, rtol=0)


def test_a_compiler_sees_one_graph():
    folded = FoldedGenerator(tiny_generator())
    with torch.no_grad():
        prepared = folded.prepare(torch.zeros(1, 12), folded.embed(torch.tensor([0])), None)
    with torch.inference_mode():
        found = torch._dynamo.explain(folded.render)(*prepared)
    assert found.graph_break_count == 0


@pytest.mark.parametrize("family", ["biggan", "biggan-deep"])
@pytest.mark.parametrize("strip", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_images_made_in_strips_are_those_made_whole(monkeypatch, family, strip, dtype):
    changes = DEEP if family == "biggan-deep" else {}
    # Wide first, narrow last, as the strips begin: one stage more than the others here.
    shape = {"resolution": 64, "widths": [4, 2, 2, 2, 1], "z_dim": 15}
    generator = tiny_generator(**{**shape, **changes})
    folded = FoldedGenerator(generator, packed_conv2d if dtype == torch.float32 else FrozenConv2d)
    folded.convolve_in(dtype)
    z, labels = inputs(generator)
    whole = folded(z, labels, 0.4)
    assert whole.dtype == torch.float32
    monkeypatch.setattr("biggan.inference.folded._LARGE", 1)
    monkeypatch.setattr("biggan.inference.folded._STRIP", strip)
    assert folded._blocks_in_strips == 2
    torch.testing.assert_close(folded(z, labels, 0.4), whole, atol=1e-5, rtol=0)
