"""The truncated normal, against scipy's and by quadrature."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Uniform, kl_divergence

from pyro_mivae.distributions import TruncatedNormal

CASES = [
    (0.0, 0.3, -1.0, 1.0),
    (-1.0, 0.1, -1.0, 1.0),
    (0.9, 5.0, -1.0, 1.0),
    (2.5, 1.0, 2.0, 5.0),
]


def both(loc, scale, low, high):
    ours = TruncatedNormal(torch.tensor([loc]).double(), torch.tensor([scale]).double(), low, high)
    a, b = (low - loc) / scale, (high - loc) / scale
    return ours, stats.truncnorm(a, b, loc, scale)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_scipy(case):
    ours, theirs = both(*case)
    grid = torch.linspace(case[2], case[3], 7).double()
    torch.testing.assert_close(ours.log_prob(grid), torch.tensor(theirs.logpdf(grid.numpy())))
    for name, value in (
        ("mean", theirs.mean()),
        ("variance", theirs.var()),
        ("entropy", theirs.entropy()),
    ):
        figure = getattr(ours, name)
        figure = figure() if name == "entropy" else figure
        assert float(figure) == pytest.approx(float(value), abs=1e-7), name


@pytest.mark.parametrize("case", CASES)
def test_draws_have_its_distribution(case):
    ours, theirs = both(*case)
    draws = ours.sample((5000,))[:, 0]
    assert stats.kstest(draws.numpy(), theirs.cdf).pvalue > 1e-3
    assert case[2] <= float(draws.min()) <= float(draws.max()) <= case[3]


def test_draws_have_the_gradient_of_their_mean():
    loc = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    fn = TruncatedNormal(loc, scale)
    expected = torch.autograd.grad(fn.mean, (loc, scale), retain_graph=True)
    draws = fn.rsample((20_000,))
    for parameter, mean in zip((loc, scale), expected):
        slope = torch.autograd.grad(draws.mean(), parameter, retain_graph=True)[0]
        assert float(slope) == pytest.approx(float(mean), abs=0.02)


@pytest.mark.parametrize("case", CASES)
def test_divergence_from_a_uniform_is_an_integral(case):
    ours, _ = both(*case)
    low, high = case[2], case[3]
    prior = Uniform(torch.tensor(low - 1.0).double(), torch.tensor(high).double())
    grid = torch.linspace(low, high, 20_001).double()
    log_q = ours.log_prob(grid)
    integral = torch.trapezoid(log_q.exp() * (log_q - prior.log_prob(grid[:-1]).mean()), grid)
    torch.testing.assert_close(kl_divergence(ours, prior)[0], integral, atol=1e-6, rtol=0)
    narrow = Uniform(torch.tensor(low + 0.1).double(), torch.tensor(high).double())
    assert math.isinf(float(kl_divergence(ours, narrow)))


def test_is_as_good_as_uniform_when_wide_in_single_precision():
    fn = TruncatedNormal(torch.tensor([-1.0, 0.3, 1.0]), torch.tensor(1e3))
    torch.testing.assert_close(fn.mean, torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(fn.entropy(), torch.full((3,), math.log(2.0)))
    prior = Uniform(torch.tensor(-1.0), torch.tensor(1.0))
    torch.testing.assert_close(kl_divergence(fn, prior), torch.zeros(3), atol=1e-5, rtol=0)


def test_gradients_are_finite_at_the_ends_and_when_narrow():
    loc = torch.tensor([-1.0, 1.0, 0.0], requires_grad=True)
    scale = torch.tensor([1e-3, 1e-3, 1e-3], requires_grad=True)
    fn = TruncatedNormal(loc, scale)
    (fn.log_prob(torch.tensor([1.0, -1.0, 0.5])) + fn.mean + fn.entropy()).sum().backward()
    assert loc.grad.isfinite().all()
    assert scale.grad.isfinite().all()


def test_refuses_what_is_outside():
    fn = TruncatedNormal(torch.zeros(2), torch.ones(2), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        fn.log_prob(torch.tensor([0.0, 1.5]))
    assert fn.expand((3, 2)).batch_shape == (3, 2)
    with pytest.raises(ValueError, match="scale"):
        TruncatedNormal(torch.zeros(1), torch.zeros(1), validate_args=True)
