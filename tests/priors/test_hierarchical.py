"""Two levels: the divergence of each, against its integral and Pyro's ELBO."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.distributions import kl_divergence

import pyro_mivae as mi

from .kinds import SHAPE

DRAWS = 4000


@pytest.fixture(autouse=True)
def in_double(double):
    """Numbers in double precision."""


@pytest.mark.parametrize("skip", [True, False])
def test_rates_of_the_levels_are_their_expectations(skip):
    prior = mi.HierarchicalPrior(2, 1, hidden_dims=(4,), skip=skip)
    vae = mi.VAE(SHAPE, prior=prior).eval()
    x = torch.rand(1, *SHAPE)
    assert list(vae.sites) == ["z2", "z1"]
    trace = pyro.poutine.trace(vae.guide).get_trace(x)
    q1, q2 = (trace.nodes[name]["fn"] for name in ("z1", "z2"))
    # The rate of z1 is an integral over z2, which has one coordinate.
    z2 = torch.linspace(-9, 9, 2001)[:, None]
    weights = q2.log_prob(z2).exp()
    weights = weights / weights.sum()
    loc, scale = prior.network(z2).chunk(2, -1)
    p1 = dist.Normal(loc, torch.nn.functional.softplus(scale) + 1e-4).to_event(1)
    normal = dist.Normal(torch.zeros(1, 1), 1.0).to_event(1)
    with torch.no_grad():
        each = kl_divergence(q1, p1)
        mean = float((weights * each).sum())
        spread = float((weights * (each - mean).square()).sum().sqrt())
        expected = float(kl_divergence(q2, normal).sum())
    elbo, many = vae.objective(), x.expand(DRAWS, *SHAPE)
    elbo.loss(vae.model, vae.guide, many)
    found = {name: float(elbo.ledger[name]) / DRAWS for name in ("kl_z2", "kl_z1")}
    assert found["kl_z2"] == pytest.approx(expected, rel=1e-9)
    assert found["kl_z1"] == pytest.approx(mean, abs=4.5 * spread / DRAWS**0.5)


def test_loss_and_gradient_are_those_of_pyro_in_the_mean():
    vae = mi.VAE(SHAPE, prior=mi.HierarchicalPrior(2, 1, hidden_dims=(4,))).eval()
    many = torch.rand(1, *SHAPE).expand(DRAWS, *SHAPE)
    found = []
    for loss in (vae.objective(), Trace_ELBO()):
        twin = copy.deepcopy(vae)
        values = []
        for seed in range(4):
            torch.manual_seed(seed)
            values.append(loss.loss(twin.model, twin.guide, many) / DRAWS)
        loss.loss_and_grads(twin.model, twin.guide, many)
        grads = torch.cat([p.grad.flatten() for p in twin.prior.parameters()]) / DRAWS
        found.append((torch.tensor(values), grads))
    (ours, grads), (theirs, others) = found
    error = float((ours.var() / 4 + theirs.var() / 4).sqrt())
    assert float(ours.mean()) == pytest.approx(float(theirs.mean()), abs=5 * error + 1e-3)
    torch.testing.assert_close(grads, others, atol=0.03, rtol=0.1)


def test_the_lower_level_decodes_alone_or_beside_the_upper():
    assert mi.priors.prior_sites(mi.HierarchicalPrior(3, 2))[1] == 3
    assert mi.priors.prior_sites(mi.HierarchicalPrior(3, 2, skip=True))[1] == 5
    named = mi.HierarchicalPrior(3, 2, sites=["low", "high"])
    assert list(mi.VAE(SHAPE, prior=named).sites) == ["high", "low"]


def test_the_prior_mean_of_the_lower_level_is_that_given_the_upper():
    prior = mi.HierarchicalPrior(2, 1, hidden_dims=(4,))
    vae = mi.VAE(
        (2,), prior=prior, decoder=torch.nn.Identity(), likelihood=mi.GaussianLikelihood()
    )
    z2 = torch.randn(3, 1)
    loc, _ = prior.network(z2).chunk(2, -1)
    torch.testing.assert_close(vae.decode({"z2": z2}, 3), loc.detach())
