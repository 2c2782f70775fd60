"""The benchmarks run, with tiny settings; what they measure is not judged here."""

import json

import numpy as np
import pytest

from benchmarks import variants


@pytest.fixture
def images(tmp_path):
    """A data set of 60 images with a label each."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pixels = 0.2 * rng.random((60, 8, 8), dtype=np.float32)
    pixels[np.arange(60), labels] = 0.9
    path = tmp_path / "images.npz"
    np.savez(path, images=pixels, labels=labels)
    return str(path)


def test_variants_side_by_side(images, tmp_path, capsys):
    out = tmp_path / "results" / "variants.json"
    command = ["--data", images, "--epochs", "1", "--seeds", "2", "--turns", "2", "--jobs", "1"]
    command += ["--variants", "vae", "infomax", "--out", str(out)]
    variants.main(command)
    content = json.loads(out.read_text())
    assert [(run["variant"], run["seed"]) for run in content["runs"]] == [
        ("vae", 0),
        ("vae", 1),
        ("infomax", 0),
        ("infomax", 1),
    ]
    assert content["step"]["vae"]["ratio"] == [1.0, 1.0, 1.0]
    table = capsys.readouterr().out.splitlines()
    row = next(line for line in table if line.startswith("| infomax"))
    assert row.count("±") >= 6
    before = out.read_text()
    variants.main([*command, "--turns", "0"])  # runs that are there are not trained again
    assert json.loads(out.read_text())["runs"] == json.loads(before)["runs"]
