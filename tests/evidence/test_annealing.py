"""Annealed importance sampling on models whose evidence is known."""

import math
import warnings
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Normal

import pyro_mivae as mi
from pyro_mivae.diagnostics import report as measuring
from pyro_mivae.diagnostics.elbo_parts import annealed_evidence, costs
from pyro_mivae.diagnostics.mi_bounds import information_in_code
from pyro_mivae.errors import DataError, OptionError, PyroMivaeWarning, SiteError
from pyro_mivae.evidence.annealing import annealed_log_likelihood, bidirectional_monte_carlo
from pyro_mivae.evidence.importance import importance_weighted
from pyro_mivae.posterior.layout import ProbedPair
from pyro_mivae.posterior.probe import probe

from .pairs import EVIDENCE, SIGMA, Linear, Mixture, is_zero_on_average, weights_of


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)


def test_a_bad_guide_is_annealed_where_importance_sampling_is_loose():
    pair = Linear(shift=1.0, scale=0.3, latent=5)
    x = pair.data(30)
    truth = pair.log_px(x)
    found = annealed_log_likelihood(
        pair.model, pair.guide, x, num_temperatures=160, num_chains=4, leapfrog_steps=3
    )
    with torch.no_grad():  # with as many evaluations of the model
        known = ProbedPair(pair.model, pair.guide, probe(pair.model, pair.guide, x[:4]))
        sampled, _ = importance_weighted(
            replace(known, batch_size=2**14), x, num_samples=4 * (160 + 50) * 3
        )
    error, loose = (found.log_px - truth).mean(), (sampled - truth).mean()
    assert loose < -2
    assert abs(error) < 0.3
    assert 0.7 < found.acceptance < 0.9
    assert len(found.acceptance_by_part) == 10
    assert all(0.4 < part < 0.95 for part in found.acceptance_by_part)
    assert found.mean == float(found.log_px.mean())
    assert found.se == pytest.approx(float(found.log_px.std()) / math.sqrt(30))


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("start", ["guide", "prior"])
def test_categories_are_summed_out(start, joined, short_pilot):
    pair = Mixture(joined)
    x = torch.linspace(-3, 3, 40)
    found = annealed_log_likelihood(
        pair.model,
        pair.guide,
        x,
        start=start,
        num_temperatures=60,
        num_chains=8,
        leapfrog_steps=2,
    )
    assert abs((found.log_px - pair.log_px(x)).mean()) < 0.05


@pytest.mark.parametrize("num_temperatures", [1, 4])
@pytest.mark.parametrize("start", ["guide", "prior"])
def test_the_evidence_is_unbiased(start, num_temperatures, short_pilot):
    pair = Mixture()
    x = torch.full((3000,), 0.8)
    weights = weights_of(
        pair.model,
        pair.guide,
        x,
        pair.log_px(x),
        start=start,
        num_temperatures=num_temperatures,
    )
    is_zero_on_average(weights - 1)
    assert weights.std() > 0.1  # far from exact, each of them
    assert (weights.log()).mean() < -0.01


def test_backwards_from_the_posterior_the_inverse_is_unbiased(short_pilot):
    pair = Linear(shift=0.3, scale=0.4, latent=1)
    bounds = bidirectional_monte_carlo(
        pair.model,
        pair.guide,
        torch.zeros(4, 2),
        items=3000,
        num_temperatures=4,
        num_chains=1,
        leapfrog_steps=2,
        batch_size=4000,
    )
    upper = bounds.log_px_upper - bounds.log_likelihood  # what is known of the data cancels
    lower = bounds.log_px_lower - bounds.log_likelihood
    truth = -0.5 * (pair.cov.logdet() - 2 * math.log(SIGMA**2))
    assert lower.mean() < truth < upper.mean()
    assert bounds.gap == pytest.approx(float((upper - lower).mean()))
    assert bounds.information == pytest.approx((-float(upper.mean()), -float(lower.mean())))
    assert bounds.gap > 0.1


