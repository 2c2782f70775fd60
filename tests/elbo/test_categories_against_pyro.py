"""Enumerated categories, some of probability zero, against Pyro's own ELBOs."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO

import pyro_mivae as mi

from .programs import ENUMERATE, X, param

pytestmark = pytest.mark.usefixtures("double")


def categories(q_logits, p_logits, fn=dist.Categorical, infer=ENUMERATE):
    table = torch.arange(3.0)

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", fn(logits=param("p", torch.zeros(3)) + torch.tensor(p_logits)))
            c = c if c.dtype == torch.long else c @ table
            pyro.sample("x", dist.Normal(c * param("w", 0.7), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            logits = param("q", torch.zeros(6, 3)) + torch.tensor(q_logits)
            pyro.sample("c", fn(logits=logits), infer=infer)

    return model, guide


NEVER = -math.inf


@pytest.mark.parametrize("fn", [dist.Categorical, dist.OneHotCategorical])
@pytest.mark.parametrize("p", [[0.0, 0.2, NEVER], [0.0, 0.2, 0.5]])
@pytest.mark.parametrize("q", [[0.0, 0.4, NEVER], [NEVER, 0.1, NEVER]])
def test_categories_of_probability_zero(q, p, fn, assert_same):
    ours = mi.MutualInformationELBO(max_plate_nesting=1)
    theirs = TraceEnum_ELBO(max_plate_nesting=1)
    assert_same(ours, theirs, *categories(q, p, fn), X)
    assert math.isfinite(ours.ledger["kl_c"])


def test_a_category_that_the_model_never_draws():
    objective = mi.MutualInformationELBO(max_plate_nesting=1)
    assert objective.loss(*categories([0.0] * 3, [0.0, 0.0, NEVER]), X) == math.inf


def test_a_straight_through_category_of_probability_zero(evaluate):
    pair = categories(
        [0.0, 0.4, NEVER], [0.0, 0.2, NEVER], dist.OneHotCategoricalStraightThrough, None
    )
    loss, slopes = evaluate(mi.MutualInformationELBO(max_plate_nesting=1), *pair, X)
    assert math.isfinite(loss)
    assert all(slope.isfinite().all() for slope in slopes.values())


def test_a_category_of_two_plates(assert_same):
    def program(observe):
        def run(x):
            infer = None if observe else ENUMERATE
            logits = param("p" if observe else "q", torch.tensor([0.3, -0.4]))
            c = pyro.sample("c", dist.Categorical(logits=logits), infer=infer)
            if observe:
                for name in "xy":
                    with pyro.plate(name + "s", len(x)):
                        pyro.sample(name, dist.Normal(c * param("w", 0.7), 1.0), obs=x)

        return run

    ours, theirs = (
        kind(max_plate_nesting=1) for kind in (mi.MutualInformationELBO, TraceEnum_ELBO)
    )
    assert_same(ours, theirs, program(True), program(False), X)
