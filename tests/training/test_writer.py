"""One writer to a folder, and errors of the disk that say what is kept."""

import errno
import gc
import os
import shutil
import signal
import threading
from contextlib import suppress

import pytest

import pyro_mivae as mi
from pyro_mivae.errors import RunError, WriteError
from pyro_mivae.training import (
    History,
    Writer,
    atomic_path,
    checkpoint,
    checkpointer,
    files,
    fit,
    read_checkpoint,
)

SHAPE = (1, 4, 4)


@pytest.fixture
def other(tmp_path):
    """Another process that writes to the folder."""
    ready, taken = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            writer = Writer(tmp_path)
            writer.make()
            os.write(taken, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.read(ready, 1)
    yield pid
    with suppress(ProcessLookupError, ChildProcessError):
        end(pid)
    for descriptor in (ready, taken):
        os.close(descriptor)


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_second_process_is_told_and_a_dead_one_is_followed(tmp_path, other, x):
    with pytest.raises(RunError, match=f"another process is writing to .*: process {other}"):
        fit(mi.VAE(SHAPE), x, epochs=1, run=tmp_path)
    assert not list(tmp_path.glob("[!.]*"))
    end(other)
    assert len(fit(mi.VAE(SHAPE), x, epochs=1, run=tmp_path)) == 1


def test_a_thread_writes_again_and_another_does_not(tmp_path):
    failures = []

    def attempt():
        try:
            Writer(tmp_path).release()
        except RunError as error:
            failures.append(error)

    with Writer(tmp_path) as writer:
        writer.make()
        Writer(tmp_path).release()
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        assert len(failures) == 1
    attempt()
    assert len(failures) == 1


def test_two_that_begin_together(tmp_path):
    first, second = Writer(tmp_path / "run"), Writer(tmp_path / "run")
    first.make()
    first.make()
    failed = []
    thread = threading.Thread(target=lambda: failed.append(_fails(second.make)))
    thread.start()
    thread.join()
    assert failed == [True]
    first.release()


def test_a_run_that_another_made_meanwhile_is_left_alone(tmp_path, x, make):
    def another():
        fit(make("vae"), x, epochs=1, run=tmp_path / "run")

    for resume, told in ((False, "holds a run already"), (True, "made a run of .* meanwhile")):
        run = tmp_path / "run"
        training = checkpointer.Checkpointer(run, resume=resume)
        another()
        before = read_checkpoint(run)["weights"]
        with pytest.raises(RunError, match=told):
            training.open(History(), finished=False)
        training.__exit__()
        for name, value in read_checkpoint(run)["weights"].items():
            assert (value == before[name]).all()
        shutil.rmtree(run)


def _fails(call):
    try:
        call()
    except RunError:
        return True
    return False


def full_disk(monkeypatch, after):
    """Makes the disk full for checkpoints after so many of them."""
    written = []

    def write_checkpoint(folder, state, write=checkpoint.write_checkpoint):
        written.append(state["epoch"])
        if len(written) > after:
            with files.writing(folder / "checkpoint.pt"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder, state)

    monkeypatch.setattr(checkpointer, "write_checkpoint", write_checkpoint)
    monkeypatch.setattr(checkpointer, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)


@pytest.mark.parametrize("after", [0, 2])
def test_a_full_disk_is_said_and_the_run_goes_on_later(
    tmp_path, x, make, monkeypatch, after, assert_same_weights
):
    whole = make("vae")
    fit(whole, x, epochs=4)
    with monkeypatch.context() as patch:
        full_disk(patch, after)
        kept = f"keeps epoch {after}" if after else "keeps no epoch yet"
        with pytest.raises(WriteError, match=f"No space left on device.* {kept}.*resume=True"):
            fit(make("vae"), x, epochs=4, run=tmp_path)
    assert sorted(p.name for p in tmp_path.glob("checkpoint.pt")) == ["checkpoint.pt"] * (
        after > 0
    )
    vae = make("vae")
    fit(vae, x, epochs=4, run=tmp_path, resume=True)
    assert_same_weights(vae, whole)


def test_a_folder_that_vanishes_is_said(tmp_path, x, make, monkeypatch):
    monkeypatch.setattr(checkpointer, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)

    def vanish(row):
        if row["epoch"] == 2:
            (tmp_path / "run").rename(tmp_path / "elsewhere")

    with pytest.raises(WriteError, match="history.csv: its folder is gone. .* keeps epoch 2"):
        fit(make("vae"), x, epochs=4, run=tmp_path / "run", on_epoch=vanish)
    assert not (tmp_path / "run").exists()
    assert read_checkpoint(tmp_path / "elsewhere")["epoch"] == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path, x):
    (tmp_path / "run").mkdir(mode=0o555)
    with pytest.raises(WriteError, match="cannot write .*: Permission denied"):
        fit(mi.VAE(SHAPE), x, epochs=1, run=tmp_path / "run")


def test_the_disk_has_the_file_before_its_name(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(files, "_sync", lambda path: order.append(("sync", path.name)))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(("rename",)), replace(a, b)))
    with atomic_path(tmp_path / "a.txt") as scratch:
        scratch.write_text("x")
    assert order == [("sync", scratch.name), ("rename",), ("sync", tmp_path.name)]


def test_an_error_of_the_disk_keeps_no_view_of_the_content(tmp_path):
    """A view of a BytesIO in the cycle of a traceback crashes some versions of Python."""
    try:
        checkpoint.write_archive(tmp_path / "nowhere" / "vae.pt", {"a": 1})
    except WriteError as error:
        kept = error  # with the frames of its cause
    views = [found for found in gc.get_objects() if isinstance(found, memoryview)]
    assert not [view for view in views if "BytesIO" in type(view.obj).__name__]
    assert "its folder is gone" in str(kept)
