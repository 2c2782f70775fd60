"""Linear and Gaussian pairs, whose figures are in closed form."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from pyro_mivae.diagnostics.report import information as report_of

SIGMA = 0.7
# Without data of the model's own, and with few importance samples: both take their time.
information = partial(report_of, generative_items=0, iwae_samples=8, iwae_items=100)
CONTRACT = (
    "distortion rate elbo log_px mi_lower mi_upper marginal_kl_lower marginal_kl_upper "
    "total_correlation active_units"
).split()


class LinearGaussian:
    """x = W z + noise, and a guide q(z|x) = N(A x + b, S); every figure in closed form.

    The data are drawn from N(0, data_cov), which need not be the model's.
    """

    def __init__(self, weight, gain, offset, cov, data_cov=None, *, site="z"):
        self.weight, self.gain, self.offset, self.cov, self.site = weight, gain, offset, cov, site
        self.dims, self.latent = weight.shape
        self.model_cov = weight @ weight.T + SIGMA**2 * torch.eye(self.dims)
        self.data_cov = self.model_cov if data_cov is None else data_cov

    @classmethod
    def exact(cls, weight, **options):
        precision = torch.eye(weight.shape[1]) + weight.T @ weight / SIGMA**2
        cov = precision.inverse()
        return cls(weight, cov @ weight.T / SIGMA**2, torch.zeros(weight.shape[1]), cov, **options)

    def data(self, n):
        return MultivariateNormal(torch.zeros(self.dims), self.data_cov).sample((n,))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample(self.site, dist.Normal(torch.zeros(self.latent), 1.0).to_event(1))
            pyro.sample("obs", dist.Normal(z @ self.weight.T, SIGMA).to_event(1), obs=x)

    def guide(self, x):
        loc = x @ self.gain.T + self.offset
        with pyro.plate("data", len(x)):
            if torch.equal(self.cov, self.cov.diagonal().diag()):
                fn = dist.Normal(loc, self.cov.diagonal().sqrt()).to_event(1)
            else:
                fn = dist.MultivariateNormal(loc, self.cov)
            pyro.sample(self.site, fn)

    def truth(self, x):
        """Closed forms; log_px and the costs at the data themselves."""
        prior = MultivariateNormal(torch.zeros(self.latent), torch.eye(self.latent))
        posterior = MultivariateNormal(x @ self.gain.T + self.offset, self.cov)
        cov = self.gain @ self.data_cov @ self.gain.T + self.cov
        rate = kl_divergence(posterior, prior).mean()
        residual = x - posterior.mean @ self.weight.T
        spread = (self.weight @ self.cov @ self.weight.T).trace()
        distortion = 0.5 * (residual.square().sum(-1).mean() + spread) / SIGMA**2
        distortion += 0.5 * self.dims * math.log(2 * math.pi * SIGMA**2)
        likelihood = MultivariateNormal(torch.zeros(self.dims), self.model_cov)
        information = 0.5 * (cov.logdet() - self.cov.logdet())
        return {
            "rate": rate,
            "distortion": distortion,
            "elbo": -rate - distortion,
            "log_px": likelihood.log_prob(x).mean(),
            "information": information,
            "marginal_kl": kl_divergence(MultivariateNormal(self.offset, cov), prior),
            "total_correlation": 0.5 * (cov.diagonal().log().sum() - cov.logdet()),
            "active": (cov - self.cov).diagonal().gt(0.01).sum(),
        }


ORTHOGONAL = torch.tensor(
    [[0.9, 0.0], [0.0, 0.7], [0.0, 0.0], [0.0, 0.9], [0.2, 0.0]], dtype=torch.float64
)
SLANTED = torch.tensor([[0.9, 0.4], [0.1, 0.7], [0.5, 0.5], [0.0, 0.3]], dtype=torch.float64)


def wrong(latent, dims):
    """A guide that has nothing to do with the posterior, on data that are not the model's."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(dims, latent, generator=generator) / 2
    gain = torch.randn(latent, dims, generator=generator) / 2
    scale = torch.linspace(0.3, 1.2, latent)
    root = torch.randn(dims, dims, generator=generator) / 2
    cov = root @ root.T + 0.1 * torch.eye(dims)
    return LinearGaussian(weight, gain, torch.linspace(-0.5, 0.5, latent), scale.diag(), cov)


def cases():
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return {
            "exact": LinearGaussian.exact(ORTHOGONAL),
            "exact, full covariance": LinearGaussian.exact(SLANTED, site="code"),
            "wrong": wrong(2, 3),
            "wrong, one dimension": wrong(1, 2),
        }
    finally:
        torch.set_default_dtype(dtype)


CASES = cases()


def between(report, name, truth, slack=4.0):
    """The truth lies in the interval, give or take standard errors."""
    low, high = f"{name}_lower", f"{name}_upper"
    assert report[low] <= report[high]
    assert truth >= report[low] - slack * report[f"{low}_se"] - 1e-9
    assert truth <= report[high] + slack * report[f"{high}_se"] + 1e-9
