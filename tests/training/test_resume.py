"""Runs that stop, are stopped, and go on."""

import numpy as np
import pytest
import torch
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.training import History, checkpointer, fit, read_checkpoint

SHAPE = (1, 4, 4)


def interrupt_at(epoch):
    def on_epoch(row):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return on_epoch


@pytest.mark.parametrize(
    ("name", "schedule", "options"),
    [
        ("infocat", "constant", {}),
        ("infocat", "cosine", {"patience": 50, "clip_norm": 0.5}),
        ("infogan", "cosine", {}),
    ],
)
def test_resumed_run_equals_an_uninterrupted_one(
    tmp_path, x, name, schedule, options, make, assert_same_weights
):
    settings = {"epochs": 4, "batch_size": 20, "lr_schedule": schedule, "seed": 2, **options}
    whole = make(name)
    history = fit(whole, x, **settings, run=tmp_path / "whole")

    with pytest.raises(KeyboardInterrupt):
        fit(make(name), x, **settings, run=tmp_path / "parts", on_epoch=interrupt_at(2))
    assert read_checkpoint(tmp_path / "parts")["epoch"] == 2
    torch.manual_seed(1234)
    resumed = make(name)
    nn.init.zeros_(next(resumed.parameters()))
    rest = fit(resumed, x, **settings, run=tmp_path / "parts", resume=True)
    assert_same_weights(whole, resumed)
    for column in set(history.columns) - {"seconds"}:
        assert rest[column] == history[column], column
    assert History.from_csv(tmp_path / "parts" / "history.csv").rows == rest.rows


class InterruptedAt(mi.VAE):
    """Ctrl-C in the middle of an epoch."""

    calls = 0
    at = 0

    def objective(self, num_steps=None):
        objective, outer = super().objective(num_steps), self

        def advance():
            outer.calls += 1
            if outer.calls == outer.at:
                raise KeyboardInterrupt

        objective.advance = advance
        return objective


def test_ctrl_c_within_an_epoch_keeps_the_last_whole_one(tmp_path, x, assert_same_weights):
    torch.manual_seed(3)
    whole = InterruptedAt(SHAPE, latent_dim=2)
    fit(whole, x, epochs=4, batch_size=10)
    torch.manual_seed(3)
    vae = InterruptedAt(SHAPE, latent_dim=2)
    vae.at = 13  # the third step of the third epoch
    with pytest.raises(KeyboardInterrupt):
        fit(vae, x, epochs=4, batch_size=10, run=tmp_path)
    assert read_checkpoint(tmp_path)["epoch"] == 2
    assert len(History.from_csv(tmp_path / "history.csv")) == 2
    vae.at = 0
    fit(vae, x, epochs=4, batch_size=10, run=tmp_path, resume=True)
    assert_same_weights(whole, vae)


