"""Matrix products in bfloat16, all else as it was."""

import operator
from copy import deepcopy

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import conv2d

import pyro_mivae as mi
from pyro_mivae.engine.precision import check_precision, matmul_precision, round_products
from pyro_mivae.engine.snapshot import preserved
from pyro_mivae.engine.steps import trace_step
from pyro_mivae.errors import OptionError

aten = torch.ops.aten
CPU = torch.device("cpu")
PRODUCTS = (aten.mm, aten.bmm, aten.convolution, aten.convolution_backward)
REARRANGED = (aten.t, aten.transpose, aten.permute, aten.view, aten._unsafe_view)
REARRANGED += (aten.unsqueeze, aten.squeeze, aten.expand)


def rounded(*tensors):
    return [tensor.bfloat16() for tensor in tensors]


def error(tensors, exact):
    """The size of a difference, in that of what is exact."""
    pairs = list(zip(tensors, exact, strict=True))
    squares = sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for b in exact)
    return float(squares.sqrt())


def evaluate(program, staged, graph, x):
    with preserved(program.buffers, CPU), torch.no_grad():
        values, *gradients = graph(x, *staged.inputs)
    return values, gradients


@pytest.fixture
def traced(wide, make, images, program_of):
    """Returns a variant's program and its graph."""

    def traced(name):
        program = program_of(make(name))
        return program, trace_step(program, images)

    return traced


FAST = ("vae", "infocat", "infogan")


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in mi.VARIANTS],
)
def test_steps_are_as_exact_as_autocast_makes_them(name, images, traced):
    program, staged = traced(name)
    exact, exact_gradients = evaluate(program, staged, staged.graph, images)
    values, gradients = evaluate(program, staged, round_products(deepcopy(staged.graph)), images)
    assert not torch.equal(values, exact)
    torch.testing.assert_close(values, exact, rtol=0.02, atol=0.02 * 64, equal_nan=True)
    with preserved(program.buffers, CPU), torch.autocast("cpu", torch.bfloat16):
        program(images)
    automatic = [p.grad for p in program.parameters if p.grad is not None]
    assert error(gradients, exact_gradients) < 1.5 * error(automatic, exact_gradients)
    for gradient, parameter in zip(gradients, staged.leaves, strict=True):
        assert gradient.dtype == parameter.dtype == torch.float32
        assert gradient.stride() == parameter.stride()


@pytest.mark.parametrize("name", ["infocat", "infogan"])
def test_nothing_else_is_in_bfloat16(name, images, traced):
    _, staged = traced(name)
    graph = round_products(deepcopy(staged.graph))
    seen = set()

    class Watch(torch.fx.Interpreter):
        def call_function(self, target, args, kwargs):
            result = super().call_function(target, args, kwargs)
            results = result if isinstance(result, tuple) else (result,)
            packet = getattr(target, "overloadpacket", target)
            if any(isinstance(r, torch.Tensor) and r.dtype == torch.bfloat16 for r in results):
                seen.add(packet)
            elif packet in PRODUCTS:
                raise AssertionError(f"{packet} is in {results[0].dtype}")
            return result

    with torch.no_grad():
        Watch(graph).run(images, *staged.inputs)
    assert seen & set(PRODUCTS)
    assert seen <= {*PRODUCTS, *REARRANGED, aten._to_copy, operator.getitem}


@pytest.mark.parametrize("options", [{}, {"beta": 0.5, "alpha": 2.0}])
def test_what_is_added_to_a_product_is_not_rounded(options):
    c, a, b = torch.rand(3, 4, 4)
    graph = round_products(make_fx(lambda c, a, b: torch.addmm(c, a, b, **options))(c, a, b))
    product = torch.mm(*rounded(a, b)).float()
    expected = options.get("beta", 1.0) * c + options.get("alpha", 1.0) * product
    torch.testing.assert_close(graph(c, a, b), expected, rtol=1e-6, atol=1e-6)
    c, a, b = c[None], a[None], b[None]
    graph = round_products(make_fx(lambda c, a, b: torch.baddbmm(c, a, b, **options))(c, a, b))
    torch.testing.assert_close(graph(c, a, b), expected[None], rtol=1e-6, atol=1e-6)


