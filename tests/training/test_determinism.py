"""The table of `docs/determinism.md`: what is equal to the bit, and what is not."""

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.training.arguments import CONVOLUTIONS, SMALL_STEP

pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")


@pytest.fixture
def train(x, make):
    """Trains a fresh variant on so many threads; gives it and its history."""
    before = torch.get_num_threads()

    def train(name, data=x, threads=1, vae=None, **options):
        torch.set_num_threads(threads)
        vae = make(name) if vae is None else vae
        options = {"epochs": 2, "batch_size": 25, "engine": "eager"} | options
        history = mi.fit(vae, data, **options)
        return vae, [{**row, "seconds": 0.0} for row in history]

    yield train
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["vae", "mmd", "vmi", "critic-infomax", "infocat", "infogan"])
def test_eager_and_staged_on_one_thread_or_two(name, train, assert_same_weights):
    vae, _ = train(name)
    convolves = any(isinstance(part, CONVOLUTIONS) for part in vae.modules())
    other, _ = train(name, engine="staged", threads=1 if convolves else 2)
    assert_same_weights(vae, other)


def test_nothing_around_a_training_changes_it(train, tmp_path, assert_same_weights):
    vae, history = train("infocat")  # and the same twice
    torch.manual_seed(99)
    seen = []
    other, rows = train("infocat", run=tmp_path, progress=True, on_epoch=seen.append)
    assert_same_weights(vae, other)
    assert repr(rows) == repr(history)  # NaN is not equal to itself
    assert len(seen) == 2


def stop_after_one(row):
    if row["epoch"] == 1:
        raise KeyboardInterrupt


@pytest.mark.parametrize("threads", [1, 2])
def test_small_steps_that_go_on_on_other_threads(threads, train, tmp_path, assert_same_weights):
    vae, _ = train("infocat")
    with pytest.raises(KeyboardInterrupt):
        train("infocat", run=tmp_path, on_epoch=stop_after_one)
    other, _ = train("infocat", run=tmp_path, resume=True, threads=threads)
    assert_same_weights(vae, other)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("name", ["vae", "infogan"])
def test_large_steps_and_convolutions_on_other_threads(name, train):
    count, size = {"vae": (128, 28), "infogan": (32, 8)}[name]
    data = torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0))

    def run(threads):
        torch.manual_seed(1)
        vae = mi.VARIANTS[name](data.shape[1:])
        return train(name, data, threads, vae, epochs=1, batch_size=count)

    vae, history = run(1)
    convolves = any(isinstance(part, CONVOLUTIONS) for part in vae.modules())
    assert convolves or sum(p.numel() for p in vae.parameters()) * count > SMALL_STEP
    _, rows = run(2)
    assert rows[0]["loss"] == pytest.approx(history[0]["loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.compiler
def test_compiled_again_and_beside_eager(train, assert_same_weights):
    vae, history = train("vae", engine="compiled")
    assert_same_weights(vae, train("vae", engine="compiled")[0])
    _, eager = train("vae")
    assert history[-1]["loss"] == pytest.approx(eager[-1]["loss"], rel=1e-4)