def test_killed_run_trains_the_rows_after_its_checkpoint_again(tmp_path, x, make):
    fit(make(), x, epochs=4, run=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(make(), x, epochs=4, run=tmp_path / "parts", on_epoch=interrupt_at(2))
    with (tmp_path / "parts" / "history.csv").open("a") as file:
        file.write("3,3,0.1,0.001,99\n4,4")  # what a killed run may leave
    history = fit(make(), x, epochs=4, run=tmp_path / "parts", resume=True)
    assert history["epoch"] == [1, 2, 3, 4]
    saved = History.from_csv(tmp_path / "parts" / "history.csv")
    assert saved["loss"] == History.from_csv(tmp_path / "whole" / "history.csv")["loss"]


def test_finished_run_is_left_as_it_is(tmp_path, x, make, assert_same_weights):
    first = make()
    fit(first, x, epochs=2, run=tmp_path)
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    second = make(radius=6.0)
    nn.init.zeros_(next(second.parameters()))
    history = fit(second, x, epochs=2, run=tmp_path, resume=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files
    assert_same_weights(first, second)
    assert history["epoch"] == [1, 2]


# More epochs


def test_a_finished_run_is_extended(tmp_path, x, make, assert_same_weights):
    whole = make("vae")
    history = fit(whole, x, epochs=4, batch_size=16, run=tmp_path / "whole")
    fit(make("vae"), x, epochs=2, batch_size=16, run=tmp_path / "parts")
    extended = make("vae")
    rest = fit(extended, x, epochs=4, batch_size=16, run=tmp_path / "parts", resume=True)
    assert_same_weights(whole, extended)
    assert rest["loss"] == history["loss"]
    assert rest["epoch"] == [1, 2, 3, 4]
    again = make("vae")
    fit(again, x, epochs=4, batch_size=16, run=tmp_path / "parts", resume=True)
    assert_same_weights(whole, again)


def test_weights_that_were_scheduled_stay_at_their_last_values(tmp_path, x, make):
    fit(make("infocat"), x, epochs=2, run=tmp_path)
    fit(make("infocat"), x, epochs=4, run=tmp_path, resume=True)
    state = read_checkpoint(tmp_path)
    short = make("infocat").objective(2 * (state["step"] // 4))
    short.advance(state["step"])
    for name, value in short.state_dict().items():
        assert torch.equal(state["objective"][name], value), name


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ({"epochs": 2}, {"epochs": 1}, "epochs=1 given, but the run in .* has done 2; give 2"),
        ({"epochs": 2, "lr_schedule": "cosine"}, {"epochs": 4}, "lr_schedule='cosine' of the run"),
        ({"epochs": 2}, {"lr": 1e-5}, "lr=1e-05 given, but the run in .* started with 0.001"),
        ({"epochs": 2}, {"batch_size": 7}, "batch_size=7 given"),
        ({"epochs": 2}, {"seed": 3}, "seed=3 given"),
    ],
)
def test_a_run_that_goes_on_otherwise_says_why_not(tmp_path, x, make, first, then, message):
    fit(make("vae"), x, run=tmp_path, **first)
    with pytest.raises(OptionError, match=message):
        fit(make("vae"), x, run=tmp_path, resume=True, **(first | then))
    with pytest.raises(OptionError, match="other training images given than the run"):
        fit(make("vae"), x[:30], run=tmp_path, resume=True, **first)


def test_a_run_that_stopped_early_is_not_extended(tmp_path, x, make):
    how = {"patience": 1, "lr": 0.5}
    history = fit(make("vae"), x, epochs=40, run=tmp_path, **how)
    assert len(history) < 40
    with pytest.raises(OptionError, match="had not fallen for 1 epochs; train again"):
        fit(make("vae"), x, epochs=50, run=tmp_path, resume=True, **how)


def test_resume_needs_a_folder(x, make):
    with pytest.raises(OptionError, match="resume=True without run="):
        fit(make("vae"), x, epochs=1, resume=True)


def test_resume_without_a_checkpoint_starts_anew(tmp_path, x, make):
    history = fit(make(), x, epochs=1, run=tmp_path / "new", resume=True)
    assert len(history) == 1


def test_a_run_is_not_overwritten(tmp_path, x, make):
    fit(make(), x, epochs=1, run=tmp_path)
    with pytest.raises(RunError, match="holds a run already"):
        fit(make(), x, epochs=1, run=tmp_path)


def test_checkpoint_of_another_model(tmp_path, x, make):
    fit(make("vae"), x, epochs=1, run=tmp_path)
    with pytest.raises(OptionError, match="class is InfoCatVAE here and VAE there"):
        fit(make("infocat"), x, epochs=2, run=tmp_path, resume=True)


def test_history_is_written_as_epochs_end_and_checkpoints_now_and_then(
    tmp_path, x, monkeypatch, make
):
    seen = []

    def look(row):
        lines = (tmp_path / "history.csv").read_text().splitlines()
        seen.append((len(lines) - 1, (tmp_path / "checkpoint.pt").exists()))

    fit(make("vae"), x, epochs=3, run=tmp_path, on_epoch=look)
    assert seen == [(1, False), (2, False), (3, True)]
    monkeypatch.setattr(checkpointer, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    seen.clear()
    (tmp_path / "checkpoint.pt").unlink()
    fit(make("vae"), x, epochs=2, run=tmp_path, resume=True, on_epoch=look)
    assert seen == [(1, True), (2, True)]


@pytest.mark.gpu
def test_cuda_trains_and_resumes(tmp_path, x, make):
    with pytest.raises(KeyboardInterrupt):
        fit(make(), x, epochs=4, run=tmp_path, device="cuda", on_epoch=interrupt_at(2))
    history = fit(make(), x, epochs=4, run=tmp_path, device="cuda", resume=True)
    assert history["epoch"] == [1, 2, 3, 4]
    assert history["distortion"][-1] < history["distortion"][0]


def test_a_run_is_finished_as_it_was_planned(tmp_path, x, make, assert_same_weights):
    whole = make("vae")
    fit(whole, x, epochs=6)
    with pytest.raises(KeyboardInterrupt):
        fit(make("vae"), x, epochs=6, run=tmp_path, on_epoch=interrupt_at(2))
    assert len(fit(make("vae"), x, epochs=3, run=tmp_path, resume=True)) == 3
    assert not read_checkpoint(tmp_path)["finished"]
    vae = make("vae")
    assert len(fit(vae, x, epochs=6, run=tmp_path, resume=True)) == 6
    assert read_checkpoint(tmp_path)["finished"]
    assert_same_weights(vae, whole)


def test_an_extended_run_that_stopped_early_stays_stopped(tmp_path, x, make):
    how = {"patience": 1, "lr": 0.5, "run": tmp_path}
    fit(make("vae"), x, epochs=2, **how)
    lengths = {len(fit(make("vae"), x, epochs=60, resume=True, **how)) for _ in range(3)}
    assert len(lengths) == 1
    assert lengths.pop() < 60


@pytest.mark.parametrize("error", [SystemExit, RuntimeError])
def test_whatever_ends_a_training_leaves_the_last_whole_epoch(tmp_path, x, make, error):
    def end(row):
        if row["epoch"] == 2:
            raise error

    with pytest.raises(error):
        fit(make("vae"), x, epochs=4, run=tmp_path, on_epoch=end)
    assert read_checkpoint(tmp_path)["epoch"] == 2


def test_numbers_of_numpy_are_kept_as_plain_ones(tmp_path, x, make):
    how = {"lr": np.float64(1e-3), "clip_norm": np.float32(1.0), "seed": np.int64(1)}
    fit(make("vae"), x, epochs=np.int64(1), run=tmp_path, **how)
    history = fit(make("vae"), x, epochs=1, run=tmp_path, resume=True, **how)
    assert len(history) == 1


def test_a_history_of_the_users_own_is_left_alone(tmp_path, x, make):
    (tmp_path / "history.csv").write_text("year,event\n1066,Hastings\n")
    with pytest.raises(RunError, match="history.csv is not of a run"):
        fit(make("vae"), x, epochs=1, run=tmp_path, resume=True)
    assert "Hastings" in (tmp_path / "history.csv").read_text()
