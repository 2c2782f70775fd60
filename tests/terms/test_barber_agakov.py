"""The Barber-Agakov term against models whose information is known exactly."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.terms.barber_agakov import _score_function

from .discrete import ENUMERATE, TOLERANCE, D, Discrete, K, assert_close_to, gradients, particle

pytestmark = pytest.mark.usefixtures("double")


def estimates(term, pair, n, count, parameters=()):
    """Per datum: the mean of the term, and of its gradients, with standard errors."""
    values = []
    some = particle(pair, torch.zeros(n, D))
    for _ in range(count):
        value = term(some) / n
        slopes = gradients(value, parameters) if parameters else ()
        values.append(torch.cat([value.detach()[None], *(slope.flatten() for slope in slopes)]))
    table = torch.stack(values)
    return table.mean(0), table.std(0) / math.sqrt(count)


@pytest.mark.parametrize("exact", [False, True])
def test_is_the_bound_and_tight_for_the_exact_posterior(exact):
    pair = Discrete()
    pair.exact = exact
    mean, error = estimates(mi.BarberAgakov("c", generated="score-function"), pair, 5000, 20)
    assert_close_to(mean, error, pair.bound(), 0.01)
    if exact:
        torch.testing.assert_close(pair.bound(), pair.information())
    else:
        assert pair.bound() < pair.information()


def test_mean_image_can_carry_more_than_sampled_pixels():
    pair = Discrete()
    mean, error = estimates(mi.BarberAgakov("c"), pair, 5000, 20)
    assert_close_to(mean, error, pair.mean_bound(), 0.02)


def test_mean_push_by_hand_on_the_same_draws():
    pair = Discrete()
    x = torch.zeros(50, D)
    particles = particle(pair, x)
    torch.manual_seed(5)
    value = mi.BarberAgakov("c")(particles)
    torch.manual_seed(5)
    c = dist.OneHotCategorical(logits=pair.prior).expand([50]).sample()
    log_q = ((c @ pair.pixels).sigmoid() @ pair.weight + pair.bias).log_softmax(-1)
    entropy = dist.Categorical(logits=pair.prior).entropy()
    expected = (log_q * c).sum() + 50 * entropy
    torch.testing.assert_close(value, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("generated", "exact"), [("score-function", Discrete.bound), ("mean", Discrete.mean_bound)]
)
def test_gradient_is_unbiased_for_every_parameter(generated, exact):
    """The category's own prior is learned too: no path leads through a drawn category."""
    pair = Discrete()
    parameters = list(pair.parameters())
    mean, error = estimates(mi.BarberAgakov("c", generated=generated), pair, 4000, 50, parameters)
    expected = torch.autograd.grad(exact(pair), parameters)
    assert_close_to(mean[1:], error[1:], torch.cat([g.flatten() for g in expected]), 0.01)


@pytest.mark.parametrize("generated", ["mean", "relaxed", "straight-through"])
def test_gradient_reaches_the_decoder_and_the_guide(generated):
    pair = Discrete()
    value = mi.BarberAgakov("c", generated=generated)(particle(pair, torch.zeros(20, D)))
    for slope in torch.autograd.grad(value, [pair.pixels, pair.weight, pair.bias]):
        assert slope.abs().max() > 0


@pytest.mark.parametrize("generated", ["straight-through", "score-function", "relaxed"])
def test_what_is_generated(generated):
    pair = Discrete()
    pushed = []

    def guide(x):
        pushed.append(x.detach())
        pair.guide(x)

    some = particle(pair, torch.zeros(200, D), guide=guide)
    pushed.clear()
    term = mi.BarberAgakov("c", generated=generated)
    term(some)
    (x,) = pushed
    is_binary = ((x - x.round()).abs() < 1e-12).all()
    assert bool(is_binary) == (generated != "relaxed")
    assert x.min() >= -1e-12
    assert x.max() <= 1 + 1e-12
    assert term.name == "mi_c_sample"


def test_relaxed_samples_become_samples_as_the_temperature_falls():
    pair = Discrete()
    n = 5000
    mean, error = estimates(
        mi.BarberAgakov("c", generated="relaxed", temperature=0.01), pair, n, 20
    )
    assert abs(mean - pair.bound()) < 4 * error + 0.02 < 0.06


# Continuous codes


