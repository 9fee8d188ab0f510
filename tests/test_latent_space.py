"""Class vectors, conditions per layer, activations and gradients against the plain generator."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import biggan
from biggan.devices import has_bfloat16
from biggan.directions import find_directions, with_names
from biggan.models.shared import as_grid
from biggan.weights.files import Description
from tiny import ARCHITECTURES, TINY_CLASSES, tiny_generator

FORMS = ("biggan", "biggan-deep", "sagan", "no attention", "wide enough for Winograd")


def make_gan(changes, **options):
    generator = tiny_generator(**changes)
    if generator.config.attention_resolution:
        with torch.no_grad():
            generator.attention.gamma.fill_(0.5)  # 0 in a new network
    names = TINY_CLASSES if generator.config.num_classes else ()
    return biggan.Gan(generator, Description("tiny", names), "0" * 64, **options)


@pytest.fixture(scope="module", params=FORMS)
def gan(request):
    return make_gan(ARCHITECTURES[request.param])


def noise(gan, num=3, dtype=torch.float32):
    random = torch.Generator().manual_seed(3)
    return torch.randn(num, gan.config.z_dim, generator=random, dtype=dtype)


def test_class_vectors_of_labels_make_the_images_of_the_labels(gan):
    z, labels = noise(gan), torch.tensor([2, 0, 1])
    vectors = gan.embed(labels)
    assert vectors.shape == (3, gan.config.embedding_dim)
    expected = gan.generate(z, labels, 0.4)
    assert torch.equal(gan.generate(z, class_vectors=vectors, truncation=0.4), expected)
    assert torch.equal(gan.embed(["golden retriever", "tabby", 1]), vectors)
    for one in ("siamese cat", 1, np.int64(1), torch.tensor(1)):
        assert torch.equal(gan.embed(one), vectors[2:])
    assert gan.embed(0).requires_grad_().requires_grad
    mixed = gan.embed(np.array([[0.5, 0.5, 0]]))
    torch.testing.assert_close(mixed, (vectors[1:2] + vectors[2:]) / 2)


def test_one_condition_for_all_layers_is_that_of_each(gan):
    z, labels = noise(gan), torch.tensor([2, 0, 1])
    expected = gan.generate(z, labels, 0.4)
    by_layer = z[:, None].expand(-1, gan.conditions, -1)
    vectors = gan.embed(labels)[:, None].repeat(1, gan.conditions, 1)
    assert torch.equal(gan.generate(by_layer, labels, 0.4), expected)
    assert torch.equal(gan.generate(z, None, 0.4, class_vectors=vectors), expected)
    assert torch.equal(gan.generate(by_layer, None, 0.4, class_vectors=vectors), expected)


def test_each_layer_sees_its_own_condition(gan):
    """The plain generator is given the layer's condition where it runs."""
    num = gan.conditions
    z = torch.randn(2, num, gan.config.z_dim, generator=torch.Generator().manual_seed(4))
    vectors = gan.embed([0, 1, 2])[torch.arange(2 * num).view(2, num) % 3]
    images = gan.generate(z, class_vectors=vectors, truncation=0.4)
    torch.testing.assert_close(images, plainly(gan.generator, z, vectors), atol=2e-5, rtol=0)


@torch.no_grad()
def plainly(generator, z, vectors, grid=None):
    config = generator.config
    if config.family == "biggan-deep":
        conditions = torch.cat([z, vectors], dim=2)
        first = conditions[:, 0]
    else:
        chunks = z.split(config.chunk_dim, dim=2) if config.chunked else [z] * z.shape[1]
        first = chunks[0][:, 0]
        conditions = [
            torch.cat([*([chunk[:, i]] if config.chunked else []), vectors[:, i]], dim=1)
            for i, chunk in enumerate(chunks)
        ]
        conditions = torch.stack([conditions[1], *conditions[1:]], dim=1)
    x = as_grid(generator.linear(first)) if grid is None else grid
    for i, block in enumerate(generator.blocks):
        x = block(x, conditions[:, i + 1], 0.4)
        grows = config.family == "biggan" or block.up
        if grows and x.shape[2] == config.attention_resolution:
            x = generator.attention(x)
    return generator.head(x, 0.4)


