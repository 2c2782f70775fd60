"""Plain Python values that programs read; a graph is valid only for the recorded ones."""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import is_
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from pyro_mivae.compat import members_of

PLAIN = (bool, int, float, complex, str, bytes, type(None))
CONTAINERS = (list, dict, set)
OTHERS = (ModuleType, FunctionType, MethodType, type, Tensor)
MOST_CONTENTS = 1000
OF_MODULES = frozenset(nn.Module().__dict__) - {"training"}
LIBRARIES = ("torch", "pyro", "zuko", "numpy", "builtins")

Held = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""A namespace that changes in place, or a function that returns the current one."""
Contents = dict[tuple[int, str], tuple[Any, ...]]
"""Contents of each namespace: an object's identity, and the plain values in it."""


class Guards:
    """Numbers and texts that programs read, as far as watching them costs nothing.

    A change of one of them selects another graph at once. They are: attributes of modules and of
    the objects of methods; training modes; the identity of parameters and buffers; default values;
    outer variables of a function, with attributes of the objects in them; and the same for
    functions in its file. A change of any other number is found when a step is compared with its
    program. An object can exclude attributes of its own by ``unguarded``.
    """

    def __init__(self, *programs: Any) -> None:
        self._spaces: list[_Space] = []
        self._seen: dict[int, Any] = {}
        self._states: dict[tuple[Any, ...], int] = {}
        self._last: list[tuple[_Space, int, list[str], list[Any]]] = []
        self._trained: list[tuple[nn.Parameter, bool]] = []
        self._state: int | None = None
        for program in programs:
            self.watch(program)

    def watch(self, program: Any) -> None:
        """Adds the values that a program reads."""
        if id(program) in self._seen or _is_of_a_library(program):
            return
        self._seen[id(program)] = program
        if isinstance(program, FunctionType):
            self._watch_function(program)
        elif isinstance(program, MethodType):
            self.watch(program.__self__)
            self.watch(program.__func__)
        elif isinstance(program, functools.partial):
            for part in (program.func, *program.args, *program.keywords.values()):
                self.watch(part)
        elif isinstance(program, type):
            self._add(program.__name__, vars(program))
        elif hasattr(program, "__dict__") and not isinstance(program, (*OTHERS, *CONTAINERS)):
            self._watch_object(program)

    def read(self) -> int:
        """Returns the index of the current state: another index means another program."""
        if self._state is None or self._is_another():
            state = self._tokens()
            self._state = self._states.setdefault(state, len(self._states))
        return self._state

    def begin(self) -> Contents:
        """Returns the values of all names before a run, for `unsafe`."""
        return {
            (index, name): (
                None if isinstance(value, CONTAINERS) else _token(value),
                *islice(_plain_values(value, 4), MOST_CONTENTS),
            )
            for index, space in enumerate(self._spaces)
            for name, value in space.pairs(space.now())
        }

    def unsafe(self, before: Contents, used: Collection[Tensor]) -> str:
        """Returns a reason that the next run may differ from this one; empty if none is seen.

        An object that the run has replaced by a new one is not watched any more: it is a result.
        """
        ids, changed, after = frozenset(map(id, used)), set(), self.begin()
        for place in before.keys() | after.keys():
            space, name = self._spaces[place[0]], place[1]
            (old, *was), (new, *now) = before.get(place, (None,)), after.get(place, (None,))
            both = isinstance(old, _Object) and isinstance(new, _Object)
            if both and old != new and old.id not in ids:
                space.skipped.add(name)
                self._state = None
            elif (old, was) != (new, now):
                changed.add(space.label or name)
        if changed:
            return (
                "it changes a number of its own as it runs "
                f"({', '.join(sorted(changed))}); count in a buffer of a module"
            )
        watched = [pair for space in self._spaces for pair in space.watched(space.now())]
        iterators = [name for name, value in watched if isinstance(value, Iterator)]
        if iterators:
            return f"it reads an iterator ({', '.join(iterators)}), which a run may advance"
        return ""

    def _watch_object(self, owner: Any) -> None:
        label, skipped = type(owner).__name__, {*getattr(owner, "unguarded", ())}
        is_module = isinstance(owner, nn.Module)
        if is_module:
            skipped |= OF_MODULES
        self._add(label, owner.__dict__, skipped=skipped)
        self.watch(getattr(type(owner), "forward" if is_module else "__call__", None))
        for table in members_of(owner) if is_module else ():
            self._add(label, table)

    def _watch_function(self, function: FunctionType) -> None:
        self.watch(getattr(function, "__wrapped__", None))
        outside = function.__globals__
        spaces: tuple[tuple[Held, Collection[str]], ...] = (
            (lambda: _enclosed(function), function.__code__.co_freevars),
            (lambda: _defaults(function), _defaults(function)),
            (outside, _names(function.__code__) & outside.keys()),
        )
        for held, names in spaces:
            found = _Space("", held, names, set()).now()
            modules = [name for name in names if isinstance(found[name], ModuleType)]
            self._add("", held, [name for name in names if name not in modules])
            for name in modules:  # variables of a user's own modules
                if not _is_of_a_library(found[name]):
                    own = vars(found[name])
                    read = _names(function.__code__) & own.keys()
                    self._add(name, own, [one for one in read if isinstance(own[one], PLAIN)])
            for name in set(names) - set(modules):
                value = found[name]
                if not isinstance(value, FunctionType) or value.__globals__ is outside:
                    self.watch(value)

    def _add(
        self,
        label: str,
        held: Held,
        names: Collection[str] | None = None,
        skipped: Collection[str] = (),
    ) -> None:
        self._spaces.append(_Space(label, held, names, set(skipped)))
        self._state = None

    def _is_another(self) -> bool:
        """Compares identities, the only cost of most steps."""
        for space, size, names, values in self._last:
            held = space.now()
            if len(held) != size or not all(map(is_, map(held.get, names), values)):
                return True
        return any(p.requires_grad is not needed for p, needed in self._trained)

    def _tokens(self) -> tuple[Any, ...]:
        """All watched values with their places, stored for `_is_another`."""
        self._last, self._trained = [], []
        tokens: list[Any] = []
        for index, space in enumerate(self._spaces):
            held = space.now()
            pairs = dict(space.watched(held))
            self._last.append((space, len(held), list(pairs), list(pairs.values())))
            trained = [v for v in pairs.values() if isinstance(v, nn.Parameter)]
            self._trained += [(parameter, parameter.requires_grad) for parameter in trained]
            tokens += [(index, name, _token(value)) for name, value in pairs.items()]
        return tuple(tokens)


