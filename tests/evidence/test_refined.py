"""Refined posteriors: the best ones where they are known, and guides like any other."""

import math
import re
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, PyroMivaeWarning, SiteError
from pyro_mivae.evidence import RefinedGuide
from pyro_mivae.guides import MeanField
from pyro_mivae.metrics.summary import summarise
from tests.priors.kinds import scattered

from .models import Linear, Mixture

MANY = {"num_steps": 80, "learning_rate": 0.2, "num_draws": 32}
FEW = {"num_steps": 5, "num_draws": 2}
QUICK = {"num_samples": 1, "iwae_samples": 2, "generative_items": 4, "generative_samples": 4}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


def amortized(sites, size, family="mean-field"):
    """An untrained guide, far from the posterior."""
    return mi.AmortizedGuide((size,), sites, nn.Linear(size, 4), family=family)


def normal(size):
    return dist.Normal(torch.zeros(size), 1.0).to_event(1)


@pytest.mark.parametrize("family", ["full-covariance", "mean-field"])
def test_it_reaches_the_best_posterior_of_a_linear_model(family):
    """KL(q || posterior) is log p(x) - ELBO; that of the best mean field is in closed form."""
    pair, x = Linear(), torch.randn(6, 3)
    guide = amortized({"z": normal(2)}, 3, family)
    refined = RefinedGuide(pair.model, guide, **MANY)
    posterior = MultivariateNormal(x @ pair.gain.T, pair.cov)
    (head,) = guide.heads

    def gap(parameters):
        q = head.given({"": parameters["z"]}, {})
        cov = getattr(q, "covariance_matrix", q.variance.diag_embed())
        return kl_divergence(MultivariateNormal(q.mean, cov), posterior)

    best = 0.0
    if family == "mean-field":
        precision = pair.cov.inverse()
        best = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    assert gap(guide.local_parameters(x)).min() > best + 0.3
    found = gap(refined.local_parameters(x)) - best
    assert -1e-9 < found.min()
    assert found.max() < 0.03


def test_a_category_is_refined_with_the_code():
    """The posterior of a mixture is one probability and one Normal for each category."""
    pair, x = Mixture(), torch.linspace(-3, 3, 5)[:, None]

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("kind", dist.OneHotCategorical(pair.probs))
            z = pyro.sample("place", dist.Normal((c @ pair.centres)[..., None], 0.6).to_event(1))
            pyro.sample("seen", dist.Normal(z, 0.7).to_event(1), obs=x)

    def gap(parameters):
        """KL of category and code from the posterior, which is log p(x) - ELBO."""
        log_q = parameters["kind"].log_softmax(-1)
        share = 0.36 / (0.36 + 0.49)  # of x in the posterior mean
        means = pair.centres + share * (x - pair.centres)
        log_p = Normal(pair.centres, 0.85**0.5).log_prob(x) + pair.probs.log()
        fn = MeanField(1)(parameters["place|kind"].unflatten(-1, (3, 2))).base_dist
        of_codes = kl_divergence(fn, Normal(means[..., None], (share * 0.49) ** 0.5)).sum(-1)
        return (log_q.exp() * (log_q - log_p.log_softmax(-1) + of_codes)).sum(-1)

    guide = amortized({"kind": dist.OneHotCategorical(torch.ones(3)), "place": normal(1)}, 1)
    assert gap(guide.local_parameters(x)).mean() > 0.5
    found = gap(RefinedGuide(model, guide, **MANY).local_parameters(x))
    assert 0 < found.min()
    assert found.max() < 0.03


def test_a_run_inside_a_run_leaves_the_enumeration_alone():
    """The category of a datum that is new is summed out like that of a known one."""
    vae, x = mi.CatVAE((4,), num_categories=3, latent_dim=6, warm_start=0), torch.rand(5, 4)
    refined = RefinedGuide(vae.model, vae.guide, **FEW)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    losses = []
    for _ in range(2):  # new, then known
        torch.manual_seed(1)
        losses.append(elbo.loss(vae.model, refined, x))
    assert losses[0] == losses[1]


@pytest.fixture
def vae():
    return mi.VAE((4,), latent_dim=2)


def test_a_step_too_long_is_taken_back(vae):
    x = torch.rand(8, 4)
    refined = RefinedGuide(vae.model, vae.guide, learning_rate=1e3, **FEW)
    vae.eval()
    start = vae.guide.local_parameters(x)["z"]
    assert torch.equal(refined.local_parameters(x)["z"], start)


def test_what_flows_read_of_a_datum_is_refined():
    vae, x = mi.VAE((4,), latent_dim=2, guide="affine-coupling"), torch.rand(20, 4)
    scattered(vae.guide)  # an untrained flow is the identity
    layers = [p.clone() for p in vae.guide.heads[0].family.parameters()]
    refined = RefinedGuide(vae.model, vae.guide, num_steps=20)
    moved = refined.local_parameters(x)["z"] - vae.eval().guide.local_parameters(x)["z"]
    assert moved[:, :4].abs().min() > 0  # location and scale
    assert moved[:, 4:].abs().mean() > 0.01  # context
    assert all(map(torch.equal, layers, vae.guide.heads[0].family.parameters()))


