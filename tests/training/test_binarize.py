"""Trainings on binary pixels: what each step sees, and what is equal to the bit."""

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.data.binarize import settled_pixels, training_pixels
from pyro_mivae.engine.cuda_graphs import Recording
from pyro_mivae.errors import DataError, OptionError, PyroMivaeWarning
from pyro_mivae.training import read_checkpoint, trainer
from pyro_mivae.training.identity import Identity, check_identity

pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
SHAPE = (1, 4, 4)
SETTINGS = {"epochs": 3, "batch_size": 20, "seed": 2, "binarize": "dynamic"}


class Seen(mi.VAE):
    """A VAE that keeps the data of its start and of its training steps."""

    def initialize(self, x):
        """Keeps the data of the start."""
        self.__dict__.update(start=x.clone(), batches=[])

    def objective(self, num_steps=None):
        """Keeps the data of each step in training mode; all are binary."""
        objective, vae = super().objective(num_steps), self
        own = objective.differentiable_loss

        def noted(model, guide, x):
            assert not hasattr(vae, "start") or is_binary(x)
            if vae.training:
                vae.batches.append(x.clone())
            return own(model, guide, x)

        objective.differentiable_loss = noted
        return objective


@pytest.fixture
def seen(x):
    """Trains in Pyro, with what the training saw: the start, and all images of each epoch."""

    def seen(data=x, seed=2, **options):
        torch.manual_seed(3)
        vae = Seen(SHAPE, latent_dim=2)
        options = {**SETTINGS, "seed": seed, "engine": "eager"} | options
        history = mi.fit(vae, data, **options)
        epochs = torch.cat(vae.batches).unflatten(0, (options["epochs"], -1))
        return vae, epochs, history

    return seen


def is_binary(x):
    return bool(((x == 0) | (x == 1)).all())


def test_each_epoch_is_a_new_draw_of_the_same_images(x, seen):
    vae, epochs, _ = seen(epochs=40)
    assert is_binary(epochs)
    assert is_binary(vae.start)
    mean = x.mean((0, 1))
    error = (x * (1 - x)).mean((0, 1)).div(len(x) * 40).sqrt()
    assert ((epochs.mean((0, 1, 2)) - mean).abs() <= 4 * error).all()
    _, (one, other), _ = seen(torch.full_like(x, 0.5), epochs=2)
    assert 0.4 < float((one == other).float().mean()) < 0.6  # whatever their order


