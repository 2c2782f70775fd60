"""Distributions on the sphere: area, draws, divergence, and numbers far out."""

import math

import pytest
import torch
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.spherical import Directions, PowerSpherical, SphericalUniform


@pytest.fixture(autouse=True)
def in_double(double):
    """Numbers in double precision."""


def sphere(count):
    """Points of the unit sphere in three dimensions with the area of each, by quadrature."""
    height, weight = (torch.tensor(values) for values in leggauss(count))
    angle = torch.arange(2 * count) * (math.pi / count)
    across = (1 - height.square()).sqrt()[:, None]
    points = torch.stack(
        [across * angle.cos(), across * angle.sin(), height[:, None].expand(-1, 2 * count)], -1
    )
    return points.reshape(-1, 3), (weight * math.pi / count).repeat_interleave(2 * count)


def leggauss(count):
    import numpy as np

    return np.polynomial.legendre.leggauss(count)


@pytest.mark.parametrize("concentration", [0.0, 0.7, 5.0, 200.0])
def test_density_integrates_to_one_with_the_stated_mean_and_entropy(concentration):
    fn = PowerSpherical(
        normalize(torch.tensor([0.3, -1.0, 0.5]), dim=0), torch.tensor(concentration)
    )
    points, area = sphere(200)
    mass = fn.log_prob(points).exp() * area
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-10)
    torch.testing.assert_close(mass @ points, fn.mean)
    entropy = -float((mass * fn.log_prob(points)).sum())
    assert float(fn.entropy()) == pytest.approx(entropy, abs=1e-9)
    uniform = SphericalUniform(3, points)
    divergence = float((mass * (fn.log_prob(points) - uniform.log_prob(points))).sum())
    assert float(kl_divergence(fn, uniform)) == pytest.approx(divergence, abs=1e-9)


def test_density_on_the_circle():
    angle = (torch.arange(4000) + 0.5) * (2 * math.pi / 4000)
    points = torch.stack([angle.cos(), angle.sin()], -1)
    for fn in (PowerSpherical(points[700], torch.tensor(3.3)), SphericalUniform(2, points)):
        mass = fn.log_prob(points).exp() * (2 * math.pi / 4000)
        assert float(mass.sum()) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("dim", [2, 3, 7])
@pytest.mark.parametrize("first", [1.0, -1.0, 0.2])
def test_draws_have_the_stated_moments(dim, first):
    """Mean, and second moments, from the Beta law of the height along the direction."""
    loc = normalize(
        torch.cat([torch.tensor([first]), (1 - abs(first)) * torch.randn(dim - 1)]), dim=0
    )
    concentration = 2.5
    fn = PowerSpherical(loc, torch.tensor(concentration))
    x = fn.rsample((40_000,))
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(40_000))
    beta = 0.5 * (dim - 1)
    height = torch.distributions.Beta(beta + concentration, beta)
    second = 4 * (height.variance + height.mean.square()) - 4 * height.mean + 1
    across = (1 - second) / (dim - 1)
    expected = across * torch.eye(dim) + (second - across) * torch.outer(loc, loc)
    error = 4.5 / 40_000**0.5
    torch.testing.assert_close(x.mean(0), fn.mean, atol=error, rtol=0)
    torch.testing.assert_close(x.T @ x / len(x), expected, atol=error, rtol=0)
    torch.testing.assert_close(fn.variance, expected.diagonal() - fn.mean.square())
    uniform = SphericalUniform(dim, loc).rsample((40_000,))
    torch.testing.assert_close(
        uniform.T @ uniform / 40_000, torch.eye(dim) / dim, atol=error, rtol=0
    )
    assert float(uniform.mean(0).abs().max()) < error


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_the_gradient_of_draws_is_that_of_the_expectation(dim):
    """Of E[(w x)^2], whose closed form has the Beta law's moments."""
    w = torch.randn(dim)
    free = torch.randn(dim, requires_grad=True)
    log_concentration = torch.tensor(0.8, requires_grad=True)

    def parts():
        return normalize(free, dim=0), log_concentration.exp()

    loc, concentration = parts()
    beta = torch.tensor(0.5 * (dim - 1))
    alpha = beta + concentration
    mean = alpha / (alpha + beta)
    variance = alpha * beta / ((alpha + beta).square() * (alpha + beta + 1))
    second = 4 * (variance + mean.square()) - 4 * mean + 1
    across = (1 - second) / (dim - 1)
    exact = across * w.square().sum() + (second - across) * (w @ loc).square()
    expected = torch.autograd.grad(exact, [free, log_concentration])
    rows = 40_000
    free_rows = free.detach().expand(rows, dim).clone().requires_grad_()
    log_rows = log_concentration.detach().expand(rows).clone().requires_grad_()
    x = PowerSpherical(normalize(free_rows, dim=-1), log_rows.exp()).rsample()
    found = torch.autograd.grad((x @ w).square().sum(), [free_rows, log_rows])
    for rowwise, truth in zip(found, expected, strict=True):
        error = rowwise.std(0) / rows**0.5
        assert ((rowwise.mean(0) - truth).abs() < 4.5 * error + 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [2, 3, 20])
