"""Pairs that draw data of their own, with their information."""

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import MultivariateNormal, Normal

from pyro_mivae.diagnostics.generative import GenerativeInformation
from pyro_mivae.evidence.importance import Evidence, generate, why_undefined
from pyro_mivae.posterior.layout import ProbedPair
from pyro_mivae.posterior.preserved_state import preserved_state
from pyro_mivae.posterior.probe import probe

SIGMA = 0.7


def probed(pair, x, batch_size):
    layout = probe(pair.model, pair.guide, x[:4])
    return ProbedPair(pair.model, pair.guide, layout, batch_size=batch_size)


def measure(pair, x, num_samples, items=1000, batch_size=2**13):
    with preserved_state(0, device=x.device):
        known = probed(pair, x, batch_size)
        assert why_undefined(known, x[:4]) is None
        data = generate(known, x, items)
        return data, GenerativeInformation(known, data, num_samples)


def evidence(pair, x, num_samples, items, batch_size=2**13):
    known = probed(pair, x, batch_size)
    data = generate(replace(known, batch_size=10**6), x, items)
    return data, Evidence(known, data, num_samples)


def is_zero_on_average(rows, slack=4.0):
    error = rows.std() / math.sqrt(len(rows))
    assert abs(rows.mean()) < slack * error + 1e-9, f"{rows.mean():.4f} +- {error:.4f}"


def holds(bounds, truth, width, slack=4.0):
    """The truth lies between the means, give or take standard errors, and these are near."""
    low, high = ((rows.mean(), slack * rows.std() / math.sqrt(len(rows))) for rows in bounds)
    assert low[0] - low[1] < truth < high[0] + high[1], (low, truth, high)
    assert high[0] - low[0] < width


class Linear:
    """x = W z + noise; a guide that is the posterior, shifted and stretched."""

    weight = torch.tensor([[0.9, 0.2], [0.0, 0.7], [0.4, -0.5]], dtype=torch.float64)

    def __init__(self, shift=0.0, stretch=1.0, site="z"):
        precision = torch.eye(2) + self.weight.T @ self.weight / SIGMA**2
        self.cov = precision.inverse()
        self.gain = self.cov @ self.weight.T / SIGMA**2
        self.shift, self.stretch, self.site = shift, stretch, site
        self.data_cov = self.weight @ self.weight.T + SIGMA**2 * torch.eye(3)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample(self.site, dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("obs", dist.Normal(z @ self.weight.T, SIGMA).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc = x @ self.gain.T + self.shift
            pyro.sample(self.site, dist.MultivariateNormal(loc, self.stretch * self.cov))

    def log_px(self, x):
        return MultivariateNormal(torch.zeros(3), self.data_cov).log_prob(x)

    @property
    def information(self):
        return 0.5 * (self.data_cov.logdet() - 3 * math.log(SIGMA**2))


class Mixture:
    """A category, a place on the line given it, and what is seen of it; a rough guide."""

    centres = torch.tensor([-2.0, 0.5, 2.5], dtype=torch.float64)
    probs = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)

    def model(self, x):
        with pyro.plate("items", len(x)):
            c = pyro.sample("kind", dist.OneHotCategorical(self.probs))
            z = pyro.sample("place", dist.Normal(c @ self.centres, 0.6))
            pyro.sample("seen", dist.Normal(z, SIGMA), obs=x)

    def guide(self, x):
        with pyro.plate("items", len(x)):
            scores = torch.stack([-x, 0 * x, x], -1)
            c = pyro.sample("kind", dist.OneHotCategorical(logits=scores))
            pyro.sample("place", dist.Normal(0.8 * x + 0.3 * (c @ self.centres), 0.5))

    def log_px(self, x):
        spread = Normal(self.centres, math.hypot(0.6, SIGMA))
        return (spread.log_prob(x[:, None]) + self.probs.log()).logsumexp(-1)


GRID = torch.linspace(-12, 12, 4001, dtype=torch.float64)


def integral(values):
    return float(torch.trapezoid(values, GRID))


def mixture_information(probs, densities):
    """I(x; c) for densities of x given c on the grid, shape (categories, grid)."""
    mean = (probs[:, None] * densities).sum(0)
    return integral((probs[:, None] * densities * (densities.log() - mean.log())).sum(0))


class Chain:
    """z, then w given z; x sees their sum twice. The guide goes from z to w, or back."""

    def __init__(self, backwards):
        self.backwards = backwards

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            w = pyro.sample("w", dist.Normal(0.5 * z, 1.0).to_event(1))
            pyro.sample("x", dist.Normal((z + w).expand(-1, 2), 1.0).to_event(1), obs=x)

    def guide(self, x):
        first, second = ("w", "z") if self.backwards else ("z", "w")
        with pyro.plate("data", len(x)):
            mean = x.mean(-1, keepdim=True)
            loc = 0.4 * mean
            value = pyro.sample(first, dist.Normal(loc, 0.9).to_event(1))
            rest = 0.8 * torch.cat([mean, -value], -1).sum(-1, keepdim=True)
            pyro.sample(second, dist.Normal(rest, 0.7).to_event(1))