def test_the_draws_depend_on_the_seed_alone(x, seen):
    torch.manual_seed(9)
    first, again, other = (seen(seed=seed)[1] for seed in (2, 2, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("protocol", ["threshold", "fixed"])
def test_what_is_drawn_once_stays_in_all_epochs(x, seen, protocol):
    vae, epochs, history = seen(binarize=protocol)
    made = training_pixels(x, protocol)
    assert torch.equal(vae.start, made)
    for epoch in epochs:
        assert torch.equal(epoch.flatten(1).sort(0)[0], made.flatten(1).sort(0)[0])
    _, same, rows = seen(made, binarize="none")  # order and noise are those of grey images
    assert torch.equal(same, epochs)
    assert rows["loss"] == history["loss"]


def test_binary_images_and_the_models_noise_stay_as_they_are(x, seen):
    made = training_pixels(x, "fixed")
    grey, epochs = (seen(made, binarize=protocol)[1] for protocol in ("none", "dynamic"))
    assert torch.equal(grey[0], epochs[0])


def test_eager_equals_staged(x, make):
    eager = mi.fit(make(), x, **SETTINGS, engine="eager")["loss"]
    assert mi.fit(make(), x, **SETTINGS, engine="staged")["loss"] == pytest.approx(eager, rel=1e-6)
    grey = mi.fit(make(), x, **SETTINGS | {"binarize": "none"}, engine="eager")["loss"]
    assert grey != pytest.approx(eager, rel=1e-4)


@pytest.mark.parametrize("resident", [True, False])
def test_recorded_steps_see_the_same_draws(x, make, monkeypatch, resident):
    plain, told = (make("vae").double() for _ in range(2))
    wanted = mi.fit(plain, x, **SETTINGS, engine="staged")
    monkeypatch.setattr(trainer, "recorder_for", lambda *given: Recording(*given, 3))
    if not resident:
        whole = trainer.StaticEpoch.prepare

        def elsewhere(epoch):
            epoch.resident = False
            whole(epoch)

        monkeypatch.setattr(trainer.StaticEpoch, "prepare", elsewhere)
    found = mi.fit(told, x, **SETTINGS, engine="staged")
    assert found["loss"] == pytest.approx(
        wanted["loss"], rel=1e-7
    )  # a capturable Adam rounds otherwise


def test_resumed_run_equals_an_uninterrupted_one(tmp_path, x, make, assert_same_weights):
    def interrupt(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    settings = SETTINGS | {"epochs": 4, "validation": 0.2}
    whole, parts = make(), make()
    wanted = mi.fit(whole, x, **settings)
    with pytest.raises(KeyboardInterrupt):
        mi.fit(parts, x, **settings, run=tmp_path, on_epoch=interrupt)
    torch.manual_seed(77)
    found = mi.fit(make(), x, **settings, run=tmp_path, resume=True)
    assert_same_weights(read_checkpoint(tmp_path)["weights"], whole.state_dict())
    assert found["val_loss"] == wanted["val_loss"]
    with pytest.raises(OptionError, match="binarize='fixed' given, but .* with 'dynamic'"):
        mi.fit(make(), x, **settings | {"binarize": "fixed"}, run=tmp_path, resume=True)


def test_a_run_that_is_older_than_an_option_goes_on(tmp_path, x, make):
    mi.fit(make(), x, epochs=1, run=tmp_path)
    started = Identity.from_state(read_checkpoint(tmp_path))
    given = Identity(dict(started.options), started.data, started.model, started.versions)
    del started.options["binarize"]
    check_identity(given, started, tmp_path)
    given.options["binarize"] = "fixed"
    with pytest.raises(OptionError, match="binarize='fixed' given, but .* started with 'none'"):
        check_identity(given, started, tmp_path)


def test_held_out_images_are_one_fixed_draw(x, make, seen):
    seen(validation=0.3)  # sees binary images alone
    one, other = make("vae"), make("vae")
    options = SETTINGS | {"lr": 1e-30}
    grey = mi.fit(one, x, **options, validation=x[:20])
    drawn = mi.fit(other, x, **options, validation=settled_pixels(x[:20], "dynamic"))
    assert grey["val_loss"] == drawn["val_loss"]


def test_several_models_draw_as_each_alone(x, make, assert_same_weights):
    vaes, twin = [make("vae"), make("beta")], make("beta")
    settings = {name: value for name, value in SETTINGS.items() if name != "seed"}
    mi.fit_many(vaes, x, seeds=(1, 2), **settings)
    mi.fit(twin, x, **SETTINGS)
    assert_same_weights(vaes[1], twin)


@pytest.mark.parametrize(
    ("name", "likelihood", "told"),
    [
        ("vae", "gaussian", "binarize='dynamic': binary pixels under a Normal likelihood"),
        ("vae", "continuous-bernoulli", "under a continuous Bernoulli likelihood"),
        ("infogan", None, "a discriminator can tell them apart"),
    ],
)
def test_a_likelihood_that_does_not_fit_is_pointed_out(x, make, name, likelihood, told):
    vae = make(name, **({} if likelihood is None else {"likelihood": likelihood}))
    with pytest.warns(PyroMivaeWarning, match=told):
        mi.fit(vae, x, **SETTINGS | {"epochs": 1})
    assert not vae.likelihood.misfit(x)
    assert mi.BernoulliLikelihood().misfit(x).startswith("grey pixels")
    assert not mi.BernoulliLikelihood().misfit(x.round())


def test_images_that_are_no_probabilities(x):
    vae = mi.VAE(SHAPE, latent_dim=2, likelihood="gaussian")
    with pytest.raises(DataError, match=r"binarize='dynamic' needs \[0, 1\]; rescale them"):
        mi.fit(vae, 2 * x, **SETTINGS)
