"""Models are alike only if they compute the same from the same parameters."""

import copy
import math

import pytest
import torch
from torch import nn

import pyro_mivae as mi
from pyro_mivae.training.likeness import alike


@pytest.mark.parametrize("name", mi.VARIANTS)
def test_variants_of_the_same_options_are_alike(name):
    shape = (1, 4, 4)
    assert alike(mi.VARIANTS[name](shape), mi.VARIANTS[name](shape))
    sizes = {"num_categories": 3} if "cat" in name else {"latent_dim": 30}
    assert not alike(mi.VARIANTS[name](shape), mi.VARIANTS[name](shape, **sizes))


class Model(nn.Module):
    def __init__(self, what=None, size=2):
        super().__init__()
        self.layer, self.what = nn.Linear(size, 2), what


def scaled(factor):
    return lambda x: x * factor


@pytest.mark.parametrize(
    ("what", "other"),
    [
        (1.0, 2.0),
        (1.0, 1),
        ([1, 2], [1, 2, 3]),
        ({"a": 1}, {"b": 1}),
        (torch.ones(2), torch.zeros(2)),
        (scaled(1.0), scaled(2.0)),
        (math.sin, math.cos),
        (mi.linear_warmup(3), mi.linear_warmup(4)),
        (nn.ReLU(), nn.Tanh()),
        (torch.Generator(), torch.Generator()),  # not to be compared
    ],
)
def test_what_differs_is_seen(what, other):
    assert alike(Model(what), Model(what))
    assert not alike(Model(what), Model(other))


@pytest.mark.parametrize("what", [math.nan, {1, 2}, range(3), scaled(1.0), mi.linear_warmup(3)])
def test_what_is_equal_is_alike(what):
    assert alike(Model(what), Model(copy.copy(what)))
    assert alike(Model(scaled(2.0)), Model(scaled(2.0)))


def test_shapes_sharing_and_frozen_parameters_count():
    assert not alike(Model(), Model(size=3))
    frozen, shared, apart = Model(), Model(), Model()
    frozen.layer.bias.requires_grad_(False)
    assert not alike(Model(), frozen)
    shared.what = shared.layer
    apart.what = nn.Linear(2, 2)
    assert not alike(shared, apart)
    assert alike(shared, copy.deepcopy(shared))
