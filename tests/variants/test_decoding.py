"""Codes that are decoded: kept sites, centres of categories, samples."""

import pytest
import torch

import pyro_mivae as mi

SHAPE = (1, 3, 4)


@pytest.fixture
def x():
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_parts_of_the_code_are_swapped_for_their_prior_means(x):
    vae = mi.InfomaxVAE(SHAPE, latent_dim=3)
    codes = vae.encode(x)
    zeros = {name: torch.zeros_like(code) for name, code in codes.items()}
    for kept in ({"z"}, {"c"}, {"z", "c"}, set()):
        mixed = {name: (codes if name in kept else zeros)[name] for name in codes}
        expected = vae.decode(mixed, len(x))
        torch.testing.assert_close(vae.reconstruct(x, keep=kept), expected)
    torch.testing.assert_close(vae.reconstruct(x), vae.decode(codes, len(x)))


def test_a_kept_category_is_decoded_at_its_centre(x):
    vae = mi.CatVAE(SHAPE, num_categories=3, latent_dim=6)
    best = vae.encode(x)["c"].argmax(-1)
    expected = vae.decode({"z": vae.prior.means[best]}, len(x))
    torch.testing.assert_close(vae.reconstruct(x, keep={"c"}), expected)


def test_samples_of_a_category_come_from_it():
    vae = mi.CatVAE(SHAPE, num_categories=3, latent_dim=6)
    vae.prior.means.mul_(1e4)
    vae.model.decoder = torch.nn.Sequential(
        torch.nn.Linear(6, 12, bias=False), torch.nn.Unflatten(-1, SHAPE)
    )
    one, same, other = vae.sample(2, 0), vae.sample(2, 0), vae.sample(2, 1)
    torch.testing.assert_close(one, same, atol=1e-2, rtol=0)
    assert (one - other).abs().max() > 0.5
