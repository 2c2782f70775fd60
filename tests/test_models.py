"""The generative model and the part of it that draws the code."""

import pytest
import torch
from pyro import poutine
from torch import nn

from pyro_mivae.likelihoods import BernoulliLikelihood
from pyro_mivae.models import GenerativeModel, code_program
from pyro_mivae.priors import MixturePrior, StandardNormalPrior


class Counting(nn.Module):
    """A decoder that counts its calls."""

    calls = 0

    def forward(self, code):
        self.calls += 1
        return code.unflatten(-1, (2, -1))


@pytest.fixture(params=[StandardNormalPrior(6), StandardNormalPrior(4, 2), MixturePrior(3)])
def model(request):
    return GenerativeModel(request.param, Counting(), BernoulliLikelihood(), event_dim=2)


def test_observes_the_data_in_its_plate(model):
    x = torch.rand(5, 2, 3)
    trace = poutine.trace(model).get_trace(x)
    assert trace.nodes["x"]["value"] is trace.nodes["_RETURN"]["value"] is x
    assert trace.nodes["x"]["fn"].batch_shape == (5,)
    assert [frame.name for frame in trace.nodes["x"]["cond_indep_stack"]] == ["data"]


def test_code_is_drawn_without_decoding(model):
    trace = poutine.trace(code_program(model)).get_trace(torch.rand(5, 2, 3))
    assert model.decoder.calls == 0
    assert trace.nodes["_RETURN"]["value"].shape == (5, 6)
    assert set(trace.stochastic_nodes) - {"data"} == {"z"} | {"c"} & set(trace.nodes)
    assert not trace.observation_nodes
