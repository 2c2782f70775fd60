"""A graph that is no longer its program is found, named, and given up."""

import warnings
from unittest.mock import patch

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro.nn import PyroModule

import pyro_mivae as mi
from pyro_mivae.engine.comparison import Outcome, is_due, most_unchecked
from pyro_mivae.engine.steps import Engine
from pyro_mivae.errors import PyroMivaeWarning

X = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def outcome(**changes):
    parts = {
        "loss": torch.tensor(100.0),
        "kl_z": torch.tensor(float("nan")),
        "gradient": torch.tensor([1.0, 2.0]),
        "small": torch.tensor([1e-12]),
        "buffer": torch.tensor([3.0, 4.0]),
        "count": torch.tensor(5),
        "noise": torch.tensor([1, 2]),
        **changes,
    }
    return Outcome(
        {"loss": parts["loss"], "kl_z": parts["kl_z"]},
        {WEIGHT: parts["gradient"], BIAS: parts["small"]},
        (parts["buffer"], parts["count"]),
        {"cpu": parts["noise"]},
    )


WEIGHT, BIAS = torch.zeros(2), torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"loss": torch.tensor(100.01)}, "loss is 100, and 100.01 by the graph"),
        ({"kl_z": torch.tensor(1.0)}, "kl_z is nan, and 1 by the graph"),
        ({"gradient": torch.tensor([1.0, 2.001])}, r"gradient of a parameter of shape \(2,\)"),
        ({"small": torch.tensor([1e-4])}, r"gradient of a parameter of shape \(1,\)"),
        ({"buffer": torch.tensor([3.0, 4.001])}, r"tensor of shape \(2,\)"),
        ({"count": torch.tensor(6)}, r"tensor of shape \(\)"),
        ({"noise": torch.tensor([1, 3])}, "random number generator"),
    ],
)
def test_each_difference_is_named(change, named):
    with pytest.raises(AssertionError, match=named):
        assert not outcome().difference(outcome(**change)), outcome().difference(outcome(**change))


def test_rounding_is_no_difference():
    eps = torch.finfo(torch.float32).eps
    rounded = {
        "loss": torch.tensor(100.0) * (1 + 4 * eps),
        "gradient": torch.tensor([1.0, 2.0]) * (1 - 4 * eps),
        "small": torch.tensor([-1e-12]),  # of a bias before batch norm: rounding alone
        "buffer": torch.tensor([3.0, 4.0]) * (1 + 4 * eps),
    }
    assert outcome().difference(outcome(**rounded)) == ""


def test_entries_and_gradients_that_are_others():
    a = outcome()
    b = Outcome({"loss": a.ledger["loss"]}, a.gradients, a.written, a.noise)
    assert "the ledger has ['loss', 'kl_z']" in a.difference(b)
    b = Outcome(a.ledger, {WEIGHT: a.gradients[WEIGHT]}, a.written, a.noise)
    assert "the parameters with a gradient differ" in a.difference(b)


def test_comparisons_are_dense_at_first_and_never_far_apart():
    due = [step for step in range(1001) if is_due(step)]
    assert due[:9] == [0, 1, 2, 4, 8, 16, 32, 64, 128]
    assert max(b - a for a, b in zip(due, due[1:], strict=False)) <= 200


HELD = {"weight": [1.0]}


