"""Training on an objective that is given in place of the variant's own."""

import pytest
import torch
from pyro.infer import Trace_ELBO

import pyro_mivae as mi
from pyro_mivae.errors import OptionError
from pyro_mivae.training import fit, read_checkpoint

SHAPE = (1, 4, 4)
FEW = {"epochs": 3, "batch_size": 25}


def closeness(particle):
    """Pulls the codes of a batch together."""
    return 0.1 * particle.traces.guide.nodes["z"]["value"].square().sum()


def own(weight=1.0, warmup=4):
    terms = [mi.Penalty("z", function=closeness, weight=weight)]
    return mi.MutualInformationELBO(terms, {"z": mi.linear_warmup(warmup)})


@pytest.mark.parametrize("engine", ["eager", "staged"])
def test_a_given_objective_takes_the_place_of_the_own(make, x, assert_same_weights, engine):
    models = [make("beta", beta=4.0), make("vae"), make("vae")]
    elbo = mi.MutualInformationELBO(kl_weights={"z": 4.0})
    histories = [
        fit(models[0], x, engine=engine, **FEW),
        fit(models[1], x, engine=engine, objective=elbo, **FEW),
        fit(models[2], x, engine=engine, **FEW),
    ]
    assert_same_weights(models[0], models[1])
    assert histories[0]["loss"] == histories[1]["loss"] != histories[2]["loss"]


def test_the_given_objective_stays_as_it_is(make, x, assert_same_weights):
    elbo, models = own(), [make("vae"), make("vae")]
    before = mi.explain(elbo), elbo.state_dict(), elbo.max_plate_nesting
    histories = [fit(vae, x, objective=elbo, **FEW) for vae in models]
    assert_same_weights(*models)
    assert histories[0]["penalty_z"] == histories[1]["penalty_z"]
    assert (mi.explain(elbo), elbo.max_plate_nesting) == before[::2]
    assert all(torch.equal(value, before[1][key]) for key, value in elbo.state_dict().items())
    assert elbo.ledger == {}


def test_networks_of_the_objective_are_parts_of_the_variant(make, x, tmp_path):
    vae = make("vae")
    critic = mi.build_critic("separable", SHAPE, code_dim=3)
    elbo = mi.MutualInformationELBO([mi.CriticBound("z", critic=critic, bound="infonce")])
    images, options = x.repeat(2, 1, 1, 1), {"epochs": 2, "batch_size": 64}
    with pytest.raises(OptionError, match="'mi_z_critic_critic' of the objective is no part"):
        fit(vae, images, objective=elbo, **options)
    vae.critic = critic
    before = {key: value.clone() for key, value in critic.state_dict().items()}
    history = fit(vae, images, objective=elbo, run=tmp_path / "run", **options)
    assert "mi_z_critic" in history
    kept = read_checkpoint(tmp_path / "run")["weights"]
    for key, value in critic.state_dict().items():
        assert not torch.equal(value, before[key])
        assert torch.equal(value, kept[f"critic.{key}"])


@pytest.mark.parametrize("engine", ["eager", "staged"])
def test_a_resumed_training_ends_in_the_same_weights(
    make, x, tmp_path, assert_same_weights, engine
):
    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    run, options = tmp_path / "run", FEW | {"engine": engine}
    whole = make("vae")
    uninterrupted = fit(whole, x, objective=own(), **options)
    with pytest.raises(KeyboardInterrupt):
        fit(make("vae"), x, objective=own(), run=run, on_epoch=stop, **options)
    others = {
        "the variant's own": (None, "class is that of the variant here and MutualInf"),
        "another weight": (own(weight=2.0), "another objective given .*2 \\* .*here"),
        "another schedule": (own(warmup=5), "another objective given .*steps 0 to 5"),
        "another class": (mi.RelaxedCategoricalELBO(), "class is RelaxedCategoricalELBO here"),
    }
    for objective, told in others.values():
        with pytest.raises(OptionError, match=told):
            fit(make("vae"), x, objective=objective, run=run, resume=True, **options)
    resumed = make("vae")
    history = fit(resumed, x, objective=own(), run=run, resume=True, **options)
    assert_same_weights(whole, resumed)
    assert history["loss"] == uninterrupted["loss"]
    assert_same_weights(mi.load(run, into=make("vae")), resumed)


def test_losses_of_pyro_are_refused(make, x):
    with pytest.raises(OptionError, match="objective=.*such as mi.MutualInformationELBO()"):
        fit(make("vae"), x, objective=Trace_ELBO(), **FEW)


def test_code_of_terms_belongs_to_the_identity(make, x, tmp_path):
    def other(particle):
        return 0.2 * particle.traces.guide.nodes["z"]["value"].square().sum()

    other.__name__ = closeness.__name__
    fit(make("vae"), x, objective=own(), run=tmp_path / "run", **FEW)
    changed = mi.MutualInformationELBO(
        [mi.Penalty("z", function=other)], {"z": mi.linear_warmup(4)}
    )
    with pytest.raises(OptionError, match="another objective given .*term penalty_z.function"):
        fit(make("vae"), x, objective=changed, run=tmp_path / "run", resume=True, **FEW)
