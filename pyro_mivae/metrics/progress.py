"""A bar on the terminal for each long part of an evaluation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyro_mivae.posterior.progress import listening


@contextmanager
def bars(*, enabled: bool) -> Iterator[None]:
    """Shows on stderr how far what is computed inside has come, one bar at a time."""
    if not enabled or not sys.stderr.isatty():
        yield
        return
    shown = _Bars()
    with listening(shown):
        try:
            yield
        finally:
            shown.close()


class _Bars:
    """The bar of what is computed now."""

    def __init__(self) -> None:
        self._what = ""
        self._bar: Any = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Moves the bar, or begins another."""
        from tqdm.std import tqdm

        if what != self._what or self._bar is None:
            self.close()
            self._what = what
            self._bar = tqdm(total=total, desc=what, leave=False, dynamic_ncols=True)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