@dataclass(frozen=True)
class _Space:
    """Watched names of a namespace: all except some, or a list."""

    label: str
    held: Held
    names: Collection[str] | None
    skipped: set[str]

    def now(self) -> Mapping[str, Any]:
        """Returns the current namespace."""
        return self.held() if callable(self.held) else self.held

    def pairs(self, held: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yields names and current values."""
        for name in held if self.names is None else self.names:
            if name not in self.skipped:
                yield name, held.get(name)

    def watched(self, held: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yields values that are compared by identity."""
        return (pair for pair in self.pairs(held) if not isinstance(pair[1], CONTAINERS))


class _Object(NamedTuple):
    """Stands for a value that is not plain."""

    id: int
    trains: bool


def _token(value: Any) -> Any:
    """A plain value itself, a tuple by its plain values, and any other object by its identity."""
    if isinstance(value, PLAIN):
        return value
    if type(value) is tuple:
        return tuple([_token(part) for part in value if isinstance(part, (*PLAIN, tuple))])
    return _Object(id(value), isinstance(value, nn.Parameter) and value.requires_grad)


def _plain_values(value: Any, depth: int) -> Iterator[Any]:
    """Yields the plain values in a container or a user's object, recursively."""
    if isinstance(value, PLAIN):
        yield value
    elif isinstance(value, np.ndarray) and value.nbytes < MOST_CONTENTS:
        yield value.tobytes()
    elif depth and isinstance(value, dict):
        yield len(value)
        for key, part in value.items():
            yield str(key)
            yield from _plain_values(part, depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset | deque):
        yield len(value)
        for part in list(value):
            yield from _plain_values(part, depth - 1)
    elif not (isinstance(value, (*OTHERS, nn.Module)) or _is_of_a_library(type(value))):
        yield from _plain_values(getattr(value, "__dict__", None), depth)


def _enclosed(function: FunctionType) -> dict[str, Any]:
    """Variables of the enclosing function; None before assignment."""
    found: dict[str, Any] = dict.fromkeys(function.__code__.co_freevars)
    for name, cell in zip(found, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _defaults(function: FunctionType) -> dict[str, Any]:
    """Default values of a function's arguments, under its name."""
    return {function.__name__: function.__defaults__} if function.__defaults__ else {}


def _is_of_a_library(program: Any) -> bool:
    """Returns True for library code; objects of a library's class may still hold user data."""
    if isinstance(program, ModuleType):
        root = program.__name__.split(".")[0]
        return root in LIBRARIES or root in sys.stdlib_module_names or root == "pyro_mivae"
    if not isinstance(program, FunctionType | type):
        return False
    return program.__module__.split(".")[0] in LIBRARIES


def _names(code: CodeType) -> set[str]:
    """Outer names in a function's code, also in its inner functions."""
    inner = (_names(part) for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*inner)
