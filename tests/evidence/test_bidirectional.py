"""Annealed bounds from both sides: exact on linear-Gaussian models, staged as in Pyro."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.evidence import annealing, annealing_path, staging
from pyro_mivae.evidence.annealing import AnnealingOptions, AnnealingRun, annealed_log_likelihood
from pyro_mivae.evidence.annealing_path import AnnealingPath
from pyro_mivae.evidence.importance import generate
from pyro_mivae.posterior.densities import repeat
from pyro_mivae.posterior.probe import probed

from .pairs import Linear, Mixture, is_zero_on_average


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)


def both_sides(pair, items, **options):
    """Bounds of data that the model drew, less their evidence."""
    how = AnnealingOptions(**options)
    x = pair.data(20)
    with (
        probed(pair.model, pair.guide, x, batch_size=how.batch_size, seed=0) as (x, known),
        pyro.validation_enabled(False),
    ):
        data = generate(known, x, items)
        low, high = AnnealingRun(known, how, items, runs=2).sandwich(data)
    truth = pair.log_px(data.x)
    return low - truth, high - truth


@pytest.mark.parametrize(
    ("shift", "num_temperatures"), [(0.1, 100), pytest.param(1.0, 1000, marks=pytest.mark.slow)]
)
def test_linear_gaussian_models_have_a_small_gap_around_the_truth(shift, num_temperatures):
    low, high = both_sides(Linear(shift, 0.4), 100, num_temperatures=num_temperatures)
    error = 3 / math.sqrt(100)
    assert low.mean() < error * low.std()
    assert high.mean() > -error * high.std()
    assert (high - low).mean() < 0.05


def test_short_runs_err_outwards_and_their_weights_are_unbiased(short_pilot):
    options = {"num_temperatures": 6, "num_chains": 1, "leapfrog_steps": 2, "batch_size": 3000}
    low, high = both_sides(Linear(0.3, 0.4, latent=1), 3000, **options)
    is_zero_on_average(low.exp() - 1)
    is_zero_on_average((-high).exp() - 1)
    error = 4 / math.sqrt(3000)
    assert low.mean() < -error * low.std()
    assert high.mean() > error * high.std()


def test_the_plan_and_the_figure_share_no_chain_and_no_random_numbers(monkeypatch, short_pilot):
    """Huang et al. (2020): steps are tuned in a run of their own."""
    drawn, planned = [], []
    draw, plan = AnnealingPath.draw, annealing_path.make_plan

    def noted(self):
        drawn.append(draw(self))
        return drawn[-1]

    def counted(*args):
        made = plan(*args)
        planned.append((len(drawn), torch.get_rng_state(), made.log_steps.clone(), made))
        return made

    monkeypatch.setattr(AnnealingPath, "draw", noted)
    monkeypatch.setattr(annealing, "make_plan", counted)
    places = []
    at = AnnealingPath.at
    monkeypatch.setattr(
        AnnealingPath, "at", lambda self, place: places.append(place) or at(self, place)
    )
    pair = Linear(0.3, 0.4)
    options = {"num_temperatures": 8, "leapfrog_steps": 2}
    both_sides(pair, 10, **options)
    ((before, _, steps, made),) = planned
    first = drawn[before]  # where the chains of the figure start
    assert len(drawn) == before + 1
    assert sum(torch.equal(place, first) for place in places) == 1
    used = torch.cat([place.flatten() for place in (*drawn[:before], *places[: 8 * 2])])
    assert not torch.isin(first, used).any()
    assert torch.equal(made.log_steps, steps)  # not moved by the chains that it serves


PROGRAMS = {
    "vae": lambda: mi.VAE((1, 4, 4), latent_dim=2),
    "categories": lambda: mi.CatVAE((1, 4, 4), num_categories=3, latent_dim=3),
}


def evidence_of(model, guide, x, **options):
    options = {"num_temperatures": 6, "leapfrog_steps": 2, "batch_size": 20, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PyroMivaeWarning)  # of the acceptance
        return annealed_log_likelihood(model, guide, x, **options).log_px


@pytest.mark.parametrize(
    ("name", "start"),
    [("vae", "guide"), ("vae", "prior"), ("categories", "guide"), ("mixture", "prior")],
)
def test_staged_equals_eager(name, start, monkeypatch, short_pilot):
    if name == "mixture":
        pair, x = Mixture(), torch.linspace(-3, 3, 10)
    else:
        pair, x = PROGRAMS[name](), torch.rand(10, 1, 4, 4)
    staged, stage = [], staging.Stager.stage

    def noted(self, function, *args):
        staged.append(stage(self, function, *args))
        assert staged[-1] is not function
        return staged[-1]

    monkeypatch.setattr(staging.Stager, "stage", noted)
    fast = evidence_of(pair.model, pair.guide, x, start=start)
    assert len(staged) == 2  # chunks of the same shape
    monkeypatch.setattr(staging.Stager, "stage", lambda self, function, *_: function)
    assert torch.equal(fast, evidence_of(pair.model, pair.guide, x, start=start))


def test_programs_that_no_graph_can_hold_run_in_pyro(short_pilot):
    pair = Linear(0.3, 0.4)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            loc = z @ pair.weight.T + 0.0 * z.sum().item()
            pyro.sample("x", dist.Normal(loc, 0.5).to_event(1), obs=x)

    x = pair.data(8)
    found, plain = (evidence_of(m, pair.guide, x) for m in (model, pair.model))
    assert torch.allclose(found, plain)


@pytest.mark.slow
def test_chunks_of_data_share_one_compiled_graph(monkeypatch):
    monkeypatch.setattr(staging, "WORTH_COMPILING", 0)
    compiled, compile_graph = [], staging.compile_graph

    def noted(*args):
        compiled.append(compile_graph(*args))
        return compiled[-1]

    monkeypatch.setattr(staging, "compile_graph", noted)
    vae, x = PROGRAMS["vae"](), torch.rand(24, 1, 4, 4)
    with (
        probed(vae.model, vae.guide, x, batch_size=8, seed=0) as (x, pair),
        pyro.validation_enabled(False),
    ):
        stager = staging.Stager()
        for chunk in x.repeat(2, 1, 1, 1).split(8):
            path = AnnealingPath(pair, repeat(chunk, 1), "guide")
            path.stage(stager, 1)
            place = path.draw()
            for ours, theirs in zip(path._run(place), path._evaluate(place), strict=True):
                assert torch.allclose(ours, theirs)
    assert len(compiled) == 1
    assert compiled[0] is not None
