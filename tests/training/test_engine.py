"""fit by every engine: the same noise, the same numbers."""

import pyro
import pyro.optim
import pytest
import torch
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, PyroMivaeWarning
from pyro_mivae.training import TrainingOptions, fit
from pyro_mivae.training.trainer import Trainer

SHAPE = (1, 4, 4)


class Particles(mi.VMIVAE):
    """VMI-VAE with several draws of the code per image."""

    def _loss(self, num_steps):
        terms = [mi.BarberAgakov("c", weight=mi.linear_warmup(6))]
        return mi.MutualInformationELBO(terms, num_particles=3)


def with_dropout(vae):
    vae.guide.encoder.layers.insert(1, nn.Dropout(0.3))
    return vae


MODELS = {
    "warm-ups, enumeration and batch norm": lambda make: make("infocat"),
    "sampled category": lambda make: make("cat", categorical="sample"),
    "relaxed category": lambda make: make("infocat", categorical="gumbel"),
    "rates per part and a moving average": lambda make: make(
        "critic-infomax",
        critic=mi.CriticBound(
            "z", critic=mi.build_critic("joint", SHAPE, 3), bound="mine", seed=2
        ),
        critic_lr=3e-3,
    ),
    "two players": lambda make: make("infogan", num_categories=3),
    "a deterministic code": lambda make: make("infomax", deterministic=True),
    "dropout": lambda make: with_dropout(make("vmi")),
    "particles": lambda make: Particles(SHAPE, latent_dim=2),
}
TRAININGS = {
    "plain": {},
    "clipped": {"clip_norm": 0.1, "lr_schedule": "cosine", "validation": 0.5},
}
# How gradients are clipped does not depend on the model, but for the number of its optimisers.
CLIPPED = (
    "warm-ups, enumeration and batch norm",
    "rates per part and a moving average",
    "two players",
    "dropout",
)
CASES = [(model, "clipped" if model in CLIPPED else "plain") for model in MODELS]


def assert_same_history(history, wanted):
    assert len(history) == len(wanted)
    for row, other in zip(history.rows, wanted.rows, strict=True):
        assert row.keys() == other.keys()
        for key in row.keys() - {"seconds"}:
            torch.testing.assert_close(
                torch.tensor(row[key], dtype=torch.float64),
                torch.tensor(other[key], dtype=torch.float64),
                rtol=1e-6,
                atol=1e-9,
                equal_nan=True,
                msg=lambda text, key=key: f"{key}: {text}",
            )


@pytest.mark.filterwarnings("ignore:a batch of")
@pytest.mark.parametrize(("model", "training"), CASES)
def test_staged_and_eager_trainings_are_the_same(model, training, x, make):
    torch.set_default_dtype(torch.float64)
    histories = {}
    for engine in ("eager", "staged"):
        torch.manual_seed(3)
        vae = MODELS[model](make)
        histories[engine] = fit(
            vae, x.double(), epochs=2, batch_size=25, engine=engine, **TRAININGS[training]
        )
    assert_same_history(histories["staged"], histories["eager"])


@pytest.mark.slow
@pytest.mark.compiler
@pytest.mark.filterwarnings("ignore:a batch of")
@pytest.mark.parametrize("name", ["critic-infomax", "infogan"])
def test_compiled_and_eager_trainings_are_the_same(name, x, make):
    torch.set_default_dtype(torch.float64)
    histories = [
        fit(make(name), x.double(), epochs=2, batch_size=25, engine=engine)
        for engine in ("eager", "compiled")
    ]
    assert_same_history(histories[1], histories[0])


def test_a_resumed_staged_training_is_an_uninterrupted_one(x, make, tmp_path, assert_same_weights):
    options = {"epochs": 4, "batch_size": 25, "engine": "staged", "lr_schedule": "cosine"}
    whole = make("infocat")
    fit(whole, x, **options)

    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make("infocat"), x, run=tmp_path, on_epoch=stop, **options)
    resumed = make("infocat")
    fit(resumed, x, run=tmp_path, resume=True, **options)
    assert_same_weights(resumed, whole)


def test_the_engine_and_stock_svi_from_one_seed(x, make):
    """On the same noise, so that they agree far better than two seeds do."""
    torch.set_default_dtype(torch.float64)
    x, epochs = x.double(), 5
    history = fit(make("vmi"), x, epochs=epochs, batch_size=10, engine="staged", seed=7)
    vae = make("vmi")
    svi = pyro.infer.SVI(
        vae.model, vae.guide, pyro.optim.Adam(vae.optim_args), vae.objective(5 * epochs)
    )
    shuffle = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    losses = []
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=shuffle)
        losses.append(sum(svi.step(x[index]) for index in order.split(10)) / len(x))
    other = fit(make("vmi"), x, epochs=epochs, batch_size=10, engine="staged", seed=8)
    by_seed = max(abs(a - b) for a, b in zip(history["loss"], other["loss"], strict=True))
    by_engine = max(abs(a - b) for a, b in zip(history["loss"], losses, strict=True))
    assert by_engine < 1e-3 * by_seed


class LooksAtValues(mi.VAE):
    """A variant whose decoder reads a value."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        inner = self.model.decoder.forward
        self.model.decoder.forward = lambda z: inner(z if float(z.detach().sum()) > 1e9 else z)


def test_a_model_that_cannot_be_staged_is_trained_all_the_same(x):
    torch.manual_seed(0)
    with pytest.warns(PyroMivaeWarning, match="cannot be staged: it reads the value") as caught:
        history = fit(LooksAtValues(SHAPE), x, epochs=3, batch_size=20, engine="staged")
    assert sum(issubclass(w.category, PyroMivaeWarning) for w in caught) == 1
    torch.manual_seed(0)
    eager = fit(LooksAtValues(SHAPE), x, epochs=3, batch_size=20, engine="eager")
    assert history["loss"] == eager["loss"]


def test_short_trainings_wait_for_nothing(x, make):
    def means(epochs):
        settings = TrainingOptions(epochs, 50)
        trainer = Trainer(make("vae"), {"x": x}, [], settings, torch.device("cpu"))
        return trainer.engine.mode

    assert means(10) == "eager"
    assert means(1000) == "auto"  # staged; compiled too if the work is worth it
    with pytest.raises(OptionError, match="engine='fast'; allowed are auto, eager, staged"):
        fit(make("vae"), x, epochs=1, engine="fast")
