"""Trainings that hold a value: the same in every engine, and after a stop."""

import math

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.training import fit, read_checkpoint

FEW = {"epochs": 4, "batch_size": 20}


def held(make, **options):
    return make("beta", beta=mi.Target(2.0, speed=0.1, **options)).double()


def test_engines_move_the_weight_alike(make, x, assert_same_weights):
    models = [held(make), held(make)]
    histories = [
        fit(vae, x, engine=engine, **FEW)
        for vae, engine in zip(models, ("eager", "staged"), strict=True)
    ]
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(value, models[1].state_dict()[name])
    assert histories[0]["weight_kl_z"] == pytest.approx(histories[1]["weight_kl_z"], rel=1e-9)
    assert len(set(histories[0]["weight_kl_z"])) == 4


@pytest.mark.parametrize("engine", ["eager", "staged"])
def test_each_step_moves_the_weight_once(make, x, engine):
    """With one step in an epoch, the history holds all that the weight depends on."""
    history = fit(held(make), x, engine=engine, epochs=5, batch_size=50)
    gap, weight = 0.0, 1.0
    for rate, shown in zip(history["kl_z"], history["weight_kl_z"], strict=True):
        assert shown == pytest.approx(weight, rel=1e-5)
        gap += (min(max(rate / 2 - 1, -1), 1) - gap) / 10
        weight *= math.exp(0.1 * gap)


@pytest.mark.parametrize("engine", ["eager", "staged"])
def test_a_resumed_training_ends_in_the_same_weights(
    make, x, tmp_path, assert_same_weights, engine
):
    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    options, run = FEW | {"engine": engine}, tmp_path / "run"
    whole, resumed = held(make), held(make)
    uninterrupted = fit(whole, x, **options)
    with pytest.raises(KeyboardInterrupt):
        fit(held(make), x, run=run, on_epoch=stop, **options)
    history = fit(resumed, x, run=run, resume=True, **options)
    assert_same_weights(whole, resumed)
    assert history["weight_kl_z"] == uninterrupted["weight_kl_z"]
    kept = read_checkpoint(run)["objective"]
    assert kept.keys() == {"kl_z.current", "kl_z.gap"}
    with pytest.raises(mi.errors.OptionError, match="beta is Target.*speed=0.1.*here and"):
        fit(held(make, window=3), x, run=run, resume=True, **options)


def test_evaluation_does_not_move_the_weight(make, x):
    plain = fit(held(make), x[:40], engine="staged", **FEW)
    watched = fit(held(make), x[:40], validation=x[40:], engine="staged", **FEW)
    assert plain["weight_kl_z"] == watched["weight_kl_z"]
    assert watched["loss"] == plain["loss"]


def test_a_target_out_of_reach_is_said_once(make, x):
    vae = make("beta", beta=mi.Target(500.0, speed=1.0, bounds=(0.5, 2.0)))
    with pytest.warns(PyroMivaeWarning, match="out of reach: kl_z: .* its bound, 0.5") as told:
        fit(vae, x, **FEW)
    assert len(told) == 1


def test_patience_waits_for_the_weight_and_compares_lagrangians(make, x):
    """A speed of almost nothing settles at once; a fast one moves on in every epoch."""
    options = FEW | {"epochs": 7, "patience": 2, "validation": x[:10], "lr": 1e-12}
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8))  # no batch norm
    slow = make("beta", beta=mi.Target(2.0, speed=1e-9), encoder=encoder)
    assert len(fit(slow, x, **options)) == 3
    target = mi.Target(1e-3, speed=1.0, bounds=(1e-3, 1e12))
    assert len(fit(make("beta", beta=target, encoder=encoder), x, **options)) == 7
    elbo = mi.MutualInformationELBO(
        [mi.BarberAgakov("c", weight=mi.Target(2.0, start=3.0))], {"z": mi.Target(20.0)}
    )
    assert elbo.price == pytest.approx(3 * 2 - 20)
    before = elbo.current_weights()
    elbo.kl_weights["z"].current.fill_(1.009)
    assert not elbo.has_changed(before)
    elbo.kl_weights["z"].current.fill_(1.02)
    assert elbo.has_changed(before)
    scheduled = mi.MutualInformationELBO(kl_weights={"z": mi.linear_warmup(1000)})
    before = scheduled.current_weights()
    scheduled.advance()
    assert scheduled.has_changed(before)


def test_saved_models_keep_their_target(make, x, tmp_path):
    vae = make("beta", beta=mi.Target(2.0, window=3))
    mi.save(vae, tmp_path / "vae.pt")
    loaded = mi.load(tmp_path / "vae.pt")
    assert loaded.beta == mi.Target(2.0, window=3)


def test_a_target_of_information_passes_the_warm_up(make):
    vae = make("infocat", mi_weight=mi.Target(1.0))
    objective = vae.objective(num_steps=100)
    (held,) = [term.weight.target for term in objective.terms if term.name == "mi_c_mean"]
    assert held == mi.Target(1.0)
