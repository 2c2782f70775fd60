"""Fitted marginals in reports: categories, dependent sites, supports that are not R^d."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Normal

from pyro_mivae.diagnostics.report import information
from pyro_mivae.posterior.densities import draw_codes
from pyro_mivae.posterior.layout import ProbedPair
from pyro_mivae.posterior.probe import probe

pytestmark = pytest.mark.usefixtures("double", "encoder_side")


def test_a_saturated_report_offers_bounds_without_that_limit():
    scale = math.exp(-7.0 / 5)  # 7 nats in 5 dimensions, whose aggregate is N(0, I)
    loc = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    loc = math.sqrt(1 - scale**2) * loc

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.full((5,), 1.5), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, scale).to_event(1))

    report = information(model, guide, loc, iwae_samples=1)
    assert report["saturated"] == 1
    assert report["mi_lower"] < 5.7
    assert report["rate"] > report["mi_upper"] > 8.5
    assert abs(report["fitted_mi_upper"] - 7) < 3 * report["fitted_mi_upper_se"] + 0.2
    assert 6 < report["fitted_mi_lower"] < 7 + 3 * report["fitted_mi_lower_se"]
    assert report["fitted_reach"] > 7


def test_an_upper_bound_is_never_above_the_rate():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(30), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 30), 1.0).to_event(1))

    report = information(model, guide, torch.randn(60), iwae_samples=1)
    assert report["rate"] == report["fitted_mi_upper"] == report["fitted_mi_lower"] == 0


class Kinds:
    """A category and a code about its centre, of which x is a blurred copy."""

    centres = 3.0 * torch.eye(4, dtype=torch.float64)

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(4)))
            z = pyro.sample("z", dist.Normal(self.centres[c], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=x)

    def guide(self, x):
        logits = -0.5 * (x[:, None] - self.centres).square().sum(-1)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(logits=logits))
            pyro.sample("z", dist.Normal(0.9 * x + 0.1 * self.centres[c], 0.28).to_event(1))


def test_a_code_with_categories():
    """The bounds hold the information that five times the data find."""
    pair = Kinds()
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(4, (1500,), generator=generator)
    x = pair.centres[kind] + 1.04 * torch.randn(1500, 4, generator=generator)
    truth = information(pair.model, pair.guide, x, iwae_samples=1)
    assert truth["saturated"] == 0
    report = information(pair.model, pair.guide, x[:300], iwae_samples=1)
    for sign, name in ((1, "lower"), (-1, "upper")):
        bound, error = report[f"fitted_mi_{name}"], report[f"fitted_mi_{name}_se"]
        assert sign * bound < sign * truth[f"mi_{name}"] + 3 * error
        assert abs(bound - truth[f"mi_{name}"]) < 3 * error + 0.2


def test_the_prior_of_a_code_is_that_of_its_own_category():
    pair = Kinds()
    x = torch.randn(30, 4)
    layout = probe(pair.model, pair.guide, x[:4])
    draws = draw_codes(ProbedPair(pair.model, pair.guide, layout, batch_size=32), x, 2)
    kind, place = draws.codes.values["c"], draws.codes.values["z"]
    expected = Normal(pair.centres[kind], 1.0).log_prob(place).sum(-1) - math.log(4)
    torch.testing.assert_close(draws.log_prior, expected)
    assert len(kind.unique()) > 1


def test_a_site_that_depends_on_a_drawn_one():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            w = pyro.sample("w", dist.Normal(z, 1.0))
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 0.1))
            pyro.sample("w", dist.Normal(0.5 * z, 0.5))

    report = information(model, guide, torch.randn(400), iwae_samples=1)
    truth = 0.5 * math.log(1 + 100)  # all goes through z
    for name in ("fitted_mi_lower", "fitted_mi_upper"):
        assert abs(report[name] - truth) < 3 * report[f"{name}_se"] + 0.1


@pytest.mark.parametrize("n", [1, 2, 19])
def test_too_few_data_to_fit_on(n):
    pair = Kinds()
    report = information(pair.model, pair.guide, torch.randn(n, 4), iwae_samples=1)
    assert math.isnan(report["fitted_mi_upper"])
    assert math.isnan(report["fitted_reach"])


# Supports that are not R^d ---------------------------------------------------------------------


class Simplex:
    """Dirichlet codes of counts, with the exact posterior: the information is the rate."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(torch.ones(3)))
            pyro.sample("x", dist.Multinomial(10, z), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Dirichlet(1.0 + x))

    def data(self, n):
        return dist.Multinomial(10, dist.Dirichlet(torch.ones(3)).sample((n,))).sample()