def test_images_are_edited_along_directions(gan):
    z, found = noise(gan), with_names(find_directions(gan, "sefa", 2, layers=[0, 1]), {1: "size"})
    moved = found.apply(z, {0: 2.0, "size": -1.5})
    edited = gan.edit(z, found, {0: 2.0, "size": -1.5}, [2, 0, 1], 0.4)
    assert torch.equal(edited, gan.generate(moved, [2, 0, 1], 0.4))
    assert not torch.equal(edited, gan.generate(z, [2, 0, 1], 0.4))
    vectors = gan.embed([2, 0, 1])
    again = gan.edit(moved.numpy(), found, {}, class_vectors=vectors, truncation=0.4, batch_size=2)
    torch.testing.assert_close(again, edited, atol=1e-5, rtol=0)
    other = dataclasses.replace(found, sha256="1" * 64)
    with pytest.raises(biggan.InputError, match="the directions are of tiny"):
        gan.edit(z, other, {0: 1}, [2, 0, 1])


def test_a_forward_pass_in_two_parts_is_the_whole(gan):
    z, labels = noise(gan), torch.tensor([2, 0, 1])
    expected = gan.generate(z, labels, 0.4)
    features = gan.features(z, labels, 0.4, layers=gan.layers)
    assert tuple(features) == gan.layers
    assert features["linear"].shape[2:] == (4, 4)
    for layer, activation in features.items():
        assert torch.equal(gan.generate_from(activation, layer, z, labels, 0.4), expected)
        alone = gan.features(z, labels, 0.4, layers=layer, batch_size=2)
        torch.testing.assert_close(alone[layer], activation, atol=2e-5, rtol=0)


def test_the_layers_are_the_generators(gan):
    """Hooks on the plain network see what `features` returns."""
    z, labels = noise(gan), torch.tensor([2, 0, 1])
    seen = {}
    handles = [
        module.register_forward_hook(lambda m, i, out, name=name: seen.__setitem__(name, out))
        for name, module in gan.generator.named_modules()
        if name in gan.layers[1:]
    ]
    with torch.no_grad():
        gan.generator(z, labels, 0.4)
    for handle in handles:
        handle.remove()
    features = gan.features(z, labels, 0.4, layers=gan.layers[1:])
    assert set(seen) == set(features)
    for name, activation in features.items():
        torch.testing.assert_close(activation, seen[name], atol=1e-4, rtol=1e-4)


