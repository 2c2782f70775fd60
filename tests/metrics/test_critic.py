"""What a critic hears of held-out data."""

import math

import pyro.distributions as dist
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.metrics import critic_estimates, evaluate, how_measured
from pyro_mivae.networks import Critic

D = 2


class Known(Critic):
    """1 + log q(z|x) / q(z) for z | x ~ N(x, 1/4) and x ~ N(0, I), times ``share``."""

    def __init__(self, share=1.0):
        super().__init__((D,), D)
        self.share = torch.nn.Parameter(torch.tensor(share))

    def forward(self, x, code):
        own = dist.Normal(x, 0.5).log_prob(code).sum(-1)
        return 1 + self.share * (own - dist.Normal(0.0, 1.25**0.5).log_prob(code).sum(-1))


class Copy(torch.nn.Module):
    """Features that are the data."""

    def forward(self, x):
        return x


def known(share=1.0, bound="nwj"):
    vae = mi.CriticInfomaxVAE(
        (D,),
        latent_dim=D,
        likelihood="gaussian",
        encoder=Copy(),
        critic=Known(share),
        bound=bound,
    )
    head = vae.guide.heads[0]
    with torch.no_grad():
        for layer in head.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.zero_()
                layer.bias.zero_()
    head.forward = lambda features: {"": features}
    head.given = lambda outputs, _: dist.Normal(outputs[""], 0.5).to_event(1)
    return vae


INFORMATION = D / 2 * math.log(1 + 4)
X = torch.randn(4000, D, generator=torch.Generator().manual_seed(1))


def test_best_critic_hears_the_information():
    found = critic_estimates(known(), X)
    assert found["mi_z_critic_se"] < 0.1
    expected = pytest.approx(INFORMATION, abs=4 * found["mi_z_critic_se"])
    assert found["mi_z_critic"] == expected


def test_the_order_is_random():
    """Sorted data fall into batches of their like, which would be told apart less well."""
    estimates = [
        critic_estimates(known(bound="infonce"), x)["mi_z_critic"]
        for x in (X, X[X[:, 0].argsort()])
    ]
    assert estimates[0] == pytest.approx(estimates[1], abs=0.1)


def test_evaluate_puts_it_beside_the_bounds():
    options = {"iwae_samples": 2, "iwae_items": 100, "subset": 100, "generative_items": 2}
    results = evaluate(known(), X[:1000], **options)
    assert results["critic_falls_short"] == 0.0
    assert results["mi_lower"] < INFORMATION + 0.1
    assert results["mi_z_critic"] > 0.7 * INFORMATION
    assert "256 items" in how_measured(results.protocol, "mi_z_critic")
    deaf = evaluate(known(share=0.0), X[:1000], **options)
    assert deaf["critic_falls_short"] == 1.0
    assert "critic too low" in [found.kind for found in deaf.diagnoses]
    assert deaf["mi_z_critic"] == pytest.approx(0.0, abs=1e-5)


def test_too_few_data_say_nothing():
    results = evaluate(known(share=0.0), X[:63], iwae_samples=2, generative_items=2)
    assert math.isnan(results["mi_z_critic"])
    assert results["critic_falls_short"] == 0.0
    assert math.isnan(critic_estimates(known(), X[:1000])["mi_z_critic_se"])  # four batches


def test_no_critic_no_figure():
    assert critic_estimates(mi.VAE((D,)), X.sigmoid()) == {}
    results = evaluate(mi.VAE((1, D)), X[:70, None].sigmoid(), iwae_samples=2, generative_items=2)
    assert not {key for key in results if "critic" in key}
