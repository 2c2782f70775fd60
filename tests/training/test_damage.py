"""Damaged run folders: what is damaged is noticed, and the generation before it is used."""

import random
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from pyro_mivae.errors import PyroMivaeWarning, RunError
from pyro_mivae.training import History, checkpointer, fit, read_checkpoint, write_archive

OPTIONS = {"epochs": 4, "batch_size": 16}


def stop_after(epoch):
    def on_epoch(row):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return on_epoch


@pytest.fixture(scope="module")
def run(tmp_path_factory, x, make):
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpointer, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            fit(make("vae"), x, **OPTIONS, run=folder, on_epoch=stop_after(3))
    return folder


@pytest.fixture
def stopped(tmp_path, run, monkeypatch):
    """A run of three epochs out of four, with two generations of its checkpoint."""
    monkeypatch.setattr(checkpointer, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.fixture(scope="module")
def whole(x, make):
    vae = make("vae")
    fit(vae, x, **OPTIONS)
    return vae


def flip(path, place, bit):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_a_flipped_bit_never_changes_what_is_read(stopped):
    path = stopped / "checkpoint.pt"
    (stopped / "checkpoint.previous.pt").unlink()
    right, content = read_checkpoint(stopped), path.read_bytes()
    draw, refused = random.Random(0), 0
    for _ in range(150):
        flip(path, draw.randrange(len(content)), draw.randrange(8))
        try:
            assert_same(read_checkpoint(stopped), right)
        except RunError:
            refused += 1
        path.write_bytes(content)
    assert refused > 100  # the others lie in padding, or in what nobody reads


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    else:
        assert one == other


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "missing"])
def test_the_generation_before_takes_its_place(
    stopped, damage, x, make, whole, assert_same_weights
):
    path = stopped / "checkpoint.pt"
    match damage:
        case "flipped":
            flip(path, 2000, 3)
        case "cut":
            path.write_bytes(path.read_bytes()[:-100])
        case "empty":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
    vae = make("vae")
    with pytest.warns(PyroMivaeWarning, match="checkpoint.pt.* of epoch 2, takes its place"):
        history = fit(vae, x, **OPTIONS, run=stopped, resume=True)
    assert_same_weights(vae, whole)
    assert history["epoch"] == [1, 2, 3, 4]
    assert read_checkpoint(stopped)["epoch"] == 4


def test_two_damaged_generations_are_an_error(stopped, x, make):
    for path in stopped.glob("checkpoint*"):
        flip(path, 2000, 3)
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(RunError, match=r"checkpoint.pt: it is damaged .*; restore a copy"):
        fit(make("vae"), x, **OPTIONS, run=stopped, resume=True)
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before


@pytest.mark.parametrize("content", ["epoch,loss\n1,2", "", None], ids=["cut", "empty", "gone"])
def test_the_history_is_mended_from_the_checkpoint(stopped, content, x, make):
    path = stopped / "history.csv"
    path.unlink()
    if content is not None:
        path.write_text(content)
    history = fit(make("vae"), x, **OPTIONS, run=stopped, resume=True)
    assert history["epoch"] == [1, 2, 3, 4]
    assert History.from_csv(path).rows == history.rows


def test_a_damaged_field_is_named_in_one_line(stopped, x, make):
    right = {k: v for k, v in read_checkpoint(stopped).items() if k != "file"}
    (stopped / "checkpoint.previous.pt").unlink()
    kinds = {"text": "x", "number": 3.5, "table": {}, "list": [], "numbers": [1, 2, 3]}

    def go_on():
        read_checkpoint(stopped)  # most are told here, the others by the trainer
        fit(make("vae"), x, **OPTIONS, run=stopped, resume=True)

    for name in right:
        rest = {key: value for key, value in right.items() if key != name}
        for kind, value in [("missing", None), *kinds.items()]:
            if (name, kind) == ("objective", "table"):  # a VAE's is empty
                continue
            state = rest if kind == "missing" else rest | {name: value}
            write_archive(stopped / "checkpoint.pt", state)
            with pytest.raises(RunError, match="or train again|is damaged") as caught:
                go_on()
            assert "\n" not in str(caught.value)


def test_a_missing_state_of_the_optimiser_is_noticed(stopped, x, make):
    state = {k: v for k, v in read_checkpoint(stopped).items() if k != "file"}
    (stopped / "checkpoint.previous.pt").unlink()
    for left in (1, 0):
        moments = state["optimiser"]["state"]
        for key in list(moments)[left:]:
            del moments[key]
        write_archive(stopped / "checkpoint.pt", state)
        with pytest.raises(RunError, match="optimiser's state of some parameters is missing"):
            fit(make("vae"), x, **OPTIONS, run=stopped, resume=True)


def test_scratch_files_of_dead_runs_are_cleared_and_others_left(stopped, x, make):
    ours = [".checkpoint.0a1b2c3d.pt", ".history.ffffffff.csv", ".config.12345678.toml"]
    theirs = [".checkpoint.pt", ".notes.txt", "grid.png", ".DS_Store"]
    for name in [*ours, *theirs]:
        (stopped / name).write_text("x")
    with warnings.catch_warnings():
        fit(make("vae"), x, **OPTIONS, run=stopped, resume=True)
    left = {path.name for path in stopped.iterdir()}
    assert not left & set(ours)
    assert left >= set(theirs)