def test_a_wider_first_grid_makes_a_wider_image(gan):
    z = noise(gan, 2)
    grids = gan.features(z, [0, 1], 0.4, layers="linear")["linear"]
    wide = torch.cat([grids[:1], grids[1:]], dim=3)
    image = gan.generate_from(wide, "linear", z[:1], [0], 0.4)
    size = gan.config.resolution
    assert image.shape == (1, 3, size, 2 * size)
    by_layer = z[:1, None].expand(-1, gan.conditions, -1)
    vectors = gan.embed(0)[:, None].expand(-1, gan.conditions, -1)
    expected = plainly(gan.generator, by_layer, vectors, wide)
    torch.testing.assert_close(image, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("width", [7, 12])
def test_attention_in_a_wide_image(width):
    """Its positions are no power of two then, and need not be a multiple of the slices."""
    gan = make_gan({"resolution": 32, "widths": [2, 1, 1, 1], "attention_resolution": 32})
    z, vectors = noise(gan, 1), gan.embed(0)
    by_layer, each = (x[:, None].expand(-1, gan.conditions, -1) for x in (z, vectors))
    wide = torch.randn(1, gan.engine.folded.layers["linear"], 4, width)
    image = gan.generate_from(wide, "linear", z, [0], 0.4)
    expected = plainly(gan.generator, by_layer, each, wide)
    torch.testing.assert_close(image, expected, atol=2e-5, rtol=0)
    odd = torch.randn(1, gan.engine.folded.layers["blocks.2"], 5, 7)
    assert gan.generate_from(odd, "blocks.2", z, [0], 0.4).shape == (1, 3, 5, 7)


def test_gradients_are_the_plain_generators(gan):
    """In float64, through noise, class vectors and activations."""
    exact = make_gan({}, engine="pytorch")
    exact.generator = copy.deepcopy(gan.generator).double()
    network = exact.differentiable()
    z, labels = noise(gan, dtype=torch.float64), torch.tensor([2, 0, 1])
    found = []
    for made_by in (network, exact.generator):
        z = z.detach().requires_grad_()
        vectors = made_by.embed(labels).detach().double().requires_grad_()
        images = made_by.synthesize(z, vectors, 0.4)
        weights = torch.linspace(-1, 1, images.numel(), dtype=torch.float64).view_as(images)
        found.append(
            (images.detach(), *torch.autograd.grad((images * weights).sum(), (z, vectors)))
        )
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-8, rtol=1e-8)


def test_a_generator_in_float64_makes_the_images_of_float32(gan):
    """And its class vectors, which gradients in float64 begin with."""
    exact = make_gan({}, engine="pytorch")
    exact.generator, exact.config = copy.deepcopy(gan.generator).double(), gan.config
    z, labels = noise(gan), torch.tensor([2, 0, 1])
    assert exact.layers == gan.layers
    assert torch.equal(exact.embed(labels), gan.embed(labels))
    assert torch.equal(exact.generate(z, labels, 0.4), gan.generate(z, labels, 0.4))


def test_gradients_by_finite_differences(gan):
    """Of noise, class vectors and an activation, along one direction each, in float64."""
    exact = make_gan({}, engine="pytorch")
    exact.generator = copy.deepcopy(gan.generator).double()
    network = exact.differentiable()
    z, vectors = noise(gan, 1, torch.float64), network.embed(torch.tensor([2])).double()
    start = network.activations(["blocks.0"], *network.prepare(z, vectors, 0.4))["blocks.0"]

    def loss(z, vectors, activation):
        inputs = network.prepare(z, vectors, 0.4)
        whole = network.render(*inputs).square().sum()
        return whole + network.render_from("blocks.0", activation, *inputs).square().sum()

    inputs = [x.detach().requires_grad_() for x in (z, vectors, start)]
    gradients = torch.autograd.grad(loss(*inputs), inputs)
    for place, gradient in enumerate(gradients):
        largest = gradient.abs().argmax()
        step = torch.zeros(gradient.numel(), dtype=torch.float64)
        step[largest] = 1e-6
        above, below = (
            loss(
                *(x + sign * step.view(x.shape) if i == place else x for i, x in enumerate(inputs))
            ).item()
            for sign in (1, -1)
        )
        assert (above - below) / 2e-6 == pytest.approx(gradient.flatten()[largest].item(), rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own
def test_the_transforms_of_torch_func(gan):
    network, vectors = gan.differentiable(), gan.embed([2, 0])
    z, step = noise(gan, 4).split(2)

    def made(z):
        return network.synthesize(z, vectors, 0.4).unflatten(2, (2, -1)).mean((1, 3, 4)).flatten()

    jacobian = torch.func.jacrev(made)(z)  # (4, 2, z_dim)
    expected = torch.autograd.functional.jacobian(made, z)
    others = (
        torch.func.jacfwd(made)(z),
        torch.autograd.functional.jacobian(made, z, vectorize=True),
    )
    for found in (jacobian, *others):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    slope = torch.func.jvp(made, (z,), (step,))[1]
    torch.testing.assert_close(slope, (jacobian * step).sum((1, 2)), atol=1e-5, rtol=1e-4)


def test_gradients_in_float32_run_packed_and_agree(gan):
    network = gan.differentiable()
    z, labels = noise(gan), torch.tensor([2, 0, 1])
    found = []
    for made_by in (network, gan.generator):
        z = z.detach().requires_grad_()
        vectors = made_by.embed(labels).detach().requires_grad_()
        images = made_by.synthesize(z, vectors, 0.4)
        found.append(torch.autograd.grad(images.square().sum(), (z, vectors)))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-3, rtol=1e-3)
    assert all(parameter.grad is None for parameter in gan.generator.parameters())