@pytest.mark.parametrize("name", EVIDENCE)
def test_constrained_supports(name, short_pilot):
    prior, likelihood, kinds, log_px = EVIDENCE[name]
    x = kinds.repeat(1000, *[1] * (kinds.dim() - 1))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", likelihood(pyro.sample("z", prior())), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior())

    weights = weights_of(model, guide, x, log_px(x), num_temperatures=5)
    is_zero_on_average(weights - 1)
    assert weights.std() < 1.0


def test_only_categories_are_exact():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.tensor([0.3, 0.7])))
            pyro.sample("x", dist.Normal(c * 2.0, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(torch.ones(2)))

    x = torch.randn(10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = annealed_log_likelihood(model, guide, x)
    density = Normal(torch.tensor([0.0, 2.0]), 1.0).log_prob(x[:, None])
    truth = (density + torch.tensor([0.3, 0.7]).log()).logsumexp(1)
    assert torch.allclose(found.log_px, truth, rtol=1e-12)
    assert math.isnan(found.acceptance)


def test_sites_that_depend_on_one_another(short_pilot):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            w = pyro.sample("w", dist.LogNormal(z, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(w.log().squeeze(-1), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.LogNormal(0.3 * x[:, None], 1.0).to_event(1))
            pyro.sample(
                "z", dist.Normal(torch.cat([w.log(), x[:, None]], -1) @ link, 1.0).to_event(1)
            )

    link = torch.tensor([[0.5], [0.1]])
    x = torch.linspace(-2, 2, 3000)
    truth = Normal(0.0, math.sqrt(1 + 0.25 + 1)).log_prob(x)
    weights = weights_of(model, guide, x, truth, num_temperatures=8)
    is_zero_on_average(weights - 1)
    assert weights.std() < 1.5


def test_bidirectional_bounds_close_around_the_information(short_pilot):
    pair = Linear(shift=0.5, scale=0.3, latent=2)
    truth = 0.5 * (pair.cov.logdet() - 3 * math.log(SIGMA**2))
    bounds = bidirectional_monte_carlo(
        pair.model, pair.guide, torch.zeros(4, 3), items=200, num_temperatures=60, leapfrog_steps=2
    )
    low, high = bounds.information
    error = 4 * (bounds.log_likelihood - bounds.log_px_upper).std() / math.sqrt(200)
    assert low - error < truth < high + error
    assert 0 < bounds.gap < 0.2
    assert high - low == pytest.approx(bounds.gap)


def test_a_deterministic_guide_is_annealed_from_the_prior(short_pilot, monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (costs, annealed_evidence))
    pair = Linear(shift=0.0, scale=1.0, latent=2)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x[:, :2], event_dim=1))

    x = pair.data(20)
    with pytest.raises(SiteError, match=r"\['z'\].*start='prior'"):
        annealed_log_likelihood(pair.model, guide, x)
    options = {"start": "prior", "num_temperatures": 50, "leapfrog_steps": 2}
    found = annealed_log_likelihood(pair.model, guide, x, **options)
    assert abs((found.log_px - pair.log_px(x)).mean()) < 0.3
    bounds = bidirectional_monte_carlo(pair.model, guide, x, items=50, **options)
    assert 0 < bounds.gap < 0.6
    options = {"ais_items": 20, "ais_temperatures": 20, "generative_items": 0, "iwae_items": 1}
    report = mi.information(pair.model, guide, x, **options)
    assert math.isnan(report["log_px"])
    assert "from the prior" in report.protocol["ais"]
    assert 0 < report["log_px_ais_gap"] < 2
    assert report.protocol["ais_gap_items"] == 20
    assert abs(report["log_px_ais"] - pair.log_px(x).mean()) < 1


def test_bad_acceptance_is_warned_of():
    pair = Linear(shift=1.0, scale=0.5)
    x = pair.data(5)
    with pytest.warns(PyroMivaeWarning, match="of the proposals were accepted"):
        found = annealed_log_likelihood(
            pair.model,
            pair.guide,
            x,
            num_temperatures=10,
            target_acceptance=0.99,
            leapfrog_steps=2,
        )
    assert found.acceptance > 0.9


def test_the_report_anneals_on_request(monkeypatch):
    families = (costs, information_in_code, annealed_evidence)
    monkeypatch.setattr(measuring, "FAMILIES", families)
    pair = Linear(shift=1.0, scale=0.3, latent=5)
    x = pair.data(60)
    options = {"ais_temperatures": 25, "generative_items": 0, "iwae_items": 20}
    report = mi.information(pair.model, pair.guide, x, ais_items=20, **options)
    protocol = report.protocol
    assert protocol["ais_items"] == 20
    assert protocol["ais_temperatures"] == 25
    assert "from the guide" in protocol["ais"]
    assert 0.7 < protocol["ais_acceptance"] < 0.9
    assert len(protocol["ais_acceptance_by_tenth"]) == 10
    assert report["log_px"] + 1 < report["log_px_ais"]
    assert 0.1 < report["log_px_ais_gap"] < 2
    assert report["log_px_ais_gap_se"] > 0
    assert protocol["ais_gap_items"] == 20
    truth = pair.log_px(x).mean()
    assert abs(report["log_px_ais"] - truth) < 4 * report["log_px_ais_se"]
    rest = mi.information(pair.model, pair.guide, x, **options)
    assert {n: v for n, v in report.items() if "ais" not in n} == dict(rest)
    with pytest.raises(OptionError, match="ais_items=-1"):
        mi.information(pair.model, pair.guide, x, ais_items=-1)


def test_nothing_is_left_behind_and_progress_is_told(short_pilot):
    vae = mi.CatVAE(data_shape=(1, 4, 4), num_categories=2, latent_dim=4)
    x = torch.rand(12, 1, 4, 4)
    state, seen = torch.get_rng_state(), []

    def callback(done, total):
        seen.append((done, total))

    options = {"num_temperatures": 5, "batch_size": 24, "leapfrog_steps": 1, "callback": callback}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PyroMivaeWarning)
        first = annealed_log_likelihood(vae.model, vae.guide, x, **options)
        again = annealed_log_likelihood(vae.model, vae.guide, x, **options)
    assert torch.equal(first.log_px, again.log_px)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert all(p.grad is None for p in vae.parameters())
    assert seen[:10] == [(i, 10) for i in range(1, 11)]  # 2 lots of 6 data, 5 temperatures each


def test_bad_input_is_named():
    pair = Linear(0.0, 1.0)
    x = pair.data(4)
    for name, value in {
        "num_temperatures": 0,
        "num_chains": 0,
        "leapfrog_steps": 0,
        "target_acceptance": 1.0,
        "start": "data",
    }.items():
        with pytest.raises(OptionError, match=f"{name}="):
            annealed_log_likelihood(pair.model, pair.guide, x, **{name: value})
    for bound in (annealed_log_likelihood, bidirectional_monte_carlo):
        with pytest.raises(OptionError, match="options given are unknown; .* given=u, ais"):
            bound(pair.model, pair.guide, x, given=x)
    with pytest.raises(OptionError, match="items=0"):
        bidirectional_monte_carlo(pair.model, pair.guide, x, items=0)
    with pytest.raises(DataError, match=r"x has shape \(0, 4\)"):
        annealed_log_likelihood(pair.model, pair.guide, x[:0])

    def poisson(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Poisson(2.0))
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([4]).to_event(1), obs=x)

    def counts(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Poisson(1.0))

    with pytest.raises(SiteError, match="'z' .*Poisson.* not finite"):
        annealed_log_likelihood(poisson, counts, x)

    def positive(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Exponential(torch.ones(3)).to_event(1))
            pyro.sample("x", dist.Normal(z @ pair.weight.T, 1.0).to_event(1), obs=x)

    with pytest.raises(SiteError, match="outside the support.*start='prior'"):
        annealed_log_likelihood(positive, pair.guide, x)

    def exact(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Delta(z @ pair.weight.T, event_dim=1), obs=x)

    report = mi.information(exact, pair.guide, x, ais_items=2)
    assert math.isnan(report["log_px_ais"])
    assert math.isnan(report["log_px_ais_gap"])
    assert "no density" in report.protocol["ais"]
    with pytest.raises(SiteError, match="no density"):
        annealed_log_likelihood(exact, pair.guide, x)
    with pytest.raises(SiteError, match="need data that the model drew"):
        bidirectional_monte_carlo(exact, pair.guide, x)
