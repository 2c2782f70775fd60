"""Several seeds leave the run folders of each alone, and their sum."""

import json
import math
from dataclasses import replace
from multiprocessing.process import BaseProcess

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.cli import run_command
from pyro_mivae.errors import ManyTrainingError, OptionError, RunError
from pyro_mivae.metrics import agreement_of_models
from pyro_mivae.runs import (
    RunConfig,
    is_finished,
    open_run,
    seeds_table,
    sweep_run,
    train_run,
    train_seeds,
)
from pyro_mivae.runs.build import build_variant
from pyro_mivae.runs.group import sum_up
from pyro_mivae.training import checkpointer, read_checkpoint
from pyro_mivae.training.trainer import Trainer

EAGER = {"epochs": 1, "engine": "eager"}
CONFIG = RunConfig("vae", model={"latent_dim": 2}, training={**EAGER, "seed": 3})


pytestmark = pytest.mark.usefixtures("few_digits", "unmeasured")


def assert_same_run(run, other):
    """Compares losses and weights bit for bit."""
    assert run.history["loss"] == other.history["loss"]
    for name, value in other.vae.state_dict().items():
        assert torch.equal(run.vae.state_dict()[name], value), name


def test_held_out_curve_is_of_the_test_data_unless_it_stops_the_training(few_digits, tmp_path):
    vae = build_variant(train_run(CONFIG, tmp_path / "plain").config, (1, 8, 8))
    history = mi.fit(vae, few_digits.x_train, validation=few_digits.x_test, seed=3, **EAGER)
    assert open_run(tmp_path / "plain").history["val_elbo"] == history["val_elbo"]
    stopping = replace(CONFIG, training={**CONFIG.training, "patience": 2})
    stopped = train_run(stopping, tmp_path / "stopped").history
    assert stopped["step"][-1] == 1  # 115 of 128 images
    assert stopped["val_elbo"] != history["val_elbo"]


def test_one_test_datum_gives_no_curve_to_terms_that_compare(few_digits, tmp_path, monkeypatch):
    one = replace(few_digits, x_test=few_digits.x_test[:1], y_test=few_digits.y_test[:1])
    monkeypatch.setattr("pyro_mivae.runs.config.load_dataset", lambda *args, **options: one)
    run = train_run(RunConfig("mmd", model={"latent_dim": 2}, training=EAGER), tmp_path / "run")
    assert "val_loss" not in run.history
    assert run.finished


def test_each_seed_leaves_the_run_that_it_leaves_alone(tmp_path):
    runs = train_seeds(CONFIG, tmp_path / "runs", 2)
    assert [run.folder.name for run in runs] == ["seed-3", "seed-4"]
    alone = train_run(CONFIG, tmp_path / "alone")
    assert runs[0].config == alone.config
    assert runs[0].history.columns == alone.history.columns
    assert_same_run(runs[0], alone)
    assert all(is_finished(run.folder) for run in runs)
    summary = json.loads((tmp_path / "runs" / "seeds.json").read_text())
    assert summary["seeds"] == [3, 4]
    assert summary["metrics"]["elbo"] == {"mean": -3.5, "sd": pytest.approx(0.5**0.5)}
    assert summary["metrics"]["nmi"] == {"mean": None, "sd": None}
    assert "elbo  -3.500 ± 0.707" in seeds_table(tmp_path / "runs")
    assert not [name for name in summary["metrics"] if "agreement" in name]
    history = runs[0].folder / "history.csv"
    history.write_text(history.read_text()[:-3])
    assert not is_finished(runs[0].folder)


