"""Standard deviations and draws of codes, and data drawn from the likelihood."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import OptionError

from ..likelihoods.kinds import KINDS

SHAPE = (1, 3, 4)
DRAWS = 1000


@pytest.fixture
def x():
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))


def agree(vae, x, sites):
    """Moments that `encode` returns are those of its draws, by their standard errors."""
    mean, sd = vae.encode(x), vae.encode(x, "sd")
    draws = vae.encode(x, "draws", num_draws=DRAWS)
    for site in sites:
        assert draws[site].shape == (DRAWS, len(x), vae.sites[site])
        assert mean[site].shape == sd[site].shape == (len(x), vae.sites[site])
        error = sd[site] / math.sqrt(DRAWS) + 1 / DRAWS
        assert ((draws[site].mean(0) - mean[site]).abs() < 5 * error).all()
        squares = (draws[site] - mean[site]).square()
        error = squares.std(0) / math.sqrt(DRAWS) + 1 / DRAWS
        assert ((squares.mean(0) - sd[site].square()).abs() < 5 * error).all()


def test_a_category_and_the_code_that_depends_on_it(x):
    """The deviation of z is that of the mixture, between categories too."""
    vae = mi.CatVAE(SHAPE, num_categories=3, latent_dim=6)
    with torch.no_grad():
        for parameter in vae.guide.parameters():
            parameter.mul_(1.5)
    agree(vae, x, ("c", "z"))
    draws = vae.encode(x, "draws", num_draws=5)["c"]
    assert (draws.sum(-1) == 1).all()
    assert set(draws.unique().tolist()) == {0.0, 1.0}


def test_a_deterministic_code_has_no_spread(x):
    vae = mi.InfomaxVAE(SHAPE, latent_dim=3, code_dim=1, deterministic=True)
    agree(vae, x, ("z", "c"))
    assert not vae.encode(x, "sd")["c"].any()


def test_codes_of_a_gan(x):
    agree(mi.InfoGAN(SHAPE, num_categories=3, latent_dim=4, code_dim=2), x, ("c", "u", "z"))


class Chain(pyro.nn.PyroModule):
    """z1 given x, and z2 given the drawn z1: no moment of z2 in closed form."""

    def __call__(self, x):
        with pyro.plate("data", len(x)):
            first = x.flatten(1)[:, :2]
            c = pyro.sample("c", dist.Normal(first, 0.5).to_event(1))
            pyro.sample("z", dist.Normal(2 * c, 0.3).to_event(1))


def test_a_site_that_depends_on_a_drawn_one(x):
    """Of 100 draws, both parts of the variance: 0.3^2 + 2^2 0.5^2."""
    prior = mi.StandardNormalPrior(2, 2)
    vae = mi.VMIVAE(SHAPE, latent_dim=4, code_dim=2, prior=prior, guide=Chain())
    sd = vae.encode(x, "sd")
    torch.testing.assert_close(sd["c"], torch.full((4, 2), 0.5))
    truth = math.hypot(0.3, 2 * 0.5)
    assert (sd["z"] / truth - 1).abs().max() < 5 / math.sqrt(2 * 100)


def test_small_deviations_are_exact(x):
    vae = mi.VAE(SHAPE, latent_dim=2)
    with torch.no_grad():
        for name, value in vae.guide.named_parameters():
            if "heads" in name:
                value.fill_(-30.0 if "bias" in name and value.dim() == 1 else 0.0)
    sd, fn = vae.encode(x, "sd")["z"], pyro.poutine.trace(vae.guide).get_trace(x).nodes["z"]["fn"]
    torch.testing.assert_close(sd, fn.base_dist.scale.expand_as(sd))


@pytest.mark.parametrize("name", KINDS)
def test_samples_of_data_are_those_of_the_likelihood(name):
    kind = KINDS[name]
    torch.manual_seed(0)
    vae = mi.VAE(SHAPE, latent_dim=2, likelihood=kind.build())
    data = vae.sample(500, what="data")
    vae.check_data(data)
    if not kind.is_continuous:
        assert {round(v, 6) for v in data.unique().tolist()} <= {
            round(float(v), 6) for v in kind.values
        }
    spread = data.var() - vae.sample(500).var()
    assert spread > 0, "data vary about their means"


def test_draws_are_drawn_and_means_are_not(x):
    vae = mi.VAE(SHAPE, latent_dim=2)
    first, second = (vae.encode(x, "draws")["z"] for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(vae.encode(x)["z"], vae.encode(x)["z"])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda v, x: v.encode(x, "median"), "what='median'; allowed are mean, sd, draws"),
        (
            lambda v, x: v.encode(x, num_draws=3),
            "num_draws=3 with what='mean'; leave it out, or give what='draws'",
        ),
        (lambda v, x: v.encode(x, "draws", num_draws=0), "num_draws=0; allowed"),
        (lambda v, x: v.sample(3, what="draws"), "what='draws'; allowed are mean, data"),
    ],
)
def test_bad_use(use, message, x):
    with pytest.raises(OptionError, match=message):
        use(mi.VAE(SHAPE, latent_dim=2), x)
