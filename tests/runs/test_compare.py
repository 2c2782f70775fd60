"""Run folders side by side: what is read, what is warned of, what is written."""

import json
import re

import numpy as np
import pytest

from pyro_mivae import compare
from pyro_mivae.cli import run_command
from pyro_mivae.data import load_dataset
from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.runs import RunConfig
from pyro_mivae.runs.build import build_variant
from pyro_mivae.training import fit


def make_run(folder, data, variant="vae", *, seed=0, likelihood="bernoulli", **metrics):
    """A run folder as training leaves it, but for the report; its figures are given."""
    dataset = load_dataset(str(data))
    model = {"latent_dim": 2, "likelihood": likelihood}
    training = {"epochs": 1, "seed": seed, "engine": "eager"}
    config = RunConfig(variant, str(data), model=model, training=training)
    config = config.complete(dataset)
    vae = build_variant(config, dataset.data_shape)
    fit(vae, dataset.x_train, epochs=1, seed=seed, run=folder, engine="eager")
    config.write(folder / "config.toml")
    values = {"elbo": -20.0, "elbo_se": 0.1, "mi_lower": 1.0, "mi_upper": 1.5} | metrics
    protocol = {"information": {"items": len(dataset.x_test), "iwae_samples": 64}}
    content = {"metrics": values, "protocol": protocol}
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    digits = load_dataset("digits")
    images = (digits.x_train[:60, 0] * 255).byte().numpy()
    np.savez(home / "few.npz", images=images, labels=digits.y_train[:60].numpy())
    np.savez(home / "other.npz", images=images[:40])
    make_run(home / "a", home / "few.npz")
    make_run(home / "b", home / "few.npz", elbo=-25.0, kl_z=None)
    (home / "nested").mkdir()
    make_run(home / "nested" / "a", home / "few.npz", likelihood="gaussian")
    make_run(home / "c", home / "other.npz", "beta")
    for seed in (0, 1):
        folder = home / "seeds" / f"seed-{seed}"
        folder.parent.mkdir(exist_ok=True)
        make_run(folder, home / "few.npz", seed=seed, elbo=-21.0 - seed)
    return home


def rows_of(table):
    return [re.split(r"\s{2,}", row.strip()) for row in table.splitlines()]


def test_the_table_has_a_column_per_run_and_marks_what_differs(home):
    comparison = compare(home / "a", home / "b", home / "seeds")
    assert repr(comparison) == "Comparison(a, b, seeds)"
    run = comparison.sides[0].runs[0]
    assert repr(run) == f"Run({home / 'a'}: vae on {home / 'few.npz'}, 1 epochs)"
    rows = rows_of(comparison.table())
    assert rows[0] == ["nats per test datum", "a", "b", "seeds"]
    assert ["epochs", "1", "1", "1"] in rows
    assert [row[0] for row in rows if row[0] in ("seconds of training", "parameters")]
    assert ["ELBO", "−20.00 ± 0.10", "−25.00 ± 0.10 *", "−21.50 ± 0.71"] in rows  # two seeds
    assert ["I(x; code)", "1.00 – 1.50", "1.00 – 1.50", "1.00 – 1.50"] in rows
    assert rows[-2] == ["* more than two standard errors from a"]
    assert "of several seeds, their standard deviation" in rows[-1][0]


def test_columns_that_do_not_fit_go_below(home):
    text = compare(home / "a", home / "b", home / "seeds").table(width=60)
    assert max(map(len, text.splitlines()[:-2])) <= 60
    heads = [row for row in rows_of(text) if row[0] == "nats per test datum"]
    assert heads == [["nats per test datum", "a", "b"], ["nats per test datum", "seeds"]]


def test_runs_alike_have_no_warnings_and_few_settings(home):
    comparison = compare(home / "a", home / "b", home / "seeds")
    assert comparison.warnings == []
    assert comparison.settings == {"seed": ["0", "0", "0, 1"]}


def test_names_are_as_long_as_it_takes(home):
    comparison = compare(home / "a", home / "nested" / "a")
    assert [side.name for side in comparison.sides] == [f"{home.name}/a", "nested/a"]


def test_what_makes_runs_incomparable_is_said(home, tmp_path):
    assert "likelihoods of different kinds (Bern" in compare(home / "a", home / "nested/a").table()
    (warning,) = compare(home / "a", home / "c").warnings
    assert "a and c were measured on different data (data)" in warning
    copy = make_run(tmp_path / "d", home / "few.npz")
    content = json.loads((copy / "metrics.json").read_text())
    content["protocol"]["information"]["iwae_samples"] = 2
    content["protocol"]["likelihood"] = "grey pixels"
    (copy / "metrics.json").write_text(json.dumps(content))
    grey, measured = compare(home / "a", copy).warnings
    assert "cannot be compared, because d has grey pixels" in grey
    assert "measured in different ways: information.iwae_samples 64 and 2" in measured


def test_the_page_holds_all_of_it(home, tmp_path, quick):
    comparison = compare(home / "a", home / "b", home / "c", home / "seeds")
    page = comparison.write(tmp_path / "new").read_text()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["compare.html"]
    keys = re.findall(r'<article class="panel card" id="(\w+)"', page)
    assert keys[:4] == ["reconstructions_0", "samples_0", "reconstructions_1", "samples_1"]
    assert keys[4:] == ["information", "curves_elbo", "curves_distortion", "curves_rate"]
    for text in ("4 models compared", "Compare with care", "BetaVAE on other", "VAE on few, 2 se"):
        assert text in page
    assert "<strong>−25.00 ± 0.10 *</strong>" in page
    assert "<script" not in page
    with pytest.raises(OptionError, match="compare.html exists; replace it with overwrite=True"):
        comparison.write(tmp_path / "new")
    again = comparison.write(tmp_path / "new", overwrite=True).read_text()
    assert again == page  # the same draws each time


def test_folders_that_cannot_be_compared(home, tmp_path):
    with pytest.raises(OptionError, match=r"1 run folder\(s\) given; give two or more"):
        compare(home / "a")
    with pytest.raises(OptionError, match="given twice"):
        compare(home / "a", home / "b", home / "nested" / ".." / "a")
    with pytest.raises(RunError, match=f"there is no run folder {home / 'none'}; make one"):
        compare(home / "a", home / "none")
    with pytest.raises(RunError, match="is not a run folder"):
        compare(home / "a", home / "nested")
    copy = make_run(tmp_path / "d", home / "few.npz")
    (copy / "metrics.json").unlink()
    with pytest.raises(RunError, match="make it with pyro-mivae evaluate"):
        compare(home / "a", copy)


def test_the_command(home, tmp_path, capsys, quick):
    args = ["compare", str(home / "a"), str(home / "b")]
    assert run_command(args) == 0
    assert "ELBO" in capsys.readouterr().out
    assert run_command([*args, "--out", str(tmp_path / "out")]) == 0
    assert f"written to {tmp_path / 'out' / 'compare.html'}" in capsys.readouterr().out
    taken = tmp_path / "file"
    taken.write_text("mine")
    for out, message in (
        (tmp_path / "out", "exists; replace it with --overwrite"),
        (taken, "is a file; give a folder"),
        (tmp_path / "no" / "out", "there is no folder"),
    ):
        assert run_command([*args, "--out", str(out)]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert out == ""  # refused before anything is read
    assert run_command(["compare", str(home / "a"), str(home / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
