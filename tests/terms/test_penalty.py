"""A penalty is a cost: its entry, its target, and what its function may return."""

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, ShapeError, SiteError


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return mi.VAE((1, 4, 4), latent_dim=2), torch.rand(8, 1, 4, 4)


def size(particle):
    return particle.traces.guide.nodes["z"]["value"].square().sum()


@pytest.mark.parametrize(("aim", "rises"), [(1e-3, True), (1e3, False)])
def test_the_entry_is_the_cost_and_a_target_holds_it(pair, aim, rises):
    vae, x = pair
    target = mi.Target(aim, window=1)
    elbo = mi.MutualInformationELBO([mi.Penalty("z", function=size, weight=target)])
    elbo.loss_and_grads(vae.model, vae.guide, x)
    assert float(elbo.ledger["penalty_z"]) > 0
    assert (float(elbo.terms[0].weight()) > 1) == rises


@pytest.mark.parametrize(
    ("site", "function", "error", "told"),
    [
        ("q", size, SiteError, r"Penalty names the site 'q'; the latent sites are \['z'\]"),
        ("z", lambda p: torch.ones(8), ShapeError, r"penalty_z returns shape \(8,\); return a"),
        ("z", lambda p: float(size(p)), ShapeError, r"penalty_z returns \d+.*the sum over the"),
        ("z", lambda p: None, ShapeError, "penalty_z returns None; return a tensor of shape"),
    ],
)
def test_what_a_step_refuses(pair, site, function, error, told):
    vae, x = pair
    elbo = mi.MutualInformationELBO([mi.Penalty(site, function=function)])
    with pytest.raises(error, match=told):
        elbo.loss(vae.model, vae.guide, x)


@pytest.mark.parametrize("name", ["loss", "rate", "kl_z", "weight_z", "temperature", "keys"])
def test_a_name_that_the_ledger_or_the_checkpoint_has(name):
    with pytest.raises(OptionError, match=f"the name '{name}', .* such as 'penalty_z'"):
        mi.MutualInformationELBO([mi.Penalty("z", function=size, name=name)])