def test_second_derivatives(gan):
    network = gan.differentiable()
    z, labels = noise(gan, 1), torch.tensor([1])
    found = []
    for made_by in (network, gan.generator):
        z = z.detach().requires_grad_()
        vectors = made_by.embed(labels).detach()
        # The plain network's attention has second derivatives with this kernel alone.
        with sdpa_kernel(SDPBackend.MATH):
            images = made_by.synthesize(z, vectors, 0.4)
        (first,) = torch.autograd.grad(images.square().sum(), z, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), z)[0])
    ours, plain = found
    torch.testing.assert_close(ours, plain, atol=1e-2 * plain.abs().max().item(), rtol=1e-2)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own
def test_second_derivatives_by_forward_over_reverse_mode(gan):
    network, vectors = gan.differentiable(), gan.embed([1])

    def energy(z):
        return network.synthesize(z, vectors, 0.4).square().sum()

    z, step = noise(gan, 2).split(1)
    product = torch.func.jvp(torch.func.grad(energy), (z,), (step,))[1]
    hessian = torch.func.hessian(energy)(z).reshape(z.numel(), -1)
    atol = 1e-3 * product.abs().max().item()
    torch.testing.assert_close(product, step @ hessian, atol=atol, rtol=1e-3)


def test_gradients_reach_each_layers_condition(gan):
    network = gan.differentiable()
    z = noise(gan)[:, None].repeat(1, gan.conditions, 1).requires_grad_()
    vectors = gan.embed([0, 1, 2])[:, None].repeat(1, gan.conditions, 1).requires_grad_()
    network.synthesize(z, vectors, 0.4).square().sum().backward()
    assert (vectors.grad[:, 1:].abs().amax(dim=2) > 0).all()
    assert (z.grad[:, 0].abs().amax(dim=1) > 0).all()


@pytest.mark.skipif(not has_bfloat16(), reason="no bfloat16")
@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("shape", [{}, ARCHITECTURES["biggan-deep"]])
def test_gradients_in_bfloat16_are_near_those_in_float32(shape, padding):
    gan = make_gan(shape)
    z, vectors = noise(gan), gan.embed([0, 1, 2])
    gradients = []
    for precision in ("float32", "bfloat16"):
        network = gan.differentiable(padding=padding, precision=precision)
        inputs = [x.clone().requires_grad_() for x in (z, vectors)]
        images = network.synthesize(*inputs, 0.4)
        assert images.dtype == torch.float32
        gradients.append(torch.autograd.grad(images.square().sum(), inputs))
    for exact, low in zip(*gradients, strict=True):
        assert low.dtype == torch.float32
        assert not torch.equal(low, exact)
        assert torch.cosine_similarity(low.flatten(), exact.flatten(), dim=0) > 0.99


def test_circular_padding_makes_images_that_can_be_tiled():
    """Without attention, which has no place, a shifted grid makes a shifted image."""
    gan = make_gan({"attention_resolution": 0})
    network = gan.differentiable(padding="circular")
    z = noise(gan, 1)
    vectors = gan.embed(0)
    with torch.no_grad():
        grid, scale, shift = network.prepare(z, vectors, 0.4)
        image = network.render(grid, scale, shift)
        moved = network.render(grid.roll(1, dims=3), scale, shift)
    factor = gan.config.resolution // 4
    torch.testing.assert_close(moved, image.roll(factor, dims=3), atol=1e-5, rtol=0)


