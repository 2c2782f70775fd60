"""The benchmark of labels: splits of their own, kept in one file, and its table."""

import numpy as np
import pytest

from benchmarks import labels


@pytest.fixture
def command(tmp_path, quick, encoder_side):
    """A command that takes seconds, on bright rows of three kinds."""
    rng = np.random.default_rng(0)
    kinds = np.arange(60) % 3
    pixels = 0.2 * rng.random((60, 8, 8), dtype=np.float32)
    pixels[np.arange(60), kinds] = 0.9
    np.savez(tmp_path / "rows.npz", images=pixels, labels=kinds)
    place = ["--out", str(tmp_path / "out"), "--jobs", "1", "--epochs", "1"]
    return ["--data", str(tmp_path / "rows.npz"), *place, "--warm-start", "3", "--starts", "1"]


@pytest.mark.slow
def test_every_split_and_number_of_labels_is_kept(command, capsys):
    (content,) = labels.main([*command, "--labels", "6", "9", "--splits", "2"])
    runs = [(run["labels"], run["seed"]) for run in content["runs"]]
    assert runs == [(6, 0), (6, 1), (9, 0), (9, 1)]
    for run in content["runs"]:
        assert 0 <= run["metrics"]["classification_accuracy"] <= 1
        assert 0 <= run["start_alone"]["classification_accuracy"] <= 1
        assert run["settings"]["model"]["warm_start"] == 3
    lines = labels.table(content).splitlines()
    assert lines[2].startswith("| 6 | cat | 2 | ")
    assert len({line.count("|") for line in lines}) == 1
    labels.main([*command, "--labels", "6", "9", "--splits", "2"])
    assert "0 runs to do" in capsys.readouterr().out
