"""Signals that stop a program: Ctrl-C, and those of schedulers and closed terminals."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
PATIENCE = 20.0  # seconds that the answer to a signal may take


@contextmanager
def stoppable() -> Iterator[None]:
    """Raises KeyboardInterrupt at SIGTERM and SIGHUP as at Ctrl-C.

    A signal that the program handles or ignores already (as under ``nohup``) is left alone, and
    so are all in threads other than the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [s for s in STOPPING if signal.getsignal(s) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in ours:
            if signal.getsignal(number) is _raise:  # nobody has set another meanwhile
                signal.signal(number, signal.SIG_DFL)


@contextmanager
def held_back() -> Iterator[None]:
    """Ignores signals while what must be whole is done, as they have come once already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    before = {number: handler for number, handler in before.items() if handler is not None}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_once() -> None:
    """Raises KeyboardInterrupt at the first signal of a command, which ignores further ones.

    Those that come many seconds later end the process at once.
    """
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise_once)


def ignore_further() -> None:
    """Ignores signals for good, so that none cuts short how a command ends."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _raise(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _raise_once(number: int, frame: Any) -> None:
    first = time.monotonic()

    def ignore(number: int, frame: Any) -> None:
        if time.monotonic() - first > PATIENCE:  # it does not end by itself
            _end(number, frame)

    for other in STOPPING:
        if signal.getsignal(other) is not signal.SIG_IGN:
            signal.signal(other, ignore)
    raise KeyboardInterrupt


def _end(number: int, frame: Any) -> None:
    os.write(2, b"error: stopped\n")
    os._exit(1)


def _is_command() -> bool:
    """Returns whether this process was started as the command line."""
    words = sys.orig_argv[1:]
    scripts = any(Path(word).stem == "pyro-mivae" for word in words[:1])
    modules = any(w == "-m" and m.split(".")[0] == "pyro_mivae" for w, m in zip(words, words[1:]))
    return scripts or modules


if _is_command():  # while torch is imported, which takes seconds, there is nothing to undo
    for _number in STOPPING:
        if signal.getsignal(_number) is not signal.SIG_IGN:
            signal.signal(_number, _end)
