"""Plain values of Python's that programs read: those of its recording are fixed in a graph."""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from operator import is_
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from pyro_mivae.compat import members_of

PLAIN = (bool, int, float, complex, str, bytes, type(None))
CONTAINERS = (list, dict, set)
OTHERS = (ModuleType, FunctionType, MethodType, type, Tensor, *CONTAINERS)
MOST_CONTENTS = 1000
OF_MODULES = frozenset(nn.Module().__dict__) - {"training"}
LIBRARIES = ("torch", "pyro", "zuko", "numpy", "builtins")


class Guards:
    """Numbers and texts that decide what programs do, where they can be watched at no cost.

    A change of one leads to another graph at once. These are attributes of modules and of the
    objects that methods belong to; which modules train, and which tensors their parameters and
    buffers are; default values, and variables that a function finds outside of itself, with
    attributes of the objects that these hold; and the same of functions of its own file. Numbers
    that lie further away change a step too: those are found when a step is compared with its
    program. An object can name attributes of its own that are not to be watched, ``unguarded``.
    """

    def __init__(self, *programs: Any) -> None:
        self._spaces: list[_Space] = []
        self._seen: dict[int, Any] = {}
        self._states: dict[tuple[Any, ...], int] = {}
        self._last: list[tuple[Mapping[str, Any], list[str], list[Any]]] = []
        self._sizes: list[tuple[Mapping[str, Any], int]] = []
        self._trained: list[tuple[nn.Parameter, bool]] = []
        self._state: int | None = None
        for program in programs:
            self.watch(program)

    def watch(self, program: Any) -> None:
        """Adds what a program reads."""
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
        elif hasattr(program, "__dict__") and not isinstance(program, OTHERS):
            self._watch_object(program)

    def read(self) -> int:
        """Returns the number of the present state: another number means another program."""
        if self._state is None or self._is_another():
            state = self._tokens()
            self._state = self._states.setdefault(state, len(self._states))
        return self._state

    def contents(self) -> tuple[Any, ...]:
        """Returns what is in the objects that are watched, as far as a run may count in them."""
        return tuple(
            (space.label or name, _Budget(MOST_CONTENTS).contents(space.held.get(name), 4))
            for space in self._spaces
            for name in (space.held if space.names is None else space.names)
            if name not in space.skipped
        )

    def iterators(self) -> list[str]:
        """Names variables and attributes that are iterators, which each run moves on."""
        return [
            name
            for space in self._spaces
            for name in space.watched()
            if isinstance(space.held.get(name), Iterator)
        ]

    def changed(self, before: int, used: Collection[Tensor]) -> list[str]:
        """Names what a run has changed that the next run may read.

        Objects that a run puts in the place of others, and did not use before, are watched no
        more: they are what it leaves behind.
        """
        if self.read() == before:
            return []
        ids, changed = frozenset(map(id, used)), []
        was = {token[:2]: token[2] for token in list(self._states)[before]}
        now = {token[:2]: token[2] for token in self._tokens()}
        for place in was.keys() | now.keys():
            old, new = was.get(place), now.get(place)
            space = self._spaces[place[0]]
            if isinstance(old, _Object) and isinstance(new, _Object) and old != new:
                if old.id not in ids:
                    space.skipped.add(place[1])
                    continue
            if old != new:
                changed.append(space.label or place[1])
        self._state = None
        return sorted(set(changed))

    def _watch_object(self, owner: Any) -> None:
        label = type(owner).__name__
        skipped = {*getattr(owner, "unguarded", ())}
        if isinstance(owner, nn.Module):
            skipped |= OF_MODULES
        self._add(label, owner.__dict__, skipped)
        run = "forward" if isinstance(owner, nn.Module) else "__call__"
        self.watch(getattr(type(owner), run, None))
        if isinstance(owner, nn.Module):
            for held in members_of(owner):
                self._add(label, held)

    def _watch_function(self, function: FunctionType) -> None:
        self.watch(getattr(function, "__wrapped__", None))
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        names = _names(function.__code__) & function.__globals__.keys()
        spaces: list[Mapping[str, Any]] = [_Cells(cells), _Defaults(function)]
        spaces.append({name: None for name in names})
        for space, found in zip(spaces, (spaces[0], spaces[1], function.__globals__), strict=True):
            watched = [n for n in space if not isinstance(found.get(n), ModuleType)]
            self._add("", found, names=watched)
            for name in watched:
                value = found.get(name)
                own = getattr(value, "__globals__", None) is function.__globals__
                if own or not isinstance(value, FunctionType):
                    self.watch(value)
            for name in set(space) - set(watched):  # variables of a user's own modules
                if not _is_of_a_library(found[name]):
                    self._add(name, vars(found[name]), names=_names_in(function, found[name]))

    def _add(
        self,
        label: str,
        held: Mapping[str, Any],
        skipped: Collection[str] = (),
        names: Collection[str] | None = None,
    ) -> None:
        self._spaces.append(_Space(label, held, set(skipped), names))
        self._state = None

    def _is_another(self) -> bool:
        """Compares identities: what most steps cost."""
        for held, size in self._sizes:
            if len(held) != size:
                return True
        for held, names, values in self._last:
            found = map(held.get, names)
            if not all(map(is_, found, values)):
                return True
        return any(p.requires_grad is not needed for p, needed in self._trained)

    def _tokens(self) -> tuple[Any, ...]:
        """Every value that is watched, with its place, remembered for `_is_another`."""
        self._last, self._sizes, self._trained = [], [], []
        tokens: list[Any] = []
        for index, space in enumerate(self._spaces):
            if space.names is None:
                self._sizes.append((space.held, len(space.held)))
            names = list(space.watched())
            values = list(map(space.held.get, names))
            self._last.append((space.held, names, values))
            for name, value in zip(names, values, strict=True):
                token = _token(value)
                if isinstance(value, nn.Parameter):
                    self._trained.append((value, value.requires_grad))
                    token = _Object(id(value), value.requires_grad)
                tokens.append((index, name, token))
        return tuple(tokens)


