"""Held-out images are evaluated by a graph, with the values of the program."""

import pytest
import torch

from pyro_mivae.engine import TrainStep
from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.training import fit
from pyro_mivae.training.validation import Validation

pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
SETTINGS = {"epochs": 8, "batch_size": 25, "seed": 4}
BY_PROGRAM = [1, 2, 3, 4, 5, 9]  # epochs in which the program evaluates, of the first nine


@pytest.fixture
def evaluations(monkeypatch):
    """Numbers of the epochs in which the program evaluated."""
    numbers, run, by_program = [], Validation.run, Validation._by_program

    def noted(validation, x):
        numbers.append(validation.number)
        return by_program(validation, x)

    def numbered(validation, number, *, staged):
        validation.number = number + 1
        return run(validation, number, staged=staged)

    monkeypatch.setattr(Validation, "_by_program", noted)
    monkeypatch.setattr(Validation, "run", numbered)
    return numbers


@pytest.mark.parametrize("name", ["infocat", "critic-infomax", "infogan"])
def test_the_graph_gives_the_programs_values(x, make, evaluations, name):
    eager, staged = (make(name).double() for _ in range(2))
    wanted = fit(eager, x, **SETTINGS, validation=0.3, engine="eager")
    assert evaluations == [*range(1, 9)]
    evaluations.clear()
    found = fit(staged, x, **SETTINGS, validation=0.3, engine="staged")
    assert evaluations == BY_PROGRAM[:-1]
    for column in wanted.columns:
        if column.startswith("val_"):
            assert found[column] == pytest.approx(wanted[column], rel=1e-6, nan_ok=True), column


def test_images_of_several_batches_and_a_rest(x, make, monkeypatch):
    monkeypatch.setattr("pyro_mivae.training.loop.VALIDATION_BATCH", 4)
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


def evaluate(loss, number_of_epochs):
    images = torch.arange(1.0, 5.0)
    program = TrainStep(loss, [], [], [])
    validation = Validation(program, images, [4], torch.device("cpu"))
    return [validation.run(number, staged=True)["loss"] for number in range(number_of_epochs)]


def test_a_program_that_is_no_graph_evaluates():
    def loss(x):
        value = x.sum() * x.max().item()
        return value, {"loss": value}

    assert evaluate(loss, 6) == [10.0] * 6


def test_a_graph_that_is_not_the_program_any_more_is_told():
    held = [[1.0]]

    def loss(x):
        value = x.sum() * held[0][0]
        return value, {"loss": value}

    def changing(x):
        held[0][0] = 2.0 if len(calls) > 6 else 1.0  # the graph does not see it
        return loss(x)

    calls = []

    def counted(x):
        calls.append(x)
        return changing(x)

    with pytest.warns(PyroMivaeWarning, match="validation differs from its program at epoch 9"):
        values = evaluate(counted, 10)
    assert values == [2.5] * 8 + [5.0] * 2
