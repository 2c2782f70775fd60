"""Every prior in a variant: it trains, is staged, copied, saved and loaded."""

import copy
import inspect

import pyro
import pytest
import torch
from pyro.infer import SVI

import pyro_mivae as mi
from pyro_mivae.priors import PRIORS, prior_sites
from pyro_mivae.runs import RunConfig
from pyro_mivae.runs.build import build_variant, listing

from .kinds import KINDS, SHAPE, variant


@pytest.fixture
def x():
    return torch.rand(24, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", KINDS)
def test_trains_and_every_parameter_moves(name, x):
    vae = variant(KINDS[name]())
    vae.initialize(x)
    vae.train()
    before = copy.deepcopy(dict(vae.named_parameters()))
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), vae.objective())
    losses = [svi.step(x) for _ in range(5)]
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert not [n for n, p in vae.named_parameters() if torch.equal(p, before[n])]
    assert vae.sample(5).shape == vae.reconstruct(x[:5]).shape == x[:5].shape
    for site in vae.sites:
        assert vae.reconstruct(x[:5], keep={site}).shape == x[:5].shape


@pytest.mark.parametrize("name", KINDS)
def test_fit_stages_it_and_a_file_keeps_it(name, x, double, tmp_path):
    """A graph that is not the program, in the last bits of doubles, would be told: an error."""
    x, vae = x.double(), variant(KINDS[name]()).double()
    mi.fit(vae, x, epochs=2, batch_size=12, engine="staged", seed=3)
    mi.save(vae, tmp_path / "vae.pt")
    loaded = mi.load(tmp_path / "vae.pt", into=variant(KINDS[name]()).double())
    for model in (vae, loaded):
        torch.manual_seed(0)
        model.drawn = model.sample(4)
    assert torch.equal(vae.drawn, loaded.drawn)
    assert torch.equal(vae.reconstruct(x), loaded.reconstruct(x))
    twin = copy.deepcopy(vae)
    weights = copy.deepcopy(vae.state_dict())
    mi.fit(twin, x, epochs=1, batch_size=12)
    torch.testing.assert_close(dict(vae.state_dict()), dict(weights), rtol=0, atol=0)


@pytest.mark.parametrize("name", PRIORS)
def test_named_priors_are_built_from_sizes(name):
    wanted = {"data_shape": SHAPE, "latent_dim": 6, "code_dim": 2, "num_categories": 3}
    wanted["given_shape"] = (3,)
    known = inspect.signature(PRIORS[name]).parameters
    prior = PRIORS[name](**{key: size for key, size in wanted.items() if key in known})
    sites, code = prior_sites(prior)
    for key, site in (("latent_dim", "z"), ("code_dim", "c")):
        if key in known and site in sites:
            assert sites[site].event_shape.numel() == wanted[key]
    assert code > 0
    assert PRIORS[name].__doc__


@pytest.mark.parametrize("name", sorted(set(PRIORS) - {"normal", "laplace", "codes", "uniform"}))
def test_the_command_line_builds_them_with_their_guide(name):
    sizes = {} if name == "hierarchical" else {"latent_dim": 20 if name == "mixture" else 6}
    given = {"given_shape": (3,)} if name == "conditional-normal" else {}
    vae = build_variant(RunConfig("vae", model={"prior": name, **sizes}, **given), SHAPE)
    codes = vae.encode(torch.rand(2, *SHAPE), given=1 if given else None)
    assert codes.keys() == vae.sites.keys()
    assert name in listing()
