"""Guides by name: staged as Pyro runs them, saved, and beside a category."""

import copy
import sys

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI

import pyro_mivae as mi
from pyro_mivae.cli import run_command
from pyro_mivae.errors import OptionError
from pyro_mivae.guides import FAMILIES, InverseAutoregressiveFlow
from pyro_mivae.priors import flows

SHAPE, N = (2, 3), 24


@pytest.fixture
def x():
    return torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0))


def stepped(kind, vae, x):
    pyro.clear_param_store()
    torch.manual_seed(1)
    svi = kind(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), vae.objective())
    return [svi.step(x) for _ in range(5)]


@pytest.mark.parametrize("name", FAMILIES)
def test_staged_steps_are_those_of_pyro(name, x, double):
    """Beside a category, on the same noise; a warning that staging failed is an error."""
    torch.manual_seed(0)
    vae = mi.VAE(SHAPE, prior=mi.MixturePrior(2, 4, 2.0), guide=name).double().train()
    other = copy.deepcopy(vae)
    staged = stepped(mi.SVI, vae, x.double())
    torch.testing.assert_close(staged, stepped(SVI, other, x.double()))
    torch.testing.assert_close(dict(vae.state_dict()), dict(other.state_dict()))


@pytest.mark.parametrize("name", FAMILIES)
def test_fit_stages_it_and_a_file_keeps_it(name, x, tmp_path):
    torch.manual_seed(0)
    vae = mi.VAE(SHAPE, latent_dim=3, guide=name)
    mi.fit(vae, x, epochs=2, batch_size=12, engine="staged", seed=3)
    mi.save(vae, tmp_path / "vae.pt")
    loaded = mi.load(tmp_path / "vae.pt")
    assert type(loaded.guide.heads[0].family) is FAMILIES[name]
    assert torch.equal(loaded.encode(x)["z"], vae.encode(x)["z"])


@pytest.mark.parametrize("variant", [n for n in mi.VARIANTS if n != "infogan"])
def test_every_variant_with_an_elbo_takes_them(variant, x):
    x = x.repeat(3, 1, 1)  # terms that compare data warn of small batches
    for name in ("full-covariance", "iaf"):
        vae = mi.VARIANTS[variant](SHAPE, guide=name)
        assert torch.isfinite(torch.tensor(vae.objective().loss(vae.model, vae.guide, x)))


def test_the_command_trains_one_by_name(tmp_path, unmeasured):
    images = torch.randint(0, 256, (60, 4, 4), dtype=torch.uint8)
    np.savez(tmp_path / "data.npz", images=images.numpy())
    where = ["--data", str(tmp_path / "data.npz"), "--run", str(tmp_path / "run")]
    options = ["--guide", "iaf", "--epochs", "1", "--warm-start", "0", "--categories", "2"]
    assert run_command(["train", "infocat", *where, *options]) == 0
    loaded = mi.load(tmp_path / "run")
    assert isinstance(loaded.guide.heads[1].family, InverseAutoregressiveFlow)


def test_a_missing_zuko_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(OptionError, match=r"needs zuko: pip install 'pyro-mivae"):
        mi.VAE(SHAPE, guide="iaf")
    assert mi.VAE(SHAPE, guide="affine-coupling").sites == {"z": 20}


def test_importing_zuko_leaves_validation_on():
    flows.import_zuko("a test", "none")
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)


def count_passes(flow, run):
    """Counts the passes of a flow's first network."""
    passes = []
    hyper = flow.layers[0].hyper
    hook = hyper.register_forward_hook(lambda *_: passes.append(1))
    run()
    hook.remove()
    return len(passes)


@pytest.mark.parametrize("name", ["iaf", "spline"])
def test_a_draw_and_its_density_take_one_pass(name):
    flow = FAMILIES[name](5)
    fn = flow(torch.zeros(N, flow.num_params))
    assert count_passes(flow, lambda: fn.log_prob(fn())) == 1
    assert count_passes(flow, lambda: fn.log_prob(torch.zeros(N, 5))) == 5 + 1
