"""Matrix products by oneDNN against float64, and where they are taken."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from biggan.nn import matrix_product as products
from biggan.nn.matrix_product import (
    add_matrix_product,
    add_matrix_products,
    linear,
    matrix_product,
    matrix_products,
)

M, K, N = 96, 112, 104  # enough for oneDNN


@pytest.fixture(autouse=True, params=[True, False], ids=["oneDNN", "MKL"])
def by_onednn(request, monkeypatch):
    taken = request.param and torch.backends.mkldnn.is_available()
    monkeypatch.setattr(products, "mkl_is_slow", lambda: taken)
    return taken


def dense(rows, columns):
    return torch.randn(rows, columns)


def transposed(rows, columns):
    return torch.randn(columns, rows).mT


def with_gaps(rows, columns):
    return torch.randn(rows, columns + 3)[:, :columns]


def transposed_with_gaps(rows, columns):
    return with_gaps(columns, rows).mT


FORMS = [dense, transposed, with_gaps, transposed_with_gaps]


def called(function):
    """The names of the library's operations in a call."""
    with torch.profiler.profile() as profiler:
        function()
    return {event.name for event in profiler.events()}


def close(result, exact):
    torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("b_in", FORMS)
@pytest.mark.parametrize("a_in", FORMS)
def test_products_of_any_layout(a_in, b_in):
    a, b, total = a_in(M, K), b_in(K, N), torch.randn(M, N)
    exact = a.double() @ b.double()
    close(matrix_product(a, b), exact)
    out = torch.empty(M, 2 * N)[:, ::2]
    assert matrix_product(a, b, out=out) is out
    close(out, exact)
    close(add_matrix_product(total.clone(), a, b), total.double() + exact)


def test_products_of_several_at_once():
    a, b, total = torch.randn(3, M, K), torch.randn(3, K, N), torch.randn(3, M, N)
    exact = a.double() @ b.double()
    close(matrix_products(a, b, out=torch.empty(3, M, N)), exact)
    close(add_matrix_products(total.clone(), a, b), total.double() + exact)


def test_a_bias_of_any_layout():
    x, weight = torch.randn(M, K), torch.randn(N, K)
    for bias in (torch.randn(2 * N)[::2], torch.ones(1).expand(N)):
        close(linear(x, weight, bias), F.linear(x.double(), weight.double(), bias.double()))


def test_only_what_the_gradients_need_is_kept():
    x, weight = torch.randn(M, K).requires_grad_(), torch.randn(N, K).requires_grad_()
    for given, kept in (((x, weight), 2), ((x.detach(), weight), 1), ((x, weight.detach()), 1)):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda _: None):
            linear(*given)
        assert len(saved) == kept


@pytest.mark.parametrize("with_bias", [True, False])
def test_linear_has_derivatives_of_any_order(with_bias):
    x, weight, bias = torch.randn(M, K), torch.randn(N, K), torch.randn(N)
    given = [x, weight, bias] if with_bias else [x, weight]

    def derivatives(function, inputs):
        inputs = [y.detach().requires_grad_() for y in inputs]
        result = function(*inputs)
        first = torch.autograd.grad(result.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(y.square().sum() for y in first), inputs)
        return [result, *first, *second]

    exact = derivatives(F.linear, [y.double() for y in given])
    for result, of_exact in zip(derivatives(linear, given), exact, strict=True):
        torch.testing.assert_close(
            result.double(), of_exact, rtol=1e-4, atol=1e-3 * of_exact.std().item()
        )


def test_the_library_is_chosen(by_onednn):
    onednn = {"mkldnn::_linear_pointwise"}
    a, b = torch.randn(M, K), torch.randn(K, N)
    for function in (
        lambda: matrix_product(a, b),
        lambda: linear(a, b.mT),
        lambda: linear(a.clone().requires_grad_(), b.mT).sum().backward(),
        lambda: matrix_products(a[None], b[None], out=torch.empty(1, M, N)),
    ):
        assert (onednn <= called(function)) == by_onednn
    for function in (
        lambda: matrix_product(a.double(), b.double()),
        lambda: matrix_product(a[:4, :4], b[:4, :4]),  # small
        lambda: torch.func.vmap(linear, (None, 0))(a, b.mT[None]),
    ):
        assert not onednn & called(function)


def test_what_counts_operations_sees_the_products():
    a, b = torch.randn(M, K), torch.randn(K, N)
    with FlopCounterMode(display=False) as counter:
        matrix_product(a, b)
        linear(a, b.mT)
        add_matrix_product(torch.zeros(M, N), a, b)
    assert counter.get_total_flops() == 3 * 2 * M * K * N


def test_autocast_lowers_linear():
    a, b = torch.randn(M, K), torch.randn(K, N)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(a, b.mT).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("cpuinfo", "maker"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t: 2\n", "AuthenticAMD"),
        ("vendor_id\t: GenuineIntel\n", "GenuineIntel"),
        ("vendor_id\t:\n", ""),
        ("CPU implementer\t: 0x41\n", ""),  # ARM
    ],
)
def test_the_maker_of_the_processor(cpuinfo, maker, tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    monkeypatch.setattr(products, "_CPUINFO", file)
    assert products._maker() == maker
    file.unlink()  # Windows
    monkeypatch.setattr("platform.processor", lambda: "AMD64 Family 25 Model 33, AuthenticAMD")
    assert products._maker() == "AuthenticAMD"
    monkeypatch.setattr("platform.processor", lambda: "arm")
    assert products._maker() == ""
