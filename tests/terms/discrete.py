"""A category and pixels whose every expectation is a finite sum."""

import itertools

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_mivae.terms import Particle
from pyro_mivae.traces import TracePair

K, D = 3, 2
TOLERANCE = {"rtol": 0, "atol": 1e-10}
ENUMERATE = {"enumerate": "parallel"}


class Discrete(PyroModule):
    """A category and D pixels that depend on it: every expectation is a finite sum."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.prior = nn.Parameter(torch.randn(K, generator=generator))
        self.pixels = nn.Parameter(1.5 * torch.randn(K, D, generator=generator))
        self.weight = nn.Parameter(torch.randn(D, K, generator=generator))
        self.bias = nn.Parameter(torch.randn(K, generator=generator))
        self.exact = False

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
            pyro.sample("x", dist.Bernoulli(logits=c @ self.pixels).to_event(1), obs=x)

    def guide(self, x):
        logits = self.posterior(x) if self.exact else x @ self.weight + self.bias
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.OneHotCategorical(logits=logits), infer=ENUMERATE)

    def posterior(self, x):
        log_x = x @ self.pixels.T - nn.functional.softplus(self.pixels).sum(-1)
        return (log_x + self.prior.log_softmax(-1)).log_softmax(-1)

    def images(self):
        return torch.tensor(list(itertools.product([0.0, 1.0], repeat=D)))

    def bound(self):
        """E_{p(c, x)}[log q(c|x)] + H(c), summed over all categories and all images."""
        x = self.images()
        log_c = self.prior.log_softmax(-1)
        log_x = dist.Bernoulli(logits=self.pixels).to_event(1).log_prob(x[:, None])
        logits = self.posterior(x) if self.exact else x @ self.weight + self.bias
        joint = (log_c + log_x).exp()  # (images, K)
        return (joint * logits.log_softmax(-1)).sum() - (log_c.exp() * log_c).sum()

    def information(self):
        x = self.images()
        log_c = self.prior.log_softmax(-1)
        joint = log_c + dist.Bernoulli(logits=self.pixels).to_event(1).log_prob(x[:, None])
        marginal = joint.logsumexp(1, keepdim=True)
        return (joint.exp() * (joint - log_c - marginal)).sum()

    def mean_bound(self):
        """The same with the mean image pushed, which tells the categories apart for good."""
        log_c = self.prior.log_softmax(-1)
        logits = self.pixels.sigmoid() @ self.weight + self.bias
        score = logits.log_softmax(-1).diagonal()
        return (log_c.exp() * (score - log_c)).sum()


def particle(pair, x, model=None, guide=None):
    model, guide = model or pair.model, guide or pair.guide
    traces = TracePair.run(model, guide, (x,), {}, max_plate_nesting=1)
    return Particle(model, guide, (x,), {}, traces)


def gradients(value, parameters):
    return torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)


def assert_close_to(mean, error, exact, largest_error):
    assert (error < largest_error).all(), error
    assert ((mean - exact).abs() < 4.5 * error + 1e-12).all(), (mean, exact, error)
