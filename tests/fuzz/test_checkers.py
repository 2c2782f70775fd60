"""The checkers of arguments, where a bad call would not tell that they are wrong."""

import math

import pytest
import torch

from pyro_mivae.arguments import checked, either, floats, named, number
from pyro_mivae.errors import OptionError, ShapeError


@checked(codes=floats("n", "d"), weights=either(number(), floats("n")))
def scale(codes, weights=None):
    return weights


def test_keywords_are_checked_in_the_order_of_the_checks():
    for given in ({"codes": torch.ones(3, 2), "weights": torch.ones(2)},):
        for order in (given, dict(reversed(given.items()))):
            with pytest.raises(ShapeError, match=r"weights has shape \(2,\); .*n = 3"):
                scale(**order)


def test_a_default_passes_and_the_fitting_kind_is_found():
    assert scale(torch.ones(3, 2)) is None
    assert scale(torch.ones(3, 2), 2) == 2
    with pytest.raises(OptionError, match="weights=nan; allowed are finite numbers"):
        scale(torch.ones(3, 2), math.nan)


@pytest.mark.parametrize(
    ("shape", "fitting", "others"),
    [
        (("n", "..."), [(2,), (2, 0, 3)], [(), (0, 2)]),
        (("...", "n"), [(2,), (0, 2)], [(), (2, 0)]),
        (("()",), [()], [(1,), (2, 2)]),
        ((), [(), (0,), (2, 2)], []),
        (("n", "n"), [(2, 2)], [(2, 3), (2,), (2, 2, 2)]),
        (("n", 3), [(1, 3)], [(3, 1)]),
    ],
)
def test_shapes(shape, fitting, others):
    check = floats(*shape)
    for size in fitting:
        assert check("x", torch.ones(size)).shape == size
    for size in others:
        with pytest.raises(ShapeError, match="x has shape"):
            check("x", torch.ones(size))


def test_the_least_size_is_that_of_the_first_dimension():
    check = floats("n", "d", least=2, hint="give more")
    assert check("x", torch.ones(2, 1)).shape == (2, 1)
    for size in ((1, 2), (2, 0)):
        with pytest.raises(ShapeError, match="n 2 or more; give more"):
            check("x", torch.ones(size))
    assert floats("n", "d", least=0)("x", torch.ones(2, 0)).shape == (2, 0)


def test_numbers_and_names():
    assert number(above=0, finite=False)("clip", math.inf) == math.inf
    with pytest.raises(OptionError, match="clip=nan; allowed are numbers above 0"):
        number(above=0, finite=False)("clip", math.nan)
    with pytest.raises(OptionError, match=r"weights\['z'\]=-1; allowed"):
        named(number(least=0))("weights", {"z": -1})
    with pytest.raises(OptionError, match="dicts whose keys are names"):
        named(number())("weights", {1: 2})