@pytest.mark.parametrize("words", ["train vae --seeds 2", "sweep beta --beta 1,2"])
def test_jobs_reach_the_training(tmp_path, monkeypatch, capsys, words):
    def fit_many(vaes, x, *, jobs, **options):
        raise RunError(f"{jobs} jobs")

    for function in (train_seeds, sweep_run):
        monkeypatch.setitem(function.__globals__, "fit_many", fit_many)
    assert run_command([*words.split(), "--jobs", "3", "--run", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "error: 3 jobs\n"


@pytest.mark.slow
def test_seeds_that_are_trained_at_the_same_time_are_the_same(tmp_path, monkeypatch):
    ended = []  # a process that is ended before its exit leaks semaphores
    monkeypatch.setattr(BaseProcess, "terminate", ended.append)
    runs = train_seeds(CONFIG, tmp_path / "both", 2, jobs=2)
    for run, other in zip(runs, train_seeds(CONFIG, tmp_path / "turns", 2), strict=True):
        assert_same_run(run, other)
    assert not ended


def test_categories_of_every_two_seeds_are_compared(tmp_path):
    config = RunConfig("cat", model={"num_categories": 3, "latent_dim": 6, "warm_start": 5})
    config = replace(config, training=EAGER)
    runs = train_seeds(config, tmp_path, 3)
    summary = json.loads((tmp_path / "seeds.json").read_text())["metrics"]
    x = mi.load_dataset("digits").x_test
    expected = agreement_of_models([run.vae for run in runs], x)
    for name, (mean, spread) in expected.items():
        assert summary[name] == {"mean": pytest.approx(mean), "sd": pytest.approx(spread)}
    mean, spread = expected["category_agreement_nmi"]
    assert f"pairs: NMI         {mean:.3f} ± {spread:.3f}" in seeds_table(tmp_path)


class Killed(BaseException):
    """Ends a process, as nothing here expects."""


def test_killed_seeds_go_on_to_the_same_weights(tmp_path, monkeypatch):
    config = replace(CONFIG, training={"epochs": 2, "seed": 3, "batch_size": 64})
    whole = train_seeds(config, tmp_path / "whole", 2)
    epochs, run_epoch = [], Trainer.run_epoch

    def killed_in_the_fourth_epoch(trainer, *args):
        epochs.append(trainer)
        if len(epochs) == 4:
            raise Killed
        return run_epoch(trainer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpointer, "SECONDS_BETWEEN_CHECKPOINTS", 0)
        patch.setattr(Trainer, "run_epoch", killed_in_the_fourth_epoch)
        with pytest.raises(Killed):
            train_seeds(config, tmp_path / "parts", 2)
    states = [read_checkpoint(f) for f in sorted((tmp_path / "parts").glob("seed-*"))]
    assert [state["epoch"] for state in states] == [2, 1]
    resumed = train_seeds(config, tmp_path / "parts", 2, resume=True)
    for run, other in zip(resumed, whole, strict=True):
        assert_same_run(run, other)
    summaries = [(tmp_path / where / "seeds.json").read_text() for where in ("whole", "parts")]
    assert summaries[0] == summaries[1]


def test_more_seeds_may_follow(tmp_path):
    first = train_seeds(CONFIG, tmp_path, 1)[0]
    before = (first.folder / "checkpoint.pt").read_bytes()
    with pytest.raises(RunError, match="continue with --resume"):
        train_seeds(CONFIG, tmp_path, 2)
    runs = train_seeds(CONFIG, tmp_path, 2, resume=True)
    assert len(runs) == 2
    assert (first.folder / "checkpoint.pt").read_bytes() == before
    assert open_run(tmp_path / "seed-4").finished
    other = RunConfig("vae", model={"latent_dim": 2}, training={"epochs": 9, "seed": 3})
    with pytest.raises(OptionError, match="--epochs 9 given"):
        train_seeds(other, tmp_path, 2, resume=True)


def test_seeds_that_follow_are_of_the_same_configuration(tmp_path):
    small = RunConfig("vae", model={"latent_dim": 3}, training=EAGER)
    train_seeds(small, tmp_path, 1)
    runs = train_seeds(RunConfig("vae"), tmp_path, 2, resume=True)
    assert [run.config.model["latent_dim"] for run in runs] == [3, 3]
    assert [run.config.training["seed"] for run in runs] == [0, 1]
    for other in (RunConfig("beta"), RunConfig("beta", training={"seed": 9})):
        with pytest.raises(OptionError, match="VARIANT beta given"):
            train_seeds(other, tmp_path, 2, resume=True)


def test_other_seeds_are_not_mixed_with_those_of_a_folder(tmp_path):
    train_seeds(CONFIG, tmp_path, 1)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    other = RunConfig("beta", training={**EAGER, "seed": 9})
    with pytest.raises(RunError, match="delete it with --overwrite"):
        train_seeds(other, tmp_path, 1)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    train_seeds(other, tmp_path, 1, overwrite=True)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["seed-9", "seeds.json"]


def test_files_of_others_outlive_a_seed_that_is_thrown_away(tmp_path):
    train_seeds(CONFIG, tmp_path, 2)
    (tmp_path / "seed-4" / "notes.txt").touch()
    train_seeds(CONFIG, tmp_path, 1, overwrite=True)
    assert [path.name for path in (tmp_path / "seed-4").glob("[!.]*")] == ["notes.txt"]
    assert open_run(tmp_path / "seed-3").finished


def test_a_single_run_and_those_of_seeds_have_folders_of_their_own(tmp_path):
    alone, several = tmp_path / "alone", tmp_path / "several"
    train_run(CONFIG, alone)
    for how in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RunError, match="holds a run, which only pyro-mivae train without"):
            train_seeds(CONFIG, alone, 1, **how)
    train_seeds(CONFIG, several, 1)
    for how in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RunError, match="several seeds, which only .* train --seeds"):
            train_run(CONFIG, several, **how)
    with pytest.raises(
        RunError, match=r"holds the runs of several seeds; give one of them: .*/seed-3$"
    ):
        open_run(several)


