"""`train --labels`: few labels, chosen by the seed, and what is said of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_mivae.data import keep_labels, load_dataset
from pyro_mivae.errors import OptionError
from pyro_mivae.metrics import how_measured
from pyro_mivae.runs import RunConfig, sweep_run
from pyro_mivae.training import read_checkpoint

QUICK = ("--epochs", 1, "--warm-start", 5, "--starts", 1)


def test_a_run_with_labels_says_so(call, home):
    data = ("--data", home / "digits.npz", *QUICK)
    code, out, _ = call("train", "cat", *data, "--labels", 20, "--run", "r")
    assert code == 0
    told = "training used 20 of 161 labels, equally many of each class, drawn by the run's seed, 0"
    for text in ("classification accuracy", "against labels, of which training saw some", told):
        assert text in out
    assert "did not see" not in out
    content = json.loads(Path("r/metrics.json").read_text())
    assert 0 <= content["metrics"]["classification_accuracy"] <= 1
    assert "by number" in how_measured(content["protocol"], "classification_accuracy")
    assert told in content["protocol"]["labels"]
    assert "cross_entropy_c" in Path("r/history.csv").read_text()
    page = Path("r/report.html").read_text()
    assert "never saw" not in page
    code, out, _ = call("evaluate", "r")
    assert code == 0
    assert told in out
    code, _, err = call("train", "cat", "--labels", 30, "--run", "r", "--resume")
    assert code == 2
    assert "--labels 30 given, but the training in r was started with 20" in err[-1]
    code, out, _ = call("train", "cat", "--run", "r", "--resume")
    assert code == 0
    assert "nothing to do" in out


@pytest.mark.slow
def test_every_seed_has_its_own_labels(call, home):
    data = ("--data", home / "digits.npz", *QUICK)
    code, out, _ = call("train", "cat", *data, "--labels", 20, "--seeds", 2, "--run", "s")
    assert code == 0
    assert "classification_accuracy" in out
    prints = {read_checkpoint(Path(f"s/seed-{k}"))["identity"]["data"]["labels"] for k in (0, 1)}
    assert len(prints) == 2
    code, _, _ = call("train", "cat", *data, "--labels", 20, "--seed", 1, "--run", "alone")
    assert code == 0
    alone = read_checkpoint(Path("alone"))
    together = read_checkpoint(Path("s/seed-1"))
    assert alone["identity"]["data"] == together["identity"]["data"]
    for name, value in alone["weights"].items():
        assert torch.equal(value, together["weights"][name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("cat", "--labels", 0), "0 is not in the range x>=1"),
        (
            ("cat", "--labels", 100_000),
            "100000 labels are asked for, so 10000 of class 0, which has 1",
        ),
        (("cat", "--labels", 20, "--categories", 4), "labels range over -1 to 9"),
        (("vae", "--labels", 20), "VAE has no category"),
        (("infogan", "--labels", 20), "InfoGAN has no ELBO"),
        (("cat", "--label-weight", 2), "--label-weight 2.0 is given without labels"),
    ],
)
def test_what_labels_do_not_suit_is_refused(call, options, message):
    code, _, err = call("train", *options)
    assert code == 2
    assert message in err[-1]
    assert not list(Path().iterdir())


def test_data_without_labels(call):
    np.save("x.npy", np.zeros((20, 6)))
    code, _, err = call("train", "cat", "--data", "x.npy", "--labels", 10)
    assert code == 2
    assert "--labels 10, but x has no labels; leave it out, or give data with some" in err[-1]


def test_a_sweep_has_no_labels(call, tmp_path):
    code, _, err = call("sweep", "infocat", "--mi-weight", "1", "--labels", 10)
    assert code == 2
    assert "No such option" in err[-1]
    with pytest.raises(OptionError, match="labels=10: a sweep has none"):
        sweep_run(RunConfig("infocat", labels=10), tmp_path / "s", {"mi_weight": [1.0]})


def test_kept_labels_are_equally_many_of_each_class():
    labels = load_dataset("digits").y_train
    for count in (10, 25, 100):
        kept = keep_labels(labels, count, seed=3)
        known = kept >= 0
        assert torch.equal(kept[known], labels[known])
        assert int(known.sum()) == count
        each = kept[known].bincount(minlength=10)
        assert each.max() - each.min() <= 1
    assert torch.equal(keep_labels(labels, 100, seed=3), kept)
    assert not torch.equal(keep_labels(labels, 100, seed=4), kept)
