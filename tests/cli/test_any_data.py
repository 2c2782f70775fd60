"""Tables, counts and series on the command line: from a file to figures, page, samples, codes."""

import json

import numpy as np
import pytest
import torch

from ..likelihoods.kinds import KINDS

SHAPES = {"counts.csv": (5,), "table.csv": (4,), "series.npy": (2, 12), "series.npz": (2, 12)}
LIKELIHOODS = {
    "counts.csv": "negative-binomial",
    "table.csv": "student-t",
    "series.npy": "heteroscedastic-gaussian",
    "series.npz": "gaussian",
}


@pytest.fixture
def file(tmp_path):
    def file(name):
        torch.manual_seed(0)
        values = KINDS[LIKELIHOODS[name]].data(60, *SHAPES[name]).numpy()
        path, labels = tmp_path / name, np.arange(60) % 2
        if path.suffix == ".csv":
            header = ",".join([*(f"gene {i}" for i in range(values.shape[1])), "label"])
            rows = [",".join(map(str, [*row, f"kind {k}"])) for row, k in zip(values, labels)]
            path.write_text("\n".join([header, *rows]))
        elif path.suffix == ".npy":
            np.save(path, values)
        else:
            np.savez(path, data=values, labels=labels)
        return path

    return file


@pytest.mark.parametrize("name", SHAPES)
def test_a_run_of_data_that_are_no_images(call, quick, file, tmp_path, name):
    data, run = str(file(name)), str(tmp_path / "run")
    few = ["--epochs", "1", "--latent-dim", "2", "--likelihood", LIKELIHOODS[name]]
    code, _, err = call("train", "vae", "--data", data, *few, "--run", run)
    assert code == 0, err
    assert not any("warning" in line for line in err), err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert np.isfinite([metrics["elbo"], metrics["log_px"]]).all()
    assert ("linear_probe" in metrics) == (not name.endswith(".npy"))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "per datum of shape " + " × ".join(map(str, SHAPES[name])) in page
    assert "could not be drawn" not in page
    assert ("Columns of the table" in page) == name.endswith(".csv")
    out = tmp_path / "samples.png"
    assert call("sample", run, "--n", "7", "--out", str(out))[0] == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    codes = tmp_path / "codes.npz"
    assert call("encode", run, "--data", data, "--out", str(codes))[0] == 0
    assert np.load(codes)["z"].shape == (60, 2)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("table.csv", [], "BernoulliLikelihood needs [0, 1]; rescale them"),
        ("table.csv", ["--likelihood", "poisson"], "PoissonLikelihood needs [0, inf]"),
        ("series.npy", ["--image-size", "8"], "holds no images in [0, 1], but data of shape (2, "),
        ("counts.csv", ["--network", "conv"], "convolutions need (channels, height, width)"),
    ],
)
def test_what_does_not_fit_is_one_line(call, file, tmp_path, name, args, message):
    code, _, err = call("train", "vae", "--data", str(file(name)), *args, "--run", "run")
    assert (code, len(err)) == (2, 1), err
    assert message in err[0]
