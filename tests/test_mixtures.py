"""The density of a mixture of Normals by products of matrices."""

import pyro.distributions as dist
import pytest
import torch

from pyro_mivae.distributions import NormalMixture
from tests.diagnostics.test_memory import Largest

ROWS, COUNT, DIMS = 7, 5, 3


def parameters(offset, scale):
    torch.manual_seed(0)
    loc = offset + 4 * torch.randn(COUNT, DIMS)
    scales = scale * torch.rand(COUNT, DIMS).add(0.1)
    nearest = torch.randint(COUNT, (2, ROWS))
    z = loc[nearest] + 1.5 * scales[nearest] * torch.randn(2, ROWS, DIMS)
    return z, torch.randn(COUNT), loc, scales


def mixture(logits, loc, scales):
    normals = dist.Normal(loc, scales).to_event(1)
    return NormalMixture(dist.Categorical(logits=logits), normals)


def one_by_one(z, logits, loc, scales):
    normals = dist.Normal(loc, scales).to_event(1)
    return (logits.log_softmax(-1) + normals.log_prob(z.unsqueeze(-2))).logsumexp(-1)


@pytest.mark.parametrize("rows", [None, ROWS], ids=["shared weights", "weights of each datum"])
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (100.0, 1e-2), (-1e3, 1e-3)])
def test_density_and_gradients_are_those_of_double_precision(offset, scale, rows):
    z, logits, loc, scales = parameters(offset, scale)
    if rows is not None:
        logits = torch.randn(rows, COUNT)
    single = [value.clone().requires_grad_() for value in (z, logits, loc, scales)]
    double = [value.double().requires_grad_() for value in (z, logits, loc, scales)]
    found = mixture(*single[1:]).expand((ROWS,)).log_prob(single[0])
    exact = one_by_one(*double)
    assert (found.shape, found.dtype) == ((2, ROWS), torch.float32)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad(found.sum(), single),
        torch.autograd.grad(exact.sum(), double),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4 / scale)


@pytest.mark.parametrize("rows", [(), (ROWS,)], ids=["shared weights", "weights of each datum"])
def test_components_of_each_datum_are_scored_one_by_one(rows):
    z, logits, loc, scales = parameters(0.0, 1.0)
    loc = loc + torch.randn(ROWS, 1, 1)
    fn = mixture(logits.expand(*rows, -1), loc, scales.expand_as(loc))
    assert fn.sample().shape == (ROWS, DIMS)
    torch.testing.assert_close(fn.log_prob(z), one_by_one(z, logits, loc, scales))


def test_memory_does_not_grow_with_coordinates_of_all_components():
    wide = 64
    loc = torch.zeros(COUNT, wide, requires_grad=True)
    fn = mixture(torch.zeros(COUNT), loc, torch.ones(COUNT, wide)).expand((ROWS,))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fn.log_prob(torch.zeros(ROWS, wide))
    assert max(t.numel() for t in kept) < ROWS * COUNT * wide


def test_draws_have_the_moments_of_the_mixture_and_take_no_other_components():
    _, logits, loc, scales = parameters(1.0, 6.0)
    logits = torch.stack([logits, -logits])
    fn = mixture(logits, loc, scales).expand((2,))
    torch.manual_seed(0)
    n = 20_000
    with Largest() as largest:
        draws = fn.sample((n,))
    assert draws.shape == (n, 2, DIMS)
    assert largest.numbers <= 2 * n * COUNT
    draws, weights = draws.double(), logits.softmax(-1)
    for values, exact in (
        (draws, fn.mean),
        (draws.square(), fn.variance + fn.mean.square()),
        (draws.pow(3), weights @ (loc.pow(3) + 3 * loc * scales.square())),
        (draws[..., 0] * draws[..., 1], weights @ loc[:, :2].prod(-1)),  # one component for both
    ):
        error = values.std(0) / n**0.5
        assert ((values.mean(0) - exact).abs() < 5 * error).all()
