"""Variants with each likelihood: training, staging, files, figures, and every use of its mean."""

import copy
import math

import pyro
import pyro.optim
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

import pyro_mivae as mi
from pyro_mivae.errors import ShapeError, SiteError
from pyro_mivae.likelihoods import LIKELIHOODS
from pyro_mivae.networks import MLPDecoder, MLPEncoder, build_networks

from .kinds import KINDS

SHAPE = (3, 4)  # a series of three channels
EACH = pytest.mark.parametrize("name", KINDS)


def small(variant, likelihood, **options):
    """A variant with tiny networks."""
    code = options.get("latent_dim", 2)
    decoder = MLPDecoder(code, SHAPE, (16,), num_outputs=likelihood.num_outputs)
    encoder = MLPEncoder(SHAPE, (16,), batch_norm=True)
    given = {"latent_dim": code} | options
    return variant(SHAPE, likelihood=likelihood, encoder=encoder, decoder=decoder, **given)


@EACH
def test_training_raises_the_elbo_and_a_file_keeps_the_model(name, tmp_path):
    x = KINDS[name].data(256, *SHAPE)
    vae = mi.VAE(SHAPE, latent_dim=2, likelihood=name)
    if "categorical" in name or "discretized" in name:
        vae = small(mi.VAE, KINDS[name].build())
    history = mi.fit(vae, x, epochs=8, batch_size=32, lr=3e-3)
    assert history["elbo"][-1] > history["elbo"][0] + 0.2
    mi.save(vae, tmp_path / "vae.pt")
    loaded = mi.load(tmp_path / "vae.pt", into=copy.deepcopy(vae))
    torch.testing.assert_close(loaded.reconstruct(x[:5]), vae.reconstruct(x[:5]))


@EACH
def test_a_file_builds_the_likelihood_by_its_name(name, tmp_path):
    vae = mi.VAE((2,), latent_dim=2, likelihood=name)
    mi.save(vae, tmp_path / "vae.pt")
    assert type(mi.load(tmp_path / "vae.pt").likelihood) is type(LIKELIHOODS[name]())


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, "vae") for name in KINDS]
    + [(name, "infocat") for name in ("categorical", "zero-inflated-negative-binomial")],
)
def test_steps_are_staged_and_equal_pyros(name, variant, double):
    def train(svi_class):
        pyro.clear_param_store()
        torch.manual_seed(0)
        options = {"num_categories": 2, "latent_dim": 4} if variant == "infocat" else {}
        vae = small(mi.VARIANTS[variant], KINDS[name].build(), **options)
        loss, optim = vae.objective(12).to(torch.float64), pyro.optim.Adam(vae.optim_args)
        svi = svi_class(vae.model, vae.guide, optim, loss)
        return svi, [svi.step(x) for _ in range(6)]

    x = KINDS[name].data(16, *SHAPE).double()
    ours, found = train(mi.SVI)
    assert ours.engine == "auto", "the step was not staged"
    torch.testing.assert_close(found, train(pyro.infer.SVI)[1])


@EACH
@pytest.mark.parametrize("generated", ["mean", "straight-through", "score-function", "relaxed"])
def test_information_terms_read_each_kind_of_generated_data(name, generated, double):
    """A relaxed sample is refused, with a remedy, where there is none."""
    vae = small(mi.VMIVAE, KINDS[name].build(), latent_dim=4, code_dim=2, generated=generated)
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), vae.objective())
    relaxes = KINDS[name].build()(KINDS[name].decoded(1)).has_rsample or name == "bernoulli"
    if generated == "relaxed" and not relaxes:
        with pytest.raises(SiteError, match="no relaxation of .*; use generated='score-function'"):
            svi.step(KINDS[name].data(8, *SHAPE).double())
    else:
        assert math.isfinite(svi.step(KINDS[name].data(8, *SHAPE).double()))


