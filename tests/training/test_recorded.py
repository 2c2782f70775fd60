"""Recorded steps: fit gives the weights and the history of steps taken one by one."""

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.engine.cuda_graphs import Recording
from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.training import fit, read_checkpoint, trainer

pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
SETTINGS = {"epochs": 2, "batch_size": 16, "lr": 3e-3, "seed": 4, "engine": "staged"}


@pytest.fixture
def make(make):
    """In double precision: in single, Adam blows rounding errors of small gradients up."""
    return lambda *args, **options: make(*args, **options).double()


@pytest.fixture
def on_the_device(monkeypatch):
    """Lets the CPU record steps, three at once, as a device does."""

    def turn(on=True):
        def record(optimiser, device):
            return Recording(optimiser, device, 3) if on else None

        monkeypatch.setattr(trainer, "recorder_for", record)

    return turn


def assert_close(a, b):
    for name, value in a.state_dict().items():
        torch.testing.assert_close(
            value,
            b.state_dict()[name],
            rtol=1e-5,
            atol=1e-5,
            msg=lambda m, name=name: f"{name}: {m}",
        )


def assert_same_history(a, b):
    assert a.columns == b.columns
    for column in set(a.columns) - {"seconds"}:
        assert a[column] == pytest.approx(b[column], rel=1e-5, nan_ok=True), column


@pytest.mark.parametrize(
    ("name", "options", "settings"),
    [
        ("vae", {}, {"lr_schedule": "cosine", "clip_norm": 0.5}),
        ("beta", {"beta": mi.linear_warmup(5, 0.1)}, {"validation": 0.2}),
        ("beta", {"beta": mi.Target(2.0, speed=0.2)}, {"validation": 0.2}),
        (
            "critic-infomax",
            {"critic_lr": 1e-2, "bound": "mine", "critic": "joint"},
            {"lr_schedule": "cosine"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_training_is_the_same(x, make, on_the_device, name, options, settings):
    plain, told = make(name, **options), make(name, **options)
    history = fit(plain, x, **SETTINGS, **settings)
    on_the_device()
    again = fit(told, x, **SETTINGS, **settings)
    assert_close(plain, told)
    assert_same_history(history, again)


@pytest.mark.parametrize("weight", [mi.linear_warmup(9), mi.Target(2.0, speed=0.2)])
def test_resumed_and_moved_from_one_way_to_the_other(tmp_path, x, make, on_the_device, weight):
    settings = SETTINGS | {"lr_schedule": "cosine", "clip_norm": 0.5}
    whole = make("beta", beta=weight)
    fit(whole, x, **settings | {"epochs": 4})

    def interrupt(row):
        if row["epoch"] % 2:
            raise KeyboardInterrupt

    parts = make("beta", beta=weight)
    for turn in (False, True, False):  # the first two epochs are left by Ctrl-C
        on_the_device(turn)
        run = {"run": tmp_path, "resume": True, "on_epoch": interrupt}
        try:
            fit(parts, x, **settings | {"epochs": 4}, **run)
        except KeyboardInterrupt:
            (group,) = read_checkpoint(tmp_path)["optimiser"]["param_groups"]
            assert isinstance(group["lr"], float)
            assert not group["capturable"]
            for value in group.values():
                assert not isinstance(value, torch.Tensor)
    assert_close(whole, parts)


def test_a_step_that_is_not_finite_is_named(x, make, on_the_device):
    on_the_device()
    vae = make("vae")
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(mi.errors.TrainingError, match="not finite at step"):
        fit(vae, x, **SETTINGS | {"lr": 1e300})
    for name, value in vae.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_what_cannot_be_recorded_is_said_once_and_runs(x, make, monkeypatch, on_the_device):
    class Refuses(Recording):
        def _record(self, body, count):
            raise RuntimeError("no such thing\nhere")

    settings = SETTINGS | {"lr_schedule": "cosine", "clip_norm": 0.5}
    plain, told = (make("beta", beta=mi.linear_warmup(5, 0.1)) for _ in range(2))
    history = fit(plain, x, **settings)
    monkeypatch.setattr(trainer, "recorder_for", Refuses)
    with pytest.warns(PyroMivaeWarning, match="captured: RuntimeError: no such thing") as told_of:
        again = fit(told, x, **settings)
    assert len(told_of) == 1
    assert_close(plain, told)
    assert_same_history(history, again)


def test_eager_steps_are_taken_one_by_one(x, make, on_the_device):
    plain, told = make("vae"), make("vae")
    fit(plain, x, **SETTINGS | {"engine": "eager"})
    on_the_device()
    fit(told, x, **SETTINGS | {"engine": "eager"})
    assert_close(plain, told)
