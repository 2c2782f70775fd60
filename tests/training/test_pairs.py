"""Objectives that pair the data of a batch: none may be left alone or nearly so."""

import logging

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, TrainingError
from pyro_mivae.terms import InformationTerm
from pyro_mivae.training import fit
from pyro_mivae.training.arguments import batch_sizes
from pyro_mivae.training.history import Meter

SHAPE = (1, 4, 4)


class Paired(InformationTerm):
    """Notes how many data it was shown at once."""

    needs_batch = True
    name = "paired"
    formula = "0"

    def __init__(self):
        super().__init__("z")
        self.seen = []

    def __call__(self, particle):
        self.seen.append(len(particle.args[0]))
        return torch.zeros(())


class PairedVAE(mi.VAE):
    def __init__(self):
        super().__init__(SHAPE, latent_dim=2)
        self.term = Paired()

    def objective(self, num_steps=None):
        return mi.MutualInformationELBO([self.term], max_plate_nesting=1)


@pytest.mark.parametrize(
    ("count", "batch_size", "needs_batch", "sizes"),
    [
        (270, 128, False, [128, 128, 14]),
        (270, 128, True, [128, 142]),
        (320, 128, True, [128, 128, 64]),
        (319, 128, True, [128, 191]),
        (256, 128, True, [128, 128]),
        (14, 128, True, [14]),
    ],
)
def test_batches(count, batch_size, needs_batch, sizes):
    assert batch_sizes(count, batch_size, needs_batch) == sizes


def test_small_last_batch_joins_the_one_before(x, caplog, capsys):
    vae = PairedVAE()
    with caplog.at_level(logging.INFO, logger="pyro_mivae"):
        history = fit(vae, x, epochs=2, batch_size=20, validation=x[:7], progress=True)
    assert vae.term.seen == [50, 20, 30, 7, 20, 30, 7, 20]  # checks of the pair first and last
    assert history["step"] == [2, 4]
    said = "the last 10 images join the batch before them"
    assert said in caplog.text
    assert said in capsys.readouterr().err


def test_other_objectives_keep_their_small_last_batch(x, make, caplog):
    with caplog.at_level(logging.INFO, logger="pyro_mivae"):
        history = fit(make("vae"), x, epochs=1, batch_size=20)
    assert history["step"] == [3]
    assert not caplog.text


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (50, {"batch_size": 1}, "batch_size=1 for 50"),
        (1, {"batch_size": 20}, r"for 1 image\(s\)"),
        (50, {"batch_size": 20, "validation": 0.01}, "one image is held out"),
    ],
)
def test_nothing_to_pair_with(tmp_path, x, count, options, message):
    with pytest.raises(OptionError, match=message):
        fit(PairedVAE(), x[:count], epochs=1, **options, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_ran_away_before_everything_broke_is_named():
    meter = Meter()
    for step in range(6):
        run_away = 1e30 if step == 4 else 2.0
        values = (torch.nan, torch.nan) if step == 5 else (100.0 + step, run_away)
        meter.add(("loss", "mi_z"), torch.tensor(values), 10)
    message = r"step 6 \(loss = nan, mi_z = nan; the step before had mi_z = 1e\+30, typically 2\)"
    with pytest.raises(TrainingError, match=message):
        meter.means()


@pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
def test_patience_is_not_put_off_by_an_average(x):
    """MINE's average moves with every step; it is no schedule."""
    torch.manual_seed(0)
    vae = mi.CriticInfomaxVAE(SHAPE, latent_dim=2, bound="mine", mi_weight=20.0)
    history = fit(vae, x, epochs=200, lr=0.05, patience=2)
    losses = history["val_loss"]
    assert len(history) == losses.index(min(losses)) + 1 + 2 < 200
