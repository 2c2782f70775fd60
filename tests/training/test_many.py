"""Models that are trained one after the other end as each does alone."""

from contextlib import suppress

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.engine import steps
from pyro_mivae.errors import (
    ManyTrainingError,
    OptionError,
    PyroMivaeError,
    SiteError,
    TrainingError,
)
from pyro_mivae.training import read_checkpoint

SEEDS = (7, 8, 9)
LRS = (1e-3, 3e-3, 2e-3)
OPTIONS = {"epochs": 3, "batch_size": 20, "lr_schedule": "cosine", "clip_norm": 1.0}
NAMES = ("vae", "infocat", "critic-infomax")  # batch norm, a warm start, a schedule
pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")


@pytest.fixture(scope="module")
def make_three(make):
    """Makes three models of different kinds, the same each time."""

    def make_three():
        weight = mi.linear_warmup(3, end=0.5)
        return [
            make(name, **({"mi_weight": weight} if "critic" in name else {})) for name in NAMES
        ]

    return make_three


@pytest.fixture(scope="module")
def assert_is_alone(assert_same_weights):
    """Compares a model and its history with what `fit` makes of a twin, bit for bit."""

    def check(vae, history, twin, wanted):
        assert_same_weights(vae, twin)
        assert not vae.training
        assert history.columns == wanted.columns
        for name in set(history.columns) - {"seconds"}:
            assert history[name] == wanted[name], name

    return check


@pytest.fixture(scope="module")
def alone(make_three, x):
    """Trains each by `fit`."""
    vaes = make_three()
    each = zip(vaes, LRS, SEEDS, strict=True)
    return vaes, [mi.fit(vae, x, lr=lr, seed=seed, **OPTIONS) for vae, lr, seed in each]


def test_each_is_fit_to_the_bit(make_three, x, alone, assert_is_alone):
    vaes, state = make_three(), torch.get_rng_state()
    told = []
    histories = mi.fit_many(
        vaes, x, lr=LRS, seeds=SEEDS, on_epoch=lambda n, row: told.append((n, row)), **OPTIONS
    )
    for vae, history, twin, wanted in zip(vaes, histories, *alone, strict=True):
        assert_is_alone(vae, history, twin, wanted)
    assert told == [(n, row) for n, history in enumerate(histories) for row in history]
    assert torch.equal(torch.get_rng_state(), state)


