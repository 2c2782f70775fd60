"""Models that are trained at once end as each does alone."""

import copy
from contextlib import suppress

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.engine import Recording
from pyro_mivae.errors import (
    CaptureError,
    ManyTrainingError,
    OptionError,
    PyroMivaeWarning,
    TrainingError,
)
from pyro_mivae.training import many, read_checkpoint

SEEDS = (7, 8, 9)
OPTIONS = {"epochs": 2, "batch_size": 20, "lr_schedule": "cosine"}


@pytest.fixture
def exact():
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def make_three(make):
    """Makes three models, each with weights of its own."""

    def make_three(name="vae", each=({}, {}, {}), **options):
        models = [make(name, **options, **own) for own in each]
        for number, model in enumerate(models):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.0 + 0.1 * number)
        return models

    return make_three


def assert_like_alone(vaes, x, *, lr=1e-3, tolerance=2e-8, **options):
    """Trains copies alone, and compares weights and histories.

    Where a gradient is nothing but rounding, as that of a bias before batch norm, Adam makes up
    to 1e-8 of it.
    """
    alone = copy.deepcopy(vaes)
    lrs = [lr] * len(vaes) if isinstance(lr, float) else lr
    options = OPTIONS | options
    histories = mi.fit_many(vaes, x, lr=lr, seeds=SEEDS, **options)
    options.pop("at_once")
    for vae, twin, history, seed, own in zip(vaes, alone, histories, SEEDS, lrs, strict=True):
        wanted = mi.fit(twin, x, lr=own, seed=seed, **options)
        assert history.columns == wanted.columns
        for ours, theirs in zip(history.rows, wanted.rows, strict=True):
            for name in set(ours) - {"seconds"}:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-7, nan_ok=True), name
        for name, value in twin.state_dict().items():
            torch.testing.assert_close(
                vae.state_dict()[name], value, rtol=tolerance, atol=tolerance
            )
        assert not vae.training


SLOW = {"cat", "infocat", "infomax", "mmd", "vmi"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in mi.VARIANTS],
)
@pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
def test_each_variant_ends_as_alone(name, make_three, x, exact):
    options = {"latent_dim": 6, "code_dim": 1} if name == "infogan" else {}
    assert_like_alone(make_three(name, **options), x, at_once=True, clip_norm=1.0)


def test_weights_and_learning_rates_may_differ(make_three, x, exact):
    vaes = make_three("beta", [{"beta": b} for b in (0.5, 2.0, 4.0)])
    assert_like_alone(vaes, x, at_once=True, lr=[1e-3, 3e-3, 1e-3], clip_norm=0.5)


@pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
def test_parts_permutations_and_schedules_go_their_own_way(make_three, x, exact):
    each = [{"mi_weight": mi.linear_warmup(3, end=float(s)), "permutation_seed": s} for s in SEEDS]
    vaes = make_three("critic-infomax", each, critic_lr=3e-3)
    assert_like_alone(vaes, x, at_once=True, lr=[1e-3, 3e-3, 1e-3], epochs=3)


def test_other_structures_are_trained_group_by_group(make_three, x, exact):
    vaes = make_three("beta", [{"beta": b} for b in (1.0, 2.0, 4.0)])  # a weight of 1 is left out
    assert_like_alone(vaes, x, at_once=True)


def test_stops_each_model_at_its_own_best_epoch(make_three, x, exact):
    options = {"epochs": 5, "patience": 1, "lr_schedule": "constant", "at_once": True}
    vaes, lr = make_three(), [1e-3, 0.1, 0.1]
    again = copy.deepcopy(vaes)
    assert_like_alone(vaes, x, lr=lr, tolerance=1e-6, **options)
    histories = mi.fit_many(again, x, lr=lr, seeds=SEEDS, **OPTIONS | options)
    assert len({len(history) for history in histories}) > 1


def test_one_after_the_other_is_fit_to_the_bit(make_three, x):
    vaes = make_three("beta")
    alone = copy.deepcopy(vaes)
    mi.fit_many(vaes, x, seeds=SEEDS, at_once=False, **OPTIONS)
    for vae, twin, seed in zip(vaes, alone, SEEDS, strict=True):
        mi.fit(twin, x, seed=seed, **OPTIONS)
        for name, value in twin.state_dict().items():
            assert torch.equal(vae.state_dict()[name], value), name


def test_a_last_batch_has_a_graph_where_that_pays(make_three, x, exact, monkeypatch):
    monkeypatch.setattr("pyro_mivae.training.together.WORTH_STACKING", 1)
    assert_like_alone(make_three(), x, at_once=True)


def test_recorded_steps_are_the_same(make_three, x, exact, monkeypatch):
    recorded = []

    def record(optimiser, device):
        recorded.append(optimiser)
        return Recording(optimiser, device)

    monkeypatch.setattr("pyro_mivae.training.recorded.recorder_for", record)
    options = {"lr": [1e-3, 3e-3, 1e-3], "clip_norm": 0.5, "at_once": True}
    assert_like_alone(make_three(), x, tolerance=1e-6, **options)
    assert len(recorded) == 1 + 3


def test_steps_that_cannot_be_recorded_run_as_they_are(make_three, x, exact, monkeypatch):
    class Refuses(Recording):
        def record(self, *args):
            raise CaptureError("not here")

    monkeypatch.setattr("pyro_mivae.training.recorded.recorder_for", Refuses)
    with pytest.warns(PyroMivaeWarning, match="cannot be captured: not here"):
        assert_like_alone(make_three(), x, tolerance=1e-6, at_once=True)


