"""The share of variance against a sum by hand, and `evaluate`'s figures against the decoder."""

import math

import pytest
import torch
from sklearn.metrics import r2_score

import pyro_mivae as mi
from pyro_mivae.errors import ShapeError
from pyro_mivae.metrics import how_measured, reconstruction_r2


def test_by_hand():
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0]])  # variation: 1 + 1 about (2, 0)
    decoded = torch.tensor([[1.5, 0.0], [3.0, 0.5]])  # error: 0.25 + 0.25
    assert reconstruction_r2(x, decoded) == pytest.approx(0.75)
    assert reconstruction_r2(x, -x) == pytest.approx(1 - 40 / 2)


def test_is_sklearns_over_all_values():
    x = torch.rand(30, 1, 4, 5, dtype=torch.float64)
    decoded = x + 0.1 * torch.randn_like(x)
    flat = (x.flatten(1), decoded.flatten(1))
    expected = r2_score(*flat, multioutput="variance_weighted")
    assert reconstruction_r2(x, decoded) == pytest.approx(expected)


def test_alike_data_and_other_shapes():
    assert math.isnan(reconstruction_r2(torch.ones(3, 2), torch.zeros(3, 2)))
    with pytest.raises(ShapeError, match=r"\(3, 2\) and reconstructions of shape \(3, 1\)"):
        reconstruction_r2(torch.ones(3, 2), torch.zeros(3, 1))


@pytest.mark.parametrize("variant", [mi.InfomaxVAE, mi.VMIVAE])
def test_evaluate_measures_all_of_the_code_and_each_site(variant):
    torch.manual_seed(0)
    vae = variant((1, 8, 8), latent_dim=4).eval()
    x = torch.rand(1100, 1, 8, 8)  # more than a batch
    result = mi.evaluate(vae, x, iwae_samples=2, num_samples=1, subset=20, generative_items=2)
    codes = vae.encode(x)
    variation = (x - x.mean(0)).square().sum()
    for suffix, kept in (("", ("z", "c")), ("_z", ("z",)), ("_c", ("c",))):
        values = {s: codes[s] if s in kept else torch.zeros_like(codes[s]) for s in codes}
        error = (x - vae.decode(values, len(x))).square().sum()
        expected = 1 - float(error / variation)
        assert result[f"reconstruction_r2{suffix}"] == pytest.approx(expected, abs=1e-5)
    assert "prior mean" in how_measured(result.protocol, "reconstruction_r2_z")


def test_one_site_has_one_figure():
    vae = mi.VAE((1, 8, 8), latent_dim=2)
    result = mi.evaluate(vae, torch.rand(9, 1, 8, 8), iwae_samples=2, generative_items=2)
    assert {n for n in result if n.startswith("reconstruction")} == {"reconstruction_r2"}
