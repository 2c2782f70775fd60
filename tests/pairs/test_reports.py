"""Reports on right pairs are empty; parameters, data and objectives that are wrong are found."""

import copy
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, autoguide
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError

from .programs import RIGHT, TutorialVAE, X, mixture, regression

SHAPE = (1, 8, 8)
IMAGES = torch.rand(70, *SHAPE, generator=torch.Generator().manual_seed(0))


def kinds(report):
    return [(finding.kind, finding.site) for finding in report]


@pytest.mark.parametrize("name", mi.VARIANTS)
def test_the_variants_are_right(name):
    vae = mi.VARIANTS[name](SHAPE)
    report = mi.check(vae, IMAGES)
    assert len(report) == 0, report
    assert "64 |  1 8 8" in report.shapes  # of 64 of the 70 images
    objective = vae.objective() if name == "infogan" else None
    assert kinds(mi.check(vae.model, vae.guide, IMAGES, objective=objective)) == []
    if name == "infogan":  # its data have no density
        assert ("data", "x") in kinds(mi.check(vae.model, vae.guide, IMAGES))


@pytest.mark.parametrize("categorical", ["soft", "gumbel", "sample"])
def test_other_objectives_are_right(categorical):
    assert kinds(mi.check(mi.InfoCatVAE(SHAPE, categorical=categorical), IMAGES)) == []


def test_labels_go_to_the_objective_alone():
    vae, labels = mi.CatVAE(SHAPE, num_categories=3), torch.arange(70) % 4 - 1
    objective = vae.objective(label_weight=1.0)
    report = mi.check(vae, IMAGES, objective=objective, labels=labels)
    assert kinds(report) == []
    (finding,) = mi.check(vae, IMAGES, objective=objective, labels=labels + 1)
    assert "the labels range over 0 to 3" in finding.found
    assert kinds(mi.check(vae, IMAGES, labels=labels)) == [("program", "")]


@pytest.mark.parametrize("build", RIGHT, ids=lambda build: build.__name__)
def test_pairs_in_the_style_of_tutorials_are_right(build):
    model, guide, args, kwargs = build()
    report = mi.check(model, guide, *args, **kwargs)
    assert len(report) == 0, report
    mi.MutualInformationELBO().loss_and_grads(model, guide, *args, **kwargs)  # as it says


def test_what_was_checked_is_as_before():
    torch.manual_seed(3)
    vae = mi.CriticInfomaxVAE(SHAPE)
    vae.encode(IMAGES)
    guide = autoguide.AutoNormal(regression)  # makes its parameters when it first runs
    elbo = mi.MutualInformationELBO(kl_weights={"weight": mi.linear_warmup(10)})
    pyro.param("mine", torch.ones(2))
    next(vae.parameters()).grad = torch.ones_like(next(vae.parameters()))
    vae.guide.encoder.eval()

    def state():
        modes = [module.training for module in vae.modules()]
        attributes = [sorted(vars(thing)) for thing in (guide, elbo)]
        given = [elbo.max_plate_nesting, elbo.latent, elbo.ledger, guide.prototype_trace]
        noise = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        store = pyro.get_param_store().get_state()
        grads = [None if p.grad is None else p.grad.clone() for p in vae.parameters()]
        return copy.deepcopy([vae.state_dict(), modes, attributes, given, noise, store, grads])

    before = state()
    assert kinds(mi.check(vae, IMAGES)) == []
    assert kinds(mi.check(regression, guide, X, objective=elbo)) == []
    same(before, state())


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.distributions.constraints.Constraint):
        return
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        same(list(a.values()), list(b.values()))
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            same(left, right)
    else:
        assert a == b


def test_batch_statistics_are_as_before_in_a_plain_function():
    network = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))

    def guide(x):
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            pyro.sample("latent", dist.Normal(network(x), 1.0).to_event(1))

    assert kinds(mi.check(TutorialVAE().model, guide, X)) == []
    assert int(network[1].num_batches_tracked) == 0
    assert network[1].running_mean.eq(0).all()


class Idle(PyroModule):
    """A guide with a layer that it does not call, or whose result it detaches."""

    def __init__(self, detached):
        super().__init__()
        self.encoder, self.other, self.detached = nn.Linear(4, 2), nn.Linear(4, 2), detached

    def forward(self, x):
        loc = self.encoder(x) + (self.other(x).detach() if self.detached else 0.0)
        with pyro.plate("data", len(x)):
            pyro.sample("latent", dist.Normal(loc, 1.0).to_event(1))


