"""Bad input: one line, exit code 2, and nothing is left behind."""

import math

import numpy as np
import pytest


def spoiled(tmp_path, **arrays):
    np.savez(tmp_path / "bad.npz", **arrays)
    return tmp_path / "bad.npz"


IMAGES = np.zeros((10, 8, 8))
BAD_INPUT = {
    "no such variant": (["train", "infocta"], "no variant 'infocta'; did you mean infocat"),
    "no such data": (["train", "vae", "--data", "mnits"], "'mnits'; did you mean mnist"),
    "unused option": (
        ["train", "vae", "--categories", 3],
        "does not have --categories; it takes",
    ),
    "unknown option": (["train", "vae", "--colour"], "No such option"),
    "no value": (["train", "vae", "--epochs"], "requires an argument"),
    "no epochs": (["train", "vae", "--epochs", 0], "--epochs 0; allowed are whole numbers from 1"),
    "no number": (["train", "vae", "--epochs", "ten"], "'ten' is not a valid integer"),
    "learning rate": (["train", "vae", "--lr", "nan"], "--lr nan; allowed are finite numbers"),
    "lr schedule": (["train", "vae", "--lr-schedule", "step"], "allowed are constant, cosine"),
    "categories": (
        ["train", "cat", "--categories", 3, "--latent-dim", 4],
        "--latent-dim 4 is not a multiple of --categories 3",
    ),
    "no categories": (
        ["train", "cat", "--categories", 0],
        "--categories 0; allowed are",
    ),
    "code too large": (["train", "infomax", "--code-dim", 20], "--code-dim 20 of --latent-dim 20"),
    "image size": (["train", "vae", "--image-size", "8x"], "'8x' given; allowed is N or HxW"),
    "image size 0": (["train", "vae", "--image-size", "0"], "allowed is N or HxW"),
    "too small to convolve": (["train", "vae", "--image-size", 4, "--network", "conv"], "8"),
    "device": (["train", "vae", "--device", "abacus"], "--device 'abacus' is not available"),
    "both": (["train", "vae", "--resume", "--overwrite"], "allowed is one of them"),
    "empty data": (["train", "vae", "--data", ""], "--data is ''; give it a value"),
    "empty prior": (["train", "vae", "--prior="], "--prior is ''; give it a value"),
    "empty run": (["train", "vae", "--run", " "], "--run is ' '; give it a value"),
    "empty variant": (["train", ""], "an argument is ''; give it a value"),
    "NUL": (["evaluate", "a\0b"], "an argument is 'a\\x00b'; give it a value"),
    "prior": (["train", "vae", "--prior", "norm"], "no prior 'norm'; did you mean normal"),
    "prior file": (["train", "vae", "--prior", "p.py:P"], "there is no file"),
    "likelihood": (["train", "vae", "--likelihood", "poison"], "allowed are bernoulli"),
    "no variant": (["train"], "Missing argument 'VARIANT'"),
    "config": (["train", "vae", "--config", "no.toml"], "cannot read the options of no.toml"),
    "no Python file": (["new", "prior", "mine.txt"], "mine.txt: give a name that ends in .py"),
    "no kind": (["new", "decoder", "mine.py"], "'decoder' is not one of 'prior', 'guide', 'term'"),
    "no command": (["trian"], "no command 'trian'; did you mean train"),
    "endless names": (["train", "vae", "--run", "x" * 400], "File name too long"),
    "endless data": (["train", "vae", "--data", "x" * 400], "no data set, file or folder"),
    "endless run": (["evaluate", "x" * 400], "there is no run folder"),
    "no run": (["evaluate", "nowhere"], "there is no run folder nowhere"),
    "no run to report": (["report", "nowhere"], "there is no run folder nowhere"),
    "no out": (["sample", "nowhere"], "Missing option '--out'"),
}


@pytest.mark.parametrize(("args", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(call, tmp_path, args, message):
    code, out, err = call(*args)
    assert (code, out, len(err)) == (2, "", 1), err
    assert err[0].startswith("error: ")
    assert message in err[0]
    assert list(tmp_path.iterdir()) == []


BAD_DATA = {
    "not a number": ({"images": np.where(np.eye(8), math.nan, IMAGES)}, "NaN"),
    "out of range": ({"images": IMAGES + 2}, "allowed are floats in [0, 1]"),
    "empty": ({"images": IMAGES[:0]}, "is empty"),
    "single": ({"images": IMAGES[:1]}, "holds 1 image(s); at least 2 are needed"),
    "labels": ({"images": IMAGES, "labels": np.arange(9)}, "allowed is (10,), one per datum"),
    "no images": ({"pixels": IMAGES}, "no array named 'images'"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_one_line_and_leaves_nothing(call, tmp_path, arrays, message):
    code, out, err = call("train", "infocat", "--data", spoiled(tmp_path, **arrays))
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]
    assert [p.name for p in tmp_path.iterdir()] == ["bad.npz"]


def test_unreadable_file_and_file_in_place_of_a_folder(call, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04")
    code, _, err = call("train", "vae", "--data", "bad.npz")
    assert code == 2
    assert "cannot read bad.npz" in err[0]
    code, _, err = call("train", "vae", "--run", "bad.npz")
    assert code == 2
    assert "bad.npz is a file; choose another --run DIR" in err[0]
    code, _, err = call("train", "vae", "--epochs", 1, "--run", "bad.npz/run")
    assert code == 2
    assert "bad.npz" in err[0]
