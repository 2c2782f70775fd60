"""MMDVAE: which weight InfoVAE's two numbers give to each summand."""

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.training import fit

SHAPE = (1, 3, 4)


@pytest.fixture
def x():
    return torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(0))


def make(**options):
    torch.manual_seed(1)
    return mi.MMDVAE(SHAPE, latent_dim=3, **options)


@pytest.mark.parametrize(("alpha", "weight"), [(1.0, 1000.0), (0.25, 7.0), (-0.5, 3.0)])
def test_loss_is_that_of_the_paper(x, alpha, weight):
    vae = make(mi_weight=alpha, marginal_weight=weight)
    objective = vae.objective()
    loss = objective.loss(vae.model, vae.guide, x)
    ledger = {name: float(value) for name, value in objective.ledger.items()}
    discrepancy = ledger["mmd_z"]
    expected = ledger["distortion"] + (1 - alpha) * ledger["kl_z"]
    assert loss == pytest.approx(expected + (alpha + weight - 1) * discrepancy, rel=1e-5)


def test_is_a_vae_where_both_weights_say_so(x):
    vae = make(mi_weight=0.0, marginal_weight=1.0)
    losses = []
    for objective in (vae.objective(), mi.MutualInformationELBO(max_plate_nesting=1)):
        torch.manual_seed(7)
        losses.append(objective.loss(vae.model, vae.guide, x))
    assert losses[0] == losses[1]
    assert not vae.objective().needs_batch  # so that any batch will do
    vae.objective().loss(vae.model, vae.guide, x[:1])


def test_aggregate_posterior_is_drawn_to_the_prior():
    """Codes spread as the prior's where the discrepancy weighs much, and further where little."""
    x = torch.rand(256, *SHAPE, generator=torch.Generator().manual_seed(0))
    spread = {}
    for weight in (1.0, 1000.0):
        vae = make(mi_weight=0.999, marginal_weight=weight)
        with torch.no_grad():
            layers = [m for m in vae.guide.heads[0].modules() if isinstance(m, torch.nn.Linear)]
            layers[0].weight.mul_(5)
        fit(vae, x, epochs=30, batch_size=128, lr=3e-3, device="cpu")
        spread[weight] = float(vae.encode(x)["z"].square().mean())
    assert 0.5 < spread[1000.0] < 1.5
    assert spread[1.0] > 2


def test_explains_its_weights():
    text = mi.explain(make(mi_weight=0.25, marginal_weight=7.0).objective())
    assert "- 0.75 * KL(q(z|x) || p(z))" in text
    assert "+ 6.25 * (-MMD^2(q(z), p(z)), not in nats)" in text
