"""Progress of long computations, told to a listener, or shown as bars."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
Listener = Callable[[str, int, int], object]
"""Function of the name of a computation, its steps that are done, and all its steps."""

_listener: ContextVar[Listener] = ContextVar("listener", default=lambda *_: None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Calls a function with the progress of what is computed inside."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(what: str, done: int, total: int) -> None:
    """Calls the listener, if there is one."""
    _listener.get()(what, done, total)


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


@contextmanager
def bars(*, enabled: bool) -> Iterator[None]:
    """Shows on stderr, if that is a terminal, a bar of what is computed inside, one at a time."""
    if not enabled or not sys.stderr.isatty():
        yield
        return
    from tqdm.std import tqdm

    shown: Any = None

    def show(what: str, done: int, total: int) -> None:
        nonlocal shown
        if shown is None or shown.desc != what:
            stack.close()
            bar = tqdm(total=total, desc=what, leave=False, dynamic_ncols=True)
            shown = stack.enter_context(bar)
        shown.update(done - shown.n)

    with ExitStack() as stack, listening(show):
        yield
