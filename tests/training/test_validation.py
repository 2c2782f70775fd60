"""Held-out images are evaluated by a graph, with the values of the program."""

import math

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.engine.tracing import TrainStep
from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.networks import MLPEncoder
from pyro_mivae.training import fit
from pyro_mivae.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
SETTINGS = {"epochs": 6, "batch_size": 25, "seed": 4}
BY_PROGRAM = [2, 3, 5]  # epochs that the program evaluates, after the one that becomes the graph


@pytest.fixture
def evaluations(monkeypatch):
    """Numbers of the epochs in which the program evaluated."""
    numbers, validate, step = [], Trainer._validate, TrainStep.__call__

    def numbered(trainer):
        with monkeypatch.context() as patch:

            def noted(eager, *args):
                numbers.append(trainer.epoch)
                return step(eager, *args)

            patch.setattr(TrainStep, "__call__", noted)
            return validate(trainer)

    monkeypatch.setattr(Trainer, "_validate", numbered)
    return numbers


@pytest.mark.parametrize("name", ["infocat", "critic-infomax", "infogan"])
def test_the_graph_gives_the_programs_values(x, make, evaluations, name):
    eager, staged = (make(name).double() for _ in range(2))
    wanted = fit(eager, x, **SETTINGS, validation=0.3, engine="eager")
    assert evaluations == [*range(1, 7)]
    evaluations.clear()
    found = fit(staged, x, **SETTINGS, validation=0.3, engine="staged")
    assert evaluations == BY_PROGRAM
    for column in wanted.columns:
        if column.startswith("val_"):
            assert found[column] == pytest.approx(wanted[column], rel=1e-6, nan_ok=True), column


def test_the_noise_is_the_same_in_every_epoch(x, make):
    vae = make("vae", encoder=MLPEncoder(x.shape[1:], (8,)))  # no batch norm: nothing moves
    losses = fit(vae, x, epochs=3, lr=1e-30, validation=0.3)["val_loss"]
    assert losses == [pytest.approx(losses[0], rel=1e-5)] * 3


def test_images_of_several_batches_and_a_rest(x, make, monkeypatch):
    monkeypatch.setattr("pyro_mivae.training.trainer.VALIDATION_BATCH", 4)
    eager, staged = (make("vae").double() for _ in range(2))
    wanted = fit(eager, x, **SETTINGS, validation=x[:11], engine="eager")
    found = fit(staged, x, **SETTINGS, validation=x[:11], engine="staged")
    assert found["val_loss"] == pytest.approx(wanted["val_loss"], rel=1e-9)


def test_a_resumed_training_has_the_columns_of_a_whole_one(x, make, tmp_path):
    def interrupt(row):
        if row["epoch"] == 5:
            raise KeyboardInterrupt

    settings = SETTINGS | {"validation": 0.3, "engine": "staged"}
    whole, parts = make("vae"), make("vae")
    wanted = fit(whole, x, **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(parts, x, **settings, run=tmp_path, on_epoch=interrupt)
    found = fit(parts, x, **settings, run=tmp_path, resume=True)
    assert found["val_loss"] == wanted["val_loss"]


def test_a_program_that_is_no_graph_evaluates(x, make):
    def reads_a_value(module, args, out):
        return out if module.training else out * out.max().item()

    eager, staged = (make("vae") for _ in range(2))
    for vae in (eager, staged):
        vae.guide.encoder.register_forward_hook(reads_a_value)
    wanted = fit(eager, x, **SETTINGS, validation=0.3, engine="eager")
    with pytest.warns(PyroMivaeWarning, match="validation cannot be staged: it reads the value"):
        found = fit(staged, x, **SETTINGS, validation=0.3, engine="staged")
    assert found["val_loss"] == pytest.approx(wanted["val_loss"], rel=1e-5)


def test_a_graph_that_is_not_the_program_any_more_is_told(x, make):
    vae, held = make("vae"), [[1.0]]

    def scaled(module, args, out):  # the graph does not see a number in a list
        return out if module.training else out * held[0][0]

    def change(row):
        held[0][0] = 2.0 if row["epoch"] >= 5 else 1.0

    vae.guide.encoder.register_forward_hook(scaled)
    with pytest.warns(PyroMivaeWarning, match="validation differs from its program at epoch 9"):
        history = fit(
            vae, x, **SETTINGS | {"epochs": 10}, validation=0.3, engine="staged", on_epoch=change
        )
    assert len(history) == 10


def test_held_out_data_without_a_finite_loss_do_not_stop_the_training():
    x = torch.rand(8, 1, 4, 4)
    vae = mi.VAE((1, 4, 4), latent_dim=2, likelihood="gaussian")
    history = mi.fit(vae, x, epochs=2, validation=1e30 * x, engine="eager")
    assert history["val_loss"] == [math.inf] * 2
    assert all(map(math.isfinite, history["loss"]))