def test_nothing_but_the_guide_changes(vae):
    """Modes, statistics, gradients and random numbers stay as they are."""
    x = torch.rand(8, 4)
    refined = RefinedGuide(vae.model, vae.guide, **FEW)
    kept = {name: value.clone() for name, value in vae.state_dict().items()}
    state = torch.get_rng_state()
    first = refined.local_parameters(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, kept[name]) for name, value in vae.state_dict().items())
    assert all(p.grad is None for p in vae.parameters())
    assert all(module.training for module in vae.modules())
    again = RefinedGuide(vae.model, vae.guide, **FEW).local_parameters(x)
    assert torch.equal(first["z"], again["z"])
    other = RefinedGuide(vae.model, vae.guide, seed=1, **FEW).local_parameters(x)
    assert not torch.equal(first["z"], other["z"])


def test_a_datum_is_refined_once_until_the_weights_change(vae):
    x = torch.rand(8, 4)
    refined = RefinedGuide(vae.model, vae.guide, **FEW)
    first = refined.local_parameters(x)["z"]
    mixed = torch.cat([x.flip(0), torch.rand(3, 4), x[:2]])
    again = refined.local_parameters(mixed)["z"]
    assert torch.equal(again[:8], first.flip(0))
    assert torch.equal(again[-2:], first[:2])
    with torch.no_grad():
        next(vae.model.parameters()).mul_(2)
    assert not torch.equal(refined.local_parameters(x)["z"], first)


def test_it_goes_wherever_a_guide_goes(vae):
    x = torch.rand(6, 4)
    refined = RefinedGuide(vae.model, vae.guide, **FEW)
    assert math.isfinite(Trace_ELBO().loss(vae.model, refined, x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PyroMivaeWarning)
        annealed = mi.annealed_log_likelihood(
            vae.model, refined, x, num_temperatures=2, num_chains=1, leapfrog_steps=1
        )
    assert annealed.log_px.isfinite().all()
    codes, plain = vae.encode(x, guide=refined), vae.encode(x)
    assert codes["z"].shape == (6, 2)
    assert not torch.equal(codes["z"], plain["z"])
    draws = vae.encode(x, "draws", 3, guide=refined)
    assert draws["z"].shape == (3, 6, 2)


def test_the_report_measures_the_gap_on_request(vae):
    x = torch.rand(30, 4)
    report = mi.information(vae.model, vae.guide, x, refine_items=20, **QUICK)
    assert report["amortization_gap"] > 4 * report["amortization_gap_se"] > 0
    assert report.protocol["refined_items"] == 20
    pair = Linear()
    report = mi.information(pair.model, pair.guide, torch.randn(9, 3), refine_items=2, **QUICK)
    assert math.isnan(report["amortization_gap"])
    assert "local_parameters" in report.protocol["refined"]


class OwnGuide:
    """A Normal of each datum, told apart from the rest by two methods."""

    def __init__(self, family):
        self.family = family

    def local_parameters(self, x):
        return {"loc": 0 * x, "log_scale": 0 * x}

    def sample_from(self, parameters):
        with pyro.plate("data", len(parameters["loc"])):
            pyro.sample("z", self.family(parameters["loc"], parameters["log_scale"].exp()))

    def __call__(self, x):
        self.sample_from(self.local_parameters(x))


def plain(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)


def test_a_guide_of_your_own_needs_two_methods():
    x = torch.linspace(-1, 1, 5)
    refined = RefinedGuide(plain, OwnGuide(dist.Normal), num_steps=200, num_draws=32)
    found = refined.local_parameters(x)
    q = Normal(found["loc"], found["log_scale"].exp())
    assert kl_divergence(q, Normal(x / 2, 0.5**0.5)).max() < 0.01


def test_what_cannot_be_refined_is_refused():
    with pytest.raises(OptionError, match=r"write the methods local_parameters\(x\)"):
        RefinedGuide(plain, plain)
    with pytest.raises(OptionError, match="num_steps=0"):
        RefinedGuide(plain, OwnGuide(dist.Normal), num_steps=0)
    steps = OwnGuide(lambda loc, scale: dist.Poisson(scale))
    with pytest.raises(SiteError, match="neither reparametrised nor enumerated"):
        RefinedGuide(plain, steps)(torch.rand(3))


def test_the_table_shows_the_gap():
    table = summarise({"elbo": -3.0, "amortization_gap": 0.15, "amortization_gap_se": 0.01})
    assert re.search(r"amortisation gap +0.15 +± 0.01", table)
