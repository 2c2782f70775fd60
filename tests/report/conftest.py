"""Models whose pages are made, without pixels unless a test looks at them."""

import pytest

from pyro_mivae import VAE, InfoCatVAE


@pytest.fixture
def infocat():
    return InfoCatVAE(data_shape=(1, 8, 8), num_categories=3, latent_dim=6)


@pytest.fixture
def vae():
    return VAE(data_shape=(1, 8, 8), latent_dim=3)
