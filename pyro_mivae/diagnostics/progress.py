"""Telling who listens how far a long computation has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, int, int], object]
"""Is called with what is computed, how many steps of it are done, and of how many."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Lets a function hear of what is computed inside."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(what: str, done: int, total: int) -> None:
    """Says how far something has come, if anyone listens."""
    listener = _listener.get()
    if listener is not None:
        listener(what, done, total)


def telling(what: str, steps: Sequence[T]) -> Iterator[T]:
    """Yields steps, and tells of each once it is done.

    Example:
        >>> with listening(print):
        ...     total = sum(telling("sum", [3, 4]))
        sum 1 2
        sum 2 2
    """
    for done, step in enumerate(steps, 1):
        yield step
        tell(what, done, len(steps))