class Positive:
    """A rate of Poisson counts, with the exact posterior."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(torch.tensor(2.0), 0.1))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(2.0 + x, 1.1))

    def data(self, n):
        return dist.Poisson(dist.Gamma(torch.tensor(2.0), 0.1).sample((n,))).sample()


class Interval:
    """A chance of counts, with the exact posterior; the prior is far from the aggregate."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Beta(torch.tensor(1.0), 1.0))
            pyro.sample("x", dist.Binomial(20, z), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Beta(1.0 + x, 21.0 - x))

    def data(self, n):
        return dist.Binomial(20, dist.Beta(torch.tensor(1.0), 1.0).sample((n,))).sample()


class Circle:
    """Directions of noisy points on it, by a guide that is no posterior."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.ProjectedNormal(torch.zeros(2)))
            pyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.ProjectedNormal(x / 0.3**2))

    def data(self, n):
        return dist.ProjectedNormal(torch.zeros(2)).sample((n,)) + 0.3 * torch.randn(n, 2)


class Counts:
    """Integers without an end: a Poisson guide of a Poisson prior."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Poisson(torch.tensor(4.0)))
            pyro.sample("x", dist.Normal(z, 0.3), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Poisson(0.01 * x.abs() ** 3))

    def data(self, n):
        return dist.Poisson(torch.tensor(4.0)).sample((n,)) + 0.3 * torch.randn(n)


class Categories:
    """Two categories of four in one site, which is drawn."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("z", dist.Categorical(torch.ones(len(x), 2, 4)).to_event(1))
            pyro.sample("x", dist.Normal(torch.eye(4)[c.long()], 0.5).to_event(2), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(logits=6 * x).to_event(1))

    def data(self, n):
        return torch.eye(4)[torch.randint(4, (n, 2))]


@pytest.mark.parametrize(
    ("pair", "charted"),
    [
        (Simplex(), True),
        (Positive(), True),
        (Interval(), True),
        (Circle(), False),
        (Counts(), False),
        (Categories(), False),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, bool) else "",
)
def test_bounds_hold_on_every_support(pair, charted):
    """They agree with those of four times the data, which need no fit and are closed."""
    torch.manual_seed(1)
    options = {"iwae_samples": 1, "iwae_items": 1, "num_samples": 1, "subset": 300}
    truth = information(pair.model, pair.guide, pair.data(1600), **options)
    nats, error = truth["mi_lower"], truth["mi_lower_se"]
    assert truth["mi_upper"] - nats < 0.06
    report = information(pair.model, pair.guide, pair.data(400), **options)
    for side, sign in (("lower", 1), ("upper", -1)):
        margin = 3.5 * math.hypot(report[f"fitted_mi_{side}_se"], error)
        assert sign * report[f"fitted_mi_{side}"] < sign * nats + margin, side
        assert sign * report[f"fitted_mi_{side}"] > sign * nats - margin - 0.15, side
    assert not report["total_correlation_lower"] > report["total_correlation_upper"]
    assert ("fitted_mi" in report.protocol) is not charted
    if not charted:
        assert "z has no coordinates" in report.protocol["fitted_mi"]


def test_two_drawn_categories_are_independent():
    pair = Categories()
    report = information(pair.model, pair.guide, pair.data(600), iwae_samples=1, iwae_items=1)
    assert report["total_correlation_lower"] <= 3 * report["total_correlation_lower_se"]
    assert 0 <= report["total_correlation_upper"] < 0.1
