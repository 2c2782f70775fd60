"""Progress of long computations, reported to a listener or shown as bars."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from pyro_mivae.ranks import holding

T = TypeVar("T")
Listener = Callable[[str, int, int], object]
"""Function of a computation's name, its finished steps, and all its steps."""

_listener: ContextVar[Listener] = ContextVar("listener", default=lambda *_: None)


def listening(listener: Listener) -> AbstractContextManager[None]:
    """Calls a function with the progress of the computations inside."""
    return holding(_listener, listener)


def tell(what: str, done: int, total: int) -> None:
    """Calls the listener, if there is one."""
    _listener.get()(what, done, total)


def telling(what: str, steps: Sequence[T]) -> Iterator[T]:
    """Yields steps, and reports each one after it is finished."""
    for done, step in enumerate(steps, 1):
        yield step
        tell(what, done, len(steps))


@contextmanager
def bars(*, enabled: bool) -> Iterator[None]:
    """Shows progress bars of the computations inside on stderr, if that is a terminal."""
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
