"""Guides with auxiliary sites: what a divergence is made of, and what its weight weighs."""

import math

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import Trace_ELBO
from pyro.infer import autoguide as auto
from torch.distributions import kl_divergence

import pyro_mivae as mi
from pyro_mivae.errors import SiteError

X = torch.linspace(-1.0, 2.0, 6, dtype=torch.float64)


pytestmark = pytest.mark.usefixtures("double")


def hierarchy(x, size=None):
    m = pyro.sample("m", dist.Normal(0.5, 1.0))
    s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(x), subsample_size=size) as i:
        z = pyro.sample("z", dist.Normal(m, s))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])


def small(x):
    return hierarchy(x, size=2)


class Easy(EasyGuide):
    def guide(self, x):
        group = self.group("m|s")
        group.sample("ms", dist.Normal(pyro.param("l", torch.zeros(2)), 0.5).to_event(1))
        with self.plate("data", len(x), subsample_size=None):
            loc = pyro.param("k", torch.zeros(6, 1))
            self.group("z").sample("local", dist.Normal(loc, 0.7).to_event(1))


def listed(model):
    guide = auto.AutoGuideList(model)
    guide.append(auto.AutoMultivariateNormal(poutine.block(model, expose=["m", "s"])))
    guide.append(auto.AutoNormal(poutine.block(model, expose=["z"])))
    return guide


def half_pointlike(model):
    guide = auto.AutoGuideList(model)
    guide.append(auto.AutoDiagonalNormal(poutine.block(model, expose=["m", "z"])))
    guide.append(auto.AutoDelta(poutine.block(model, expose=["s"])))
    return guide


def structured(dependencies):
    def make(model):
        conditionals = {"m": "normal", "s": "mvn", "z": "normal"}
        return auto.AutoStructured(
            model,
            conditionals=conditionals,
            dependencies={"z": dict.fromkeys(dependencies, "linear")},
        )

    return make


JOINT = [{"m", "s", "z"}]
EACH = [{"m"}, {"s"}, {"z"}]
GUIDES = {
    "AutoNormal": (auto.AutoNormal, EACH),
    "AutoDiagonalNormal": (auto.AutoDiagonalNormal, JOINT),
    "AutoMultivariateNormal": (auto.AutoMultivariateNormal, JOINT),
    "AutoLowRankMultivariateNormal": (auto.AutoLowRankMultivariateNormal, JOINT),
    "AutoIAFNormal": (lambda m: auto.AutoIAFNormal(m, hidden_dim=[9]), JOINT),
    "AutoNormalizingFlow": (
        lambda m: auto.AutoNormalizingFlow(m, lambda d: T.iterated(2, T.planar, d)), JOINT,
    ),
    "AutoLaplaceApproximation": (auto.AutoLaplaceApproximation, JOINT),
    "AutoGaussian": (auto.AutoGaussian, JOINT),
    "AutoDelta": (auto.AutoDelta, EACH),
    "AutoStructured": (structured(()), EACH),
    "AutoStructuredDependent": (structured(("m",)), [{"m", "z"}, {"s"}]),
    "AutoGuideList": (listed, [{"m", "s"}, {"z"}]),
    "AutoGuideListDelta": (half_pointlike, [{"m", "z"}, {"s"}]),
    "EasyGuide": (Easy, [{"m", "s"}, {"z"}]),
    "AutoNormalMessenger": (auto.AutoNormalMessenger, EACH),
    "AutoHierarchicalNormalMessenger": (
        lambda m: auto.AutoHierarchicalNormalMessenger(m, hierarchical_sites=["z"]), EACH,
    ),
    "AutoRegressiveMessenger": (auto.AutoRegressiveMessenger, EACH),
}  # fmt: skip
POINTLIKE = {"AutoDelta", "AutoLaplaceApproximation", "AutoGuideListDelta"}


@pytest.fixture
def made(request):
    """A guide that has been run once, so that its parameters are there."""
    kind, together = GUIDES[request.param]
    guide = kind(hierarchy)
    guide(X)
    return request.param, guide, together


