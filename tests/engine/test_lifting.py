"""Noise that is lifted out of a graph is the noise that the graph drew, and numbers likewise."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import dropout

from pyro_mivae.engine.lifting import find_differences, lift_noise, lift_numbers, numbers_at
from pyro_mivae.errors import StagingError

DRAWS = {
    "randn": lambda x: x + torch.randn(4, 5),
    "rand": lambda x: x * torch.rand(4, 5),
    "like": lambda x: x * torch.rand_like(x) + torch.randn_like(x),
    "integers": lambda x: x[torch.randint(4, (7,))],
    "permutation": lambda x: x[torch.randperm(4)],
    "into empty": lambda x: x + torch.empty(4, 5).normal_(1.0, 2.0),
    "exponential": lambda x: x / torch.empty_like(x).exponential_(2.0),
    "over data": lambda x: x.clone().uniform_() + x,
    "over what is used": lambda x: (y := x * 2.0).normal_() + y,
    "twice over": lambda x: x + torch.empty(4, 5).normal_().uniform_(),
    "unused": lambda x: (torch.randn(3), x + torch.randn(4, 5))[1],
    "bernoulli": lambda x: x + torch.bernoulli(x),
    "bernoulli of a number": lambda x: x + torch.bernoulli(x, 0.3),
    "bernoulli in place": lambda x: x + torch.zeros(4, 5).bernoulli_(x),
    "normal": lambda x: torch.normal(x, x.square()) * torch.normal(0.5, x),
    "dropout": lambda x: dropout(x, 0.4),
    "native dropout": lambda x: torch.native_dropout(x, 0.4, True)[0],
    "turned": lambda x: x.t() + torch.empty_like(x.t()).normal_(),
    "log of noise": lambda x: x - torch.rand(5).log(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DRAWS)
def test_noise_is_the_same_in_the_same_order(name, dtype):
    torch.set_default_dtype(dtype)
    x, function = torch.rand(4, 5), DRAWS[name]
    graph = make_fx(function)(x)
    lifted = lift_noise(graph)
    for seed in (1, 2):
        torch.manual_seed(seed)
        wanted, after = function(x), torch.rand(3)
        torch.manual_seed(seed)
        noise = lifted.noise()
        assert torch.equal(torch.rand(3), after)
        torch.testing.assert_close(lifted.graph(x, *noise), wanted, rtol=1e-6, atol=0)
    assert all("noise" in node.name for node in list(lifted.graph.graph.nodes)[1 : 1 + len(noise)])


def test_a_graph_that_draws_nothing_stays_as_it_is():
    x = torch.rand(3)
    lifted = lift_noise(make_fx(lambda x: x * 2.0)(x))
    assert lifted.noise() == ()
    assert torch.equal(lifted.graph(x), x * 2.0)


@pytest.mark.parametrize("draw", [torch.poisson, torch._standard_gamma])
def test_refuses_draws_that_depend_on_data(draw):
    with pytest.raises(StagingError, match="in a way that depends on data"):
        lift_noise(make_fx(draw)(torch.rand(4)))


def weighted(weight, power=2.0, constant=1.0):
    held = torch.tensor([constant, 1.0])
    return make_fx(lambda x: x * weight + x.pow(power).sum() * held)(torch.rand(2))


def test_numbers_that_differ_become_inputs():
    graphs = [weighted(2.0), weighted(3.0, 4.0, 5.0)]
    places = sorted(find_differences(*graphs), key=lambda place: place.node)
    assert len(places) == 3
    lifted, x = lift_numbers(graphs[0], places), torch.rand(2)
    for graph in graphs:
        numbers = numbers_at(graph, places, "cpu")
        torch.testing.assert_close(lifted(x, *numbers), graph(x))


def test_graphs_that_differ_by_more_than_numbers_are_told_apart():
    x, first = torch.rand(2), weighted(2.0)
    others = [lambda x: x * 2.0, lambda x: x.sum() * 2.0 + x.pow(2.0) * torch.ones(2)]
    assert all(find_differences(first, make_fx(other)(x)) is None for other in others)
    slopes = [make_fx(torch.nn.LeakyReLU(slope))(x) for slope in (0.1, 0.2)]
    assert find_differences(*slopes) is None
    assert find_differences(slopes[0], slopes[0]) == set()
