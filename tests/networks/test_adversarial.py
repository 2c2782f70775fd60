"""Generators and discriminators: shapes for any image, and what they refuse."""

import pytest
import torch
from torch import nn

from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.networks import (
    ADVERSARIAL_NETWORKS,
    ConvGenerator,
    ConvTrunk,
    Discriminator,
    build_adversarial_networks,
    output_dim,
)

IMAGES = [(1, 8, 8), (1, 9, 13), (1, 28, 28), (3, 33, 20)]
CODE_DIM = 5


@pytest.mark.parametrize("data_shape", IMAGES, ids=str)
@pytest.mark.parametrize("kind", [*ADVERSARIAL_NETWORKS, "auto"])
def test_trunk_and_generator_of_any_image(kind, data_shape):
    trunk, generator = build_adversarial_networks(kind, data_shape, CODE_DIM)
    size = output_dim(trunk, data_shape)
    x = torch.rand(2, *data_shape)
    assert trunk(x).shape == (2, size)
    assert Discriminator(trunk, size)(x).shape == (2,)
    for leading in ((2,), (4, 3)):
        assert generator(torch.rand(*leading, CODE_DIM)).shape == (*leading, *data_shape)


def test_the_papers_networks():
    """64 and 128 maps of 4 x 4, then 1024 features; 1024, 7 x 7 x 128, 64 maps, an image."""
    trunk, generator = build_adversarial_networks("conv", (1, 28, 28), 74)
    weights = [tuple(p.shape) for p in trunk.parameters() if p.dim() > 1]
    assert weights == [(64, 1, 4, 4), (128, 64, 4, 4), (1024, 6272)]
    weights = [tuple(p.shape) for p in generator.parameters() if p.dim() > 1]
    assert weights == [(1024, 74), (6272, 1024), (128, 64, 4, 4), (64, 1, 4, 4)]


@pytest.mark.parametrize("kind", ADVERSARIAL_NETWORKS)
def test_every_parameter_matters(kind):
    nets = build_adversarial_networks(kind, (1, 16, 16), CODE_DIM)
    outputs = nets[0](torch.rand(8, 1, 16, 16)), nets[1](torch.rand(8, CODE_DIM))
    sum((output**2).sum() for output in outputs).backward()
    for net in nets:
        for name, parameter in net.named_parameters():
            assert parameter.grad.abs().max() > 1e-6, name


def test_data_that_are_no_images_take_the_mlp():
    trunk, generator = build_adversarial_networks("auto", (6,), CODE_DIM)
    assert not any(isinstance(m, nn.Conv2d) for m in trunk.modules())
    assert generator(torch.rand(2, CODE_DIM)).shape == (2, 6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: build_adversarial_networks("dcgan", (1, 8, 8), 2),
            OptionError,
            "auto, mlp, conv",
        ),
        (lambda: build_adversarial_networks("conv", (6,), 2), ShapeError, "at least 8 x 8"),
        (lambda: ConvTrunk((1, 8, 8), (2, 2, 2, 2)), OptionError, "4 convolutions .* no pixel"),
        (lambda: ConvGenerator(2, (1, 8, 8), ()), OptionError, "channels holds 0; give 1"),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
