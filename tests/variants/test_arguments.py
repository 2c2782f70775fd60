"""Arguments of the wrong kind: an error of ours, at construction."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.likelihoods import Likelihood

SHAPE = (1, 3, 4)


class Row(nn.Module):
    """An encoder that returns one row for the whole batch."""

    def forward(self, x):
        return x.flatten(1).mean(0, keepdim=True)


class Narrow(Likelihood):
    """A likelihood whose distribution only broadcasts to the data."""

    def forward(self, decoded):
        return dist.Normal(decoded.mean(-1, keepdim=True), 1.0)


class Event(Likelihood):
    def forward(self, decoded):
        return dist.Normal(decoded, 1.0).to_event(1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mi.VAE(784), ShapeError, r"data_shape=784: .* from 1 up, \(784,\) for a vec"),
        (lambda: mi.InfoGAN(784), ShapeError, "data_shape=784: give the shape of one datum"),
        (lambda: mi.VAE((1.5, 8, 8)), ShapeError, r"data_shape=\(1.5, 8, 8\): give"),
        (lambda: mi.VAE(("1", "8")), ShapeError, r"data_shape=\('1', '8'\): give"),
        (lambda: mi.VAE(()), ShapeError, r"data_shape=\(\): give"),
        (lambda: mi.VAE(SHAPE, prior="mixture"), OptionError, "prior='mixture'; .* mi.Mixt"),
        (
            lambda: mi.InfoGAN(SHAPE, prior="codes"),
            OptionError,
            "prior='codes'; allowed are funct",
        ),
        (
            lambda: mi.VAE(SHAPE, guide="mean-fields"),
            OptionError,
            "guide='mean-fields'; .* or one of mean-field, full-covariance",
        ),
        (
            lambda: mi.VAE(SHAPE, prior=mi.MixturePrior),
            OptionError,
            r"MixturePrior is a class; .*",
        ),
        (lambda: mi.VAE(SHAPE, encoder=nn.Flatten), OptionError, r"encoder=Flatten is a class"),
        (
            lambda: mi.VAE(SHAPE, encoder=torch.flatten),
            OptionError,
            "encoder=<.*; .* of Module, such",
        ),
        (lambda: mi.VAE(SHAPE, prior=3), OptionError, "prior=3; allowed are functions"),
        (lambda: mi.VAE(SHAPE, likelihood=mi.GaussianLikelihood), OptionError, "GaussianLikeliho"),
        (lambda: mi.VAE(SHAPE, latent_dim=2.5), OptionError, "latent_dim=2.5; allowed are whole"),
        (lambda: mi.VAE(SHAPE, latent_dim="2"), OptionError, "latent_dim='2'; allowed are whole"),
        (lambda: mi.VAE(SHAPE, latent_dim=True), OptionError, "latent_dim=True; allowed are who"),
        (lambda: mi.BetaVAE(SHAPE, beta="4"), OptionError, "beta='4'; .* or schedules"),
        (lambda: mi.MMDVAE(SHAPE, marginal_weight=math.nan), OptionError, "marginal_weight=nan"),
        (lambda: mi.CatVAE(SHAPE, radius=math.nan), OptionError, "radius=nan; allowed are fi"),
        (lambda: mi.VAE(SHAPE, encoder=Row()), ShapeError, "returns .* for two data"),
        (lambda: mi.VAE(SHAPE, encoder=nn.Linear(5, 2)), ShapeError, "does not take data of sha"),
        (lambda: mi.VAE(SHAPE, likelihood=Narrow()), ShapeError, r"batch shape \(6, 1, 3, 1\) of"),
        (lambda: mi.VAE(SHAPE, likelihood=Event()), ShapeError, "without to_event"),
    ],
)
def test_arguments_of_the_wrong_kind(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_numbers_of_numpy_and_shapes_of_torch_are_fine():
    vae = mi.CatVAE(torch.Size(SHAPE), num_categories=np.int64(3), radius=np.float32(2.0))
    assert vae.sites == {"c": 3, "z": 6}
    assert mi.VAE(list(np.array(SHAPE)), latent_dim=np.int32(2)).data_shape == SHAPE


def test_an_empty_module_is_a_module():
    vae = mi.VAE((5,), latent_dim=5, encoder=nn.Sequential(), decoder=nn.Sequential())
    assert len(vae.guide.encoder) == len(vae.model.decoder) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_ends_of_schedules_and_weights_of_terms_are_finite(value):
    for make in (mi.linear_warmup, mi.cyclic_warmup):
        for end in ("start", "end"):
            with pytest.raises(OptionError, match=f"{end}={value}.* finite numbers"):
                make(3, **{end: value})
    for name in ("marginal_weight", "smoothness", "radius"):
        with pytest.raises(OptionError, match=f"{name}={value}"):
            mi.RegularizedInformation("c", **{name: value})


def test_parts_that_were_checked_are_as_they_were():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12))
    state = torch.get_rng_state()
    vae = mi.VAE(SHAPE, latent_dim=2, encoder=encoder)
    assert encoder.training
    assert encoder[1].num_batches_tracked == 0
    assert not torch.equal(torch.get_rng_state(), state)  # by the weights that are drawn
    assert vae.guide.encoder is encoder
