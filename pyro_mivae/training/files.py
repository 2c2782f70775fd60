"""Atomic writes of files, and one writer per folder."""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from pyro_mivae.errors import RunError, WriteError

LOCK, OWNER = ".lock", ".owner"
SCRATCH = re.compile(r"\..+\.[0-9a-f]{8}(\.(pt|toml|csv|json|html|png))?")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an operating system's error into one that names the file and the cause."""
    try:
        yield
    except OSError as error:
        gone = isinstance(error, FileNotFoundError) and not path.parent.is_dir()
        reason = "its folder is gone" if gone else error.strerror or str(error)
        given = error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR) and not gone
        raise (RunError if given else WriteError)(f"cannot write {path}: {reason}") from error


@contextmanager
def atomic_path(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Yields a scratch path, which replaces ``path`` once its content is on the disk.

    If the writing stops for any reason, ``path`` is unchanged and the scratch file is removed. (A
    killed process leaves a scratch file, which `Writer` removes.)
    """
    scratch = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    with writing(path):
        try:
            yield scratch
            _sync(scratch)
            if previous is not None and path.is_file():
                os.replace(path, previous)
            os.replace(scratch, path)
            _sync(path.parent)
        finally:
            with suppress(OSError):  # it would hide the writing error
                scratch.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes) -> Path:
    """Writes a file in one step, text as UTF-8."""
    with atomic_path(path) as scratch:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Writer:
    """The right to write to a folder, for one process at a time.

    The operating system frees it when the process ends in any way. The same thread may acquire it
    again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: FileLock | None = None
        with writing(folder):
            there = folder.is_dir() and any(folder.iterdir())
        if there:
            self._take()

    def make(self) -> None:
        """Creates the folder if missing, and acquires the right to write to it."""
        if self._lock is None:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            self._take()

    def _take(self) -> None:
        owner = self.folder / OWNER
        lock = FileLock(self.folder.resolve() / LOCK, timeout=0, is_singleton=True)
        with writing(self.folder):
            try:
                lock.acquire()
            except Timeout:  # an OSError
                told = ""
                with suppress(OSError):
                    told = ": " + owner.read_text(errors="replace")
                raise RunError(
                    f"another process is writing to {self.folder}{told}; wait until it ends, or "
                    "choose another folder"
                ) from None
        self._lock = lock
        if lock.lock_counter == 1:
            with writing(self.folder):
                owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
                for left in self.folder.iterdir():
                    if SCRATCH.fullmatch(left.name):  # of a process that was killed
                        left.unlink(missing_ok=True)

    def release(self) -> None:
        """Returns the right to write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
