"""Signals that stop a program: from Ctrl-C, schedulers and closed terminals."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
PATIENCE = 20.0  # seconds that the answer to a signal may take


def stoppable() -> AbstractContextManager[None]:
    """Raises KeyboardInterrupt on SIGTERM and SIGHUP, as on Ctrl-C.

    A signal that the program already handles or ignores (as under ``nohup``) is not changed.
    """
    ours = [number for number in STOPPING if signal.getsignal(number) is signal.SIG_DFL]
    return _answered(_raise, ours)


def held_back() -> AbstractContextManager[None]:
    """Ignores further signals during a write that must not be cut short."""
    known = [number for number in STOPPING if signal.getsignal(number) is not None]
    return _answered(signal.SIG_IGN, known)


@contextmanager
def _answered(handler: Any, numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Sets a handler of signals; only the main thread may do so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            if signal.getsignal(number) is handler:  # nobody has set another meanwhile
                signal.signal(number, former)


def stop_once() -> None:
    """Raises KeyboardInterrupt at a command's first signal, and ignores further ones for a while.

    After `PATIENCE` seconds, one more signal ends the process at once. Within ``import torch`` no
    interrupt may be raised: Python would end with the signal, not with the command's code.
    """
    if _is_command():
        _handle(_raise_once)


def ignore_further() -> None:
    """Ignores all later signals: the command has ended."""
    _handle(signal.SIG_IGN)


def _handle(handler: Any) -> None:
    """Sets the handler of the signals that are not ignored."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _raise(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _raise_once(number: int, frame: Any) -> None:
    first = time.monotonic()

    def ignore(number: int, frame: Any) -> None:
        if time.monotonic() - first > PATIENCE:  # it does not end by itself
            _end(number, frame)

    _handle(ignore)
    raise KeyboardInterrupt


def _end(number: int, frame: Any) -> None:
    os.write(2, b"error: stopped\n")
    os._exit(1)


def _is_command() -> bool:
    words = sys.orig_argv[1:]
    scripts = any(Path(word).stem == "pyro-mivae" for word in words[:1])
    modules = any(w == "-m" and m.split(".")[0] == "pyro_mivae" for w, m in zip(words, words[1:]))
    return scripts or modules


if _is_command():  # while torch is imported, which takes seconds, there is nothing to undo
    _handle(_end)
