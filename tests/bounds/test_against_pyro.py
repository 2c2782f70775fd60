"""The same linear-Gaussian model measured by Pyro's own bounds, and by ours.

`pyro.contrib.oed.eig` bounds the information between latent and observed sites of a model, here
theta ~ N(0, I) and y ~ N(w theta, I), for which it is log(1 + w^2) / 2 a dimension. It learns the
guide and the critic; ours are given the same ones, and draws of their own.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.contrib.oed.eig import EwmaLog, donsker_varadhan_eig, posterior_eig, vnmc_eig
from torch.distributions import Normal

from pyro_mivae.bounds import (
    MovingAverage,
    barber_agakov_bound,
    donsker_varadhan_bound,
    infonce_bound,
    leave_one_out_bound,
    mine_bound,
    rate,
)
from pyro_mivae.networks import build_critic

DIMS, NATS = 2, 1.0
W = math.sqrt(math.expm1(2 * NATS / DIMS))
DESIGN = torch.tensor([W])
SAMPLES = 4000


def model(design):
    with pyro.plate_stack("draws", design.shape):
        prior = dist.Normal(0.0, 1.0).expand((*design.shape, DIMS)).to_event(1)
        theta = pyro.sample("theta", prior)
        return pyro.sample("y", dist.Normal(design[..., None] * theta, 1.0).to_event(1))


def guide(y, design, observations, targets):
    slope = pyro.param("slope", torch.tensor(0.0))
    log_scale = pyro.param("log_scale", torch.tensor(0.0))
    with pyro.plate_stack("draws", design.shape):
        pyro.sample("theta", dist.Normal(slope * y["y"], log_scale.exp()).to_event(1))


class Judge(torch.nn.Module):
    """One of our critics, called as Pyro calls its own."""

    def __init__(self):
        super().__init__()
        self.critic = build_critic("joint", (DIMS,), DIMS, (32,))

    def forward(self, design, trace, observations, targets):
        y, theta = (trace.nodes[name]["value"].flatten(0, -2) for name in ("y", "theta"))
        return self.critic(y, theta).reshape(design.shape)


@pytest.fixture
def draws():
    theta = torch.randn(SAMPLES, DIMS)
    return theta, W * theta + torch.randn(SAMPLES, DIMS)


def close(value, expected, tolerance):
    assert abs(value - expected) < tolerance


def test_posterior_bound_is_our_barber_agakov_bound(draws):
    optim = pyro.optim.Adam({"lr": 0.05})
    theirs = posterior_eig(
        model, DESIGN, "y", "theta", 200, 80, guide, optim, final_num_samples=SAMPLES
    )
    theta, y = draws
    slope, log_scale = pyro.param("slope"), pyro.param("log_scale")
    with torch.no_grad():
        scores = Normal(slope * y, log_scale.exp()).log_prob(theta).sum(-1)
        rows = barber_agakov_bound(
            scores, DIMS * Normal(0.0, 1.0).entropy().item(), reduction="none"
        )
    error = (rows.std() / math.sqrt(SAMPLES)).item()
    assert error < 0.02
    close(theirs, NATS, 4 * error + 0.02)  # the guide can be exact, and nearly is
    close(rows.mean(), NATS, 4 * error + 0.02)
    close(rows.mean(), theirs, 4 * math.sqrt(2) * error)


def test_donsker_varadhan_bound_is_ours(draws):
    torch.manual_seed(2)
    judge = Judge()
    optim = pyro.optim.Adam({"lr": 5e-3})
    theirs = donsker_varadhan_eig(
        model, DESIGN, "y", "theta", 200, 250, judge, optim, final_num_samples=SAMPLES
    )
    theta, y = draws
    with torch.no_grad():
        joint, marginal = judge.critic(y, theta), judge.critic(y, torch.randn_like(theta))
    ours = donsker_varadhan_bound(joint, marginal)
    weights = marginal.exp() / marginal.exp().mean()
    error = math.sqrt((joint.var() + weights.var()).item() / SAMPLES)
    assert error < 0.05
    close(theirs, NATS, 4 * error + 0.1)  # the critic has learned most of it
    close(ours, NATS, 4 * error + 0.1)
    close(ours, theirs, 4 * math.sqrt(2) * error)


def test_variational_nested_monte_carlo_lies_above_with_our_upper_bounds(draws):
    variance = 1 / (1 + W**2)

    def posterior(y, design, observations, targets):
        with pyro.plate_stack("draws", design.shape):
            wide = dist.Normal(variance * W * y["y"], 1.2 * math.sqrt(variance))
            pyro.sample("theta", wide.to_event(1))

    optim = pyro.optim.Adam({"lr": 1e-3})
    theirs = vnmc_eig(
        model, DESIGN, "y", "theta", (1, 1), 0, posterior, optim, final_num_samples=(SAMPLES, 8)
    )
    theta, y = draws
    theta, y = theta[:1000], y[:1000]
    densities = Normal(W * theta, 1.0).log_prob(y[:, None]).sum(-1)
    upper = leave_one_out_bound(densities, reduction="none")
    marginal = Normal(0.0, 1.2 * math.sqrt(1 + W**2)).log_prob(y).sum(-1)
    cost = rate(densities.diagonal(), marginal, reduction="none")
    lower = infonce_bound(densities, reduction="none")
    error = max(rows.std().item() for rows in (upper, cost, lower)) / math.sqrt(1000)
    assert error < 0.05
    for bound in (theirs, upper.mean(), cost.mean()):
        assert bound > NATS - 4 * error
        close(bound, NATS, 4 * error + 0.15)
    assert lower.mean() < theirs + 4 * error
    close(lower.mean(), NATS, 4 * error + 0.05)


def test_mine_has_the_gradient_of_pyros_moving_average():
    theirs, ours = EwmaLog(0.9), MovingAverage(0.1).double()
    for step in range(5):
        scores = (3 * torch.randn(20, dtype=torch.float64) + step).requires_grad_()
        largest = scores.detach().max()
        shifted = (scores - math.log(20) - largest).exp().sum()
        (expected,) = torch.autograd.grad(-(largest + theirs(shifted, largest)), scores)
        joint = torch.zeros(1, dtype=torch.float64)
        (found,) = torch.autograd.grad(mine_bound(joint, scores, ours), scores)
        assert torch.allclose(found, expected, rtol=1e-6)
