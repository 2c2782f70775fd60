"""Joined operations give the same numbers, equal to rounding, by fewer kernels."""

import copy

import pytest
import torch

from benchmarks.handwritten import build_case
from benchmarks.nodes import count_graph, handwritten_kernels, staged_kernels
from benchmarks.speed import OPTIONS
from pyro_mivae.engine.constant_folding import hold_constants, spell_out
from pyro_mivae.engine.fusion import fuse_rounding
from pyro_mivae.engine.rewriting import simplify
from pyro_mivae.engine.snapshot import preserved

aten = torch.ops.aten
KERNELS = {
    "vae": 45,
    "beta": 47,
    "infomax": 66,
    "mmd": 105,
    "vmi": 124,
    "critic-infomax": 119,
    "cat": 76,
    "infocat": 122,
    "infogan": 248,
}
"""Of the staged steps on one hidden layer without batch norm; InfoGAN's on its own networks."""


@pytest.fixture
def fused(write_down):
    """Joins the operations of a function, whose first result is the ledger's, and checks it."""

    def fused(step, *args):
        graph, _ = write_down(step, *args)
        hold_constants(graph)
        simplify(graph)
        graph.recompile()
        torch.manual_seed(0)
        exact = graph(*args)
        fuse_rounding(graph)
        graph.recompile()
        torch.manual_seed(0)
        expected = step(*args)
        assert all(map(torch.equal, exact, expected))
        torch.manual_seed(0)
        for one, other in zip(graph(*args), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-15)
        targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
        return [target for target in targets if not target.is_view]

    return fused


def draw(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(
    ("step", "joined"),
    [
        (lambda a, b, c: a + b * c, [aten.addcmul.default]),
        (lambda a, b, c: a - b * (2 * c), [aten.addcmul.default]),
        (lambda a, b, c: -b * c * 3 + a, [aten.addcmul.default]),
        (lambda a, b, c: a + c.square() / 4 - b, [aten.addcmul.default, aten.sub.Tensor]),
        (lambda a, b, c: a + -b / c.exp(), [aten.exp.default, aten.addcdiv.default]),
        (lambda a, b, c: a + 0.5 * b, [aten.add.Tensor]),
        (lambda a, b, c: 0.5 * (a * torch.full((4, 3), 3.0)), [aten.mul.Tensor]),
        (lambda a, b, c: (a + a) * 0.5 * b, [aten.mul.Tensor]),
        (lambda a, b, c: -(-a / b), [aten.div.Tensor]),
        (lambda a, b, c: a / (b * 2) * 2, [aten.div.Tensor]),
        (lambda a, b, c: -(-a).sum(), [aten.sum.default]),
        (lambda a, b, c: -(-a).view(12)[:6].sum(0), [aten.sum.dim_IntList]),
        (lambda a, b, c: a.sum(1).sum(), [aten.sum.default]),
        (lambda a, b, c: -a[:, :1].expand(4, 3) * b, [aten.neg.default, aten.mul.Tensor]),
        (lambda a, b, c: a + -b, [aten.sub.Tensor]),
        (lambda a, b, c: (torch.eye(4, dtype=a.dtype) @ a).exp(), [aten.exp.default]),
        (lambda a, b, c: (a > 0).long().to(a), [aten.gt.Scalar, aten._to_copy.default]),
        (lambda a, b, c: a.T @ b + b.T @ c, [aten.mm.default, aten.addmm_.default]),
        (lambda a, b, c: a.sum(0) + b.sum(0), [aten.sum.dim_IntList, aten.addmv_.default]),
    ],
)
def test_what_is_one_operation(fused, step, joined):
    a, b, c = draw(3, 4, 3)
    assert fused(lambda a, b, c: (a.detach(), step(a, b, c)), a, b, c) == joined


def test_what_is_used_elsewhere_is_not_joined(fused):
    def step(a, b, c):
        product, matrix = b * c, a.T @ b
        return a.detach(), product, a + product, matrix, matrix + b.T @ c

    found = fused(step, *draw(3, 4, 3))
    assert found.count(aten.mul.Tensor) == 1
    assert aten.addcmul.default not in found
    assert aten.addmm_.default not in found


def test_what_the_ledger_depends_on_is_rounded_as_before(fused):
    def step(a, b, c):
        loc = a + b * c
        return loc.sum(), loc * 2

    assert aten.addcmul.default not in fused(step, *draw(3, 4, 3))


def test_operands_of_other_layouts_and_types_are_not_joined(fused):
    a, b, c = draw(3, 4, 4)
    assert aten.addcmul.default not in fused(lambda a, b: (a.detach(), a.T + b * a), a, b)
    found = fused(lambda a, b, c: (b.detach(), a.float() + b.float() * (c > 0)), a, b, c)
    assert aten.addcmul.default not in found


def test_what_is_changed_in_place_is_read_in_time(fused):
    def step(a, b):
        buffer = a * 1.5
        product = buffer * b
        buffer.zero_()
        return a.detach(), a + product, buffer + b

    assert aten.addcmul.default not in fused(step, *draw(2, 4, 3))


def test_noise_is_drawn_in_one_operation(fused):
    def step(a):
        return a.detach(), torch.empty(4, 3, dtype=a.dtype).normal_(), torch.rand(2)

    assert fused(step, draw(4, 3))[:2] == [aten.randn.default, aten.rand.default]
    scaled = fused(lambda a: (a.detach(), torch.empty(4, 3, dtype=a.dtype).normal_(0, 2)), draw(1))
    assert aten.randn.default not in scaled


def test_a_compiler_sees_the_numbers(write_down):
    graph, _ = write_down(
        lambda x: (x * torch.full((3,), 2.0), x + torch.arange(3)), torch.rand(3)
    )
    hold_constants(graph)
    spell_out(graph)
    graph.recompile()
    targets = [node.target for node in graph.graph.nodes]
    assert targets.count(aten.full.default) == 1
    assert torch.equal(graph(torch.ones(3))[0], torch.full((3,), 2.0))


@pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
@pytest.mark.parametrize("name", KERNELS)
def test_steps_have_no_more_kernels_than_they_had(name):
    x = torch.rand(16, 1, 28, 28)
    vae, _ = build_case(name, (1, 28, 28), OPTIONS.get(name, {}), [8])
    kernels = staged_kernels(vae, x).total()
    assert kernels <= KERNELS[name]
    if name in ("vae", "infocat", "mmd"):
        assert kernels <= 1.1 * handwritten_kernels(vae, x).total()


def test_kernels_are_counted(write_down):
    graph, _ = write_down(
        lambda x: torch.nn.functional.binary_cross_entropy_with_logits(x.T, x.T.detach().exp()),
        torch.rand(3, 2),
    )
    assert count_graph(graph.graph).total() == 6


@pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
@pytest.mark.parametrize("name", KERNELS)
def test_steps_stay_equal_to_rounding(name, images, traced):
    images = images.double()
    _, staged = traced(name)

    def run(graph):
        with preserved(staged.changed(images), images.device), torch.no_grad():
            values, *gradients = graph(images, *staged.inputs)
            return [values, *(gradient.clone() for gradient in gradients)]

    fused = copy.deepcopy(staged.graph)
    fuse_rounding(fused)
    fused.recompile()
    exact, found = run(staged.graph), run(fused)
    size = torch.stack([gradient.norm() for gradient in exact[1:]]).norm()
    for one, other in zip(found, exact, strict=True):
        assert float((one - other).nan_to_num().norm()) <= 1e-12 * max(other.norm(), size)
