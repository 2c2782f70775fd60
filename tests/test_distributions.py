"""The probit-normal against quadrature, and at the ends of the unit interval."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pyro_mivae.distributions import NormalCDFTransform, ProbitNormal

CASES = [(0.0, 1.0), (0.7, 0.4), (-1.5, 0.8), (0.2, 1.3)]


def probit_normal(loc, scale, dtype=torch.float64):
    return ProbitNormal(torch.tensor(loc, dtype=dtype), torch.tensor(scale, dtype=dtype))


def grid(n=400_000):
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


@pytest.mark.parametrize(("loc", "scale"), CASES)
def test_density_mean_and_divergence_are_integrals(loc, scale):
    fn, c = probit_normal(loc, scale), grid()
    log_density = fn.log_prob(c)
    density = log_density.exp()
    for integral, value in (
        (density.mean(), 1.0),
        ((density * c).mean(), fn.mean),
        ((density * log_density).mean(), kl_divergence(fn, probit_normal(0.0, 1.0))),
    ):
        torch.testing.assert_close(integral, torch.as_tensor(value).double(), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("loc", "scale"), CASES)
def test_samples_follow_the_distribution(loc, scale):
    torch.manual_seed(0)
    fn = probit_normal(loc, scale)
    c, n = fn.rsample((100_000,)).sort().values, 100_000
    u = torch.special.ndtri(c)
    cdf = Normal(loc, scale).cdf(u)
    assert (cdf - (torch.arange(n) + 0.5) / n).abs().max() < 1.63 / n**0.5  # Kolmogorov, 1 %


def test_the_uniform_is_a_special_case():
    fn = probit_normal(0.0, 1.0, torch.float32)
    torch.testing.assert_close(fn.log_prob(grid(1000).float()), torch.zeros(1000))
    assert float(fn.mean) == 0.5


@pytest.mark.parametrize("loc", [-1e3, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_are_never_reached(loc, dtype):
    fn = probit_normal(loc, 1.0, dtype)
    c = fn.rsample((100,))
    assert ((c > 0) & (c < 1)).all()
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    assert probit_normal(0.3, 0.1, dtype).log_prob(torch.cat([c, ends])).isfinite().all()


def test_gradient_passes_through_a_sample():
    loc, scale = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, 0.6))
    torch.manual_seed(0)
    fn = ProbitNormal(loc.expand(400_000), scale.expand(400_000))
    sampled = torch.autograd.grad(fn.rsample().mean(), (loc, scale))
    exact = torch.autograd.grad(ProbitNormal(loc, scale).mean, (loc, scale))
    for ours, theirs in zip(sampled, exact):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_shapes_and_support():
    fn = ProbitNormal(torch.zeros(()), torch.ones(())).expand([3]).to_event(1).expand([5])
    assert fn.sample().shape == (5, 3)
    assert fn.log_prob(fn.sample()).shape == (5,)
    assert isinstance(fn.base_dist, ProbitNormal)
    with pytest.raises(ValueError, match="support"):
        fn.log_prob(torch.full((5, 3), 1.5))


def test_the_transform_and_its_inverse():
    transform, x = NormalCDFTransform(), torch.linspace(-4, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(transform.inv(transform(x)), x)
    inputs = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(transform(inputs).sum(), inputs)
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, transform(x)), slope.log())
    assert transform == NormalCDFTransform()
