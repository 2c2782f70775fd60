"""The hand-written losses are the variants' own: benchmarks of speed compare equals."""

import pytest
import torch
from torch import nn

import pyro_mivae as mi
from benchmarks.handwritten import HANDWRITTEN, SWAPPED, build_case, check_equal, make_adam, train
from benchmarks.handwritten.game import InfoGAN
from benchmarks.handwritten.gaussian import VAE, CriticInfomaxVAE
from benchmarks.speed import OPTIONS

SHAPE = (1, 8, 8)
IMAGES = torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(0))


def build(name, **options):
    torch.manual_seed(1)
    return mi.VARIANTS[name].build(SHAPE, **OPTIONS.get(name, {}) | options)


def test_every_variant_has_one():
    assert set(HANDWRITTEN) == set(mi.VARIANTS)


@pytest.mark.parametrize("name", HANDWRITTEN)
def test_same_loss_and_gradient_on_the_same_noise(name):
    assert check_equal(build(name), HANDWRITTEN[name], IMAGES) < 1e-9


@pytest.mark.parametrize("name", SWAPPED)
def test_other_parts_too(name):
    vae, handwritten = build_case(name, SHAPE, OPTIONS.get(name, {}), [9])
    assert check_equal(vae, handwritten, IMAGES) < 1e-9


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mmd", {"mi_weight": 0.5, "marginal_weight": 3.0}),
        ("critic-infomax", {"mi_weight": 3.0, "beta": 0.5}),
        ("infogan", {"mi_weight": 0.5, "continuous_weight": 2.0}),
    ],
)
def test_weights_other_than_the_defaults(name, options):
    check_equal(build(name, **options), HANDWRITTEN[name], IMAGES)


class WithoutRate(VAE):
    """A loss that lacks a summand."""

    beta = 0.0


class WithoutScale(CriticInfomaxVAE):
    """The right loss, with the weight on the critic's gradient too."""

    def forward(self, x):
        loss = super().forward(x)
        return loss + self.weight * (loss - loss.detach())


class Leaking(InfoGAN):
    """The right loss, with the trunk learning what pleases the generator."""

    def read(self, readers, image, c, u):
        return super().read(self.readers, image, c, u)


@pytest.mark.parametrize(
    ("name", "broken"),
    [("vae", WithoutRate), ("critic-infomax", WithoutScale), ("infogan", Leaking)],
)
def test_broken_mathematics_is_noticed(name, broken):
    with pytest.raises(AssertionError, match="differs from the hand-written one"):
        check_equal(build(name), broken, IMAGES)


def test_the_loop_trains_with_each_parts_own_rate():
    vae = build("infogan")
    rates = {id(p): g["lr"] for g in make_adam(vae).param_groups for p in g["params"]}
    assert all(rates[id(p)] == vae.optim_args(name)["lr"] for name, p in vae.named_parameters())
    vae = build("vae").train()
    loss: nn.Module = HANDWRITTEN["vae"](vae)
    optimiser = make_adam(vae)
    first, *_, last = [train(loss, optimiser, IMAGES, 16) for _ in range(8)]
    assert last < first - 1