@EACH
def test_every_figure_is_measured(name):
    torch.manual_seed(0)
    x = KINDS[name].data(24, *SHAPE)
    vae = small(mi.CatVAE, KINDS[name].build(), num_categories=2, latent_dim=4)
    few = {"iwae_samples": 4, "generative_items": 4, "generative_samples": 4}
    found = mi.evaluate(vae, x, **few)
    assert all(
        math.isfinite(found[key])
        for key in ("elbo", "log_px", "generative_mi_lower", "generative_mi_upper")
    )
    assert found["log_px"] >= found["elbo"] - 1e-3
    assert found["reconstruction_r2"] <= 1
    vae.check_data(vae.sample(4, what="data"))


class Affine(nn.Module):
    """Mean W z, and the same scales whatever the code."""

    weight = torch.tensor([[0.9, 0.2], [0.0, 0.7], [0.4, -0.5]], dtype=torch.float64)
    raw = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64)

    def forward(self, code):
        loc = code @ self.weight.T
        return torch.stack([loc, self.raw.expand_as(loc)], -1)


def test_evidence_of_a_linear_model_with_scales_of_its_own_is_the_closed_form(double):
    vae = mi.VAE((3,), latent_dim=2, likelihood="heteroscedastic-gaussian", decoder=Affine())
    scale = nn.functional.softplus(Affine.raw) + 0.01
    truth = MultivariateNormal(
        torch.zeros(3), Affine.weight @ Affine.weight.T + torch.diag(scale.square())
    )
    x = truth.sample((40,))
    exact = truth.log_prob(x)
    how = {"num_temperatures": 100, "num_chains": 20, "leapfrog_steps": 3}
    annealed = mi.annealed_log_likelihood(vae.model, vae.guide, x, **how).log_px
    torch.testing.assert_close(annealed, exact, atol=0.3, rtol=0)
    assert float((annealed - exact).mean()) == pytest.approx(0.0, abs=0.05)
    report = mi.information(vae.model, vae.guide, x, iwae_samples=2000).to_dict()
    assert report["log_px"] == pytest.approx(float(exact.mean()), abs=0.05)
    rows, log_det = Affine.weight / scale[:, None], torch.linalg.slogdet
    information = 0.5 * log_det(torch.eye(2) + rows.T @ rows)[1]
    low, high = report["generative_mi_lower"], report["generative_mi_upper"]
    assert low - 0.3 < float(information) < high + 0.3


@pytest.mark.parametrize("kind", ["mlp", "conv", "conv-deep"])
def test_networks_put_the_outputs_last(kind):
    one = build_networks(kind, (2, 8, 9), 3)[1].eval()
    two = build_networks(kind, (2, 8, 9), 3, num_outputs=5)[1].eval()
    codes = torch.randn(4, 6, 3)
    assert one(codes).shape == (4, 6, 2, 8, 9)
    assert two(codes).shape == (4, 6, 2, 8, 9, 5)
    torch.testing.assert_close(two(codes)[1, 2], two(codes[1, 2:3])[0])


def test_convolutions_give_each_channel_outputs_of_its_own():
    decoder = build_networks("conv", (2, 8, 8), 3, num_outputs=5)[1]
    decoded = decoder(torch.randn(1, 3))
    weight = decoder.layers[-2].weight
    for channel in range(2):
        slope = torch.autograd.grad(
            decoded[..., channel, :, :, 3].sum(), weight, retain_graph=True
        )[0]
        used = slope.abs().sum((0, 2, 3)).nonzero().flatten()
        assert used.tolist() == [5 * channel + 3]


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (nn.Linear(2, 3), r"return 2 values per element .* takes them: shape \('batch', 3, 2\)"),
        (nn.Sequential(nn.Linear(2, 6), nn.Unflatten(-1, (2, 3))), "shape .6, 2, 3. for codes"),
    ],
)
def test_a_decoder_with_too_few_outputs_is_refused(decoder, message):
    with pytest.raises(ShapeError, match=message):
        mi.VAE((3,), latent_dim=2, likelihood="heteroscedastic-gaussian", decoder=decoder)
