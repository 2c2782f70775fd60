"""Pairs whose evidence is known, as is its information."""

import math
import warnings

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import MultivariateNormal, Normal

from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.evidence.annealing import annealed_log_likelihood
from pyro_mivae.spherical import SphericalUniform

SIGMA = 0.5


class Linear:
    """x = W z + noise, with a guide that is off by whatever is wanted."""

    def __init__(self, shift, scale, latent=3):
        self.weight = torch.randn(latent + 1, latent, generator=torch.Generator().manual_seed(4))
        self.shift, self.scale = shift, scale
        self.cov = self.weight @ self.weight.T + SIGMA**2 * torch.eye(latent + 1)

    def data(self, n):
        return MultivariateNormal(torch.zeros(len(self.cov)), self.cov).sample((n,))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.weight.shape[1]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight.T, SIGMA).to_event(1), obs=x)

    def guide(self, x):
        loc = x @ torch.linalg.pinv(self.weight).T + self.shift
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, self.scale).to_event(1))

    def log_px(self, x):
        return MultivariateNormal(torch.zeros(len(self.cov)), self.cov).log_prob(x)


class Mixture:
    """A category and a place given it."""

    centres = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    probs = torch.tensor([0.7, 0.3], dtype=torch.float64)
    first = torch.eye(3, 1, dtype=torch.float64)

    def __init__(self, joined=False):
        self.joined = joined

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("kind", dist.OneHotCategorical(self.probs))
            z = pyro.sample("place", dist.Normal(c @ self.centres, 0.7))
            if self.joined:  # a decoder of both, which needs one place for each category
                z = (torch.cat([z[..., None], c.expand(*z.shape, 2)], -1) @ self.first)[..., 0]
            pyro.sample("x", dist.Normal(z, SIGMA), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("kind", dist.OneHotCategorical(torch.ones(2)))
            pyro.sample("place", dist.Normal(0.5 * x + 0.5 * (c @ self.centres), 1.0))

    def log_px(self, x):
        density = Normal(self.centres, math.hypot(0.7, SIGMA)).log_prob(x[:, None])
        return (density + self.probs.log()).logsumexp(-1)


def is_zero_on_average(rows, slack=4.0):
    error = rows.std() / math.sqrt(len(rows))
    assert abs(rows.mean()) < slack * error, f"{rows.mean():.4f} +- {error:.4f}"


def weights_of(model, guide, x, log_px, **options):
    """Each datum's one weight, relative to the evidence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PyroMivaeWarning)
        found = annealed_log_likelihood(
            model, guide, x, num_chains=1, leapfrog_steps=2, batch_size=len(x), **options
        )
    return (found.log_px - log_px).exp()


EVIDENCE = {
    # Beta(2, 3) prior of a coin; Gamma(2, 3) prior of a rate; a scale on (-1, 2); two simplices;
    # directions in space.
    "beta": (
        lambda: dist.Beta(2.0, 3.0),
        lambda p: dist.Bernoulli(p),
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        lambda x: torch.where(x > 0, torch.tensor(0.4), torch.tensor(0.6)).log(),
    ),
    "gamma": (
        lambda: dist.Gamma(2.0, 3.0),
        lambda rate: dist.Exponential(rate),
        torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64),
        lambda x: math.log(2 * 9.0) - 3 * (3 + x).log(),
    ),
    "uniform": (
        lambda: dist.Uniform(-1.0, 2.0),
        lambda z: dist.Normal(z, 0.5),
        torch.tensor([-1.5, 0.0, 2.2], dtype=torch.float64),
        lambda x: (
            (Normal(x, 0.5).cdf(torch.tensor(2.0)) - Normal(x, 0.5).cdf(torch.tensor(-1.0))) / 3
        ).log(),
    ),
    "simplex": (
        lambda: dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])),
        lambda probs: dist.Categorical(probs),
        torch.tensor([0, 1, 2]),
        lambda x: torch.tensor([1.0, 2.0, 3.0])[x].log() - math.log(6.0),
    ),
    "sphere": (
        lambda: SphericalUniform(3, torch.zeros(())),
        lambda z: dist.Normal(z, 1.0).to_event(1),
        torch.tensor([[0.1, 0.0, 0.2], [-2.0, 1.0, 0.0]], dtype=torch.float64),
        lambda x: (
            -1.5 * math.log(2 * math.pi)
            - 0.5 * (x.square().sum(-1) + 1)
            + (x.norm(dim=-1).sinh() / x.norm(dim=-1)).log()
        ),
    ),
}
