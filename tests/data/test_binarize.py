"""Protocols that make pixels binary: their draws, and what is refused."""

import math

import numpy as np
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.data import PROTOCOLS
from pyro_mivae.data.binarize import settled_pixels, training_pixels
from pyro_mivae.errors import DataError, OptionError
from pyro_mivae.inputs import fingerprint

GREY = torch.linspace(0, 1, 11)
DIGITS = "b177ef28a5f9ad4f1cbcf8039e4ae413"


@pytest.mark.parametrize("protocol", ["fixed", "dynamic"])
def test_a_draw_has_the_grey_value_as_its_mean(protocol):
    count = 40_000
    drawn = mi.binarize(GREY.expand(count, 11), protocol)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    error = (GREY * (1 - GREY) / count).sqrt()
    assert ((drawn.mean(0) - GREY).abs() <= 4 * error).all()  # exact at 0 and 1


def test_the_threshold_is_above_one_half():
    assert mi.binarize(GREY, "threshold").tolist() == [0.0] * 6 + [1.0] * 5
    assert mi.binarize(GREY, "none") is GREY


def test_a_fixed_draw_is_the_same_in_every_process():
    torch.rand(5)
    x, state = mi.load_dataset("digits").x_train, torch.get_rng_state()
    assert fingerprint(mi.binarize(x, "fixed")) == DIGITS  # as another process printed it
    assert fingerprint(mi.binarize(x, "fixed", seed=3)) != DIGITS
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(mi.binarize(x, "dynamic"), mi.binarize(x, "dynamic"))


def test_the_draw_does_not_depend_on_the_precision():
    x = torch.rand(1000)
    drawn = mi.binarize(x, "fixed")
    assert torch.equal(mi.binarize(x.double(), "fixed"), drawn.double())
    assert torch.equal(mi.binarize(x.numpy(), "fixed"), drawn)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float32])
def test_binary_pixels_stay_as_they_are(protocol, dtype):
    x = np.arange(50) % 2
    made = mi.binarize(x.astype(dtype), protocol)
    assert np.array_equal(np.asarray(made), x)
    assert protocol == "none" or made.dtype == torch.float32


def test_parts_of_a_data_set():
    grey = mi.load_dataset("digits")
    sets = {protocol: mi.load_dataset("digits", binarize=protocol) for protocol in PROTOCOLS}
    for protocol, made in sets.items():
        assert made.binarize == protocol
        assert set(made.x_test.unique().tolist()) == {0.0, 1.0} or protocol == "none"
        assert torch.equal(made.x_train, training_pixels(grey.x_train, protocol))
        assert torch.equal(made.x_train, training_pixels(made.x_train, protocol))
        assert torch.equal(made.x_test, settled_pixels(made.x_test, protocol))
    assert torch.equal(sets["none"].x_test, grey.x_test)
    assert torch.equal(sets["dynamic"].x_train, grey.x_train)
    assert torch.equal(sets["dynamic"].x_test, sets["fixed"].x_test)
    assert len({str(made.fingerprints) for made in sets.values()}) == 4
    assert (grey.title, sets["fixed"].title) == ("digits", "digits, binarize fixed")


def test_draws_of_the_parts_have_noise_of_their_own():
    x = torch.full((1000,), 0.5)
    parts = training_pixels(x, "fixed"), settled_pixels(x, "fixed")
    same = float((parts[0] == parts[1]).float().mean())
    assert abs(same - 0.5) < 4 * math.sqrt(0.25 / 1000)


@pytest.mark.parametrize("protocol", ["threshold", "fixed", "dynamic"])
def test_pixels_outside_the_interval_are_refused(protocol):
    with pytest.raises(DataError, match=r"range over \[0, 255\], binarize='.*' needs \[0, 1\]; r"):
        mi.binarize(torch.tensor([0, 255], dtype=torch.uint8), protocol)
    with pytest.raises(DataError, match=r"range over \[-0.1, 1\]"):
        training_pixels(torch.tensor([-0.1, 1.0]), protocol)


def test_what_is_refused():
    with pytest.raises(OptionError, match="protocol='static'; allowed are none, threshold, fixed"):
        mi.binarize(GREY, "static")
    with pytest.raises(
        OptionError, match="seed=1 with protocol='dynamic'; leave it out, or give 'fixed'"
    ):
        mi.binarize(GREY, "dynamic", seed=1)
    with pytest.raises(OptionError, match="binarize='larochelle'; allowed are none"):
        mi.load_dataset("digits", binarize="larochelle")
