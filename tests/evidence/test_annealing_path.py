"""Gradients along the path, transitions and plans of annealing."""

import pyro
import pytest
import torch

from pyro_mivae.evidence.annealing_path import AnnealingPath, make_plan, transition
from pyro_mivae.posterior.layout import ProbedPair
from pyro_mivae.posterior.probe import probe

from .pairs import EVIDENCE, Linear, Mixture, is_zero_on_average


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)


def target_of(pair, x, start="guide"):
    layout = probe(pair.model, pair.guide, x[:4])
    return AnnealingPath(ProbedPair(pair.model, pair.guide, layout), x, start)


@pytest.mark.parametrize("start", ["guide", "prior"])
@pytest.mark.parametrize("name", ["mixture", "beta", "simplex", "sphere"])
def test_gradients_are_finite_differences(name, start):
    if name == "mixture":
        pair, x = Mixture(), torch.tensor([0.3, -1.0, 2.0, 0.0])
    else:
        prior, likelihood, kinds, _ = EVIDENCE[name]
        x = kinds[torch.tensor([0, 1, 1, 0])]

        class Pair:
            def model(self, x):
                with pyro.plate("data", len(x)):
                    pyro.sample("x", likelihood(pyro.sample("z", prior())), obs=x)

            def guide(self, x):
                with pyro.plate("data", len(x)):
                    pyro.sample("z", prior())

        pair = Pair()
    target = target_of(pair, x, start)
    place = target.draw()
    temperature = torch.tensor(0.4)
    slope = target.at(place).slope(temperature)
    for d in range(place.shape[1]):
        nudge = torch.zeros_like(place)
        nudge[:, d] = 1e-6
        up, down = (target.at(place + sign * nudge).height(temperature) for sign in (1, -1))
        assert torch.allclose(slope[:, d], (up - down) / 2e-6, rtol=1e-5, atol=1e-7)


def test_a_transition_keeps_the_density_of_its_temperature():
    pair = Linear(shift=0.5, scale=0.5, latent=1)
    x = torch.full((4000, 2), 0.7)
    target = target_of(pair, x)
    temperature = torch.tensor(0.5)
    # Both ends are normal, and so is the path between them.
    grid = torch.linspace(-6, 6, 4000)[:, None]
    height = target.at(grid).height(temperature)
    probs = (height - height.max()).exp()
    mean = (probs * grid[:, 0]).sum() / probs.sum()
    var = (probs * (grid[:, 0] - mean).square()).sum() / probs.sum()
    point = target.at(mean + var.sqrt() * torch.randn(4000, 1))
    step, scale = torch.full((4000, 1), 1.2), torch.full((4000, 1), 0.4)
    for _ in range(5):
        point, chance = transition(target, point, temperature, step, scale, 3)
    assert chance.mean() < 0.97  # rejections matter
    is_zero_on_average(point.place[:, 0] - mean)
    is_zero_on_average((point.place[:, 0] - mean).square() - var)


def test_temperatures_crowd_where_most_changes_and_steps_suit_each_datum():
    pair = Linear(shift=0.0, scale=0.6)
    x = pair.data(10)
    plan = make_plan(target_of(pair, x.repeat(4, 1), "prior"), 4, 100, 2, 0.7)
    ends = plan.temperatures
    assert ends[0] == 0
    assert ends[-1] == 1
    assert (ends.diff() > 0).all()
    assert ends[50] < 0.3  # most changes near the prior
    assert plan.log_steps.shape == (11, 40)
    assert torch.equal(plan.log_steps[:, :10], plan.log_steps[:, 30:])  # shared by its chains
    assert (plan.log_steps[0] > plan.log_steps[-1]).all()  # the posterior is narrower
    step = plan.step(plan.knots[7])
    assert torch.allclose(step[:, 0].log(), plan.log_steps[7])
