"""Posterior means where a guide knows none: by draws, the same ones every time."""

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as flows
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_mivae import evaluate, information
from pyro_mivae.variants import VAE


class Guide(PyroModule):
    """z about the first two pixels, by a flow, a mixture, or through a site that is no code."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.flow = flows.conditional_affine_autoregressive(2, 2, hidden_dims=[8])
        self.planar = flows.planar(2)
        self.extra = nn.Linear(2, 2)

    def forward(self, x):
        loc = x.flatten(1)[:, :2]
        with pyro.plate("data", len(x)):
            base = dist.Normal(loc, 0.5).to_event(1)
            if self.kind == "auxiliary":
                u = pyro.sample("u", base, infer={"is_auxiliary": True})
                base = dist.Normal(2 * u, 0.1).to_event(1)
            elif self.kind == "shift":
                shift = flows.AffineTransform(1.0, 2.0, event_dim=1)
                base = dist.TransformedDistribution(base, [shift])
            elif self.kind == "flow":
                base = dist.TransformedDistribution(base, [self.flow.condition(loc)])
            elif self.kind == "planar":
                base = dist.TransformedDistribution(base, [self.planar])
            pyro.sample("z", base)


def build(kind):
    torch.manual_seed(0)
    return VAE((1, 4, 4), latent_dim=2, guide=Guide(kind))


X = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "offset"), [("shift", 1.0), ("auxiliary", 0.0)])
def test_means_are_those_of_the_posterior(kind, offset):
    vae, state = build(kind), torch.get_rng_state()
    means = vae.encode(X)["z"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)  # draws of others are of no account
    torch.testing.assert_close(means, vae.encode(X)["z"], rtol=0.0, atol=0.0)
    error = (means - (2 * X.flatten(1)[:, :2] + offset)) * 10  # of 100 draws, deviation 1
    assert error.square().mean() < 2.5
    assert error.abs().max() > 0.01


@pytest.mark.parametrize("kind", ["flow", "planar"])
def test_flows_are_encoded_evaluated_and_reported_on(kind):
    vae = build(kind)
    vae.guide.extra.eval()
    assert vae.reconstruct(X).shape == X.shape
    assert not vae.guide.extra.training
    assert vae.guide.training
    figures = evaluate(vae, X, iwae_samples=2, generative_items=3, generative_samples=4)
    assert figures["elbo"] < figures["log_px"] + 3
    assert "100 draws" in figures.protocol["figures"]["active_units*"]
    report = information(vae.model, vae.guide, X, iwae_samples=2, generative_items=0)
    assert report["mi_upper"] <= report["rate"]
