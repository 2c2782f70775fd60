"""Training on a pretended device, by every means, wherever the data are; no step waits for it."""

import math
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

import pyro_mivae as mi
from pyro_mivae.engine.comparison import is_due
from pyro_mivae.training.trainer import Trainer
from pyro_mivae.variants.checks import check_weights

pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
SETTINGS = {"epochs": 4, "batch_size": 15, "lr_schedule": "cosine", "clip_norm": 5.0, "seed": 4}
ON_THE_CPU = {"bytes_free": 10}  # data that do not fit on the device
COMPARING = ("engine/comparison.py",)
PRIORS = ("vamp", "spherical", "coupling", "spline", "sticks", "marginal")
TRACING = (*COMPARING, "engine/constant_folding.py", "engine/rewriting.py")


def assert_same(one, other):
    assert one.columns == other.columns
    for column in set(one.columns) - {"seconds"}:
        assert one[column] == pytest.approx(other[column], rel=1e-5, nan_ok=True), column


@pytest.fixture(autouse=True)
def no_waiting(pretended, monkeypatch):
    """Fails where training waits for the device, but for what may.

    These are the comparisons of due steps and of due validations, the tracing of the first epoch,
    and the reading of two ledgers, of training and of validation, at the end of an epoch.
    """
    run_epoch = Trainer.run_epoch

    def watched(trainer, on_step):
        counts, files = [pretended.waits.copy()], COMPARING if trainer.epoch else TRACING
        first, stages = trainer.step, trainer.options.engine != "eager"

        def note():
            on_step()
            counts.append(pretended.waits.copy())

        def unexpected(waits, due):
            allowed = files if stages and due else ()
            return [place for place in waits.elements() if place[1].split(":")[0] not in allowed]

        row = run_epoch(trainer, note)
        for step, (before, after) in enumerate(pairwise(counts), first):
            assert not unexpected(after - before, trainer.compares(step))
        at_the_end = unexpected(pretended.waits - counts[-1], is_due(trainer.epoch - 1))
        assert len(at_the_end) <= 2, at_the_end  # the ledgers
        return row

    monkeypatch.setattr(Trainer, "run_epoch", watched)


def test_the_last_epoch_is_not_compared():
    """Otherwise `no_waiting` would see no step, and no validation, by a graph alone."""
    assert not is_due(SETTINGS["epochs"] - 1)


@pytest.fixture
def fit(pretended, build, recording, x, monkeypatch):
    """Trains a configuration on the device by some means, and returns its history."""

    def fit(configuration, means, *, bytes_free=1 << 30, **settings):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *args: (bytes_free, bytes_free))
        engine = "staged" if means == "recorded" else means
        vae = build(configuration)
        with recording(means == "recorded"):
            history = mi.fit(
                vae, x, device="cuda", engine=engine, validation=x[:8], **SETTINGS | settings
            )
        for name, tensor in vae.state_dict().items():
            assert tensor.device.type == "cuda", name
        assert len(history) == history["epoch"][-1]
        return history

    return fit


def assert_finite(history):
    for column in ("loss", "val_loss"):
        assert all(map(math.isfinite, history[column])), column


def test_eager_steps_of_data_on_the_cpu(fit, configuration):
    assert_finite(fit(configuration, "eager", **ON_THE_CPU, epochs=1))


OFTEN = ("infocat", "infogan", "mine", "score-function", "vamp")
RECORDED = [
    name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow)
    for name in (*mi.VARIANTS, "mine", "score-function", *PRIORS)
]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_steps(fit, name):
    assert_finite(fit(name, "recorded"))  # warns where the graph is not the program: an error


@pytest.mark.parametrize("name", ["infocat", "infogan"])
def test_staged_steps_of_data_on_the_cpu(fit, name):
    assert_finite(fit(name, "staged", **ON_THE_CPU))


@pytest.mark.parametrize(
    ("means", "placed"),
    [("eager", {}), ("staged", {}), ("recorded", {}), ("recorded", ON_THE_CPU)],
    ids=["eager", "staged", "recorded", "recorded, data on the CPU"],
)
def test_the_device_gives_the_history_of_the_cpu(fit, build, x, means, placed):
    settings = {"batch_size": 14}  # the last batch is of another size
    with _disable_current_modes():
        on_cpu = mi.fit(
            build("scheduled"), x, device="cpu", validation=x[:8], **SETTINGS | settings
        )
    assert_same(on_cpu, fit("scheduled", means, **placed, **settings))


def test_weights_are_checked_with_one_wait(pretended, build):
    vae = build("vae").to("cuda")
    pretended.waits.clear()
    check_weights(vae)
    assert pretended.waits.total() == 1