def test_one_that_breaks_leaves_the_others_alone(make_three, x, exact):
    each = [{"beta": mi.linear_warmup(1, start=1.0, end=end, delay=3)} for end in (2, 1e308, 3)]
    vaes = make_three("beta", each)  # the second breaks in the second epoch
    alone = copy.deepcopy(vaes)
    with pytest.raises(ManyTrainingError, match="1 of 3 models: model 1: the loss is not") as told:
        mi.fit_many(vaes, x, seeds=SEEDS, at_once=True, **OPTIONS)
    assert list(told.value.failures) == [1]
    assert "weights are those after epoch 1 again" in told.value.failures[1]
    assert [len(history) for history in told.value.histories] == [2, 1, 2]
    for vae, twin, seed in zip(vaes, alone, SEEDS, strict=True):
        with suppress(TrainingError):
            mi.fit(twin, x, seed=seed, **OPTIONS)
        for name, value in twin.state_dict().items():
            torch.testing.assert_close(vae.state_dict()[name], value, rtol=2e-8, atol=2e-8)


def test_interrupted_runs_go_on_as_if_nothing_had_been(make_three, x, exact, tmp_path):
    vaes, whole = make_three(), make_three()
    options = {**OPTIONS, "epochs": 3, "at_once": True, "seeds": SEEDS}
    runs = [tmp_path / str(seed) for seed in SEEDS]

    def stop(number, row):
        if (number, row["epoch"]) == (1, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mi.fit_many(vaes, x, runs=runs, on_epoch=stop, **options)
    states = [read_checkpoint(run / "checkpoint.pt") for run in runs]
    assert [state["epoch"] for state in states] == [2, 2, 1]
    resumed = make_three()
    histories = mi.fit_many(resumed, x, runs=runs, resume=True, **options)
    wanted = mi.fit_many(whole, x, **options)
    for vae, twin, ours, theirs in zip(resumed, whole, histories, wanted, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-9)
        for name, value in twin.state_dict().items():
            torch.testing.assert_close(vae.state_dict()[name], value, rtol=2e-8, atol=2e-8)


def test_checkpoints_are_those_of_one_model(make_three, x, tmp_path):
    vaes, alone = make_three(), make_three()[0]
    runs = [tmp_path / str(seed) for seed in SEEDS]
    mi.fit_many(vaes, x, runs=runs, at_once=True, **OPTIONS)
    mi.fit(alone, x, run=tmp_path / "alone", **OPTIONS)
    files = [folder / "checkpoint.pt" for folder in (runs[0], tmp_path / "alone")]
    ours, theirs = map(read_checkpoint, files)
    assert ours["optimiser"]["param_groups"] == theirs["optimiser"]["param_groups"]
    for a, b in zip(*(c["optimiser"]["state"].values() for c in (ours, theirs)), strict=True):
        assert {n: v.shape for n, v in a.items()} == {n: v.shape for n, v in b.items()}
    assert torch.equal(ours["rng"]["cpu"], theirs["rng"]["cpu"])
    sizes = [file.stat().st_size for file in files]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_leaves_the_callers_random_numbers_alone(make_three, x):
    vaes, state = make_three()[:2], torch.get_rng_state()
    mi.fit_many(vaes, x, at_once=True, **OPTIONS)
    assert torch.equal(torch.get_rng_state(), state)


def test_refuses_what_does_not_fit(make_three, x, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    vaes = make_three()
    for options, told in (
        ({"seeds": (1, 2)}, "seeds holds 2 for 3 models"),
        ({"seeds": 3}, "seeds=3 for 3 models; give a sequence with one for each"),
        ({"lr": (1e-3,)}, "lr holds 1 for 3 models"),
        ({"at_once": True, "engine": "eager"}, "steps at once are staged"),
        ({"epochs": 0}, "epochs=0"),
        ({"runs": ("a", "b", "../here/a")}, "models 0 and 2 are both to be kept in ../here/a"),
        ({"seeds": (1, 2, -1)}, "seed=-1; allowed are whole numbers from 0 to 4294967295"),
    ):
        with pytest.raises(OptionError, match=told):
            mi.fit_many(vaes, x, **{**OPTIONS, **options})
    with pytest.raises(OptionError, match="a VAE given; fit_many takes a sequence of models"):
        mi.fit_many(vaes[0], x, epochs=1)
    with pytest.raises(OptionError, match="no model given"):
        mi.fit_many([], x, epochs=1)
    with pytest.raises(OptionError, match="models 0 and 1 share parameters"):
        mi.fit_many([vaes[0], vaes[0]], x, epochs=1)


@pytest.mark.parametrize(
    ("count", "batch_size", "light_enough"), [(4, 20, True), (3, 20, False), (4, 50, False)]
)
def test_light_steps_are_taken_at_once_where_there_are_many(
    count, batch_size, light_enough, make, x, monkeypatch
):
    work = work_of_a_step(make("vae"), x[:20])
    monkeypatch.setattr(many, "LIGHT_STEP", 1.5 * work)
    monkeypatch.setattr(many, "WORTH_VECTORISING", 4 * 3)
    taken = []
    monkeypatch.setattr(many, "Together", lambda *args, **options: taken.append(args))
    vaes = [make("vae") for _ in range(count)]
    if light_enough:
        with pytest.raises(AttributeError):  # what stands in for it takes no steps
            mi.fit_many(vaes, x, epochs=1, batch_size=batch_size)
    else:
        mi.fit_many(vaes, x, epochs=1, batch_size=batch_size)
    assert bool(taken) == light_enough


def work_of_a_step(vae, x):
    from torch.utils.flop_counter import FlopCounterMode

    objective = vae.objective()
    with FlopCounterMode(display=False) as counter:
        objective.differentiable_loss(vae.model, vae.guide, x).backward()
    return counter.get_total_flops()
