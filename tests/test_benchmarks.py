"""The benchmarks run, with tiny settings; what they measure is not judged here."""

import json

import numpy as np
import pytest
import torch

from benchmarks import ais, bounds, evaluation, starts, variance, variants
from pyro_mivae.metrics import category_agreement


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


def test_steps_of_the_variants_in_the_cost_of_the_plain_one(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(variants, "STEPS_PER_TURN", 2)
    out = tmp_path / "results" / "variants.json"
    command = ["--data", images, "--turns", "2", "--batch-size", "4", "--out", str(out)]
    variants.main([*command, "--variants", "beta"])
    content = json.loads(out.read_text())
    assert content["step"]["vae"]["ratio"] == [1.0, 1.0, 1.0]
    low, middle, high = content["step"]["beta"]["ratio"]
    assert 0 < low <= middle <= high
    assert f"| {middle:.2f} ({low:.2f} to {high:.2f}) |" in capsys.readouterr().out


@pytest.mark.slow
def test_bounds_beside_the_truth(tmp_path, capsys, monkeypatch):
    out, picture = tmp_path / "bounds.json", tmp_path / "docs" / "bounds.png"
    command = ["--n", "16", "--runs", "4", "--nats", "1", "2", "--dims", "2", "--critic-dims", "2"]
    command += ["--steps", "2", "--width", "4", "--samples", "2", "--critic-nats", "1"]
    command += ["--seeds", "2"]
    bounds.main([*command, "--out", str(out), "--picture", str(picture)])
    content = json.loads(out.read_text())
    assert len(content["optimal"]) == 2 * len(bounds.OPTIMAL)
    assert {row["critic"] for row in content["trained"]} == {"joint", "separable"}
    assert all(len(row["mean_of_each_seed"]) == 2 for row in content["trained"])
    of_infonce = [row for row in content["optimal"] if row["bound"] == "infonce"]
    assert [row["nats"] for row in of_infonce] == [1, 2]
    assert all(row["mean"] < 2.78 for row in of_infonce)  # log 16
    assert "| infonce | " in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(bounds, "draw", lambda measured: str(measured == content).encode())
    bounds.main(["--redraw", str(out), "--picture", str(picture)])
    assert picture.read_bytes() == b"True"


def test_variance_of_the_ways_to_treat_a_category(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(variance, "GROUPS", 4)
    out = tmp_path / "variance.json"
    command = ["--data", images, "--draws", "8", "--batch-size", "8", "--turns", "2"]
    command += ["--states", "random", "--means", "eager", "--out", str(out)]
    content = variance.main(command)
    gradients = content["states"]["random"]["gradients"]
    assert list(gradients) == list(content["step"]) == list(variance.objectives())
    assert all(of["noise"] == of["total"] == 1 for of in gradients["enumerate"].values())
    assert gradients["sample 0 + 1"]["categories"]["noise"] > 100
    assert json.loads(out.read_text())["settings"]["draws"] == 8
    assert "| gumbel | " in capsys.readouterr().out


def test_bias_is_told_from_noise():
    noise = torch.randn(400, 50, generator=torch.Generator().manual_seed(0))
    exact, same, other = (variance.Moments() for _ in range(3))
    for index, vector in enumerate(noise[:200]):
        exact.add(1 + vector)
        same.add(1 + 2 * noise[200 + index])
        other.add(1.5 + noise[200 + index])
    assert exact.variance == pytest.approx(float(noise[:200].var(0).sum()), rel=1e-5)
    none, half = variance.bias(same, exact), variance.bias(other, exact)
    assert none["bias"] < none["bias_of_noise"]
    assert half["bias"] == pytest.approx(0.5, abs=0.05)
    assert half["bias"] > half["bias_of_noise"]


def test_evaluation_part_by_part(images, tmp_path, capsys, monkeypatch, quick, encoder_side):
    out = tmp_path / "evaluation.json"
    asked, found = [], {}

    def apart(one, environment=None):
        asked.append((one["images"], bool(environment)))
        if not environment:
            found.update(evaluation._one(**one))
        return dict(found)

    monkeypatch.setattr(evaluation, "START", 2)
    monkeypatch.setattr(evaluation, "_apart", apart)
    command = ["--data", images, "--variants", "cat", "--images", "12", "--threads", "1"]
    evaluation.main([*command, "--out", str(out)])
    assert asked == [(None, False), (12, False), (12, True)]
    (row,) = json.loads(out.read_text())["rows"]
    assert {"information", "judge", "probes", "categories"} <= set(row["parts"]) == set(row["mib"])
    assert "draws" not in row["parts"]
    assert str(tmp_path) not in json.loads(out.read_text())["command"].replace(images, "")
    assert 0 < sum(part["wall"] for part in row["parts"].values()) <= row["wall"]
    assert {"costs", "dimensions"} <= set(row["information"])
    assert "| cat | 12 | " in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*proposals were accepted")
def test_annealing_beside_importance_sampling(images, tmp_path, capsys, short_pilot):
    out = tmp_path / "ais.json"
    command = [
        "--data",
        images,
        "--images",
        "6",
        "--own",
        "6",
        "--epochs",
        "1",
        "--latent-dim",
        "2",
    ]
    content = ais.main([*command, "--threads", "1", "--temperatures", "4", "--out", str(out)])
    assert json.loads(out.read_text()) == content
    own, test = content["rows"]["own"], content["rows"]["test"]
    assert own["gap"] == pytest.approx(own["log_px_upper"] - own["log_px_lower"])
    assert own["gap"] == pytest.approx(own["information_upper"] - own["information_lower"])
    assert content["settings"]["annealing"]["num_temperatures"] == 4
    assert content["rows"]["iwae 1000"]["elbo"] < test["log_px"] + 5
    assert f"| test | log p(x) ≥ {test['log_px']:.2f} |" in capsys.readouterr().out


def test_the_vote_of_starts_is_the_majority_up_to_names():
    truth = torch.tensor([0, 0, 1, 1, 2, 2, 2, 0, 1, 2])
    first, second, third = truth.clone(), (truth + 1) % 3, (truth + 2) % 3
    first[0], second[2], third[4] = 1, 0, 0  # one error each, at different data
    found = starts.vote([first, second, third])
    assert category_agreement(found, truth).accuracy == 1
    third[0] = third[2]  # two of three agree on the first datum's error
    assert category_agreement(starts.vote([first, second, third]), truth).accuracy == 0.9


@pytest.mark.usefixtures("wide")
def test_starts_agree_by_pairs_and_are_scored_against_labels(images, tmp_path, capsys):
    out = tmp_path / "starts.json"
    command = ["--data", images, "--radius", "0.5", "--starts", "3", "--steps", "2"]
    content = starts.main([*command, "--out", str(out)])
    assert json.loads(out.read_text()) == content
    (row,) = content["rows"]
    assert len(row["agreement"]) == len(row["losses"]) == 3
    assert all(0 < value <= 1 for value in (*row["agreement"], *row["accuracies"]))
    assert 0 < row["vote"] <= 1
    assert "| 0.5 | 3 |" in capsys.readouterr().out
