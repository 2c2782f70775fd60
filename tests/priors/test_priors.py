"""Priors: what they sample, and what a model sees of them from outside."""

import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.priors import (
    PRIORS,
    FlowPrior,
    InfoGANPrior,
    LaplacePrior,
    MixturePrior,
    StandardNormalPrior,
    UniformPrior,
    prior_sites,
)


def draw(prior, n):
    with pyro.plate("data", n):
        return poutine.trace(prior).get_trace()


@pytest.mark.parametrize(
    ("prior", "sizes"),
    [
        (StandardNormalPrior(4), {"z": 4}),
        (StandardNormalPrior(4, 2), {"z": 4, "c": 2}),
        (StandardNormalPrior(1, 1), {"z": 1, "c": 1}),
        (LaplacePrior(4), {"z": 4}),
        (LaplacePrior(4, 2), {"z": 4, "c": 2}),
        (UniformPrior(4, 2), {"z": 4, "c": 2}),
        (MixturePrior(3), {"c": 3, "z": 6}),
        (MixturePrior(3, 3), {"c": 3, "z": 3}),
        (MixturePrior(1, 1), {"c": 1, "z": 1}),
        (InfoGANPrior(4, 0, 2), {"z": 4, "u": 2}),
    ],
)
@pytest.mark.parametrize("n", [1, 5])
def test_sites_and_code(prior, sizes, n):
    trace = draw(prior, n)
    assert {name: trace.nodes[name]["value"].shape for name in sizes} == {
        name: (n, size) for name, size in sizes.items()
    }
    continuous = [name for name in sizes if trace.nodes[name]["fn"].has_rsample]
    values = {name: trace.nodes[name]["value"] for name in continuous}
    if isinstance(prior, UniformPrior):
        values["c"] = (values["c"] - 0.5) * 12**0.5
    code = torch.cat(list(values.values()), -1)
    assert torch.equal(trace.nodes["_RETURN"]["value"], code)
    distributions, code_dim = prior_sites(prior)
    assert list(distributions) == list(sizes)
    assert code_dim == code.shape[-1]


def test_means_of_the_mixture_are_orthogonal_and_as_far_as_asked():
    prior = MixturePrior(4, 12, radius=2.5)
    gram = prior.means @ prior.means.T
    torch.testing.assert_close(gram, 2.5**2 * torch.eye(4))
    assert ((prior.means != 0).sum(1) == 3).all()


def test_mixture_has_the_stated_distribution():
    prior = MixturePrior(2, 4, radius=3.0)
    trace = draw(prior, 20_000)
    c, z = trace.nodes["c"]["value"], trace.nodes["z"]["value"]
    torch.testing.assert_close(c.mean(0), torch.full((2,), 0.5), atol=0.02, rtol=0)
    torch.testing.assert_close((z - c @ prior.means).mean(0), torch.zeros(4), atol=0.04, rtol=0)
    torch.testing.assert_close((z - c @ prior.means).std(0), torch.ones(4), atol=0.03, rtol=0)


def test_codes_stand_beside_noise_with_the_stated_distribution():
    trace = draw(InfoGANPrior(3, 4, 2), 20_000)
    z, c, u = (trace.nodes[name]["value"] for name in "zcu")
    assert torch.equal(trace.nodes["_RETURN"]["value"], torch.cat([z, c, u], -1))
    torch.testing.assert_close(c.mean(0), torch.full((4,), 0.25), atol=0.02, rtol=0)
    torch.testing.assert_close(u.mean(0), torch.zeros(2), atol=0.02, rtol=0)
    torch.testing.assert_close(u.var(0), torch.full((2,), 1 / 3), atol=0.01, rtol=0)
    assert float(u.abs().max()) <= 1.0
    assert list(prior_sites(InfoGANPrior(3, 4, 2, sites=["a", "b", "d"]))[0]) == ["a", "b", "d"]
    assert draw(InfoGANPrior(3, 4, 0), 2).nodes["_RETURN"]["value"].shape == (2, 7)
    cat = InfoGANPrior(3, 4, 2)
    assert prior_sites(cat)[1] == 9
    c = torch.eye(4)[:, None]  # as enumeration lays it out
    with pyro.plate("data", 5), poutine.condition(data={"c": c}):
        assert cat().shape == (4, 5, 9)


