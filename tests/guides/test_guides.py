"""Guides: the sites they sample from data."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from torch import nn

from pyro_mivae.distributions import ProbitNormal
from pyro_mivae.errors import OptionError
from pyro_mivae.guides import MeanFieldGuide, MixtureGuide
from pyro_mivae.guides.heads import StackedLinear
from pyro_mivae.networks import MLPEncoder

SHAPE, N, K, D = (2, 3), 4, 3, 5


@pytest.fixture
def x():
    return torch.rand(N, *SHAPE)


def encoder():
    return MLPEncoder(SHAPE, (7,), nn.Tanh)


@pytest.mark.parametrize("sites", [{"z": 1}, {"z": 3, "c": 2}, {"a": 2, "b": 1, "z": 4}])
@pytest.mark.parametrize("n", [1, N])
def test_mean_field(sites, n, x):
    guide = MeanFieldGuide(SHAPE, sites, encoder())
    trace = poutine.trace(guide).get_trace(x[:n])
    features = guide.encoder(x[:n])
    for (name, size), head in zip(sites.items(), guide.heads):
        fn = trace.nodes[name]["fn"]
        loc, scale = head.maps[0](features).chunk(2, -1)
        scale = nn.functional.softplus(scale) + 1e-4
        assert fn.batch_shape == (n,)
        assert fn.event_shape == (size,)
        torch.testing.assert_close(fn.base_dist.loc, loc)
        torch.testing.assert_close(fn.base_dist.scale, scale)
        assert (scale > 0).all()


def test_deterministic_sites(x):
    guide = MeanFieldGuide(SHAPE, {"z": 3, "c": 2}, encoder(), deterministic=("c",))
    trace = poutine.trace(guide).get_trace(x)
    assert isinstance(trace.nodes["c"]["fn"], dist.Delta)
    assert trace.nodes["c"]["fn"].event_shape == (2,)
    value = guide.heads[1].maps[0](guide.encoder(x))
    torch.testing.assert_close(trace.nodes["c"]["value"], value)


@pytest.mark.parametrize("size", [-1e3, 1e3])
def test_scale_stays_positive(size):
    guide = MeanFieldGuide(SHAPE, {"z": 2}, encoder())
    with torch.no_grad():
        guide.heads[0].maps[0].bias.chunk(2)[1].fill_(size)
    scale = poutine.trace(guide).get_trace(torch.rand(N, *SHAPE)).nodes["z"]["fn"].base_dist.scale
    assert (scale >= 1e-4).all()
    assert scale.isfinite().all()


def test_two_layers_in_one_start_as_two():
    torch.manual_seed(0)
    layers = [nn.Linear(7, 3) for _ in range(2)]
    after = torch.rand(1)
    torch.manual_seed(0)
    joint = StackedLinear(7, 3, 3)
    assert torch.equal(torch.rand(1), after)
    x = torch.rand(5, 7)
    for found, layer in zip(joint(x).chunk(2, -1), layers, strict=True):
        torch.testing.assert_close(found, layer(x))
    for found, layer in zip(joint.weight.chunk(2), layers, strict=True):
        assert torch.equal(found, layer.weight)


def test_mixture_under_enumeration(x):
    guide = MixtureGuide(SHAPE, K, D, encoder())
    with EnumMessenger(first_available_dim=-2):
        trace = poutine.trace(guide).get_trace(x)
    c, z = trace.nodes["c"], trace.nodes["z"]
    assert c["value"].shape == (K, 1, K)
    assert z["fn"].batch_shape == (K, N)
    assert z["fn"].event_shape == (D,)
    drawn = poutine.condition(guide, {"c": torch.eye(K)[torch.tensor([2, 0, 1, 2])]})
    loc = poutine.trace(drawn).get_trace(x).nodes["z"]["fn"].base_dist.loc
    picked = z["fn"].base_dist.loc[torch.tensor([2, 0, 1, 2]), torch.arange(N)]
    torch.testing.assert_close(loc, picked)


def test_mixture_is_linear_in_the_category(x):
    guide = MixtureGuide(SHAPE, K, D, encoder())

    def loc(c):
        trace = poutine.trace(poutine.condition(guide, {"c": c.expand(N, K)})).get_trace(x)
        return trace.nodes["z"]["fn"].base_dist.loc

    weights = torch.tensor([0.2, 0.5, 0.3])
    with pyro.validation_enabled(False):
        mixed = sum(w * loc(one_hot) for w, one_hot in zip(weights, torch.eye(K)))
        torch.testing.assert_close(loc(weights), mixed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: MeanFieldGuide(SHAPE, {}),
            "sites holds 0; give 1 or more",
        ),
        (lambda: MeanFieldGuide(SHAPE, {"z": 2}, deterministic=("c",)), "can be deterministic"),
        (lambda: MeanFieldGuide(SHAPE, {"z": 0}), r"sites\['z'\]=0; allowed"),
        (lambda: MixtureGuide(SHAPE, 0, 2), "num_categories=0; allowed"),
        (lambda: MixtureGuide(SHAPE, 2, 0), "latent_dim=0; allowed"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_bad_options(make, message):
    with pytest.raises(OptionError, match=message):
        make()


# Sites on the unit interval


@pytest.mark.parametrize("name", ["c", "z"])
def test_bounded_sites(name, x):
    guide = MeanFieldGuide(SHAPE, {"z": 3, "c": 2}, encoder(), bounded=(name,))
    trace = poutine.trace(guide).get_trace(x)
    other = {"c": "z", "z": "c"}[name]
    assert isinstance(trace.nodes[other]["fn"].base_dist, dist.Normal)
    fn = trace.nodes[name]["fn"].base_dist
    assert isinstance(fn, ProbitNormal)
    own = guide.distributions(x)[name].base_dist
    torch.testing.assert_close((fn.loc, fn.scale), (own.loc, own.scale))


def test_what_is_both_a_delta_and_bounded():
    with pytest.raises(OptionError, match="not both"):
        MeanFieldGuide(SHAPE, {"z": 2}, deterministic=("z",), bounded=("z",))
    with pytest.raises(OptionError, match="only existing sites can be deterministic"):
        MeanFieldGuide(SHAPE, {"z": 2}, bounded=("c",))