def make_pair():
    """A pair that reads a number where no guard looks."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).to(x), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, HELD["weight"][0]).to_event(1), obs=x)

    def guide(x):
        slope = pyro.param("slope", lambda: torch.tensor(0.5).to(x))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, 0.7).to_event(1))

    return model, guide


def run(svi_class, steps, change_at=None, **options):
    pyro.clear_param_store()
    torch.manual_seed(0)
    HELD["weight"][0], losses = 1.0, []
    elbo = mi.MutualInformationELBO(max_plate_nesting=1)
    svi = svi_class(*make_pair(), pyro.optim.Adam({"lr": 0.01}), elbo, **options)
    with patch.object(pyro, "sample", wraps=pyro.sample) as sample:
        for step in range(steps):
            if step == change_at:
                HELD["weight"][0] = 0.9
            losses.append(svi.step(X))
    return losses, sample.call_count / 3, svi


def test_a_number_out_of_sight_ends_staging_at_the_next_comparison():
    wanted, _, _ = run(pyro.infer.SVI, 30, change_at=12)
    with pytest.warns(PyroMivaeWarning) as caught:
        found, runs, svi = run(mi.SVI, 30, change_at=12)
    assert len(caught) == 1
    told = str(caught[0].message)
    assert "differs from its program at step 18: distortion is" in told
    assert "steps 11 to 17 may be wrong" in told  # the eighth step after the recorded one agreed
    assert svi.engine == "eager"
    assert found[:12] == pytest.approx(wanted[:12], rel=1e-12)
    assert found[12:17] != pytest.approx(wanted[12:17], rel=1e-3)
    assert runs == 2 + 4 + 13  # Pyro's two, those compared, and all from the difference on


def test_a_program_runs_less_often_than_by_pyro_and_never_more():
    _, runs, svi = run(mi.SVI, 40)
    assert svi.engine == "auto"
    assert runs == 2 + sum(map(is_due, range(1, 39)))
    for steps in range(1, 5):
        assert run(mi.SVI, steps)[1] == steps


def test_a_graph_that_fails_leaves_the_step_to_pyro():
    wanted, _, _ = run(pyro.infer.SVI, 8)
    _, _, svi = run(mi.SVI, 5)
    (stage,) = [stage for stage in svi._stages.values() if stage.traced]
    stage.run = lambda *tensors: 1 / 0
    with pytest.warns(PyroMivaeWarning, match="the graph fails with ZeroDivisionError"):
        losses = [svi.step(X) for _ in range(3)]
    assert losses == pytest.approx(wanted[5:], rel=1e-12)


class HiddenWidth(PyroModule):
    def forward(self):
        return pyro.sample("z", dist.Normal(torch.zeros(2), HELD["weight"][0]).to_event(1))


def fit_hidden(engine, change_at):
    HELD["weight"][0] = 1.0
    torch.manual_seed(0)
    vae = mi.VAE((1, 4, 4), prior=HiddenWidth())

    def on_epoch(row):
        if row["epoch"] == change_at:
            HELD["weight"][0] = 2.0

    images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    options = {"epochs": 12, "batch_size": 8, "seed": 0, "engine": engine}
    return mi.fit(vae, images, on_epoch=on_epoch, **options)["loss"]


def test_fit_finds_a_number_out_of_sight():
    wanted = fit_hidden("eager", 5)
    with pytest.warns(PyroMivaeWarning) as caught:
        found = fit_hidden("staged", 5)
    assert len(caught) == 1
    told = str(caught[0].message)
    assert "differs from its program at step 33" in told  # 32 steps done
    assert "may be wrong" in told
    assert found[:5] == pytest.approx(wanted[:5], rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit_hidden("staged", None) == pytest.approx(fit_hidden("eager", None), rel=1e-6)


def test_graphs_that_were_given_up_serve_no_other_model(make, program_of, images):
    first = Engine(program_of(make()), "staged")
    first.take(images, number=0, compare=True)
    for mode in ("staged", "eager"):
        first.mode = mode
        second = Engine(program_of(make()), "staged", like=first)
        second.take(images, number=0, compare=True)
        assert second.mode == "staged"


def test_where_steps_are_captured_comparisons_are_rarer():
    every = most_unchecked(torch.device("cuda", 0))
    due = [step for step in range(5000) if is_due(step, every)]
    assert due == [0, *(2**k for k in range(11)), 2000, 4000]
    assert most_unchecked(torch.device("cpu")) == 200