@pytest.mark.parametrize("detached", [True, False])
def test_parameters_that_nothing_trains_are_found(detached):
    guide = Idle(detached)
    (finding,) = mi.check(TutorialVAE().model, guide, X)
    assert finding.kind == "parameters"
    assert "no gradient on these arguments to" in finding.found
    assert "other.bias" in finding.found
    assert "other.weight" in finding.found
    assert "encoder" not in finding.found
    guide.other.requires_grad_(False)
    assert kinds(mi.check(TutorialVAE().model, guide, X)) == []


def test_parameters_that_pyro_does_not_know_are_found():
    vae, network = TutorialVAE(), nn.Linear(4, 2)

    def guide(x, registered):
        if registered:
            pyro.module(registered, network)
        with pyro.plate("data", len(x)):
            pyro.sample("latent", dist.Normal(network(x), 1.0).to_event(1))

    def model(x, registered):
        vae.model(x)

    (finding,) = mi.check(model, guide, X, None)
    assert "no Pyro statement names: Linear.bias, Linear.weight; SVI" in finding.found
    assert kinds(mi.check(model, guide, X, "network")) == []
    # Under one name, Pyro trains the first of two modules.
    vae.decoder = nn.Linear(2, 4)
    pyro.module("name", nn.Linear(4, 2))
    unused, unknown = mi.check(model, guide, X, "name")
    assert "to name.bias, name.weight" in unused.found
    assert "each module needs a name of its own" in unknown.remedy


def test_parameters_that_fit_does_not_train_are_found():
    class Prior(mi.StandardNormalPrior):
        def forward(self):
            loc = pyro.param("loc", torch.zeros(2))
            return pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    vae = mi.VAE(SHAPE, prior=Prior(2))
    (finding,) = mi.check(vae, IMAGES)
    assert "parameters ['loc'] live in Pyro's param store alone" in finding.found
    assert "PyroParam" in finding.remedy
    assert kinds(mi.check(vae.model, vae.guide, IMAGES)) == []  # SVI trains them


def test_sites_that_do_not_match_are_found():
    model, guide, args, _ = mixture()
    report = mi.check(model, lambda x: None, *args)
    assert kinds(report)[0] == ("sites", "")
    assert "['weights', 'locs', 'c'] and the guide samples []" in " ".join(report[0].found.split())
    assert "mark those that only the guide needs" in report[0].remedy
    hidden = pyro.poutine.block(guide, hide=["c"])
    assert kinds(mi.check(model, hidden, *args)) == [("sites", "")]
    enumerating = pyro.infer.config_enumerate(model)  # as for pyro's TraceEnum_ELBO
    assert kinds(mi.check(enumerating, hidden, *args)) == [("sites", ""), ("enumeration", "c")]
    unobserved = pyro.poutine.uncondition(TutorialVAE().model)
    assert ("sites", "") in kinds(mi.check(unobserved, TutorialVAE().guide, X))


def test_data_of_a_variant_are_checked():
    vae = mi.VAE(SHAPE)
    (finding,) = mi.check(vae, IMAGES * 255)
    assert finding.kind == "data"
    assert "BernoulliLikelihood needs [0, 1]" in finding.found
    assert "divide by 255" in finding.remedy
    assert kinds(mi.check(vae, IMAGES[:, :, 1:])) == [("data", "x")]
    assert kinds(mi.check(vae.model, vae.guide, IMAGES * 255)) == [("data", "x")]


def test_what_the_objective_says_is_passed_on():
    vae = mi.VAE(SHAPE)
    elbo = mi.MutualInformationELBO([mi.BarberAgakov("c")])
    (finding,) = mi.check(vae, IMAGES, objective=elbo)
    assert (finding.kind, finding.site) == ("objective", "")
    assert "BarberAgakov names the site 'c'" in finding.found
    critic = mi.CriticInfomaxVAE(SHAPE)
    (finding,) = mi.check(critic, IMAGES[:9])
    assert finding.kind == "remark"
    assert "a batch of 9" in finding.found
    penalty = mi.Penalty("z", function=lambda particle: 1 / 0)
    (finding,) = mi.check(vae, IMAGES, objective=mi.MutualInformationELBO([penalty]))
    assert "ZeroDivisionError" in finding.found


def test_wrong_arguments_are_refused():
    vae = mi.VAE(SHAPE)
    with pytest.raises(OptionError, match="objective=.*allowed are instances of Objective"):
        mi.check(vae, IMAGES, objective=Trace_ELBO())
    with pytest.raises(OptionError, match="guide=.*functions"):
        mi.check(vae.model, IMAGES)
