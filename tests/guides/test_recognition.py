"""The guide that recognises codes and leaves noise alone."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_mivae.distributions import TruncatedNormal
from pyro_mivae.errors import SiteError
from pyro_mivae.guides import RecognitionGuide
from pyro_mivae.priors import InfoGANPrior, prior_sites
from pyro_mivae.traces import TracePair

SHAPE = (1, 4, 4)


def trace_of(guide, n=3):
    return poutine.trace(guide).get_trace(torch.rand(n, *SHAPE))


def test_a_distribution_for_every_site_on_its_support():
    guide = RecognitionGuide(SHAPE, prior_sites(InfoGANPrior(4, 3, 2))[0])
    nodes = trace_of(guide).nodes
    shapes = {name: tuple(nodes[name]["value"].shape) for name in ("z", "c", "u")}
    assert shapes == {"z": (3, 4), "c": (3, 3), "u": (3, 2)}
    assert isinstance(nodes["u"]["fn"].base_dist, TruncatedNormal)
    assert nodes["c"]["infer"] == {"enumerate": "parallel"}


def test_noise_is_the_priors_whatever_the_data():
    prior = InfoGANPrior(4, 3, 2)
    guide = RecognitionGuide(SHAPE, prior_sites(prior)[0])

    def model(x):
        with pyro.plate("data", len(x)):
            prior()

    x = torch.rand(5, *SHAPE)
    pair = TracePair.run(model, guide, (x,), {}, max_plate_nesting=1)
    assert pair.rate("z").item() == 0.0
    assert pair.rate("u").item() > 0.0
    fn = pair.guide.nodes["u"]["fn"]
    expected = math.log(2.0) * 2 - fn.entropy()  # in closed form
    torch.testing.assert_close(pair.divergence("u"), expected)


def test_any_interval_and_normal_codes():
    sites = {
        "a": dist.Uniform(torch.tensor([2.0]), torch.tensor([5.0])).expand([1, 3]).to_event(1),
        "b": dist.Normal(torch.zeros(1, 2), 1.0).to_event(1),
    }
    with torch.no_grad():
        nodes = trace_of(RecognitionGuide(SHAPE, sites, noise=())).nodes
    assert nodes["a"]["value"].shape == (3, 3)
    assert 2.0 <= float(nodes["a"]["value"].min()) <= float(nodes["a"]["value"].max()) <= 5.0
    assert nodes["b"]["value"].shape == (3, 2)


@pytest.mark.parametrize(
    ("fn", "noise", "message"),
    [
        (dist.Gamma(torch.ones(1, 2), 1.0).to_event(1), (), "site 'a' is Gamma in the prior"),
        (
            dist.Uniform(torch.tensor([[0.0, 1.0]]), 2.0).to_event(1),
            (),
            "same interval in every dimension",
        ),
        (
            dist.Uniform(torch.zeros(1, 2), 2.0).to_event(1),
            ("a",),
            r"noise 'a' is Uniform in the prior; make it Normal\(0, 1\)",
        ),
    ],
)
def test_what_it_cannot_recognise(fn, noise, message):
    with pytest.raises(SiteError, match=message):
        RecognitionGuide(SHAPE, {"a": fn}, noise=noise)