class Linear(PyroModule):
    """z ~ N(0, I), x = z + noise; the information is known."""

    def __init__(self, noise=0.5):
        super().__init__()
        self.noise = noise
        self.gain = nn.Parameter(torch.tensor(1 / (1 + noise**2)))
        self.scale = nn.Parameter(torch.tensor(noise / math.sqrt(1 + noise**2)))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, self.noise).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.gain * x, self.scale).to_event(1))


@pytest.mark.parametrize("generated", ["relaxed", "straight-through", "score-function"])
def test_gaussian_information_is_reached_by_the_exact_posterior(generated):
    pair = Linear()
    rho_squared = 1 / (1 + 0.25)
    information = -0.5 * math.log(1 - rho_squared) * D
    mean, error = estimates(mi.BarberAgakov("z", generated=generated), pair, 5000, 20)
    assert_close_to(mean, error, information, 0.01)
    with torch.no_grad():
        pair.scale.mul_(1.5)
    mean, error = estimates(mi.BarberAgakov("z", generated=generated), pair, 5000, 20)
    assert mean + 4 * error < information


class Mixture(PyroModule):
    """A category with a learned prior, and a Normal whose spread depends on it."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.prior = nn.Parameter(torch.randn(K, generator=generator))
        self.spread = nn.Parameter(torch.tensor([0.3, 1.0, 2.0]))
        self.means = nn.Parameter(2 * torch.randn(K, D, generator=generator))
        self.category = nn.Parameter(torch.randn(D, K, generator=generator))
        self.code = nn.Parameter(torch.randn(K, D, generator=generator))

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
            scale = (c @ self.spread)[..., None]
            z = pyro.sample("z", dist.Normal(c @ self.means, scale).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            logits = x @ self.category
            c = pyro.sample("c", dist.OneHotCategorical(logits=logits), infer=ENUMERATE)
            loc = x + c @ self.code
            pyro.sample("z", dist.Normal(loc, 0.8).to_event(1))

    def bound(self, sites, nodes=60):
        """By quadrature over the spread of x = mean + noise, dimension by dimension."""
        grid, weight = hermite(nodes)
        prior = self.prior.softmax(-1)
        total = 0.0
        for k in range(K):
            eps = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, D)
            mass = (weight[:, None] * weight).flatten()
            z = self.means[k] + self.spread[k] * eps
            inner = self.recognised(z, k, sites)
            entropy = -prior[k].log() * ("c" in sites)
            if "z" in sites:
                normal = 0.5 * math.log(2 * math.pi * math.e) + self.spread[k].log()
                entropy = entropy + D * normal
            total = total + prior[k] * ((mass * inner).sum() + entropy)
        return total

    def recognised(self, z, k, sites):
        """E log q(sites | x') with x' = z, the mean; unnamed sites drawn from the guide."""
        log_c = (z @ self.category).log_softmax(-1)
        if "z" not in sites:
            return log_c[:, k]
        loc = z[:, None] + self.code  # (nodes, K, D)
        log_z = dist.Normal(loc, 0.8).log_prob(z[:, None]).sum(-1)
        if "c" in sites:
            return log_c[:, k] + log_z[:, k]
        return (log_c.exp() * log_z).sum(-1)


def hermite(count):
    """Nodes and weights of an expectation under N(0, 1)."""
    off = torch.arange(1, count).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, vectors[0] ** 2


@pytest.mark.parametrize("sites", [("c",), ("z",), ("c", "z")])
def test_any_sites_of_a_mixture(sites):
    """Value and every gradient, also through categories drawn from the model and the guide."""
    pair = Mixture()
    parameters = list(pair.parameters())
    mean, error = estimates(mi.BarberAgakov(*sites), pair, 4000, 50, parameters)
    exact = pair.bound(sites)
    slopes = gradients(exact, parameters)
    expected = torch.cat([exact.detach()[None], *(slope.flatten() for slope in slopes)])
    assert_close_to(mean, error, expected, 0.02)


def test_the_baseline_of_a_reward_is_the_mean_of_the_others():
    reward, density = torch.tensor([1.0, 2.0, 6.0]), torch.zeros(3, requires_grad=True)
    (slope,) = torch.autograd.grad(_score_function(reward, density), density)
    torch.testing.assert_close(slope, reward - torch.tensor([4.0, 3.5, 1.5]))
