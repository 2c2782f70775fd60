"""Coordinates of supports: densities in them integrate to one, and come back."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from pyro_mivae.posterior.layout import chart, coordinates, support_of

FAMILIES = {
    "real": (dist.Normal(1.0, 2.0), 1),
    "positive": (dist.Gamma(torch.tensor(2.0), 0.5), 1),
    "interval": (dist.Beta(torch.tensor(2.0), 3.0), 1),
    "band": (dist.Uniform(torch.tensor([[-1.0]]), torch.tensor(3.0)).to_event(1), 1),
    "simplex": (dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])), 2),
    "mixture": (
        dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2)), dist.Gamma(torch.tensor([2.0, 9.0]), 1.0)
        ),
        1,
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_factor_is_that_of_the_density(name):
    """Importance sampling in the coordinates: the density with its factor integrates to 1."""
    torch.manual_seed(0)
    fn, dims = FAMILIES[name]
    values = fn.sample((4000,)).double()
    values = values.reshape(4000, *fn.event_shape)
    place, slope = coordinates(values, fn.support)
    assert place.shape == (4000, dims)
    normal = torch.distributions.MultivariateNormal(
        place.mean(0), 2 * place.T.cov().reshape(dims, dims)
    )
    proposed = normal.sample((20_000,))
    points = chart(fn.support)(proposed.reshape(20_000, *([dims] if fn.event_shape else [])))
    back, factor = coordinates(points, fn.support)
    inside = (points > 1e-300).reshape(20_000, -1).all(1) if name != "real" else slice(None)
    inside = slice(None) if name == "band" else inside
    torch.testing.assert_close(back[inside], proposed[inside], rtol=1e-4, atol=1e-3)
    weights = fn.log_prob(points).reshape(-1) + factor - normal.log_prob(proposed)
    assert abs(float(weights.exp().mean()) - 1) < 0.05


def test_what_has_no_coordinates():
    for fn in (
        dist.Poisson(1.0),
        dist.OneHotCategorical(torch.ones(3)),
        dist.Categorical(torch.ones(2, 3)).to_event(1),
        dist.ProjectedNormal(torch.ones(3)),
        dist.LKJCholesky(3, 1.0).expand([2]),
    ):
        values = fn.sample((5,)) if not fn.batch_shape else fn.sample()
        found = coordinates(values, support_of(fn))
        assert (found is None) is not isinstance(fn, dist.LKJCholesky)
    assert coordinates(torch.ones(2, 3, 3).tril(), constraints.lower_cholesky) is None
    assert coordinates(torch.ones(2), None) is None
    assert coordinates(torch.tensor([0.0, 1.0]), constraints.positive) is None  # on the edge


def test_an_interval_of_each_datum_is_left_as_it_is():
    low = torch.tensor([0.0, 1.0])
    values = torch.tensor([0.5, 1.5, 1.7])
    place, slope = coordinates(values, dist.Uniform(low, low + 1).support)
    torch.testing.assert_close(place[:, 0], values.double())
    torch.testing.assert_close(slope, torch.zeros(3, dtype=torch.float64))
