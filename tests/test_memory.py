"""Models that no memory holds are refused before they are built."""

import pytest
import torch
from torch import nn

import pyro_mivae as mi
from pyro_mivae import memory
from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.memory import build_fitting, free_memory


@pytest.fixture
def four_gigabytes(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 4e9)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("variant", [mi.CatVAE, mi.InfoCatVAE])
def test_a_thousand_categories(variant, four_gigabytes):
    message = r"1,0\d\d,\d{3},\d{3} parameters .* 16\.\d GB to train .* 4\.0 GB are free: give a"
    with pytest.raises(OptionError, match=message):
        variant((1, 8, 8), num_categories=1000)


def test_the_remedy_helps(four_gigabytes):
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    vae = mi.CatVAE((1, 8, 8), num_categories=1000, latent_dim=1000, encoder=narrow)
    assert vae.num_categories == 1000


@pytest.mark.parametrize(
    "make",
    [
        lambda: mi.VAE((1, 8, 8), latent_dim=10**7),
        lambda: mi.VAE((10**8,)),
        lambda: mi.InfoGAN((1, 8, 8), num_categories=9 * 10**6),
        lambda: mi.MixturePrior(10**6),
    ],
)
def test_what_no_machine_holds(make, four_gigabytes):
    with pytest.raises(OptionError, match=r"[\d,]+ parameters are requested"):
        make()


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        (mi.VAE, "latent_dim"),
        (mi.InfoGAN, "num_categories"),
        (mi.CatVAE, "warm_start"),
        (mi.CriticInfomaxVAE, "num_particles"),
    ],
)
def test_numbers_beyond_all_sense(variant, name):
    with pytest.raises(OptionError, match=f"{name}=10000000000000; .* up to"):
        variant((1, 8, 8), **{name: 10**13})


def test_a_datum_beyond_all_sense():
    with pytest.raises(ShapeError, match="a datum may hold up to"):
        mi.VAE((2**20, 2**20))


def test_free_memory_is_that_of_a_machine():
    assert 1e6 < free_memory() < 1e15


def test_counting_draws_nothing_and_allows_what_needs_values():
    state = torch.get_rng_state()
    built = []

    def build():
        built.append(nn.Linear(2, 1))
        assert built[-1].weight.is_meta or torch.equal(torch.get_rng_state(), after)
        return nn.ModuleList(built[-1:])

    after = _state_after_linear(state)
    assert not build_fitting(build, "none")[0].weight.is_meta
    assert len(built) == 2
    torch.set_rng_state(state)

    def starts_by_value():
        layer = nn.Linear(2, 1)
        layer.bias.data.fill_(layer.weight.sum().item())
        return (layer,)

    assert build_fitting(starts_by_value, "none")[0].bias.isfinite()


def _state_after_linear(state):
    nn.Linear(2, 1)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    return after
