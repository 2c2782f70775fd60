"""Schedules of the step, and the weights that hold their present value."""

import math

import pytest
import torch

from pyro_mivae import cyclic_warmup, linear_warmup
from pyro_mivae.errors import OptionError
from pyro_mivae.schedules import Weight


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (linear_warmup(4), [0, 0.25, 0.5, 0.75, 1, 1, 1]),
        (linear_warmup(2, start=2.0, end=1.0), [2, 1.5, 1, 1]),
        (linear_warmup(2, delay=2), [0, 0, 0, 0.5, 1, 1]),
        (linear_warmup(1), [0, 1, 1]),
        (cyclic_warmup(4), [0, 0.5, 1, 1, 0, 0.5, 1, 1, 0]),
        (cyclic_warmup(4, fraction=1.0, start=1.0, end=3.0), [1, 1.5, 2, 2.5, 1]),
        (cyclic_warmup(1), [0, 0]),
    ],
)
def test_values(schedule, expected):
    assert [schedule(step) for step in range(len(expected))] == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear_warmup(0), "steps=0; allowed are whole numbers from 1 up"),
        (lambda: linear_warmup(3, delay=-1), "delay=-1; allowed are whole numbers from 0"),
        (lambda: cyclic_warmup(0), "period=0; allowed are"),
        (lambda: cyclic_warmup(3, fraction=0.0), "fraction=0.0; .* above 0 and up to 1"),
        (lambda: cyclic_warmup(3, fraction=1.5), "fraction=1.5; .* above 0 and up to 1"),
        (lambda: Weight(math.inf), "weight inf: a finite number or a schedule"),
        (lambda: Weight(lambda step: math.nan), "weight nan at step 0"),
        (lambda: Weight(lambda step: None), "weight None at step 0"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_schedule_that_stops_being_finite():
    weight = Weight(lambda step: 1.0 if step < 2 else math.nan)
    weight.advance()
    with pytest.raises(OptionError, match="weight nan at step 2"):
        weight.advance()


def test_constant_weight():
    weight = Weight(0.5)
    weight.advance()
    assert weight() == 0.5
    assert not weight.is_zero
    assert Weight(0).is_zero
    assert weight.state_dict() == {}
    assert repr(weight) == "Weight(0.5)"


def test_scheduled_weight_changes_in_place():
    weight = Weight(linear_warmup(4))
    seen = weight()
    assert not weight.is_zero  # it will not stay at 0
    weight.advance()
    assert weight() is seen
    assert seen == 0.25
    assert repr(weight) == "Weight(scheduled, 0.25)"


def test_scheduled_weight_resumes():
    weight, other = Weight(linear_warmup(4)), Weight(linear_warmup(4))
    for _ in range(3):
        weight.advance()
    other.load_state_dict(weight.state_dict())
    assert other() == 0.75
    other.advance()
    assert other() == 1.0
    assert {value.device.type for value in other.state_dict().values()} == {"cpu"}


def test_weight_has_the_default_precision():
    torch.set_default_dtype(torch.float64)
    assert Weight(lambda step: 0.1)().item() == 0.1
