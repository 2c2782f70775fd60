"""Importance sampling of the evidence from both sides."""

import math
from dataclasses import replace

import pyro
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from pyro_mivae.evidence.annealing import AnnealingOptions, AnnealingRun
from pyro_mivae.evidence.importance import Evidence, generate
from pyro_mivae.posterior.preserved_state import preserved_state

from .models import (
    SIGMA,
    Chain,
    Linear,
    Mixture,
    evidence,
    holds,
    is_zero_on_average,
    measure,
    probed,
)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_an_exact_guide_makes_both_bounds_the_evidence(num_samples):
    pair = Linear()
    data, bounds = evidence(pair, torch.zeros(4, 3), num_samples, 50)
    for table in bounds.bound():
        assert torch.allclose(table.logsumexp(0), pair.log_px(data.x), rtol=1e-9)


@pytest.mark.parametrize(
    ("pair", "num_samples"),
    [
        (Linear(0.3, 0.8), 1),
        (Linear(0.3, 0.8), 2),
        (Linear(0.3, 0.8), 8),
        (Mixture(), 12),
        (Mixture(), 40),
    ],
)
def test_the_evidence_is_unbiased_and_so_is_its_inverse_around_the_posterior(pair, num_samples):
    x = torch.zeros(4, 3) if isinstance(pair, Linear) else torch.zeros(4)
    data, bounds = evidence(pair, x, num_samples, 20_000, batch_size=2**16)
    lower, upper = (table.logsumexp(0) - pair.log_px(data.x) for table in bounds.bound())
    is_zero_on_average(lower.exp() - 1)  # E[p^] = p
    is_zero_on_average((-upper).exp() - 1)  # E_P[1 / p^] = 1 / p
    assert lower.mean() < 0 < upper.mean()


def test_draws_go_where_the_guide_looks_for_them():
    pair = Mixture()
    data, bounds = evidence(pair, torch.zeros(4), 60, 50)
    assert (bounds.most, bounds.least) == (40, 10)
    seen = torch.zeros(3)
    count = pair.model

    def counting(x):
        trace = pyro.poutine.trace(count).get_trace(x)
        seen.add_(trace.nodes["kind"]["value"].sum(0))

    Evidence(replace(probed(pair, data.x, 4096), model=counting), data, 60).bound()
    likeliest = torch.stack([-data.x, 0 * data.x, data.x], -1).argmax(-1)  # as the guide has it
    drawn = 50 * 10 + 30 * likeliest.bincount(minlength=3)
    assert torch.equal(seen, drawn + 50.0)  # and once each what the datum was drawn with


def test_the_gap_closes():
    pair = Linear(0.8, 1.5)
    gaps = []
    for k in (2, 20, 200):
        data, bounds = evidence(pair, torch.zeros(4, 3), k, 400)
        truth = pair.log_px(data.x)
        low, high = (float((t.logsumexp(0) - truth).mean()) for t in bounds.bound())
        gaps.append(high - low)
    assert gaps[0] > 4 * gaps[1] > 16 * gaps[2]
    assert gaps[2] < 0.02


def test_a_guide_that_is_sure_of_the_wrong_thing_costs_no_more_than_the_prior():
    pair = Linear(30.0, 1e-4)
    holds(measure(pair, torch.zeros(4, 3), 100)[1].code(), pair.information, width=0.3)


@pytest.mark.parametrize("site", ["kind", "z", "w"])
def test_annealing_with_a_site_fixed(site, short_pilot):
    pair = Mixture() if site == "kind" else Chain(True)
    x = torch.zeros(4) if site == "kind" else torch.zeros(4, 2)
    with preserved_state(0, device=x.device), pyro.validation_enabled(False):
        known = probed(pair, x, 1000)
        data = generate(known, x, 150)
        options = AnnealingOptions(num_temperatures=30, num_chains=4, leapfrog_steps=3)
        run = AnnealingRun(known, options, 150, runs=2)
        low, high = run.sandwich(data, [site])
    if site == "kind":
        kind = data.code[site].argmax(-1)
        truth = Normal(pair.centres[kind], math.hypot(0.6, SIGMA)).log_prob(data.x)
        truth = truth + pair.probs[kind].log()
    else:
        cov = torch.tensor([[1.0, 0.5], [0.5, 1.25]])  # of z and w
        place = "zw".index(site)
        blocks = torch.ones(2, 2) * cov.sum() + torch.eye(2), cov[place].sum() * torch.ones(2)
        cov = torch.cat(
            [
                torch.cat([blocks[0], blocks[1][:, None]], 1),
                torch.cat([blocks[1], cov[place, place][None]])[None],
            ]
        )
        values = torch.cat([data.x, data.code[site]], 1)
        truth = MultivariateNormal(torch.zeros(3), cov).log_prob(values)
    for bound, side in ((low, -1), (high, 1)):
        error = side * (bound - truth)
        assert -0.05 < error.mean() < 0.15
