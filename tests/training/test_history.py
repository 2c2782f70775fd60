"""The table of a run, and files that are whole or not there."""

import math

import pytest

from pyro_mivae.errors import RunError
from pyro_mivae.training import History, atomic_path, read_checkpoint


def test_csv_round_trip_is_exact(tmp_path):
    rows = [{"epoch": 1, "step": 3, "loss": 0.1 + 0.2}, {"epoch": 2, "step": 6, "loss": math.inf}]
    History(rows).to_csv(tmp_path / "h.csv")
    assert History.from_csv(tmp_path / "h.csv").rows == rows


def test_appending_gives_the_same_file_as_writing(tmp_path):
    history = History()
    for epoch in (1, 2, 3):
        history.append({"epoch": epoch, "loss": 1 / epoch})
        history.append_to_csv(tmp_path / "a.csv")
    history.to_csv(tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_column_that_appears_later(tmp_path):
    history = History([{"epoch": 1}])
    history.append_to_csv(tmp_path / "h.csv")
    history.append({"epoch": 2, "loss": 1.0})
    history.append_to_csv(tmp_path / "h.csv")
    losses = History.from_csv(tmp_path / "h.csv")["loss"]
    assert math.isnan(losses[0])
    assert losses[1] == 1.0


def test_unknown_column():
    with pytest.raises(KeyError, match="no column 'los'; there are epoch, loss"):
        History([{"epoch": 1, "loss": 2.0}])["los"]


@pytest.mark.parametrize("content", ["epoch,loss\none,2\n", "epoch,loss\n1,2,3\n"])
def test_unreadable_history(tmp_path, content):
    (tmp_path / "h.csv").write_text(content)
    with pytest.raises(RunError, match="cannot read the history"):
        History.from_csv(tmp_path / "h.csv")


@pytest.mark.parametrize("content", [b"", b"nothing of a checkpoint"])
def test_unreadable_checkpoint(tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(RunError, match="cannot read .*checkpoint.pt: it is damaged"):
        read_checkpoint(tmp_path)


def test_failed_writing_leaves_the_old_file_and_no_scratch(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), atomic_path(path) as scratch:
        scratch.write_text("half, and \ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_is_a_sequence_of_rows_with_columns_by_name():
    rows = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.5, "val_loss": 1.75}]
    history = History(rows)
    assert list(history) == rows == [history[0], history[1]]
    assert history[-1] == rows[-1]
    assert history[1:].rows == rows[1:]
    assert list(reversed(history)) == rows[::-1]
    assert "val_loss" in history
    assert "los" not in history
    assert rows[0] in history
    with pytest.raises(IndexError):
        history[2]
