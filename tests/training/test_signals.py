"""Signals stop a training as Ctrl-C does, and none cuts its checkpoint short."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from pyro_mivae.interrupts import held_back, stoppable
from pyro_mivae.training import History, fit, read_checkpoint

from ..ranks.processes import CONTEXT


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_fit_stops_at_a_signal_with_the_last_whole_epoch(
    tmp_path, x, make, name, assert_same_weights
):
    number, whole = getattr(signal, name), make("vae")
    fit(whole, x, epochs=4)

    def send(row):
        if row["epoch"] == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        fit(make("vae"), x, epochs=4, run=tmp_path, on_epoch=send)
    assert signal.getsignal(number) is signal.SIG_DFL
    assert read_checkpoint(tmp_path)["epoch"] == 2
    vae = make("vae")
    fit(vae, x, epochs=4, run=tmp_path, resume=True)
    assert_same_weights(vae, whole)


def test_signals_that_the_program_handles_are_left_alone():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("own"))
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["own"]


def test_signals_are_held_back():
    with held_back():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            os.kill(os.getpid(), getattr(signal, name))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_command_ends_in_one_line_and_a_checkpoint(tmp_path):
    """In a process that has imported all; the next test is of one that has not."""
    train = ("train", "vae", "--epochs", "5000", "--engine", "eager", "--run", "r")
    source = f"""
import os, signal, sys, torch
from pyro_mivae.cli import main

sys.orig_argv[1:] = ["-m", "pyro_mivae"]
signal.signal(signal.SIGINT, signal.default_int_handler)
os.chdir({str(tmp_path)!r})
os.dup2(os.open("told", os.O_CREAT | os.O_WRONLY), 2)
torch.set_num_threads(1)
main({train!r})
"""
    process = CONTEXT.Process(target=exec, args=(source, {}))
    process.start()
    history = tmp_path / "r" / "history.csv"
    deadline = time.monotonic() + 120
    while not history.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):  # it may end before the last of them
        for name in ("SIGTERM", *["SIGINT"] * 19):
            os.kill(process.pid, getattr(signal, name))
            time.sleep(0.003)
    process.join(60)
    told = (tmp_path / "told").read_text()
    assert process.exitcode == 1
    assert "Traceback" not in told
    last = told.strip().splitlines()[-1]
    assert last.endswith(
        "stopped; r keeps the finished part. Continue with: pyro-mivae train vae --resume --run r"
    )
    state = read_checkpoint(tmp_path / "r")
    assert 1 <= state["epoch"] == len(History.from_csv(history)) < 5000
    assert not state["finished"]


def test_ctrl_c_while_torch_is_imported(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "pyro_mivae", "train", "vae"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # a job in a shell's background ignores the signal, and hands that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(0.7)
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    assert process.communicate(timeout=60)[1].strip() == "error: stopped"
    assert process.returncode == 1
    assert not list(tmp_path.iterdir())
