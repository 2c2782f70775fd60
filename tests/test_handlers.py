"""Partial KL under Pyro's own ELBOs, and running a model forwards."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.runtime import am_i_wrapped
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.handlers import decode_means, push_forward, relax_categories

TOLERANCE = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def parameter():
    return nn.Parameter(torch.tensor([0.3, -0.5]))


@pytest.fixture
def pair(parameter):
    """Two Normals, one of them given the other, and data."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            c = pyro.sample("c", dist.Normal(z, 2.0))
            pyro.sample("x", dist.Normal(z + c, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(parameter[0] * x, 0.5))
            pyro.sample("c", dist.Normal(parameter[1] * z, 0.7))

    return model, guide


def seeded_loss(elbo, model, guide, x):
    torch.manual_seed(7)
    return elbo.differentiable_loss(model, guide, x)


@pytest.mark.parametrize("weights", [{}, {"c": 0.0}, {"z": 0.0}, {"z": 0.5, "c": 3.0}])
@pytest.mark.parametrize("kind", [Trace_ELBO, TraceMeanField_ELBO])
def test_weighs_pyros_own_elbos(pair, parameter, weights, kind):
    """Trace_ELBO by the sampled log-ratios; the mean-field one by ours, closed form by form."""
    x = torch.randn(5)
    model, guide = pair
    weighed = [mi.weigh_sites(fn, weights) for fn in pair]
    theirs = seeded_loss(kind(), *weighed, x)
    if kind is TraceMeanField_ELBO:
        ours = mi.MutualInformationELBO(kl_weights=weights, max_plate_nesting=1)
        expected = seeded_loss(ours, *pair, x)
    else:
        torch.manual_seed(7)
        q = poutine.trace(guide).get_trace(x)
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace(x)
        q.compute_log_prob()
        p.compute_log_prob()
        expected = -p.nodes["x"]["log_prob"].sum()
        for name in "zc":
            ratio = (q.nodes[name]["log_prob"] - p.nodes[name]["log_prob"]).sum()
            expected = expected + weights.get(name, 1.0) * ratio
    torch.testing.assert_close(theirs, expected, **TOLERANCE)
    slopes = (torch.autograd.grad(loss, parameter)[0] for loss in (theirs, expected))
    torch.testing.assert_close(*slopes, **TOLERANCE)


def test_zero_leaves_the_site_in_the_trace(pair):
    trace = poutine.trace(mi.weigh_sites(pair[0], {"c": 0.0})).get_trace(torch.zeros(3))
    trace.compute_log_prob()
    assert trace.nodes["c"]["log_prob"].tolist() == [0, 0, 0]
    assert trace.nodes["z"]["log_prob_sum"] != 0


def test_keeps_the_scale_and_mask_of_the_program():
    mask = torch.tensor([True, False])

    def model():
        with pyro.plate("data", 10, subsample=torch.arange(2)), poutine.mask(mask=mask):
            pyro.sample("z", dist.Normal(0.0, 1.0), obs=torch.zeros(2))

    trace = poutine.trace(mi.weigh_sites(model, {"z": 0.5})).get_trace()
    density = -0.5 * math.log(2 * math.pi)
    assert float(trace.log_prob_sum()) == pytest.approx(0.5 * 10 / 2 * density)


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_bad_weights(pair, weight):
    with pytest.raises(OptionError, match="weight"):
        mi.weigh_sites(pair[0], {"z": weight})


@pytest.mark.parametrize("part", [0, 1])
def test_a_site_that_the_program_has_not(pair, part):
    weighed = mi.weigh_sites(pair[part], {"z": 0.5, "C": 0.0})
    with pytest.raises(SiteError, match=r"sites \['C'\] are given, .*sampled \['c', "):
        weighed(torch.zeros(3))
    assert not am_i_wrapped()


def test_push_forward_draws_the_code_and_generates_the_data(pair):
    x = torch.full((4000,), 100.0)
    trace = poutine.trace(push_forward(pair[0])).get_trace(x)
    z, c = trace.nodes["z"]["value"], trace.nodes["c"]["value"]
    assert torch.equal(trace.nodes["x"]["value"], z + c)
    assert z.std() == pytest.approx(1.0, abs=0.1)
    assert (c - z).std() == pytest.approx(2.0, abs=0.1)
    sampled = push_forward(pair[0], lambda fn: fn.sample())
    x = poutine.trace(sampled).get_trace(x).nodes["x"]["value"]
    assert x.std() == pytest.approx(math.sqrt(1 + 4 + 3 + 1), abs=0.2)


def test_decode_means_puts_the_rest_at_its_prior_mean_given_the_kept(pair):
    def values(**kept):
        trace = poutine.trace(decode_means(pair[0], kept)).get_trace(torch.zeros(2))
        return [trace.nodes[name]["value"].tolist() for name in "zcx"]

    assert values() == [[0, 0]] * 3
    assert values(z=torch.tensor([1.0, 2.0])) == [[1, 2], [1, 2], [2, 4]]
    assert values(c=torch.tensor([1.0, 2.0])) == [[0, 0], [1, 2], [1, 2]]


def test_decode_means_takes_the_mode_of_a_category():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.OneHotCategorical(torch.tensor([0.2, 0.5, 0.3])))
            pyro.sample("x", dist.Normal(c, 1.0).to_event(1), obs=x)

    trace = poutine.trace(decode_means(model, {})).get_trace(torch.zeros(2, 3))
    assert trace.nodes["x"]["value"].tolist() == [[0, 1, 0]] * 2


def test_relax_categories_replaces_what_would_be_enumerated():
    def guide(infer):
        pyro.sample("c", dist.OneHotCategorical(torch.ones(4)), infer=infer)

    trace = poutine.trace(relax_categories(guide, lambda fn: fn.probs))
    value = trace.get_trace({"enumerate": "parallel"}).nodes["c"]["value"]
    assert value.tolist() == [0.25] * 4
    assert trace.get_trace({}).nodes["c"]["value"].max() == 1
