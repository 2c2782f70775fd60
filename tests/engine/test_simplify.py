"""A simplified step gives the same numbers, bit for bit, by fewer operations."""

import pytest
import torch

from pyro_mivae.engine import tracing
from pyro_mivae.engine.constant_folding import hold_constants
from pyro_mivae.engine.rewriting import simplify
from pyro_mivae.engine.snapshot import preserved
from pyro_mivae.engine.steps import trace_step

aten = torch.ops.aten


@pytest.fixture
def simplified(write_down):
    """Simplifies a function and checks the result; returns the operations that are left."""

    def simplified(step, *args):
        graph, _ = write_down(step, *(arg.clone() for arg in args))
        hold_constants(graph)
        simplify(graph)
        graph.recompile()
        torch.manual_seed(0)
        expected = step(*(arg.clone() for arg in args))
        torch.manual_seed(0)
        found = graph(*(arg.clone() for arg in args))
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)
        return [node.target for node in graph.graph.nodes if node.op == "call_function"]

    return simplified


def test_what_gives_its_argument_is_left_out(simplified):
    def step(x):
        y = (x / torch.ones(3) + 0 - 0) * 1
        y = torch.cat([y.pow(1.0)]).neg().neg().view(3).t().t()
        return y.exp(), y.detach().expand(3).log()

    assert simplified(step, torch.rand(3)) == [aten.exp.default, aten.log.default]


def test_what_is_left_out_gives_the_same_type_and_shape(simplified):
    def step(x):
        return (torch.arange(3) * 1.0 + x).exp(), (x[:1] * torch.ones(3)).exp()

    assert aten.mul.Tensor in simplified(step, torch.rand(3))


def test_nothing_is_computed_twice(simplified):
    assert simplified(lambda x: (x.exp() + 1, x.exp() - 1), torch.rand(3)) == [
        aten.exp.default,
        aten.add.Tensor,
        aten.sub.Tensor,
    ]


def test_what_is_made_of_constants_is_held(simplified):
    def step(x):
        return (x * torch.eye(3) @ torch.arange(3.0), torch.ones_like(x) / 3 + x)

    targets = simplified(step, torch.rand(3))
    assert aten.eye.default not in targets
    assert aten.ones_like.default not in targets
    assert aten.div.Tensor not in targets


def test_two_draws_stay_two(simplified):
    def step(x):
        return x + torch.randn(3), x + torch.randn(3)

    assert simplified(step, torch.rand(3)).count(aten.randn.default) == 2

    def filling(x):
        first, second = torch.empty(3).normal_(), torch.empty(3).normal_()
        return x + first, x + second

    assert simplified(filling, torch.rand(3)).count(aten.randn.default) == 2


def test_what_changes_is_read_again(simplified):
    def step(x):
        before = x + 0
        view = x.view(3)
        first = view.exp()
        x.mul_(2.0)
        return before.neg(), first + 1, view.exp() + 1

    simplified(step, torch.rand(3))


def test_what_changes_through_a_part_or_an_out_argument_is_read_again(simplified):
    def through_a_part(x):
        first, _ = x.chunk(2)
        before = x.exp()
        first.mul_(2.0)
        return before, x.exp()

    def through_out(x):
        before = x.exp()
        torch.mul(x, 2.0, out=x)
        return before, x.exp()

    simplified(through_a_part, torch.rand(4))
    simplified(through_out, torch.rand(4))


def test_results_are_tensors_of_their_own(write_down):
    graph, _ = write_down(lambda x: (x.exp(), x.exp(), x * 1), torch.rand(3))
    hold_constants(graph)
    simplify(graph)
    graph.recompile()
    x = torch.rand(3)
    a, b, c = graph(x)
    assert len({tensor.data_ptr() for tensor in (a, b, c, x)}) == 4


@pytest.mark.parametrize("name", ["infocat", "infogan", "mmd"])
def test_every_step_gives_the_same_by_less(name, images, traced, monkeypatch):
    images = images.double()

    def run(program, staged):
        with preserved(program.buffers, images.device):
            values, gradients = staged(images)
        return [values, *gradients], len(staged.graph.graph.nodes)

    program, staged = traced(name)
    found, size = run(program, staged)
    monkeypatch.setattr(tracing, "simplify", lambda graph: None)
    monkeypatch.setattr(tracing, "hold_constants", lambda graph: None)
    expected, larger = run(program, trace_step(program, images))
    assert size < 0.85 * larger
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_results_that_are_views_keep_memory_of_their_own(write_down):
    graph, _ = write_down(
        lambda x: tuple(x.sum(0, True).view(2) for _ in range(2)), torch.rand(3, 2)
    )
    hold_constants(graph)
    simplify(graph)
    graph.recompile()
    a, b = graph(torch.rand(3, 2))
    assert torch.equal(a, b)
    assert a.data_ptr() != b.data_ptr()
