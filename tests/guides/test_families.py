"""Families of a site: density, draws, and gradients, in float64."""

from functools import partial

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence
from torch.nn.functional import softplus

from pyro_mivae.distributions import NormalMixture
from pyro_mivae.errors import OptionError
from pyro_mivae.guides import FAMILIES, FullCovariance, GaussianMixture, LowRank
from pyro_mivae.guides.families import OnSphere
from pyro_mivae.guides.flows import FlowFamily
from pyro_mivae.sites import has_mean
from tests.densities import check_flow

N = 2
pytestmark = pytest.mark.usefixtures("double")


def made(name, size, batch=(N,)):
    """A family with weights of its own, and its distributions for some parameters."""
    torch.manual_seed(0)
    kind = FAMILIES[name]
    narrow = {"hidden_dim": 8, "context_dim": 4} if issubclass(kind, FlowFamily) else {}
    family = kind(size, **narrow)
    for parameter in family.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    params = 0.6 * torch.randn(*batch, family.num_params)  # scales that the grid resolves
    return family, params.requires_grad_()


def grid(size, end=8.0):
    axis = torch.linspace(-end, end, 8001 if size == 1 else 201)
    points = torch.cartesian_prod(*[axis] * size).reshape(-1, 1, size)
    return points, float(axis[1] - axis[0]) ** size


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [1, 2])
def test_density_integrates_to_one_and_agrees_with_draws(name, size):
    family, params = made(name, size)
    with torch.no_grad():
        fn = family(params)
        assert (fn.batch_shape, fn.event_shape) == ((N,), (size,))
        points, volume = grid(size)
        tolerance = 1e-2 if name == "spline" and size == 2 else 2e-3  # by the grid: it has kinks
        density = fn.log_prob(points).exp() * volume  # (points, N)
        torch.testing.assert_close(density.sum(0), torch.ones(N), atol=tolerance, rtol=0)
        draws = fn((20_000,))
        for moment in (1, 2):
            values = (draws + 0.3 * draws.flip(-1)).pow(moment)  # of mixed coordinates too
            expected = (points + 0.3 * points.flip(-1)).pow(moment)
            integral = (density.unsqueeze(-1) * expected).sum(0)
            error = values.std(0) / len(values) ** 0.5
            assert ((values.mean(0) - integral).abs() < 4.5 * error + tolerance).all()
        if has_mean(fn):
            mean = (density.unsqueeze(-1) * points).sum(0)
            torch.testing.assert_close(fn.mean, mean, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["iaf", "spline", "affine-coupling"])
def test_the_density_of_a_flow_is_that_of_its_noise(name, monkeypatch):
    family, params = made(name, 5, batch=())
    slopes = check_flow(lambda: family(params), 5, monkeypatch)
    # Layers take turns in the order of coordinates, so that each moves those on either side.
    assert slopes.tril(-1).abs().max() > 1e-6
    assert slopes.triu(1).abs().max() > 1e-6


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [1, 3])
def test_a_draw_knows_its_density_with_any_leading_dimensions(name, size):
    family, params = made(name, size, batch=(2, 1, N))
    fn = family(params)
    value = fn()
    assert value.shape == (2, 1, N, size)
    torch.testing.assert_close(fn.log_prob(value), family(params).log_prob(value.clone()))
    alone = family(params[1, 0, 1]).log_prob(value[1, 0, 1])
    torch.testing.assert_close(fn.log_prob(value)[1, 0, 1], alone)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_of_a_mean_is_that_of_the_integral(name):
    """The reparametrised gradient of E[f(z)], from many draws and on a grid."""
    size = 1 if name == "spline" else 2  # the slope of its density jumps at every knot
    family, params = made(name, size)
    weights = (params, *family.parameters())

    def f(z):
        return torch.sin(z[..., 0]) + z.tanh().prod(-1)

    points, volume = grid(size)
    integral = (family(params).log_prob(points).exp() * f(points)).sum() * volume
    expected = torch.autograd.grad(integral, weights)
    slopes = []
    for _ in range(40):
        value = f(family(params)((500,))).mean(0).sum()
        slopes.append(torch.autograd.grad(value, weights))
    for exact, *found in zip(expected, *slopes):
        found = torch.stack(found)
        error = found.std(0) / len(found) ** 0.5
        assert ((found.mean(0) - exact).abs() < 5 * error + 3e-3).all()


@pytest.mark.parametrize("make", [FullCovariance, partial(LowRank, rank=2)])
def test_divergence_from_independent_normals_is_that_of_dense_ones(make):
    family = make(4)
    q = family(torch.randn(2, N, family.num_params))
    loc, scale = torch.randn(N, 4), 0.5 + torch.rand(N, 4)
    closed = kl_divergence(q, dist.Normal(loc, scale).to_event(1))
    dense = dist.MultivariateNormal(q.mean, q.covariance_matrix)
    prior = dist.MultivariateNormal(loc, scale_tril=torch.diag_embed(scale))
    torch.testing.assert_close(closed, kl_divergence(dense, prior.expand((2, N))))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, dist.Laplace(loc, scale).to_event(1))


def test_covariance_may_be_any():
    wanted = torch.randn(3, 3).tril(-1) + torch.diag(0.1 + torch.rand(3))
    scale = wanted.diagonal()
    below = (wanted / scale[:, None] * 3)[torch.tril_indices(3, 3, -1).unbind()]
    params = torch.cat([torch.randn(3), (scale - 1e-4).expm1().log(), below])
    torch.testing.assert_close(FullCovariance(3)(params).scale_tril, wanted)


def test_a_full_covariance_begins_near_the_mean_field_in_any_dimension():
    family = FullCovariance(200)
    q = family(0.5 * torch.randn(family.num_params))  # of the size that untrained layers give
    ratio = q.covariance_matrix.diagonal().sqrt() / q.scale_tril.diagonal()
    assert (ratio < 1.2).all()


def test_directions_of_low_rank_are_scaled_with_the_coordinates():
    size, rank = 4, 2
    params = torch.randn((2 + rank) * size)
    scale = torch.diag(softplus(params[size : 2 * size]) + 1e-2)
    directions = params[2 * size :].reshape(size, rank)
    wanted = scale @ (torch.eye(size) + directions @ directions.T / rank) @ scale
    torch.testing.assert_close(LowRank(size, rank=rank)(params).covariance_matrix, wanted)


def test_the_concentration_on_a_sphere_is_a_softplus():
    params = torch.randn(N, 4)
    torch.testing.assert_close(OnSphere(3)(params).concentration, softplus(params[:, 3]))


def test_a_mixture_of_one_component_is_drawn_as_its_normal():
    loc, scale = torch.randn(N, 2, requires_grad=True), torch.rand(N, 2, requires_grad=True)
    far = torch.stack([loc, loc.detach() + 3], -2)
    logits = torch.tensor([0.0, -800.0]).expand(N, 2)
    normals = dist.Normal(far, torch.stack([scale, scale.detach()], -2)).to_event(1)
    z = NormalMixture(dist.Categorical(logits=logits), normals).rsample()
    slopes = torch.autograd.grad(z.sum(), (loc, scale))
    torch.testing.assert_close(slopes[0], torch.ones(N, 2))
    torch.testing.assert_close(slopes[1], ((z - loc) / scale).detach())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowRank(3, rank=0), "rank=0; allowed are whole numbers"),
        (lambda: GaussianMixture(3, num_components=1), "num_components=1; allowed"),
        (lambda: FullCovariance(0), "size=0; allowed"),
    ],
)
def test_bad_sizes(make, message):
    with pytest.raises(OptionError, match=message):
        make()
