"""Small data and small models to train."""

import pytest
import torch

import pyro_mivae as mi

SHAPE = (1, 4, 4)


@pytest.fixture(scope="session")
def x(images_about):
    return images_about(3, 50, *SHAPE)


@pytest.fixture(scope="session")
def make():
    """Makes a variant for the images, the same weights each time."""

    def make(name="infocat", **options):
        torch.manual_seed(3)
        if name in ("cat", "infocat"):
            options = {"num_categories": 3, "warm_start": 2} | options
        return mi.VARIANTS[name](SHAPE, **{"latent_dim": 3, **options})

    return make


@pytest.fixture(scope="session")
def assert_same_weights():
    """Compares the weights of two models, or their state dictionaries, bit for bit."""

    def state(of):
        return of if isinstance(of, dict) else of.state_dict()

    def check(a, b):
        a, b = state(a), state(b)
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), name

    return check
