"""Calls of the public functions that are right, in each of which one argument is then spoilt."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """A call that is right.

    Attributes:
        name: Its name in the test's id.
        function: The function or class.
        arguments: Makes the arguments by name; anew for every call, as some may be changed by it.
        examples: How many bad calls of it are tried.
        after: Uses what the call returned, where a fault would only show then.
    """

    name: str
    function: Callable[..., Any]
    arguments: Callable[[], dict[str, Any]]
    examples: int = 25
    after: Callable[[Any], object] | None = None
