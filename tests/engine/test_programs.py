"""`mi.SVI` takes Pyro's steps on any program, or says in time that it does not."""

import re
import warnings
from unittest.mock import patch

import pyro
import pytest
import torch

from pyro_mivae.errors import PyroMivaeWarning

from .programs import (  # noqa: F401
    autoguides,
    compiled,
    flows,
    harness,
    losses,
    optimisers,
    randomness,
    read_arguments,
    read_numbers,
    read_numbers_more,
    read_tensors,
    state,
    state_changed,
    stores,
    structures,
    structures_networks,
    structures_pyro,
)

TABLE = [
    pytest.param(
        entry,
        id=name,
        marks=[pytest.mark.slow] * entry.slow
        + [pytest.mark.compiler] * (entry.engine == "compiled"),
    )
    for name, entry in harness.PROGRAMS.items()
]


@pytest.mark.parametrize("entry", TABLE)
def test_steps_are_pyros_or_a_warning_comes_in_time(entry):
    verdict = harness.compare(entry)
    assert verdict.meets(entry.expected), f"{entry.expected} is expected: {verdict}"


class Same(pyro.infer.SVI):
    """Does what Pyro's does; `step_of` is what a subclass spoils."""

    engine = "auto"
    steps = 0

    def step(self, *args, **kwargs):
        self.steps += 1
        return self.step_of(*args, **kwargs)

    def step_of(self, *args, **kwargs):
        return super().step(*args, **kwargs)


class Freezes(Same):
    """Reads a global number once."""

    def step_of(self, *args, **kwargs):
        with patch.object(read_numbers, "NUMBER", 1.0):
            return super().step_of(*args, **kwargs)


class WarnsLate(Freezes):
    """Says so, but long after."""

    def step_of(self, *args, **kwargs):
        if self.steps == 19:
            self.engine = "eager"
            warnings.warn("something differs", PyroMivaeWarning, stacklevel=1)
        return super().step_of(*args, **kwargs)


class WarnsInTime(WarnsLate):
    """Says so at the step in which it is seen, and is Pyro's from then on."""

    def step_of(self, *args, **kwargs):
        if self.steps < 15:
            return super().step_of(*args, **kwargs)
        if self.steps == 15:
            self.engine = "eager"
            warnings.warn("something differs", PyroMivaeWarning, stacklevel=1)
        return Same.step_of(self, *args, **kwargs)


class WarnsTwice(WarnsInTime):
    """Warns twice."""

    def step_of(self, *args, **kwargs):
        if self.steps == 16:
            warnings.warn("something differs", PyroMivaeWarning, stacklevel=1)
        return super().step_of(*args, **kwargs)


class SkipsAnUpdate(Same):
    """Gives the loss of one step without its update."""

    at = 15

    def step_of(self, *args, **kwargs):
        if self.steps == self.at:
            return self.loss(self.model, self.guide, *args, **kwargs)
        return super().step_of(*args, **kwargs)


class SkipsTheLastUpdate(SkipsAnUpdate):
    """Is wrong where no loss shows it."""

    at = 20


class RunsTwice(Same):
    """Tries a program, and leaves the random numbers as they were."""

    def step_of(self, *args, **kwargs):
        with torch.random.fork_rng(devices=[]):
            self.loss(self.model, self.guide, *args, **kwargs)
        return super().step_of(*args, **kwargs)


class DrawsOneMore(Same):
    """Leaves another state of the random number generator at the end."""

    def step_of(self, *args, **kwargs):
        loss = super().step_of(*args, **kwargs)
        if self.steps == 20:
            torch.rand(())
        return loss


class Breaks(Same):
    """Crashes in the middle."""

    def step_of(self, *args, **kwargs):
        if self.steps == 5:
            raise ValueError("no such operation")
        return super().step_of(*args, **kwargs)


@pytest.mark.parametrize(
    ("spoilt", "outcome", "why"),
    [
        (Same, "equal", "^$"),
        (Freezes, "failed", "silent: first differing step 11:"),
        (WarnsLate, "failed", "warned at step 18; first differing step 11:"),
        (WarnsInTime, "warned", "first differing step 11:"),
        (WarnsTwice, "failed", "more than one warning"),
        (SkipsAnUpdate, "failed", "silent: first differing step 15:"),
        (SkipsTheLastUpdate, "failed", "silent: state differs at .*store"),
        (RunsTwice, "failed", "samples, Pyro"),
        (DrawsOneMore, "failed", "silent: state differs at .*random numbers"),
        (Breaks, "failed", "step 4: ValueError: no such operation"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_svi_is_seen(spoilt, outcome, why):
    verdict = harness.compare(harness.PROGRAMS["number_global_once"], spoilt)
    assert verdict.outcome == outcome
    assert not verdict.staged
    assert re.search(why, verdict.why), verdict.why


def test_the_next_check_is_at_a_power_of_two_after_recording():
    plain = harness.Program(lambda: None, "either")
    assert [plain.next_check(step) for step in (0, 2, 3, 4, 6, 11, 18)] == [2, 2, 3, 5, 9, 17, 33]
    in_turn = harness.Program(lambda: None, "either", kinds=2)
    assert [in_turn.next_check(step) for step in (2, 6, 8)] == [5, 7, 11]
