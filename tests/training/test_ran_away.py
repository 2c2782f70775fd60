"""Numbers that ran away are no result: they are neither kept, nor finished, nor loaded."""

import math

import pyro
import pytest
import torch
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, RunError, TrainingError
from pyro_mivae.training import checkpointer, has_checkpoint
from pyro_mivae.variants.checks import broken_weights

SHAPE = (1, 4, 4)


@pytest.fixture(autouse=True)
def no_checkpoint_before_the_end(monkeypatch):
    """However slow the epochs are on a busy machine."""
    monkeypatch.setattr(checkpointer, "SECONDS_BETWEEN_CHECKPOINTS", math.inf)


def plain_encoder():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())


@pytest.mark.parametrize("engine", ["eager", "staged", "auto"])
@pytest.mark.parametrize("name", ["cat", "infocat"])
def test_weights_that_ran_away_are_named_with_the_step(tmp_path, x, name, engine, make):
    vae = make(name)
    told = r"weights are not finite after step \d+ \(guide\S+ and .* after epoch \d"
    with pytest.raises(TrainingError, match=told):
        mi.fit(vae, x, epochs=9, lr=1e25, batch_size=50, run=tmp_path, engine=engine)
    assert not broken_weights(vae)
    assert not has_checkpoint(tmp_path)  # finite as they are, they give no finite loss


@pytest.mark.parametrize("lr", [1.0, 10.0])
@pytest.mark.parametrize("name", ["cat", "infocat"])
def test_a_large_rate_trains_or_says_so(x, name, lr, make):
    vae = make(name)
    try:
        assert math.isfinite(mi.fit(vae, x, epochs=3, lr=lr, batch_size=25)["loss"][-1])
    except TrainingError as error:
        assert "not finite" in str(error)  # noqa: PT017
    assert not broken_weights(vae)


@pytest.mark.parametrize("engine", ["eager", "staged"])
@pytest.mark.parametrize("name", ["cat", "infocat"])
def test_categories_of_finite_weights_that_are_not_finite_are_named(x, name, engine, make):
    vae = make(name, encoder=plain_encoder())
    told = r"after step 1 .* parameter logits .* Categorical.* try a lower .* before the first ep"
    with pytest.raises(TrainingError, match=told) as error:
        mi.fit(vae, x, epochs=2, lr=1e20, batch_size=25, engine=engine)
    assert "\n" not in str(error.value)


def test_what_fails_otherwise_is_left_as_it_is(x, make):
    vae = make("vae")
    calls = []

    def fail(*_):
        calls.append(None)
        if len(calls) == 4:
            raise RuntimeError("of my own")

    vae.guide.encoder.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="^of my own") as error:
        mi.fit(vae, x, epochs=2, batch_size=10, engine="eager")
    assert not isinstance(error.value, TrainingError)


def test_a_last_step_that_explodes_is_not_a_finished_run(tmp_path, x, make, assert_same_weights):
    vae, before = make("vae"), make("vae")
    with pytest.raises(TrainingError, match="loss is not finite at step 2 .* before the first ep"):
        mi.fit(vae, x, epochs=1, lr=1e30, batch_size=64, run=tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()
    assert_same_weights(vae, before)


def test_going_on_says_again_what_happened(tmp_path, x, make):
    how = {"epochs": 3, "lr": 1e30, "batch_size": 64, "run": tmp_path}
    told = r"not finite at step 2 .* epoch 1 \(epoch 1's ELBO .* either\) again; .* keeps none$"
    for resume in (False, True, True):
        vae = make("vae")
        with pytest.raises(TrainingError, match=told):
            mi.fit(vae, x, resume=resume, **how)
        assert not has_checkpoint(tmp_path)
        assert not broken_weights(vae)


def test_a_start_that_breaks_gives_the_weights_back(x, make, monkeypatch, assert_same_weights):
    vae, before = make("infocat"), make("infocat")

    def breaks(vae, x):
        with torch.no_grad():
            next(vae.parameters()).fill_(math.nan)

    monkeypatch.setattr(type(vae), "initialize", breaks)
    with pytest.raises(TrainingError, match="not finite after step 0 .* before the first epoch"):
        mi.fit(vae, x, epochs=1)
    assert_same_weights(vae, before)


def test_a_loop_of_ones_own_is_told_by_torch(x, make):
    vae = make("infocat")
    optimiser = pyro.optim.Adam({"lr": 1e25})
    svi = mi.SVI(vae.model, vae.guide, optimiser, loss=vae.objective())
    told = "Expected parameter logits .* of distribution Categorical"
    svi.step(x)
    with pytest.warns(UserWarning, match="Encountered NaN: loss"):
        svi.step(x)
    with pytest.raises(ValueError, match=told):
        svi.step(x)


# Weights that are not finite


@pytest.fixture
def broken(make):
    vae = make("vae")
    with torch.no_grad():
        vae.model.decoder.layers[0].weight[0, 0] = math.nan
    return vae


@pytest.mark.parametrize(
    "use",
    [
        lambda vae, x: mi.fit(vae, x, epochs=1),
        lambda vae, x: mi.evaluate(vae, x),
        lambda vae, x: vae.encode(x),
        lambda vae, x: vae.reconstruct(x),
        lambda vae, x: vae.decode({"z": torch.zeros(2, 3)}, 2),
        lambda vae, x: vae.sample(2),
    ],
    ids=["fit", "evaluate", "encode", "reconstruct", "decode", "sample"],
)
def test_broken_weights_are_refused(use, broken, x):
    told = (
        r"1 of the tensors of VAE .* NaN or infinite \(model\.decoder\S+weight, .*train it again"
    )
    with pytest.raises(OptionError, match=told):
        use(broken, x)


def test_broken_weights_are_not_loaded(tmp_path, broken, make, assert_same_weights):
    path = tmp_path / "vae.pt"
    mi.save(broken, path)
    into, before = make("vae"), make("vae")
    for given in (None, into):
        with pytest.raises(RunError, match=rf"cannot load {path}: 1 of the tensors of VAE .* NaN"):
            mi.load(path, given)
    assert_same_weights(into, before)


def test_large_weights_and_infinite_masks_are_not_broken():
    module = nn.Linear(4, 4)
    module.register_buffer("mask", torch.full((2,), -math.inf))
    with torch.no_grad():
        module.weight.fill_(3e38)  # their sum is infinite
    assert broken_weights(module) == []
    with torch.no_grad():
        module.weight[0, 0], module.weight[0, 1] = math.inf, -math.inf
    assert broken_weights(module) == ["weight"]
