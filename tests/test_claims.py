"""Every claim script runs offline with tiny settings, and its verdicts follow from its numbers."""

import argparse
import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "examples" / "claims"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.stem != "study")
VERDICTS = {"holds", "does not hold", "undecided", "not measured"}


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Imports a script of the folder, and forgets it afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield importlib.import_module
    for path in FOLDER.glob("*.py"):
        if path.stem not in before:
            sys.modules.pop(path.stem, None)


@pytest.fixture
def study(load):
    """A study of no models, on made-up images."""
    module = load("study")
    return module.Study(module.parser("", epochs=1).parse_args(["--smoke"]))


@pytest.mark.slow
@pytest.mark.usefixtures("quick", "encoder_side")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_gives_a_verdict_on_every_claim(path, load, tmp_path, capsys):
    verdicts = load(path.stem).main(["--smoke", "--out", str(tmp_path / "out.json")])
    assert set(verdicts.values()) <= VERDICTS
    printed = capsys.readouterr().out
    for claim in verdicts:
        assert f"claim:   {claim}" in printed
    assert printed.count("verdict: ") == len(verdicts)
    saved = json.loads((tmp_path / "out.json").read_text())
    assert [row["claim"] for row in saved["claims"]] == list(verdicts)
    assert all(len(rows) == 2 for rows in saved["runs"].values())  # one per seed


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_says_what_it_is(path):
    header = inspect.cleandoc(re.match(r'r"""(.*?)"""', path.read_text(), re.DOTALL)[1])
    assert header.splitlines()[0].endswith("?")
    assert f"\n    python examples/claims/{path.name}" in header


@pytest.mark.parametrize(
    ("a", "b", "by", "verdict"),
    [
        ([2.0, 2.1, 1.9], [1.0, 1.0, 1.0], 0.0, "holds"),
        ([2.0, 2.1, 1.9], [1.0, 1.0, 1.0], 2.0, "does not hold"),
        ([1.0, 2.0, 3.0], [2.0, 1.0, 2.5], 0.0, "undecided"),
        ([1.0, 2.0], [1.0, 1.0], 0.0, "undecided"),  # t = 1 < 6.31, its 95 % quantile
    ],
)
def test_comparison_over_seeds(study, a, b, by, verdict):
    study.runs = {"a": [{"f": v} for v in a], "b": [{"f": v} for v in b]}
    assert study.higher("a", "b", "f", by)[0] == verdict
    opposite = {"holds": "does not hold", "does not hold": "holds"}
    assert study.higher("b", "a", "f", -by)[0] == opposite.get(verdict, verdict)


def test_levels(study):
    study.runs = {"a": [{"f": v} for v in (0.1, 0.11, 0.09)]}
    assert study.below("a", "f", 0.5)[0] == "holds"
    assert study.above("a", "f", 0.5)[0] == "does not hold"
    assert study.above("a", "f", 0.1)[0] == "undecided"


def test_weakest_evidence_decides(study):
    holds, fails, undecided = (("holds", "1"), ("does not hold", "2"), ("undecided", "3"))
    assert study.claim("all", holds, holds) == "holds"
    assert study.claim("one open", holds, undecided) == "undecided"
    assert study.claim("one fails", undecided, fails, holds) == "does not hold"
    assert study.claim("none") == "not measured"


def test_seeds_are_seeds(study, load):
    """The same seed gives the same model; another seed another."""
    import pyro_mivae as mi

    def weights():
        found = []

        def measure(vae):
            found.append(torch.cat([p.detach().flatten() for p in vae.parameters()]))
            return {"f": 0.0}

        study.runs = {}
        study.train("vae", lambda: mi.VAE(study.images.data_shape, latent_dim=2), measure)
        return found

    first, again = weights(), weights()
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])


def test_what_is_saved_is_json_without_paths(study, tmp_path):
    study.args.out, study.args.pictures = tmp_path / "out.json", tmp_path / "pictures"
    study.runs = {"a": [{"seed": 0, "defined": 1.5, "undefined": float("nan")}]}
    study.save()
    saved = json.loads(study.args.out.read_text())
    settings = saved["settings"]
    assert saved["runs"]["a"] == [{"seed": 0, "defined": 1.5, "undefined": None}]
    assert settings["epochs"] == 2
    assert not {"out", "pictures", "data_root"} & set(settings)


def test_one_seed_is_refused(load):
    module = load("study")
    args: argparse.Namespace = module.parser("", epochs=1).parse_args(["--seeds", "1"])
    with pytest.raises(SystemExit, match="2 or more"):
        module.Study(args)
