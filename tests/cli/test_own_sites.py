"""Sites of any names, from the training to the codes and samples of a run."""

import numpy as np
import torch

SOURCE = """
import pyro
import pyro.distributions as dist
import torch

import pyro_mivae as mi


def sites(latent_dim):
    zero = torch.zeros(latent_dim)

    def prior():
        kind = pyro.sample("my kind", dist.OneHotCategorical(torch.ones(3)))
        ink = pyro.sample("ink", dist.OneHotCategorical(torch.ones(2)))
        z = pyro.sample("a.b/c", dist.Normal(zero, 1.0).to_event(1))
        angle = pyro.sample("z", dist.Normal(zero[:2], 1.0).to_event(1))
        return mi.priors.join([kind, ink, z, angle])

    return prior
"""


def test_any_names(call, home, tmp_path):
    (tmp_path / "own.py").write_text(SOURCE)
    data = ("--data", home / "digits.npz", "--epochs", 1, "--run", "run", "--warm-start", 2)
    code, out, err = call("train", "cat", "--prior", "own.py:sites", "--latent-dim", 3, *data)
    assert code == 0, err
    assert "KL of a.b/c" in out
    assert (tmp_path / "run" / "information_my%20kind.png").exists()
    assert (tmp_path / "run" / "traversals_a.b%2fc.png").exists()
    assert call("encode", "run", "--data", home / "digits.npz", "--out", "c.npz")[0] == 0
    with np.load("c.npz") as codes:
        sizes = {name: codes[name].shape for name in ("my kind", "ink", "a.b/c", "z")}
    assert sizes == {"my kind": (200, 3), "ink": (200, 2), "a.b/c": (200, 3), "z": (200, 2)}
    chosen = ("--category", "ink=B", "--category", "my kind=2")
    assert call("sample", "run", "--out", "g.png", *chosen)[0] == 0
    for words, message in (
        (("ink=C",), "--category 2: allowed are 0 to 1, the categories of 'ink'"),
        (("pen=A",), "CatVAE has the categories ['my kind', 'ink']"),
        (("1", "2"), "--category 1, 2: name each of several as SITE=CATEGORY"),
    ):
        given = [word for text in words for word in ("--category", text)]
        code, _, err = call("sample", "run", "--out", "h.png", *given)
        assert (code, len(err)) == (2, 1)
        assert message in err[0]


def test_a_name_that_standard_deviations_have(call, home, monkeypatch):
    def encoded(vae, args, *rest):
        return {name: torch.ones(len(args[0]), 2) for name in ("z", "z_sd")}

    monkeypatch.setattr("pyro_mivae.runs.outputs.encoded", encoded)
    code, _, err = call("encode", home / "run", "--data", home / "digits.npz", "--out", "c.npz")
    assert code == 2
    assert "sites ['z_sd'] of" in err[0]
    assert "have the names of other arrays" in err[0]
