"""Plain values of Python's that programs read: those of its making are fixed in a graph."""

from __future__ import annotations

from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol

from torch import Tensor, nn

PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Settings:
    """Numbers and texts that decide what programs do, wherever a program names them itself.

    These are attributes of modules and of the object that a method belongs to; the global and
    enclosing variables that a function names, and attributes of the objects that these hold; and
    the same of the functions of its own file that it calls. Tuples of such values count; what
    lies in lists, in dictionaries or further away does not.

    Args:
        *programs: Functions, methods and modules.
    """

    def __init__(self, *programs: Any) -> None:
        self._places: dict[tuple[type, int], _Place] = {}
        self._seen: set[int] = set()
        for program in programs:
            self.watch(program)

    def watch(self, program: Any) -> None:
        """Adds what a program reads.

        Args:
            program: A function, a method or a module; anything else counts for nothing.
        """
        if isinstance(program, nn.Module):
            self._add(_Attributes(program))
            self._watch_function(type(program).forward)
        elif isinstance(program, MethodType):
            if _has_attributes(program.__self__):
                self._add(_Attributes(program.__self__))
            self._watch_function(program.__func__)
        else:
            self._watch_function(program)

    def read(self) -> tuple[Any, ...]:
        """Gives all values; another tuple means another program."""
        return tuple([place.read() for place in self._places.values()])

    def restore(self, values: tuple[Any, ...]) -> None:
        """Puts values back that have changed.

        Args:
            values: What `read` gave, nothing having been added since.
        """
        for place, before in zip(self._places.values(), values):
            if place.read() != before:
                place.restore(before)

    def changed(self, values: tuple[Any, ...]) -> list[str]:
        """Names what has changed.

        Args:
            values: What `read` gave, nothing having been added since.
        """
        found = []
        for place, before in zip(self._places.values(), values):
            if place.read() != before:
                found.append(place.name)
        return found

    def _watch_function(self, function: Any) -> None:
        if not isinstance(function, FunctionType) or id(function) in self._seen:
            return
        self._seen.add(id(function))
        self._watch_function(getattr(function, "__wrapped__", None))
        code, variables = function.__code__, function.__globals__
        cells = zip(code.co_freevars, function.__closure__ or ())
        places: list[_Global | _Enclosing] = [_Enclosing(cell, name) for name, cell in cells]
        places += [_Global(variables, name) for name in code.co_names if name in variables]
        for place in places:
            if _is_plain(place.value):
                self._add(place)
            else:
                self._watch_value(place.value, variables)

    def _watch_value(self, value: Any, variables: dict[str, Any]) -> None:
        """Adds an object that a function names, or one more function of the same file."""
        if isinstance(value, FunctionType) and value.__globals__ is variables:
            self._watch_function(value)
        elif isinstance(value, MethodType):
            self.watch(value)
        elif _has_attributes(value):
            self._add(_Attributes(value))

    def _add(self, place: _Place) -> None:
        self._places.setdefault((type(place), place.key), place)


class _Place(Protocol):
    key: int
    name: str

    def read(self) -> Any: ...

    def restore(self, value: Any) -> None: ...


class _Attributes:
    """The plain attributes of an object."""

    def __init__(self, owner: Any) -> None:
        self.key, self.name = id(owner), type(owner).__name__
        self._owner = owner
        self._held: dict[str, Any] = owner.__dict__
        self._scan()

    def _scan(self) -> None:
        self._count = len(self._held)
        self._names = tuple(name for name, value in self._held.items() if _is_plain(value))

    def read(self) -> Any:
        if len(self._held) != self._count:
            self._scan()
        return self._names, tuple([_plain(self._held.get(name)) for name in self._names])

    def restore(self, value: Any) -> None:
        self._held.update(zip(*value))


class _Global:
    """A global variable that a function names."""

    def __init__(self, variables: dict[str, Any], name: str) -> None:
        self.key, self.name = hash((id(variables), name)), name
        self._variables = variables

    @property
    def value(self) -> Any:
        return self._variables.get(self.name)

    def read(self) -> Any:
        return _plain(self.value)

    def restore(self, value: Any) -> None:
        self._variables[self.name] = value


class _Enclosing:
    """A variable of the function that a function was made in."""

    def __init__(self, cell: CellType, name: str) -> None:
        self.key, self.name = id(cell), name
        self._cell = cell

    @property
    def value(self) -> Any:
        try:
            return self._cell.cell_contents
        except ValueError:  # not assigned yet
            return None

    def read(self) -> Any:
        return _plain(self.value)

    def restore(self, value: Any) -> None:
        self._cell.cell_contents = value


def _plain(value: Any) -> Any:
    """The value, or the identity of what took its place."""
    return value if _is_plain(value) else id(value)


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (type(value) is tuple and all(map(_is_plain, value)))


def _has_attributes(value: Any) -> bool:
    others = (ModuleType, FunctionType, MethodType, type, Tensor)
    return hasattr(value, "__dict__") and not isinstance(value, others)
