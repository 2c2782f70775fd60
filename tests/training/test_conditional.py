"""Trainings in which each datum has a condition."""

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import OptionError
from pyro_mivae.training import fit, fit_many, refit_prior
from pyro_mivae.training.batches import loss_of

SHAPE, N, K = (1, 2, 3), 30, 3
HOW = {"epochs": 3, "batch_size": 8, "lr": 1e-2, "seed": 2, "device": "cpu"}


@pytest.fixture
def data():
    return torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def u():
    return torch.arange(N) % K


def build(variant=mi.VAE, seed=1, **options):
    torch.manual_seed(seed)
    parts = {"given_shape": (K,), "likelihood": "gaussian"}
    if variant is mi.VAE:
        parts["latent_dim"] = 2
    return variant(SHAPE, **parts | options).double()


def test_staged_steps_are_the_eager_ones(data, u):
    losses = [fit(build(), data, given=u, engine=e, **HOW)["loss"] for e in ("eager", "staged")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    others = fit(build(), data, given=u.roll(1), engine="eager", **HOW)["loss"]
    assert others != pytest.approx(losses[0], rel=1e-6)


def test_it_learns_what_the_condition_says(u):
    vae, shades = build(latent_dim=1), torch.tensor([0.1, 0.5, 0.9]).double()
    x = shades[u].reshape(N, 1, 1, 1).expand(N, *SHAPE)
    fit(vae, x, given=u, engine="eager", **HOW | {"epochs": 40, "batch_size": 15, "lr": 3e-2})
    means = torch.stack([vae.sample(50, given=k).mean() for k in range(K)])
    torch.testing.assert_close(means, shades, atol=0.1, rtol=0)


def test_resumed_runs_end_as_whole_ones(data, u, tmp_path):
    whole, parted = build(), build()
    history = fit(whole, data, given=u, engine="eager", **HOW)
    first = fit(parted, data, given=u, engine="eager", run=tmp_path, **HOW | {"epochs": 1})
    assert first["loss"] == history["loss"][:1]
    again = build()
    with pytest.raises(OptionError, match="other condition given than"):
        fit(again, data, given=u.roll(1), engine="eager", run=tmp_path, resume=True, **HOW)
    fit(again, data, given=u, engine="eager", run=tmp_path, resume=True, **HOW)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert mi.load(tmp_path, into=build()).given_shape == (K,)


def test_held_out_data_keep_their_condition(data, u):
    pair = data[-6:], u[-6:]
    how = HOW | {"epochs": 1, "engine": "eager"}
    row = fit(build(), data[:-6], given=u[:-6], validation=pair, **how)[0]
    other = fit(build(), data[:-6], given=u[:-6], validation=(pair[0], u[:6].roll(1)), **how)[0]
    assert row["loss"] == other["loss"]
    assert row["val_loss"] != other["val_loss"]
    assert "val_loss" in fit(build(), data, given=u, validation=0.2, **how)[0]
    with pytest.raises(OptionError, match="validation holds no condition"):
        fit(build(), data, given=u, validation=data[:6], **how)


def test_several_models_share_the_condition(data, u):
    how = {name: value for name, value in HOW.items() if name != "seed"} | {"engine": "eager"}
    (together,) = fit_many([build()], data, given=u, seeds=[2], **how)
    assert together["loss"] == fit(build(), data, given=u, seed=2, **how)["loss"]


def test_labelled_data_keep_their_condition(data, u):
    vae = build(mi.CatVAE, num_categories=2, warm_start=0).eval()
    args, labels = vae.arguments(data, u), torch.arange(N) % 3 - 1
    rows, drawn = torch.arange(10), torch.tensor([11, 13, 14])
    together = torch.cat([rows, drawn])
    objective = vae.objective(label_weight=0.7)
    names = ["given", "labels"]
    loss = loss_of(objective, vae.model, vae.guide, names, extra=len(drawn))
    parts = [part[together] for part in (*args, labels)]
    torch.manual_seed(4)
    mine, _ = loss(*parts)
    labelled = args[0][drawn], labels[drawn], args[1][drawn]
    torch.manual_seed(4)
    plain = objective.differentiable_loss(
        vae.model, vae.guide, *(a[rows] for a in args), labels=labels[rows], labelled=labelled
    )
    torch.testing.assert_close(mine, plain / 10, rtol=1e-12, atol=0)
    head, features = vae.guide.heads[0], vae.guide.encoder(labelled[0], labelled[2])
    by_hand = head.given(head(features)).logits.detach()
    entropy = torch.nn.functional.cross_entropy(by_hand, labelled[1])
    assert float(objective.ledger["cross_entropy_c"]) / 10 == pytest.approx(float(entropy))


def test_the_start_of_the_categories_reads_the_condition(data, u):
    found = []
    for given in (u, u.roll(1)):
        vae = build(mi.CatVAE, num_categories=2, warm_start=3)
        torch.manual_seed(3)
        vae.initialize(data, torch.arange(N) % 3 - 1, given=given)
        found.append(vae.guide.encoder.layer.weight.detach().clone())
    assert not torch.equal(*found)
    how = HOW | {"epochs": 1, "engine": "eager"}
    vae = build(mi.InfoCatVAE, num_categories=2, warm_start=3)
    assert fit(vae, data, given=u, labels=torch.arange(N) % 3 - 1, **how)["loss"]


def test_a_prior_is_fitted_to_the_codes_of_all_conditions(data, u):
    vae = build()
    fit(vae, data, given=u, engine="eager", **HOW)
    prior = mi.MixturePrior(2, 2, learn=["means"], category=None)
    refit = refit_prior(vae, data, prior, given=u, epochs=2, lr=1e-2)
    assert torch.equal(refit.encode(data, given=u)["z"], vae.encode(data, given=u)["z"])
    with pytest.raises(OptionError, match="given is missing"):
        refit_prior(vae, data, prior)