@dataclass(frozen=True)
class _Space:
    """Names that are watched in a namespace: all but some, or these."""

    label: str
    held: Mapping[str, Any]
    skipped: set[str]
    names: Collection[str] | None

    def watched(self) -> Iterator[str]:
        """Yields the names of values that are watched now."""
        for name in self.held if self.names is None else self.names:
            if name not in self.skipped and not isinstance(self.held.get(name), CONTAINERS):
                yield name


class _Budget:
    """Looks into objects, and into no more of them than some number."""

    def __init__(self, size: int) -> None:
        self._left = size

    def contents(self, value: Any, depth: int) -> Any:
        """Returns the plain values in a container or an object of a user's, and in theirs."""
        self._left -= 1
        if isinstance(value, PLAIN):
            return value
        if self._left < 0 or not depth or isinstance(value, OTHERS[:-3]):
            return None
        if isinstance(value, np.ndarray):
            return value.tobytes() if value.nbytes < self._left else None
        if isinstance(value, dict):
            return [(str(key), self.contents(part, depth - 1)) for key, part in value.items()]
        if isinstance(value, list | tuple | set | frozenset | deque):
            return [self.contents(part, depth - 1) for part in list(value)]
        if isinstance(value, nn.Module) or _is_of_a_library(type(value)):
            return None
        return self.contents(getattr(value, "__dict__", None), depth)


class _Cells(Mapping[str, Any]):
    """Variables of the function that a function was made in."""

    def __init__(self, cells: Mapping[str, CellType]) -> None:
        self._cells = cells

    def __getitem__(self, name: str) -> Any:
        try:
            return self._cells[name].cell_contents
        except ValueError:  # not assigned yet
            return None

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


class _Defaults(Mapping[str, Any]):
    """Default values of a function's arguments."""

    def __init__(self, function: FunctionType) -> None:
        self._function = function

    def __getitem__(self, name: str) -> Any:
        return self._function.__defaults__

    def __iter__(self) -> Iterator[str]:
        return iter([self._function.__name__] * bool(self._function.__defaults__))

    def __len__(self) -> int:
        return bool(self._function.__defaults__)


class _Object(NamedTuple):
    """Stands for a value that is not plain."""

    id: int
    trains: bool = False


def _token(value: Any) -> Any:
    """The value if it is plain, or which object it is; tuples count by what is plain in them."""
    if isinstance(value, PLAIN):
        return value
    if type(value) is tuple:
        return tuple([_token(part) for part in value if isinstance(part, (*PLAIN, tuple))])
    return _Object(id(value))


def _is_of_a_library(program: Any) -> bool:
    """Tells code, not data: an object of a library's class can hold what a user changes."""
    if isinstance(program, ModuleType):
        root = program.__name__.split(".")[0]
        return root in LIBRARIES or root in sys.stdlib_module_names or root == "pyro_mivae"
    if not isinstance(program, FunctionType | type):
        return False
    return program.__module__.split(".")[0] in LIBRARIES


def _names_in(function: FunctionType, module: ModuleType) -> list[str]:
    """Names of a module's plain variables that a function's text has."""
    names = _names(function.__code__) & vars(module).keys()
    return [name for name in names if isinstance(vars(module)[name], PLAIN)]


def _names(code: CodeType) -> set[str]:
    """Names that a function's text looks up outside of it, those of its inner functions too."""
    inner = (_names(part) for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*inner)