@pytest.mark.parametrize("concentration", [0.0, 1e-6, 1.0, 1e4, 1e8])
def test_nothing_breaks_at_the_poles_or_in_a_narrow_peak(dtype, dim, concentration):
    axis = torch.eye(dim, dtype=dtype)[0]
    for pole in (axis, -axis):
        loc = pole.clone().requires_grad_()
        kappa = torch.tensor(concentration, dtype=dtype, requires_grad=True)
        fn = PowerSpherical(loc, kappa)
        x = fn.rsample((500,))
        divergence = kl_divergence(fn, SphericalUniform(dim, loc))
        cost = x.sum() + fn.log_prob(x).sum() + fn.log_prob(pole) + fn.log_prob(-pole) + divergence
        gradients = torch.autograd.grad(cost, [loc, kappa])
        assert x.dtype == fn.log_prob(x).dtype == dtype
        assert all(bool(value.isfinite().all()) for value in (x, cost, *gradients))
        x = x.detach()
        assert float((x.norm(dim=-1) - 1).abs().max()) < 1e-5
        assert float(divergence.detach()) >= -1e-5
    if concentration == 1e4:  # nearly normal across the direction, of precision kappa / 2
        entropy = 0.5 * (dim - 1) * math.log(2 * math.pi * math.e * 2 / concentration)
        fn = PowerSpherical(loc.detach(), kappa.detach())
        assert float(fn.entropy()) == pytest.approx(entropy, abs=3e-2)
        drawn = -float(fn.log_prob(x).mean())
        assert drawn == pytest.approx(
            entropy, abs=5 * float(fn.log_prob(x).std()) / 500**0.5 + 0.05
        )


def test_draws_of_any_batch_shape_are_on_the_sphere():
    fn = PowerSpherical(normalize(torch.randn(4, 5, 3), dim=-1), torch.rand(4, 5))
    for other in (fn, SphericalUniform(3, torch.zeros(())).expand([4, 5])):
        x = other.rsample((6,))
        assert x.shape == (6, 4, 5, 3)
        torch.testing.assert_close(x.norm(dim=-1), torch.ones(6, 4, 5))
    uniform = SphericalUniform(3, torch.zeros(())).rsample((2000, 5))
    second = torch.einsum("nbi,nbj->bij", uniform, uniform) / 2000
    torch.testing.assert_close(second, torch.eye(3).expand(5, 3, 3) / 3, atol=0.05, rtol=0)
    narrow = PowerSpherical(fn.loc, torch.full((4, 5), 1e6)).rsample((6,))
    torch.testing.assert_close(narrow, fn.loc.expand(6, 4, 5, 3), atol=0.02, rtol=0)


def test_expanding_and_checking():
    fn = PowerSpherical(torch.eye(3)[:2], torch.ones(2), validate_args=True).expand([4, 2])
    assert fn.sample().shape == (4, 2, 3)
    assert fn.log_prob(torch.eye(3)[0]).shape == (4, 2)
    uniform = SphericalUniform(3, torch.zeros(()), validate_args=True).expand([4])
    assert (uniform.rsample((5,)).shape, uniform.mean.shape) == ((5, 4, 3), (4, 3))
    for wrong in (fn, uniform):
        with pytest.raises(ValueError, match="within the support"):
            wrong.log_prob(torch.ones(4, 2, 3) if wrong is fn else torch.ones(4, 3))
    with pytest.raises(ShapeError, match="2 coordinates or more"):
        PowerSpherical(torch.ones(1), torch.ones(()))
    with pytest.raises(OptionError, match="dim=1; allowed"):
        SphericalUniform(1, torch.zeros(()))


def test_points_of_uniform_directions_are_normal():
    """Their length is drawn, and the density of points is that of N(0, I)."""
    uniform, onto = SphericalUniform(3, torch.zeros(())), Directions()
    z = uniform((4000,))
    u = onto.inv(z)
    torch.testing.assert_close(onto(u), z)
    total = uniform.log_prob(z) + onto.log_abs_det_jacobian(u, z)
    torch.testing.assert_close(total, torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(-1))
    lengths = u.square().sum(-1)  # chi-squared, of mean 3 and variance 6
    assert float(lengths.mean()) == pytest.approx(3.0, abs=4.5 * (6 / 4000) ** 0.5)
