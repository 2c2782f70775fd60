"""The benchmark of several models runs, with tiny settings."""

import json

import pytest

from benchmarks import many


def test_models_per_minute(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(many, "IMAGES", {8: 64})
    out = tmp_path / "many.json"
    monkeypatch.setattr(many, "JOBS", 1)  # starting processes takes seconds
    command = ["--variants", "vae", "--sizes", "8", "--counts", "1", "2", "--epochs", "1"]
    command += ["--turns", "1", "--out", str(out)]
    many.main(command)
    content = json.loads(out.read_text())
    assert [row["count"] for row in content["rows"]] == [1, 2]
    assert set(content["rows"][1]["seconds"]) == {"fit", "fit_many", "fit_many(jobs=2)"}
    assert "| vae | 8 x 8 | 1 | 2 |" in capsys.readouterr().out
    before = out.read_text()
    many.main(command)  # what is there is not measured again
    assert out.read_text() == before


def test_counts_whole_trainings_per_minute():
    row = {"count": 4, "seconds": {"fit": [10.0, 12.0, 30.0]}}
    assert many.per_minute(row) == {"fit": pytest.approx(20.0)}