@pytest.mark.parametrize("name", PRIORS)
def test_named_priors_save_and_load(name):
    size = {"vamp": (1, 2, 2), "conditional-normal": (4,)}.get(name, 3)
    build = PRIORS[name]
    prior = build(radius=2.0) if name == "mixture" else build(size)
    other = build(radius=1.0) if name == "mixture" else build(size)
    other.load_state_dict(prior.state_dict())
    torch.testing.assert_close(dict(other.state_dict()), dict(prior.state_dict()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StandardNormalPrior(0), "latent_dim=0; allowed"),
        (lambda: StandardNormalPrior(2, 0), "code_dim=0; allowed"),
        (lambda: StandardNormalPrior(2, 1, sites=["a", "a"]), "2 different names of sites"),
        (lambda: MixturePrior(2, category="z"), "category='z' and site='z': give two names"),
        (lambda: MixturePrior(2, learn=["mean"]), "means, weights, scales"),
        (lambda: UniformPrior(0), "latent_dim=0; allowed"),
        (lambda: UniformPrior(2, 0), "code_dim=0; allowed"),
        (lambda: MixturePrior(0), "num_categories=0; allowed"),
        (lambda: MixturePrior(4, 10), "not a multiple of num_categories=4.*e.g. latent_dim=8"),
        (lambda: MixturePrior(4, 2), "e.g. latent_dim=4"),
        (lambda: MixturePrior(4, 0), "latent_dim=0; allowed"),
        (lambda: MixturePrior(4, -4), "latent_dim=-4; allowed"),
        (lambda: MixturePrior(2, radius=-1.0), "radius=-1.0; .* from 0"),
        (lambda: MixturePrior(2, radius=math.nan), "radius=nan; .* from 0"),
        (lambda: InfoGANPrior(0), "noise_dim=0; allowed"),
        (lambda: InfoGANPrior(2, 1), "num_categories=1: one has no information"),
        (lambda: InfoGANPrior(2, -1), "num_categories=-1"),
        (lambda: InfoGANPrior(2, 3, -1), "uniform_dim=-1; allowed"),
        (lambda: InfoGANPrior(2, 0, 0), "num_categories=0 and uniform_dim=0: a code is needed"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_flows_of_zuko_without_zuko(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(OptionError, match=r"needs zuko: pip install 'pyro-mivae\[flows\]'"):
        FlowPrior(2, "spline")
    with pytest.raises(OptionError, match="latent_dim=1: a coupling"):
        FlowPrior(1)


def test_zuko_leaves_checks_of_distributions_on(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "zuko"]:
        monkeypatch.delitem(sys.modules, name)  # it turns them off as it is imported
    FlowPrior(2, "autoregressive")
    with pytest.raises(ValueError, match="Expected parameter scale"):
        torch.distributions.Normal(0.0, -1.0)


# Seen from outside


def test_looking_at_a_prior_leaves_no_trace():
    prior = StandardNormalPrior(2)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    with poutine.trace() as outer:
        prior_sites(prior)
    assert torch.equal(torch.rand(1), expected)
    assert not outer.trace.nodes.keys() - {"_INPUT", "_RETURN"}
    assert not pyro.get_param_store().keys()


class Nested(PyroModule):
    """A prior made of another one, which must not have run outside of its supermodule."""

    def __init__(self):
        super().__init__()
        self.inner = StandardNormalPrior(2)

    def forward(self):
        return self.inner()


def test_a_prior_that_was_looked_at_can_become_part_of_a_model():
    prior = Nested()
    prior_sites(prior)
    model = PyroModule()
    model.prior = prior
    assert draw(model.prior, 3).nodes["z"]["value"].shape == (3, 2)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (lambda: torch.zeros(1, 2), r"samples \[\] and returns \(1, 2\)"),
        (
            lambda: pyro.sample("z", dist.Normal(0.0, 1.0)),
            r"\['z'\] and returns \(1,\) in a plate",
        ),
        (lambda: pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1)) and None, "None"),
        (lambda: pyro.sample("z", dist.Normal(torch.zeros(2), 1.0)), r"1 vs 2; .*\.to_event\(1\)"),
        (lambda: draw(StandardNormalPrior(2), 1), "named 'data'; leave pyro.plate out of it"),
    ],
)
def test_what_is_no_prior(prior, message):
    if message == "None":
        prior = lambda: [pyro.sample("z", dist.Normal(0.0, 1.0)), None][1]  # noqa: E731
    with pytest.raises(SiteError, match=message):
        prior_sites(prior)


# On the unit interval


def test_the_uniform_is_uniform_and_its_code_standardised():
    trace = draw(UniformPrior(2, 3), 50_000)
    c, code = trace.nodes["c"]["value"], trace.nodes["_RETURN"]["value"]
    quantiles = c.quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]), dim=0)
    expected = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])[:, None].expand(5, 3)
    torch.testing.assert_close(quantiles, expected, atol=0.01, rtol=0)
    assert ((c > 0) & (c < 1)).all()
    density = trace.nodes["c"]["fn"].log_prob(c)
    torch.testing.assert_close(density, torch.zeros(50_000), atol=1e-5, rtol=0)
    torch.testing.assert_close(code.mean(0), torch.zeros(5), atol=0.03, rtol=0)
    torch.testing.assert_close(code.std(0), torch.ones(5), atol=0.03, rtol=0)


def test_laplace_has_unit_variance_and_the_divergence_of_its_definition():
    """The rate of a Normal posterior equals the integral of its definition."""
    prior, scale = LaplacePrior(1), 0.3

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(prior(), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5, scale).expand([1]).to_event(1))

    fn = draw(prior, 1).nodes["z"]["fn"]
    assert torch.allclose(fn.variance, torch.ones(1))
    z = torch.linspace(-3, 4, 20_001, dtype=torch.float64)[:, None]
    q, p = dist.Normal(0.5, scale), dist.Laplace(0.0, 0.5**0.5)
    exact = float(
        torch.trapezoid((q.log_prob(z).exp() * (q.log_prob(z) - p.log_prob(z)))[:, 0], z[:, 0])
    )
    report = mi.information(model, guide, torch.zeros(10, 1))
    assert report["kl_z"] == pytest.approx(exact, abs=1e-6)
