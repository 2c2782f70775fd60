"""The ELBO's gradient with every family of a guide and every prior, on fixed noise."""

import pytest
import torch
from torch import nn

import pyro_mivae as mi
from pyro_mivae import traces
from pyro_mivae.guides import FAMILIES
from pyro_mivae.networks import MLPDecoder, MLPEncoder
from tests.priors.kinds import KINDS, scattered
from tests.slopes import check_slope

SIZE, STEP = 4, 1e-7
SMOOTH = [name for name in FAMILIES if name != "gaussian-mixture"]
"""Families whose draws are a smooth function of the noise."""
PAIRS = [("normal", family) for family in SMOOTH]
PAIRS += [(name, "mean-field") for name in KINDS if name not in ("normal", "spherical")]
PAIRS += [("vamp", "full-covariance"), ("coupling", "spline"), ("learned mixture", "iaf")]
VAMP = {"vamp": {"learn_weights": True}, "vamp with a category": {"num_categories": 2}}
PARTS = ("guide.encoder", "guide.heads", "model.prior", "model.decoder")


def built(name, family):
    torch.manual_seed(0)
    if name in VAMP:
        prior = mi.VampPrior((SIZE,), 2, 3, **VAMP[name])
    else:
        prior = KINDS[name]()
    parts = {
        "encoder": MLPEncoder((SIZE,), (5,), nn.Tanh),
        "decoder": MLPDecoder(2, (SIZE,), (5,), nn.Tanh),
    }
    if getattr(prior, "category", None) is not None:
        vae = mi.CatVAE((SIZE,), prior=prior, guide=family, warm_start=0, **parts)
    else:
        vae = mi.VAE((SIZE,), prior=prior, guide=family, **parts)
    scattered(prior)
    scattered(vae.guide)  # an untrained flow is the identity
    return vae


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_the_gradient_is_that_of_finite_differences(name, family, double, monkeypatch):
    """Each part moves along a random direction; encoder, heads, prior and decoder.

    With the score, which has the expectation 0 (see `test_path_gradients`).
    """
    monkeypatch.setattr(traces, "log_density_of_draw", lambda _, log_q: log_q)
    vae, x = built(name, family), torch.rand(5, SIZE)
    vae.initialize(x)
    vae.eval()
    objective = vae.objective()

    def loss():
        torch.manual_seed(1)
        return objective.differentiable_loss(vae.model, vae.guide, x)

    loss().backward()
    moved = 0
    for part in PARTS:
        own = [p for n, p in vae.named_parameters() if n.startswith(part)]
        slope = check_slope(own, loss, STEP, part)
        moved += bool(own) and abs(slope) > 1e-6
    assert moved == 3 + any(n.startswith("model.prior") for n, _ in vae.named_parameters())
