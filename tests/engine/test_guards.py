"""Numbers of Python's that a program reads: a step follows them, staged or not."""

from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.engine.guards import Guards
from pyro_mivae.errors import PyroMivaeWarning

X = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
WEIGHT = 1.0
OPTIONS = SimpleNamespace(weight=1.0)


class Coder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2)).double()
        self.weight, self.steps = 1.0, 0

    def model(self, x):
        draw(x, self.weight)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def draw(x, weight):
    with pyro.plate("data", len(x)):
        with poutine.scale(scale=weight):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(torch.cat([z, z], -1), 1.0).to_event(1), obs=x)


def of_an_object(coder):
    def change():
        OPTIONS.weight = 0.1

    return (lambda x: draw(x, OPTIONS.weight)), change


def of_a_submodule(coder):
    def change():
        coder.encoder[1].p = 0.7

    return coder.model, change


def steps(make, case, warn=True):
    OPTIONS.weight = 1.0
    pyro.clear_param_store()
    torch.manual_seed(0)
    coder = Coder()
    model, change = case(coder)
    svi = make(model, coder.guide, pyro.optim.Adam({"lr": 0.01}), mi.MutualInformationELBO())
    losses = [svi.step(X) for _ in range(3)]
    change()
    return [*losses, *(svi.step(X) for _ in range(3))], svi, coder


def staged(*args):
    return mi.SVI(*args, engine="staged")


@pytest.mark.parametrize("case", [of_an_object, of_a_submodule])
def test_a_step_follows_a_number(case):
    wanted, _, _ = steps(pyro.infer.SVI, case)
    found, svi, _ = steps(staged, case)
    assert found == pytest.approx(wanted, rel=1e-9)
    assert svi.engine == "staged"
    assert len(svi._stages) == 2


COUNT = 0


def in_an_attribute(coder):
    def model(x):
        coder.steps += 1
        draw(x, 1.0 / coder.steps)

    return model, (lambda: None)


def in_a_global(coder):
    global COUNT
    COUNT = 0

    def model(x):
        global COUNT
        COUNT += 1
        draw(x, 1.0 / COUNT)

    return model, (lambda: None)


def in_an_enclosing_function(coder):
    count = 0

    def model(x):
        nonlocal count
        count += 1
        draw(x, 1.0 / count)

    return model, (lambda: None)


def in_an_array(coder):
    count = np.zeros(1)

    def model(x):
        count[0] += 1
        draw(x, 1.0 / count[0])

    return model, (lambda: None)


COUNTING = [in_an_attribute, in_a_global, in_an_enclosing_function, in_an_array]


@pytest.mark.parametrize("case", COUNTING)
def test_a_model_that_counts_its_steps_runs_as_pyro_runs_it(case):
    wanted, _, counted = steps(pyro.infer.SVI, case)
    with pytest.warns(PyroMivaeWarning, match="changes a number of its own as it runs"):
        found, svi, coder = steps(staged, case)
    assert found == wanted
    assert svi.engine == "eager"
    assert coder.steps == counted.steps


class CountingPrior(PyroModule):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self):
        self.steps += 1
        return pyro.sample("z", dist.Normal(torch.zeros(2), 1.0 / self.steps).to_event(1))


def test_fit_counts_the_steps_of_a_model_that_does():
    found = []
    for engine in ("eager", "staged"):
        vae = mi.VAE((1, 4, 4), latent_dim=2, prior=CountingPrior())
        options = {"epochs": 2, "batch_size": 8, "seed": 0, "engine": engine}
        if engine == "staged":
            with pytest.warns(PyroMivaeWarning, match=r"changes a number .* \(CountingPrior\)"):
                history = mi.fit(vae, torch.rand(32, 1, 4, 4), **options)
        else:
            history = mi.fit(vae, torch.rand(32, 1, 4, 4), **options)
        found.append((history["loss"], vae.model.prior.steps))
    assert found[0][1] == found[1][1]


def test_what_is_watched_and_what_is_not():
    held = {"weight": 1.0}
    names = ["a", "b"]
    coder = Coder()

    def program(default=(1, 2)):
        return held["weight"], names, coder.weight, WEIGHT

    guards = Guards(program, program, 3, None)
    before = guards.read()
    held["weight"] = 2.0
    names.append("c")
    assert guards.read() == before
    begun = guards.begin()
    coder.extra = (1, "two")
    assert "as it runs (Coder);" in guards.unsafe(begun, [])
    assert guards.unsafe(guards.begin(), []) == ""
    before = guards.read()
    coder.weight = 3.0
    assert guards.read() != before
    coder.weight = 1.0
    assert guards.read() == before
    begun = guards.begin()
    program.__defaults__ = ((1, 3),)
    assert "as it runs (program);" in guards.unsafe(begun, [])
    begun = guards.begin()
    held["weight"] = 3.0
    names[:] = []
    assert "as it runs (held, names);" in guards.unsafe(begun, [])


def test_an_object_that_a_run_replaces_counts_if_the_run_has_used_it():
    coder = Coder()
    coder.cache = torch.ones(1)
    guards = Guards(coder)
    begun, old = guards.begin(), coder.cache
    coder.cache = torch.zeros(1)
    assert "as it runs (Coder);" in guards.unsafe(begun, [old])
    assert guards.unsafe(begun, []) == ""
    now = guards.read()
    coder.cache = old
    assert guards.read() == now  # no longer watched


@pytest.mark.parametrize("change", ["train", "freeze", "buffer", "parameter", "module"])
def test_the_state_of_modules_is_watched(change):
    norm = nn.Sequential(nn.BatchNorm1d(2))
    guards = Guards(*norm.modules())
    before = guards.read()
    assert guards.read() == before
    if change == "train":
        norm.eval()
    elif change == "freeze":
        norm[0].weight.requires_grad_(False)
    elif change == "buffer":
        norm[0].running_mean = torch.ones(2)
    elif change == "parameter":
        norm[0].weight = nn.Parameter(torch.ones(2))
    else:
        norm[0] = nn.BatchNorm1d(2)
    assert guards.read() != before
