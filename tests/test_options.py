"""Options that are stated once, as fields of a dataclass."""

import inspect
import re
from dataclasses import dataclass

import pytest

import pyro_mivae as mi
from pyro_mivae.arguments import checked, flag, number, whole
from pyro_mivae.errors import OptionError
from pyro_mivae.options import check_fields, option, takes_options
from pyro_mivae.training import TrainingOptions


@dataclass(frozen=True)
class Options:
    size: int = option(check=whole(least=1), help="of the thing")
    speed: float = option(2.0, check=number(above=0), help="of the thing, " + "very " * 20)
    seed: int = option(0, check=whole(), help="of noise")

    def __post_init__(self):
        check_fields(self)


@checked(loud=flag())
@takes_options(Options, without=("seed",))
def go(x, *, options, loud=False):
    """Goes.

    Args:
        x: The thing.
        options: See `Options`.
        loud: Loudly.
    """
    return x, options, loud


def test_fields_become_keywords_and_one_object():
    assert str(inspect.signature(go)) == ("(x, *, size: int, speed: float = 2.0, loud=False)")
    assert go("x", size=3, loud=True) == ("x", Options(3), True)
    assert go(x="x", size=3, speed=1.5) == ("x", Options(3, 1.5), False)
    lines = go.__doc__.splitlines()
    assert lines[4] == "        size: Of the thing."
    assert lines[5].startswith("        speed: Of the thing, very very")
    assert lines[6].startswith("            very")
    assert lines[-2] == "        loud: Loudly."
    assert max(map(len, lines)) < 100


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"size": 0}, OptionError, "size=0; allowed are whole numbers from 1 up"),
        ({"speed": 1.0}, TypeError, "missing a required argument: 'size'"),
        (
            {"size": 1, "sped": 1},
            TypeError,
            "go takes x, size, speed, loud; 'sped' is none of them; did you mean speed",
        ),
        ({"size": 1, "seed": 1}, TypeError, "go takes x, size, speed, loud; 'seed' is none"),
        ({"size": 1, "options": Options(1)}, TypeError, "'options' is none of them"),
        ({"size": 1, "loud": 1}, OptionError, "loud=1; allowed are True and False"),
    ],
)
def test_arguments_are_checked(given, error, told):
    with pytest.raises(error, match=re.escape(told)):
        go("x", **given)


@pytest.mark.parametrize(("function", "own"), [(mi.fit, set()), (mi.fit_many, {"lr", "seed"})])
def test_trainings_take_every_training_option(function, own):
    shown = inspect.signature(function).parameters
    for name, field in TrainingOptions.__dataclass_fields__.items():
        if name not in own:
            default = shown[name].default
            assert default is shown[name].empty if name == "epochs" else default == field.default
            assert f"        {name}: " in function.__doc__
