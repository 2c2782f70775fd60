"""A target in place of a weight, on the command line."""

import pyro_mivae as mi
from pyro_mivae.runs import load
from pyro_mivae.training import read_checkpoint


def test_a_run_with_a_target_trains_resumes_and_tells(call, home, tmp_path, unmeasured):
    few = ("--data", home / "digits.npz", "--latent-dim", 2, "--run", "r")
    assert call("train", "beta", *few, "--epochs", 1, "--beta", "target:2.5")[0] == 0
    assert 'beta = "target:2.5"' in (tmp_path / "r" / "config.toml").read_text()
    kept = read_checkpoint(tmp_path / "r")["objective"]
    assert float(kept["kl_z.current"]) != 1
    assert "weight_kl_z" in (tmp_path / "r" / "history.csv").read_text().splitlines()[0]
    vae = load(tmp_path / "r")
    assert vae.beta == mi.Target(2.5)
    assert call("train", "beta", "--run", "r", "--resume", "--beta", "target:2.5")[0] == 0
    code, _, err = call("train", "beta", "--run", "r", "--resume", "--beta", 2)
    assert code == 2
    assert "--beta 2.0 given, but the training in r was started with target:2.5" in err[0]


def test_what_is_no_target_is_one_line(call):
    for args, told in (
        (["train", "beta", "--beta", "target:0"], "--beta 'target:0'; allowed are finite numb"),
        (
            ["train", "beta", "--beta", "nats:3"],
            "'nats:3' given; allowed is a number, or target:N",
        ),
        (["train", "mmd", "--mi-weight", "target:3"], "numbers, as two weights are made of it"),
        (["train", "vae", "--beta", "target:3"], "'vae' does not have --beta"),
        (["sweep", "beta", "--beta", "1,target:3"], "a sweep takes no targets, train one model"),
    ):
        code, _, err = call(*args)
        assert (code, len(err)) == (2, 1)
        assert told in err[0]
