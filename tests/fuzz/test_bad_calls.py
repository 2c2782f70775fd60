"""Bad calls of the public functions end in an error of the package's own, or in a result.

Each call is right but for one argument, which takes a value of another kind, size, sign, shape or
dtype. What must not come is an error from within: of torch, NumPy, Pyro or Python.
"""

import random
import warnings
from contextlib import suppress
from itertools import islice

import pyro
import pytest
import torch

from pyro_mivae.errors import PyroMivaeError

from . import (
    calls_bounds,
    calls_data,
    calls_information,
    calls_metrics,
    calls_models,
    calls_parts,
    calls_schedules,
    calls_terms,
    calls_training,
)
from .values import bad_values

FILES = (
    calls_bounds,
    calls_data,
    calls_information,
    calls_metrics,
    calls_models,
    calls_parts,
    calls_schedules,
    calls_terms,
    calls_training,
)
pytestmark = pytest.mark.usefixtures("quick")
CALLS = [call for file in FILES for call in file.CALLS]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_the_call_itself_is_right(call):
    run(call, call.arguments())


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_a_bad_value_is_refused_by_the_package(call):
    rng, valid, faults = random.Random(call.name), call.arguments(), []
    for name, value in islice(bad_values(valid, rng), call.examples):
        try:
            with suppress(PyroMivaeError):
                run(call, call.arguments() | {name: value})
        except Exception as fault:
            fault.add_note(f"{call.name}({name}={value!r})")
            faults.append(fault)
    if faults:
        raise ExceptionGroup(f"bad calls of {call.name}", faults)


def test_there_are_a_thousand_bad_calls():
    assert sum(call.examples for call in CALLS) >= 1000


def run(call, arguments):
    """Calls the function, its warnings and draws being nobody's concern."""
    with (
        warnings.catch_warnings(action="ignore"),
        torch.random.fork_rng(devices=[]),
        pyro.get_param_store().scope(),
    ):
        torch.manual_seed(0)
        result = call.function(**arguments)
        if call.after is not None:
            call.after(result)