def test_nothing_is_summed_up_where_every_seed_broke(tmp_path):
    said = []
    broken = RunConfig("vae", training={**EAGER, "lr": 1e30})
    with pytest.raises(ManyTrainingError, match="2 of 2 models"):
        train_seeds(broken, tmp_path, 2, say=said.append)
    assert not (tmp_path / "seeds.json").exists()
    assert not any("evaluating" in line for line in said)


def test_a_seed_that_breaks_is_told_and_the_others_are_there(tmp_path, monkeypatch):
    def build(config, data_shape):
        if config.training["seed"] == 4:
            return mi.BetaVAE(data_shape, beta=mi.linear_warmup(1, 1.0, 3e38, delay=3))
        return build_variant(config, data_shape)

    monkeypatch.setattr("pyro_mivae.runs.group.build_variant", build)
    monkeypatch.setattr("pyro_mivae.runs.group.check_belongs", lambda *args: None)
    config = replace(CONFIG, training={**CONFIG.training, "batch_size": 16})
    with pytest.raises(ManyTrainingError, match="1 of 3 models: model 1: the loss is not finite"):
        train_seeds(config, tmp_path, 3)
    summary = json.loads((tmp_path / "seeds.json").read_text())
    assert summary["seeds"] == [3, 5]
    assert summary["metrics"]["elbo"]["mean"] == -4.0
    assert "not finite at step" in summary["failed"]["4"]
    assert [is_finished(tmp_path / f"seed-{seed}") for seed in (3, 4, 5)] == [True, False, True]


def test_sums_up_what_is_defined():
    summary = sum_up([{"a": 1.0, "b": 1.0}, {"a": 3.0}])
    assert summary["a"] == (2.0, pytest.approx(2**0.5))
    assert all(map(math.isnan, summary["b"]))
    assert sum_up([{"a": value} for value in (0.0, 0.0, 6.0)])["a"] == (
        2.0,
        pytest.approx(12**0.5),
    )
    assert math.isnan(sum_up([{"a": 1.0}])["a"][1])


def test_refuses_no_seeds(tmp_path):
    with pytest.raises(OptionError, match="seeds=0"):
        train_seeds(CONFIG, tmp_path, 0)


def test_refuses_a_last_seed_that_is_none(tmp_path):
    last = RunConfig("vae", training={"epochs": 1, "seed": 2**32 - 1})
    with pytest.raises(OptionError, match="seed=4294967296; allowed are"):
        train_seeds(last, tmp_path, 2)
    assert list(tmp_path.iterdir()) == []