def test_interrupted_runs_go_on_as_if_nothing_had_been(
    make_three, x, alone, assert_is_alone, tmp_path
):
    runs = [tmp_path / str(seed) for seed in SEEDS]
    options = {**OPTIONS, "lr": LRS, "seeds": SEEDS, "runs": runs}

    def stop(number, row):
        if (number, row["epoch"]) == (1, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mi.fit_many(make_three(), x, on_epoch=stop, **options)
    states = [read_checkpoint(run) for run in runs[:2]]
    assert [state["epoch"] for state in states] == [3, 2]
    assert not list(runs[2].glob("[!.]*"))
    resumed, told = make_three(), []
    histories = mi.fit_many(
        resumed, x, resume=True, on_epoch=lambda n, row: told.append((n, row["epoch"])), **options
    )
    for vae, history, twin, wanted in zip(resumed, histories, *alone, strict=True):
        assert_is_alone(vae, history, twin, wanted)
    assert told == [(1, 3), (2, 1), (2, 2), (2, 3)]


def test_one_that_breaks_leaves_the_others_alone(make, x, tmp_path, assert_same_weights):
    def make_three():
        ends = (2.0, 3e38, 3.0)  # the second breaks in the second epoch
        return [make("beta", beta=mi.linear_warmup(1, 1.0, end, delay=3)) for end in ends]

    vaes, twins = make_three(), make_three()
    runs = [tmp_path / str(seed) for seed in SEEDS]
    with pytest.raises(ManyTrainingError, match="1 of 3 models: model 1: the loss is not") as told:
        mi.fit_many(vaes, x, seeds=SEEDS, runs=runs, **OPTIONS)
    assert list(told.value.failures) == [1]
    assert "weights are those after epoch 1 again" in told.value.failures[1]
    assert [len(history) for history in told.value.histories] == [3, 1, 3]
    assert [read_checkpoint(run)["epoch"] for run in runs] == [3, 1, 3]
    for vae, twin, seed in zip(vaes, twins, SEEDS, strict=True):
        with suppress(TrainingError):
            mi.fit(twin, x, seed=seed, **OPTIONS)
        assert_same_weights(vae, twin)


def test_objectives_are_those_of_fit(make, x, assert_is_alone):
    def models():
        return [make("vae"), make("beta", beta=2.0)]

    given = [mi.MutualInformationELBO(kl_weights={"z": w}) for w in (0.5, mi.Target(2.0))]
    for objective in (given[1], given):
        each = objective if isinstance(objective, list) else [objective] * 2
        twins, vaes, how = models(), models(), OPTIONS | {"epochs": 2}
        wanted = [
            mi.fit(vae, x, objective=elbo, seed=seed, **how)
            for vae, elbo, seed in zip(twins, each, SEEDS, strict=False)
        ]
        histories = mi.fit_many(vaes, x, objective=objective, seeds=SEEDS[:2], **how)
        for parts in zip(vaes, histories, twins, wanted, strict=True):
            assert_is_alone(*parts)
    with pytest.raises(OptionError, match="objective holds 2 for 1 models; give one for each"):
        mi.fit_many(models()[:1], x, objective=given, epochs=1)


def test_one_bar_counts_the_steps_of_all(make, x, capsys):
    mi.fit_many([make("vae"), make("beta")], x, epochs=2, batch_size=20, progress=True)
    err = capsys.readouterr().err
    assert "12/12" in err


def test_all_models_are_checked_before_the_first_is_trained(make, x, tmp_path):
    begun, runs = [], [tmp_path / "a", tmp_path / "b"]
    options = {**OPTIONS, "runs": runs, "on_start": lambda: begun.append(True)}
    with pytest.raises(SiteError, match="model and guide fail"):
        mi.fit_many([make("vae"), fails(make("vae"))], x, **options)
    with pytest.raises(mi.errors.DataError):
        mi.fit_many([make("vae"), make("beta")], x, validation=x * 3, **options)
    assert not begun
    assert not list(tmp_path.iterdir())


def test_all_folders_are_checked_before_anything_is_written(make, x, tmp_path):
    mi.fit(make("vae"), x, epochs=1, seed=1, run=tmp_path / "b")
    vaes = [make("beta"), make("infocat")]
    for resume, told in (
        (False, "holds a run already"),
        (True, "class is InfoCatVAE here and VAE there"),
    ):
        with pytest.raises(PyroMivaeError, match=told):
            mi.fit_many(vaes, x, epochs=1, runs=[tmp_path / "a", tmp_path / "b"], resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def fails(vae):
    def broken(*args):
        raise ValueError("no")

    vae.guide.encoder.register_forward_hook(broken)
    return vae


def test_refuses_what_does_not_fit(make, x, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    vaes = [make("vae") for _ in range(3)]
    for options, told in (
        ({"seeds": (1, 2)}, "seeds holds 2 for 3 models"),
        ({"seeds": 3}, "seeds=3; allowed are sequences"),
        ({"lr": (1e-3,)}, "lr holds 1 for 3 models"),
        ({"epochs": 0}, "epochs=0"),
        ({"runs": ("a", "b", "../here/a")}, "models 0 and 2 are both to be kept in .*here/a"),
        ({"seeds": (1, 2, -1)}, "=-1; allowed are whole numbers from 0 to 4294967295"),
    ):
        with pytest.raises(OptionError, match=told):
            mi.fit_many(vaes, x, **{**OPTIONS, **options})
    with pytest.raises(OptionError, match="vaes=a VAE; allowed are sequences"):
        mi.fit_many(vaes[0], x, epochs=1)
    with pytest.raises(OptionError, match="vaes holds 0; give 1 or more"):
        mi.fit_many([], x, epochs=1)
    with pytest.raises(OptionError, match="models 0 and 1 share parameters"):
        mi.fit_many([vaes[0], vaes[0]], x, epochs=1)


@pytest.mark.parametrize(("betas", "recordings"), [((0.5, 0.5), 2), ((0.5, 4.0), 4)])
def test_models_that_take_the_same_steps_are_staged_once(make, x, monkeypatch, betas, recordings):
    """There are two graphs, of batches of 20 and of 10; a constant weight is part of them."""
    made = []
    record = steps.trace_run
    monkeypatch.setattr(steps, "trace_run", lambda *args: made.append(1) or record(*args))
    options = {"epochs": 2, "batch_size": 20, "engine": "staged"}
    vaes = [make("beta", beta=beta) for beta in betas]
    mi.fit_many(vaes, x, **options)
    assert len(made) == recordings
    alone = make("beta", beta=betas[-1])
    mi.fit(alone, x, seed=len(betas) - 1, **options)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, vaes[-1].state_dict()[name]), name


def test_models_that_cannot_be_sent_to_other_processes_are_refused(make, x):
    vae = make("beta", beta=lambda step: 1.0)
    with pytest.raises(OptionError, match=r"jobs=2: the models cannot be sent .* leave jobs out"):
        mi.fit_many([vae, make("vae")], x, epochs=1, jobs=2)


@pytest.mark.slow
def test_processes_go_on_and_train_what_one_process_trains(make, x, tmp_path, assert_same_weights):
    """One model was stopped before, and one breaks down."""
    ends = (2.0, 3e38, 3.0)  # the second breaks in the second epoch
    vaes, stopped, twins = (
        [make("beta", beta=mi.linear_warmup(1, 1.0, end, delay=1)) for end in ends]
        for _ in range(3)
    )
    runs, heard = [tmp_path / str(seed) for seed in SEEDS], []
    options = {**OPTIONS, "epochs": 2, "batch_size": 50, "engine": "eager"}

    def stop(number, row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mi.fit_many(stopped, x, seeds=SEEDS, runs=runs, on_epoch=stop, **options)
    with pytest.raises(ManyTrainingError, match="1 of 3 models: model 1: the loss is not") as told:
        mi.fit_many(
            vaes,
            x,
            seeds=SEEDS,
            runs=runs,
            resume=True,
            jobs=2,
            on_epoch=lambda number, row: heard.append((number, row["epoch"])),
            **options,
        )
    assert [len(history) for history in told.value.histories] == [2, 1, 2]
    assert sorted(heard) == [(0, 2), (1, 1), (2, 1), (2, 2)]
    assert [read_checkpoint(run)["epoch"] for run in runs] == [2, 1, 2]
    for vae, twin, seed in zip(vaes, twins, SEEDS, strict=True):
        with suppress(TrainingError):
            mi.fit(twin, x, seed=seed, **options)
        assert_same_weights(vae, twin)
        assert not vae.training


def test_models_of_two_precisions_get_images_of_their_own(make, x, assert_same_weights):
    vaes, twin = [make("vae"), make("vae").double()], make("vae").double()
    mi.fit_many(vaes, x, epochs=1, engine="eager")
    mi.fit(twin, x, epochs=1, seed=1, engine="eager")
    assert_same_weights(vaes[1], twin)