def test_an_unconditional_model():
    gan = make_gan({"num_classes": 0})
    z = noise(gan)
    by_layer = z[:, None].repeat(1, gan.conditions, 1)
    assert torch.equal(gan.generate(by_layer, None, 0.4), gan.generate(z, None, 0.4))
    with pytest.raises(biggan.InputError, match="unconditional: it has no class vectors"):
        gan.embed(0)


def test_no_noise_and_an_empty_list_of_labels_make_no_images():
    assert make_gan({}).generate(torch.zeros(0, 12), []).shape == (0, 3, 16, 16)


def prepared(gan, method, *arguments):
    """Call a method of the network with gradients, with what `prepare` makes."""
    network = gan.differentiable()
    inputs = network.prepare(torch.zeros(1, 12), torch.zeros(1, 16))
    return getattr(network, method)(*arguments, *inputs)


ROW = torch.zeros(1, 12)
NO_LABELS = torch.zeros(0, dtype=torch.int64)
MISTAKES = [
    (lambda g: g.generate(torch.zeros(2, 11), [0, 1]), r"noise must be \(N, 12\), or \(N, 3, 12\)"),
    (lambda g: g.generate(torch.zeros(2, 2, 12), [0, 1]), r"not \(2, 2, 12\)"),
    (
        lambda g: g.generate(torch.zeros(2, 12), class_vectors=torch.zeros(2, 3)),
        r"class vectors must be \(N, 16\), or \(N, 3, 16\)",
    ),
    (lambda g: g.generate(ROW), "give labels, or"),
    (lambda g: g.generate(ROW, [0], class_vectors=torch.zeros(1, 16)), "instead of them"),
    (
        lambda g: g.generate(torch.zeros(2, 12), class_vectors=torch.zeros(3, 16)),
        "give a class vector for each row of noise: 2, not 3",
    ),
    (
        lambda g: g.features(ROW, [0], layers=["blocks.7"]),
        "no layer 'blocks.7'; there are linear, blocks.0, attention, blocks.1",
    ),
    (
        lambda g: g.generate_from(torch.zeros(1, 9, 4, 4), "linear", ROW, [0]),
        r"linear makes \(1, 32, H, W\), not \(1, 9, 4, 4\)",
    ),
    (
        lambda g: g.generate_from(torch.zeros(1, 32, 0, 4), "linear", ROW, [0]),
        r"linear makes \(1, 32, H, W\), not \(1, 32, 0, 4\)",
    ),
    (
        lambda g: g.generate_from(torch.zeros(1), ["linear"], ROW, [0]),
        "no layer ..linear..; there are linear",
    ),
    (
        lambda g: g.differentiable()(torch.zeros(1, 11), torch.zeros(1, dtype=torch.int64)),
        r"noise must be \(N, 12\), or \(N, 3, 12\) for each layer its own, not \(1, 11\)",
    ),
    (
        lambda g: g.differentiable().synthesize(ROW, torch.zeros(1, 3)),
        r"class vectors must be \(N, 16\)",
    ),
    (lambda g: g.features(torch.zeros(0, 12), NO_LABELS, layers="linear"), "one row"),
    (lambda g: g.generate_from([], "linear", torch.zeros(0, 12), NO_LABELS), "at least one row"),
    (
        lambda g: g.differentiable().synthesize(torch.zeros(2, 12), torch.zeros(1, 16)),
        "give a class vector for each row of noise: 2, not 1",
    ),
    (
        lambda g: g.differentiable().synthesize(ROW, "kiwi"),
        r"class vectors must be a tensor \(N, 16\), or \(N, 3, 16\) .*, not 'kiwi'$",
    ),
    (
        lambda g: g.differentiable()(ROW.double(), torch.tensor([0])),
        r"are float64, and the network computes in float32: .* gan.generator.double\(\) before",
    ),
    (
        lambda g: g.differentiable()(ROW, torch.tensor([0]), float("nan")),
        "truncation must be above 0 and at most 1, not nan",
    ),
    (
        lambda g: g.differentiable()(ROW, torch.tensor([0]), torch.tensor(0.5, requires_grad=True)),
        "truncation is a number without a gradient",
    ),
    (
        lambda g: prepared(g, "render_from", "linear", torch.zeros(1, 9, 4, 4)),
        r"linear makes \(1, 32, H, W\), not \(1, 9, 4, 4\)",
    ),
    (
        lambda g: g.generate(ROW, torch.eye(3, dtype=torch.int64)[:1]),
        r"labels must be \(N,\), not \(1, 3\): class weights, .* floating-point",
    ),
    (
        lambda g: g.differentiable()(ROW, ["kiwi"]),
        r"labels must be a tensor .* not \['kiwi'\]: gan.embed makes class vectors of names",
    ),
    (
        lambda g: g.differentiable().double(),
        r"gan.generator.double\(\) before gan.differentiable\(\)",
    ),
    (
        lambda g: prepared(g, "activations", ["blocks.9"]),
        "no layer 'blocks.9'; there are linear, blocks.0, attention, blocks.1",
    ),
    (
        lambda g: prepared(g, "render_from", "blocks.9", torch.zeros(1, 8, 4, 4)),
        "no layer 'blocks.9'; there are linear, blocks.0, attention, blocks.1",
    ),
    (lambda g: g.features(ROW, [0], layers=1), "no layer 1; there are linear"),
    (lambda g: g.generate(torch.full((1, 12), float("nan")), [0]), "noise must be finite numbers"),
    (lambda g: g.generate(ROW, torch.full((1, 3), float("inf"))), "labels must be finite numbers"),
    (
        lambda g: g.edit(ROW, "file.safetensors", {0: 1.0}, [0]),
        "load_directions of biggan.directions returns, not 'file.safetensors'",
    ),
    (lambda g: g.embed(1.5), "not one number"),
    (
        lambda g: g.generate(torch.full((1, 12), 1e300, dtype=torch.float64), [0]),
        "finite numbers, without NaN and infinity, in float32",
    ),
    (lambda g: g.generate(ROW.to_sparse(), [0]), "noise must be a dense tensor"),
    (lambda g: g.generate(ROW.to("meta"), [0]), "noise must be a dense tensor"),
    (lambda g: g.generate(np.full((30, 12), "a"), [0]), r"^[^\n]+$"),
    (lambda g: g.differentiable()(ROW, torch.tensor([9])), "labels are 0 to 2, not"),
    (lambda g: g.differentiable()(ROW, torch.tensor([0.5])), r"class weights are \(N, 3\)"),
    (lambda g: g.differentiable(precision="int8"), "no precision 'int8'"),
    (lambda g: g.differentiable(precision="float16"), "needs a GPU"),
    (lambda g: g.differentiable(padding="mirror"), "zeros or circular"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_mistakes_are_named(call, message):
    with pytest.raises(biggan.InputError, match=message):
        call(make_gan({}))


def test_an_engine_without_layers_says_so():
    pytest.importorskip("openvino")
    gan = make_gan({}, engine="openvino")
    z = noise(gan)
    expected = make_gan({}).generate(z[:, None].repeat(1, 3, 1), [0, 1, 2], 0.4)
    by_layer = gan.generate(z[:, None].repeat(1, 3, 1), [0, 1, 2], 0.4)
    torch.testing.assert_close(by_layer, expected, atol=1e-4, rtol=0)
    with pytest.raises(biggan.InputError, match="the openvino engine keeps no layers"):
        gan.features(z, [0, 1, 2], layers="linear")
