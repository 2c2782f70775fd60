"""The report on sites that are enumerated, or depend on drawn ones."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.distributions import Normal, kl_divergence

from pyro_mivae.diagnostics import report as measuring
from pyro_mivae.diagnostics.mi_bounds import information_in_code

from .pairs import (
    SIGMA,
    between,
    information,
)

pytestmark = pytest.mark.usefixtures("double")


# Enumerated sites -----------------------------------------------------------------------------


class Discrete:
    """Two categories, one given the other, and six kinds of data: every sum is finite."""

    kinds = 6

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def table(*shape):
            return (1.5 * torch.randn(*shape, generator=generator)).softmax(-1)

        self.prior_a, self.prior_b = table(3), table(3, 2)
        self.likelihood = table(3, 2, self.kinds)
        self.guide_a, self.guide_b = table(self.kinds, 3), table(self.kinds, 3, 2)

    def model(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(self.prior_a))
            b = pyro.sample("b", dist.Categorical(self.prior_b[a]))
            pyro.sample("x", dist.Categorical(self.likelihood[a, b]), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(self.guide_a[x]))
            pyro.sample("b", dist.Categorical(self.guide_b[x, a]))


def test_a_discrete_model_is_summed_exactly():
    pair = Discrete()
    x = torch.arange(pair.kinds).repeat(4)
    n = len(x)
    sums = dict.fromkeys(("distortion", "kl_a", "kl_b", "log_px"), 0.0)
    joint = torch.zeros(n, 3, 2)
    for i, a, b in itertools.product(range(n), range(3), range(2)):
        k = x[i]
        q_a, q_b = pair.guide_a[k, a], pair.guide_b[k, a, b]
        joint[i, a, b] = q_a * q_b
        sums["distortion"] -= q_a * q_b * pair.likelihood[a, b, k].log() / n
        sums["kl_a"] += q_a * q_b * (q_a / pair.prior_a[a]).log() / n
        sums["kl_b"] += q_a * q_b * (q_b / pair.prior_b[a, b]).log() / n
    evidence = torch.einsum("a,ab,abk->k", pair.prior_a, pair.prior_b, pair.likelihood)
    values = information(
        pair.model, pair.guide, x, iwae_samples=50_000, batch_size=2**15
    ).to_dict()
    for name in ("distortion", "kl_a", "kl_b"):
        assert math.isclose(values[name], sums[name], rel_tol=1e-9), name
    assert math.isclose(values["rate"], sums["kl_a"] + sums["kl_b"], rel_tol=1e-9)
    assert abs(values["log_px"] - evidence.log().mean()) < 0.02

    def information_of(table):
        flat = table.reshape(n, -1)
        return float((flat * (flat / flat.mean(0)).log()).sum(1).mean())

    for name, table in (("", joint), ("_a", joint.sum(2)), ("_b", joint.sum(1))):
        truth = information_of(table)
        assert math.isclose(values[f"mi{name}_lower"], truth, rel_tol=1e-9)
        assert truth <= values[f"mi{name}_upper"] <= values["rate"]
    assert math.isclose(
        values["marginal_kl_upper"], values["rate"] - information_of(joint), rel_tol=1e-9
    )
    assert math.isnan(values["total_correlation"])
    assert values["active_units"] == 0


def test_the_plugin_is_low_and_leaving_out_is_high_for_a_population(monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (information_in_code,))
    pair = Discrete(seed=1)
    table = pair.guide_a
    truth = float((table * (table / table.mean(0)).log()).sum(1).mean())
    low, high = [], []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(pair.kinds, (12,), generator=generator)
        values = information(pair.model, pair.guide, x, num_samples=1)
        low.append(values["mi_a_lower"])
        high.append(values["mi_a_upper"])
    assert sum(low) / 20 < truth < sum(high) / 20


class Mixture(nn.Module):
    """A category and a normal given it, in both; x is two-dimensional."""

    def __init__(self, categories=3):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.centres = 2 * torch.randn(categories, 2, generator=generator)
        self.logits = torch.randn(2, categories, generator=generator)
        self.shift = torch.randn(categories, 2, generator=generator)
        self.scale = torch.linspace(0.3, 0.8, categories)

    def model(self, x):
        with pyro.plate("items", len(x)):
            c = pyro.sample("kind", dist.OneHotCategorical(torch.ones(len(self.centres))))
            z = pyro.sample("place", dist.Normal(c @ self.centres, 1.0).to_event(1))
            pyro.sample("seen", dist.Normal(z, SIGMA).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("items", len(x)):
            c = pyro.sample("kind", dist.OneHotCategorical(logits=x @ self.logits))
            loc = 0.6 * x + c @ self.shift
            fn = dist.Normal(loc, (c @ self.scale).unsqueeze(-1)).to_event(1)
            pyro.sample("place", fn)


def grid_information(pair, x, joint):
    """I(x; place), or I(x; kind, place), by summing over a fine grid of places."""
    axis = torch.linspace(-8, 8, 81)
    cell = (axis[1] - axis[0]) ** 2
    grid = torch.cartesian_prod(axis, axis)
    weights = (x @ pair.logits).softmax(-1)  # (n, categories)
    loc = 0.6 * x[:, None] + pair.shift
    each = [
        weights[:, k, None] * Normal(loc[:, k, None], pair.scale[k]).log_prob(grid).sum(-1).exp()
        for k in range(len(pair.scale))
    ]
    density = torch.stack(each, 1) if joint else sum(each)[:, None]  # (n, categories, grid)
    return float(
        (density.xlogy(density) - density.xlogy(density.mean(0))).sum((1, 2)).mean() * cell
    )


def test_a_mixture_is_summed_over_its_categories():
    pair = Mixture()
    x = pair.centres[torch.arange(120) % 3] + 0.5 * torch.randn(120, 2)
    values = information(pair.model, pair.guide, x, num_samples=20).to_dict()
    prior = dist.Normal(pair.centres, 1.0).to_event(1)
    q = (x @ pair.logits).softmax(-1)
    posterior = dist.Normal(
        0.6 * x[:, None] + pair.shift, pair.scale[:, None].expand(3, 2)
    ).to_event(1)
    kl_place = (q * kl_divergence(posterior, prior)).sum(-1).mean()
    kl_kind = (q * (q * 3).log()).sum(-1).mean()
    assert math.isclose(values["kl_place"], kl_place, rel_tol=1e-9)
    assert math.isclose(values["kl_kind"], kl_kind, rel_tol=1e-9)
    mean = (q[..., None] * posterior.mean).sum(1)
    spread = (q[..., None] * (posterior.mean.square() + posterior.variance)).sum(1)
    error = (x - mean).square() + spread - mean.square()
    distortion = (0.5 * error / SIGMA**2).sum(-1).mean() + math.log(2 * math.pi * SIGMA**2)
    assert abs(values["distortion"] - distortion) < 4 * values["distortion_se"] / math.sqrt(20)
    assert values["active_units"] == int((mean.var(0) > 0.01).sum())

    # For these data as the population: the interval holds the sum over the grid.
    for name, joint in (("mi", True), ("mi_place", False)):
        between(values, name, grid_information(pair, x, joint))
        assert values[f"{name}_upper"] - values[f"{name}_lower"] < 0.1
    assert values["mi_kind_upper"] <= values["kl_kind"]
    assert values["mi_place_upper"] <= values["mi_upper"] + 1e-12


def test_the_divergence_from_a_prior_given_the_category_bounds_nothing():
    means = torch.tensor([[-5.0], [5.0]])

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.OneHotCategorical(torch.ones(2)))
            z = pyro.sample("z", dist.Normal(c @ means, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.OneHotCategorical(logits=torch.cat([-30 * x, 30 * x], -1)))
            pyro.sample("z", dist.Normal(c @ means, 1.0).to_event(1))

    x = 5 * (torch.arange(300) % 2)[:, None] - 2.5
    report = information(model, guide, x)
    assert abs(report["kl_z"]) < 1e-9
    between(report, "mi_z", math.log(2))
    assert report["mi_z_lower"] > 0.6


def test_annotating_a_site_or_not_changes_nothing():
    pair = Mixture()

    def annotated(x):
        with poutine.infer_config(
            config_fn=lambda site: {"enumerate": "parallel"} if site["name"] == "kind" else {}
        ):
            pair.guide(x)

    x = torch.randn(30, 2)
    assert information(pair.model, pair.guide, x) == information(pair.model, annotated, x)


# Sites that depend on drawn ones --------------------------------------------------------------


class Chain:
    """z, then w given z, all linear and Gaussian; ``cat`` makes a guide that cannot broadcast."""

    def __init__(self, cat):
        self.cat = cat
        self.link = torch.tensor([[0.8], [0.3], [-0.7]])  # of x (2) and z (1) to w

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            w = pyro.sample("w", dist.Normal(0.5 * z, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + w, 1.0).expand([len(x), 2]).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x[:, :1], 0.6).to_event(1))
            if self.cat:
                loc = torch.cat([x, z], -1) @ self.link
            else:
                loc = x @ self.link[:2] + z * self.link[2]
            pyro.sample("w", dist.Normal(loc, 0.5).to_event(1))

    def truth(self):
        """For x ~ N(0, I): covariance of (z, w), given x and marginally."""
        root = torch.tensor([[0.6, 0.0], [0.6 * -0.7, 0.5]])
        gain = torch.tensor([[1.0, 0.0], [0.8 - 0.7, 0.3]])
        inner = root @ root.T
        return inner, inner + gain @ gain.T


@pytest.mark.parametrize("cat", [False, True])
def test_a_site_may_depend_on_a_drawn_one(cat):
    pair = Chain(cat)
    inner, outer = pair.truth()
    report = information(pair.model, pair.guide, torch.randn(250, 2))
    between(report, "mi", float(0.5 * (outer.logdet() - inner.logdet())))
    assert report["mi_upper"] - report["mi_lower"] < 0.3
    between(report, "mi_z", float(0.5 * (outer[0, 0] / inner[0, 0]).log()))
    assert math.isnan(report["mi_w_lower"])  # an integral over z
    assert math.isnan(report["total_correlation"])
    assert report.protocol["num_samples"] >= 2
    # Variance of E[w | x] is 0.1, that of w given z and x is far more.
    assert report["active_units"] == 2


def test_noise_of_a_drawn_site_is_not_an_active_unit():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("w", dist.Normal(z, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0 * x, 1.0).to_event(1))
            pyro.sample("w", dist.Normal(0.3 * z, 0.1).to_event(1))

    report = information(model, guide, torch.randn(4000, 1), subset=50, iwae_samples=1)
    assert report["active_units"] == 0


def test_a_category_after_a_drawn_site():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("c", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 0.5).to_event(1))
            logits = torch.cat([3 * z, 0 * z], -1)
            pyro.sample("c", dist.Categorical(logits=logits))

    report = information(model, guide, torch.randn(300, 1))
    z_truth = 0.5 * math.log(1 + 1 / 0.25)  # c adds nothing to z
    between(report, "mi", z_truth)
    between(report, "mi_z", z_truth)
    assert math.isnan(report["mi_c_lower"])
    assert 0 < report["mi_c_upper"] < math.log(2)


def test_a_site_after_a_category_after_a_drawn_site():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            c = pyro.sample("c", dist.Categorical(torch.ones(2)))
            w = pyro.sample("w", dist.Normal(c.to(x), 1.0))
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 0.5))
            c = pyro.sample("c", dist.Bernoulli(logits=3 * z))
            pyro.sample("w", dist.Normal(c, 0.1))

    report = information(model, guide, torch.randn(100))
    assert math.isnan(report["mi_w_lower"])  # an integral over z
    assert math.isnan(report["mi_w_upper"])
    between(report, "mi", 0.5 * math.log(1 + 1 / 0.25))  # all goes through z


def test_order_of_sites_that_forbids_the_closed_form_is_sampled():
    def model(x):
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(w, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 0.5))
            pyro.sample("w", dist.Normal(0.5 * z, 0.5))

    x = torch.randn(2000)
    report = information(model, guide, x, num_samples=5)
    entropies = 2 * 0.5 * math.log(2 * math.pi * math.e * 0.25)
    spread_w = (0.25 * (x.square() + 0.25) + 0.25).mean()  # E w^2
    spread_zw = (0.25 * (x.square() + 0.25) + 0.25).mean()  # E (z - w)^2
    rate = -entropies + math.log(2 * math.pi) + 0.5 * (spread_w + spread_zw)
    assert abs(report["rate"] - float(rate)) < 4 * report["rate_se"]


def test_sites_may_be_scalars():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5))
            z = pyro.sample("z", dist.Normal(c, 1.0))
            y = pyro.sample("y", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + y, 1.0), obs=x)

    def guide(x, point):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(x.sigmoid()))
            pyro.sample("z", dist.Normal(x + c, 0.5))
            pyro.sample("y", dist.Delta(x) if point else dist.Normal(x, 0.5))

    x = torch.randn(300)
    report = information(model, lambda x: guide(x, False), x)
    between(report, "mi_y", 0.5 * math.log(1 + 1 / 0.25))
    # z = x + c + noise: c blurs it, and makes it depend on x a little more.
    assert report["mi_z_upper"] > 0.5
    assert report["total_correlation_lower"] > 0.1  # both follow x
    assert report["active_units"] == 2
    report = information(model, lambda x: guide(x, True), x)
    assert math.isclose(report["mi_y_lower"], math.log(300), rel_tol=1e-9)
    assert math.isnan(report["mi_y_upper"])


def test_a_category_without_probability_costs_nothing():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(c.to(x), 1.0), obs=x)

    def guide(x):
        logits = torch.tensor([0.0, -math.inf]).expand(len(x), 2)
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(logits=logits))

    x = torch.randn(20)
    report = information(model, guide, x)
    assert report["kl_c"] == pytest.approx(math.log(2))
    assert report["distortion"] == pytest.approx(-float(Normal(0.0, 1.0).log_prob(x).mean()))
    assert report["mi_c_lower"] == report["mi_c_upper"] == 0