def test_a_convolutions_bias_and_its_gradient_are_not_rounded():
    x, weight, bias = torch.rand(2, 3, 6, 6), torch.rand(4, 3, 3, 3), torch.rand(4)
    cotangent = torch.rand(2, 4, 3, 3)

    def step(x, weight, bias):
        tensors = [tensor.requires_grad_() for tensor in (x, weight, bias)]
        y = conv2d(*tensors, stride=2, padding=1)
        return y, *torch.autograd.grad((y * cotangent).sum(), tensors)

    y, *gradients = round_products(make_fx(step)(x, weight, bias))(x, weight, bias)
    short = [tensor.requires_grad_() for tensor in rounded(x, weight)]
    z = conv2d(*short, stride=2, padding=1)
    expected = torch.autograd.grad(z, short, cotangent.bfloat16())
    torch.testing.assert_close(y, z.float() + bias[:, None, None])
    for found, wanted in zip(gradients, expected, strict=False):
        torch.testing.assert_close(found, wanted.float())
    torch.testing.assert_close(gradients[2], cotangent.sum((0, 2, 3)))


def test_a_tensor_that_changes_is_rounded_again():
    def step(a):
        view = a.t()
        first = view @ view
        a.mul_(2.0)
        return first, view @ view

    a = torch.rand(3, 3)
    first, second = round_products(make_fx(step)(a.clone()))(a.clone())
    assert torch.equal(second, 4 * first)


def test_products_that_are_added_in_place_are_rounded_where_nothing_else_sees_it():
    a, b, c = torch.rand(3, 4, 4)

    def alone(a, b):
        return torch.mm(a, b).addmm_(b, a)

    expected = torch.mm(*rounded(a, b)).float() + torch.mm(*rounded(b, a)).float()
    assert torch.equal(round_products(make_fx(alone)(a, b))(a, b), expected)

    def seen(a, b, c):
        kept = c * 1.0
        part = kept[:2]
        kept.addmm_(a, b)
        return part * 1.0

    torch.testing.assert_close(round_products(make_fx(seen)(a, b, c))(a, b, c), seen(a, b, c))


def test_other_types_are_left_alone():
    a = torch.rand(3, 3, dtype=torch.float64)
    graph = make_fx(lambda a: a @ a)(a)
    assert torch.equal(round_products(graph)(a), a @ a)


@pytest.mark.parametrize(
    ("precision", "dtype", "engine", "message"),
    [
        ("bf16", torch.float64, "staged", "a model in float64"),
        ("bf16", torch.float32, "eager", "engine='eager' stages none"),
        ("tf32", torch.float32, "staged", "the device is cpu"),
    ],
)
def test_what_cannot_be_had_is_refused(precision, dtype, engine, message):
    with pytest.raises(OptionError, match=message):
        check_precision(precision, dtype, CPU, engine)
    check_precision("float32", dtype, CPU, engine)


def test_tf32_is_put_back():
    before = torch.get_float32_matmul_precision()
    with matmul_precision("float32"):
        assert torch.get_float32_matmul_precision() == before
    with matmul_precision("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


@pytest.fixture
def switches():
    """Torch's settings of float32 products, put back after the test."""
    owners = [torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    before = [owner.fp32_precision for owner in owners]
    yield owners
    torch.set_float32_matmul_precision("highest")
    for owner, value in zip(owners, before, strict=True):
        owner.fp32_precision = value


def older():
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "refused"


@pytest.mark.parametrize(
    "values",
    [{}, {0: "tf32"}, {0: "ieee"}, {1: "tf32"}, {1: "ieee"}, {0: "tf32", 1: "ieee"}, {2: "ieee"}],
    ids=str,
)
def test_the_users_switches_are_left_as_they_were(switches, values):
    for owner, value in values.items():
        switches[owner].fp32_precision = value
    before = [one.fp32_precision for one in switches], older()
    for precision in ("float32", "bf16", "tf32"):
        with matmul_precision(precision):
            if precision == "tf32":
                assert switches[1].fp32_precision == "tf32"
            else:
                assert [one.fp32_precision for one in switches] == before[0]
        assert ([one.fp32_precision for one in switches], older()) == before


@pytest.mark.parametrize("value", ["highest", "high", "medium"])
def test_the_older_setting_is_left_as_it_was(switches, value):
    torch.set_float32_matmul_precision(value)
    with matmul_precision("tf32"):
        assert switches[1].fp32_precision == "tf32"
        assert older() in ("high", "medium")  # torch's compiler reads it
    assert older() == value