@pytest.mark.parametrize("made", GUIDES, indirect=True)
def test_pyros_own_guides(made, assert_same, evaluate):
    """The loss is Trace_ELBO's; a weight acts on a whole divergence, which the ledger has."""
    name, guide, together = made
    assert_same(mi.MutualInformationELBO(max_plate_nesting=1), Trace_ELBO(), hierarchy, guide, X)
    for sites in together:
        weights = dict.fromkeys(sites, 2.5)
        weighed = mi.MutualInformationELBO(kl_weights=weights, max_plate_nesting=1)
        plain = mi.MutualInformationELBO(max_plate_nesting=1)
        losses = [evaluate(each, hierarchy, guide, X)[0] for each in (weighed, plain)]
        entries = {k: float(v) for k, v in plain.ledger.items()}
        divergences = [v for k, v in entries.items() if k.startswith("kl_")]
        assert len(divergences) == len(together)
        if name in POINTLIKE:
            assert math.isnan(entries["elbo"])
            continue
        assert entries["elbo"] == pytest.approx(-losses[1])
        gains = [1.5 * each for each in divergences]
        gain = losses[0] - losses[1]
        assert min(abs(gain - each) for each in gains) < 1e-9 * abs(losses[1])
    shared = next((sites for sites in together if len(sites) > 1), None)
    if shared:
        one = mi.MutualInformationELBO(kl_weights={min(shared): 2.0}, max_plate_nesting=1)
        with pytest.raises(SiteError, match="one number and a weight of one"):
            one.loss(hierarchy, guide, X)


def test_the_divergence_of_an_auto_normal_is_the_closed_form_on_average():
    guide = auto.AutoNormal(hierarchy)
    guide(X)
    objective = mi.MutualInformationELBO(kl_weights={"s": 0.0}, max_plate_nesting=1)
    found = []
    for seed in range(100):
        pyro.set_rng_seed(seed)
        objective.loss(hierarchy, guide, X)
        found.append([objective.ledger["kl_m"], objective.ledger["kl_s"]])
    values = torch.tensor(found)
    scales = guide.scales.m, guide.scales.s
    exact = torch.stack([
        kl_divergence(dist.Normal(guide.locs.m, scales[0]), dist.Normal(0.5, 1.0)),
        kl_divergence(dist.Normal(guide.locs.s, scales[1]), dist.Normal(0.0, 0.5)),
    ])  # fmt: skip
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - exact).abs() < 4 * error).all()


@pytest.mark.parametrize("weights", [{"m": 0.0}, {"s": 0.5}, {"m": 2.0, "s": 3.0, "z": 0.1}])
@pytest.mark.parametrize("kind", [auto.AutoNormal, structured(())])
def test_weighed_sites_weigh_their_auxiliary_sites(kind, weights, evaluate):
    guide = kind(hierarchy)
    guide(X)
    ours = mi.MutualInformationELBO(kl_weights=weights, max_plate_nesting=1)
    weighed = [mi.weigh_sites(part, weights) for part in (hierarchy, guide)]
    loss, slopes = evaluate(ours, hierarchy, guide, X)
    expected, wanted = evaluate(Trace_ELBO(), *weighed, X)
    assert loss == pytest.approx(expected, rel=1e-9)
    for name, slope in slopes.items():
        torch.testing.assert_close(slope, wanted[name], msg=name)


def test_weighed_sites_of_one_auxiliary_site(evaluate):
    guide = auto.AutoDiagonalNormal(hierarchy)
    guide(X)
    same = dict.fromkeys("msz", 2.0)
    weighed = [mi.weigh_sites(part, same) for part in (hierarchy, guide)]
    ours = mi.MutualInformationELBO(kl_weights=same, max_plate_nesting=1)
    expected = evaluate(Trace_ELBO(), *weighed, X)[0]
    assert evaluate(ours, hierarchy, guide, X)[0] == pytest.approx(expected, rel=1e-9)
    for weights in ({"m": 2.0}, {"m": 2.0, "s": 1.0, "z": 2.0}):
        with pytest.raises(SiteError, match="give all of them the same weight"):
            poutine.trace(mi.weigh_sites(guide, weights)).get_trace(X)


def batch(x):
    return pyro.plate("data", len(x), subsample_size=2)


@pytest.mark.parametrize("plates", [None, batch])
def test_auto_guides_on_sub_samples(plates, assert_same):
    guide = auto.AutoNormal(small, create_plates=plates)
    guide(X)
    assert_same(mi.MutualInformationELBO(max_plate_nesting=1), Trace_ELBO(), small, guide, X)


def test_the_structure_is_found_without_a_trace():
    """The extra run of the guide leaves random numbers and running statistics as they were."""
    norm = torch.nn.BatchNorm1d(1)

    def guide(x):
        loc = norm(x[:, None])[:, 0]
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(loc, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    pyro.set_rng_seed(0)
    objective = mi.MutualInformationELBO(max_plate_nesting=1)
    objective.loss(model, guide, X)
    after = torch.rand(())
    assert norm.num_batches_tracked == 1
    torch.testing.assert_close(norm.running_mean, norm.momentum * X.mean()[None])
    pyro.set_rng_seed(0)
    objective.loss(model, guide, X)
    assert torch.rand(()) == after
    assert set(objective.ledger) == {"loss", "distortion", "rate", "kl_z", "elbo"}
