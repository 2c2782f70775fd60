"""Checks of arguments, declared as decorators of public functions."""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from pyro_mivae.errors import DataError, OptionError, ShapeError
from pyro_mivae.inputs import as_tensor

Function = TypeVar("Function", bound=Callable[..., Any])
Options = ParamSpec("Options")
Sizes = dict[str, int]
LARGEST = 2**31 - 1
LARGEST_SIZE = 10**7  # of a code or a layer; a prior is run to see its sites
LARGEST_WEIGHT = 1e30  # far within float32
GUARDS = (LARGEST, 10**6, LARGEST_SIZE, LARGEST_WEIGHT)
SHOWN = 60
_MISSING = object()


class Checker(Protocol):
    """A check of one argument."""

    def __call__(self, name: str, value: Any, sizes: Sizes | None = None) -> Any:
        """Returns the value as the function takes it."""


@dataclass(frozen=True)
class Given:
    """An argument, with the dimension sizes that earlier arguments have fixed."""

    name: str
    value: Any
    sizes: Sizes

    def refused(self, allowed: str) -> OptionError:
        """Returns an error that names the allowed values."""
        return OptionError(f"{self.name}={shown(self.value)}; allowed are {allowed}")

    def refuse_class(self) -> None:
        """Refuses a class given in place of an instance."""
        if inspect.isclass(self.value):
            called = self.value.__name__
            raise OptionError(f"{self.name}={called} is a class; give an instance, {called}(...)")


def checker(check: Callable[Concatenate[Given, Options], Any]) -> Callable[Options, Checker]:
    """Turns a check with options into a function from these options to a `Checker`."""

    @functools.wraps(check)
    def make(*args: Options.args, **options: Options.kwargs) -> Checker:
        def bound(name: str, value: Any, sizes: Sizes | None = None) -> Any:
            return check(Given(name, value, {} if sizes is None else sizes), *args, **options)

        return bound

    return make


def checked(**checks: Checker) -> Callable[[Function], Function]:
    """Makes a function check its arguments before it runs.

    A default value is not checked: None stands for "not given" if it is the default. The checker
    of ``*args`` checks each element. Keyword arguments are checked in the order of the checks.

    Example:
        >>> @checked(count=whole(least=1), share=number(above=0, most=1))
        ... def draw(count, share=0.5): return count, share
        >>> draw(0)
        Traceback (most recent call last):
        ...
        pyro_mivae.errors.OptionError: count=0; allowed are whole numbers from 1 up
    """

    def decorate(function: Function) -> Function:
        parameters = inspect.signature(function).parameters
        unknown = checks.keys() - parameters.keys()
        if unknown:
            raise TypeError(f"{function.__qualname__} has no arguments {sorted(unknown)}")
        positional = [p.name for p in parameters.values() if p.kind <= p.POSITIONAL_OR_KEYWORD]
        rest = next((p.name for p in parameters.values() if p.kind == p.VAR_POSITIONAL), "")
        defaults = {name: p.default for name, p in parameters.items()}

        def check(name: str, value: Any, sizes: Sizes) -> Any:
            if name not in checks or value is defaults.get(name, _MISSING):
                return value
            return checks[name](name, value, sizes)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            sizes: Sizes = {}
            names = positional + [rest] * (len(args) - len(positional))
            given = [check(name, value, sizes) for name, value in zip(names, args, strict=False)]
            named = {name: check(name, kwargs[name], sizes) for name in checks if name in kwargs}
            return function(*given, **kwargs | named)

        return wrapper  # type: ignore[return-value]

    return decorate


@dataclass(frozen=True)
class _Limits:
    """Limits of a number. Limits that only protect the machine are named only if exceeded."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def check(self, given: Given, value: float, kind: str) -> None:
        if self.most in GUARDS and self.most is not None and value > self.most:
            raise given.refused(f"{kind} up to {self.most}")
        if (
            (self.least is not None and value < self.least)
            or (self.above is not None and value <= self.above)
            or (self.most is not None and value > self.most)
            or (self.below is not None and value >= self.below)
        ):
            raise given.refused(f"{kind}{self}")

    def __str__(self) -> str:
        most = None if self.most in GUARDS else self.most
        parts = [f" above {self.above}"] if self.above is not None else []
        parts += [f" below {self.below}"] if self.below is not None else []
        if self.least is not None and -self.least not in GUARDS:
            parts += [f" from {self.least} " + ("up" if most is None else f"to {most}")]
        elif most is not None:
            parts += [f" up to {most}"]
        return " and".join(parts)


@checker
def whole(given: Given, *, least: int | None = None, most: int = LARGEST) -> int:
    """Whole numbers, of Python, NumPy or torch; returned as ``int``."""
    value, limits = given.value, _Limits(least, most)
    try:
        if isinstance(value, bool | np.bool_) or getattr(value, "dtype", None) == torch.bool:
            raise TypeError
        number = operator.index(value)
    except (TypeError, RuntimeError, ValueError):
        raise given.refused(f"whole numbers{limits}") from None
    limits.check(given, number, "whole numbers")
    return number


@checker
def number(given: Given, /, *, finite: bool = True, **limits: float | None) -> float:
    """Numbers, finite ones unless said otherwise, never NaN; returned as ``int`` or ``float``.

    The limits are ``least``, ``most``, ``above`` and ``below``.
    """
    value, kind = given.value, "finite " * finite + "numbers"
    fits = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    try:
        fits = fits and (math.isfinite(value) or (not finite and not math.isnan(value)))
    except OverflowError:  # a whole number beyond float
        fits = False
    if not fits:
        raise given.refused(f"{kind}{_Limits(**limits)}")
    _Limits(**limits).check(given, value, kind)
    return value.item() if isinstance(value, np.generic) else value


@checker
def number_or_schedule(
    given: Given, *, least: float | None = None, above: float | None = None
) -> Any:
    """Weights: finite numbers, or schedules of them; returned as they are."""
    if callable(given.value) and not inspect.isclass(given.value):
        return given.value
    try:
        return number(least=least, above=above, most=LARGEST_WEIGHT)(given.name, given.value)
    except OptionError as error:
        raise OptionError(f"{error}, or schedules, such as mi.linear_warmup(1000)") from None


def size(*, least: int = 1) -> Checker:
    """Sizes of codes and layers."""
    return whole(least=least, most=LARGEST_SIZE)


@checker
def shape(given: Given) -> tuple[int, ...]:
    """The shape of one datum; returned as a tuple of ``int``."""
    told = f"{given.name}={shown(given.value)}"
    try:
        found = tuple(several(whole(least=1))(given.name, given.value))
    except OptionError:
        hint = f", ({given.value},) for a vector" if isinstance(given.value, int) else ""
        raise ShapeError(
            f"{told}: give the shape of one datum as whole numbers from 1 up{hint}, such as "
            "(1, 28, 28) for an image"
        ) from None
    if math.prod(found) > LARGEST:
        raise ShapeError(f"{told}: a datum may hold up to {LARGEST} values")
    return found


@checker
def flag(given: Given) -> bool:
    """True or False; returned as ``bool``."""
    if not isinstance(given.value, bool | np.bool_):
        raise given.refused("True and False")
    return bool(given.value)


@checker
def text(given: Given) -> str:
    """Text that is not empty and contains no NUL."""
    if not isinstance(given.value, str) or not given.value.strip() or "\0" in given.value:
        raise given.refused("texts that are not empty")
    return str(given.value)


@checker
def path(given: Given) -> str | Path:
    """A path, text or ``Path``, that is not empty; returned as it is."""
    value = given.value
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise given.refused("paths (non-empty text or pathlib.Path)")
    return value


@checker
def choice(given: Given, *allowed: str) -> str:
    """One of several names."""
    if not isinstance(given.value, str) or given.value not in allowed:
        raise given.refused(", ".join(allowed))
    return str(given.value)


@checker
def instance(given: Given, *kinds: type, example: str) -> Any:
    """An instance of a class."""
    given.refuse_class()
    if not isinstance(given.value, kinds):
        told = " or ".join(kind.__name__ for kind in kinds)
        raise given.refused(f"instances of {told}, such as {example}")
    return given.value


@checker
def function(given: Given, example: str) -> Any:
    """A function, or an object that can be called."""
    given.refuse_class()
    if not callable(given.value):
        raise given.refused(f"functions, called as {example}")
    return given.value


@checker
def several(given: Given, each: Checker, *, least: int = 1) -> list[Any]:
    """A list, tuple or other sequence; returned as a list, each element checked."""
    try:
        if isinstance(given.value, str | bytes | dict):
            raise TypeError
        values = list(given.value)
    except TypeError:
        raise given.refused("sequences, such as lists") from None
    if len(values) < least:
        raise OptionError(f"{given.name} holds {len(values)}; give {least} or more")
    return [each(f"{given.name}[{i}]", value, given.sizes) for i, value in enumerate(values)]


@checker
def named(given: Given, each: Checker, *, least: int = 0) -> dict[str, Any]:
    """A mapping from names; returned as a ``dict``, each value checked."""
    name, values = given.name, given.value
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise given.refused("dicts whose keys are names")
    if len(values) < least:
        raise OptionError(f"{name} holds {len(values)}; give {least} or more")
    return {key: each(f"{name}[{key!r}]", value, given.sizes) for key, value in values.items()}


@checker
def either(given: Given, *checks: Checker) -> Any:
    """The first of several checks that passes; else raises a `ShapeError` of one, or the first."""
    errors: list[Exception] = []
    for check in checks:
        try:
            return check(given.name, given.value, given.sizes)
        except (OptionError, DataError, ShapeError) as error:
            errors.append(error)
    raise next((error for error in errors if isinstance(error, ShapeError)), errors[0])


@checker
def _tensors(
    given: Given,
    kind: str,
    *shape: str | int,
    finite: bool = True,
    least: int = 1,
    hint: str = "",
) -> Tensor:
    name, tensor = given.name, as_tensor(given.value, given.name)
    floating = tensor.is_floating_point()
    if kind == ("integers" if floating else "floating-point numbers"):
        raise DataError(f"{name} has dtype {tensor.dtype}; allowed are {kind}")
    if shape:
        _fit(name, tuple(tensor.shape), shape, given.sizes, least, hint)
    if finite and floating and not bool(tensor.detach().isfinite().all()):
        raise DataError(f"{name} contains NaN or infinity; allowed are finite numbers")
    return tensor


floats = functools.partial(_tensors, "floating-point numbers")
"""Tensors or arrays of floating-point numbers; arrays become tensors."""
integers = functools.partial(_tensors, "integers")
"""Tensors or arrays of integers or booleans."""
numbers = functools.partial(_tensors, "numbers")
"""Tensors or arrays of any real numbers."""


def _fit(
    name: str,
    got: tuple[int, ...],
    shape: tuple[str | int, ...],
    sizes: Sizes,
    least: int,
    hint: str,
) -> None:
    """Matches a tensor's shape, and records the sizes of named dimensions."""
    wanted = [size for size in shape if size not in ("...", "()")]
    start = 0 if shape[-1] == "..." else max(0, len(got) - len(wanted))
    part = got[start : start + len(wanted)]
    fits = len(part) == len(wanted) and ("..." in shape or len(got) == len(wanted))
    found = dict(sizes)
    for size, want in zip(part, wanted):
        if isinstance(want, int):
            fits = fits and size == want
        else:
            smallest = least if want == wanted[0] else min(least, 1)
            fits = fits and size == found.setdefault(want, size) and size >= smallest
    if not fits:
        known = {n: s for n, s in sizes.items() if n in shape}
        where = "".join(f", {n} = {s}" for n, s in known.items())
        told = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise ShapeError(
            f"{name} has shape {got}; allowed is {'()' if not wanted else f'({told})'}{where}"
            + (f", {wanted[0]} {least} or more" if least > 1 else "")
            + (f"; {hint}" if hint else "")
        )
    sizes.update(found)


def shown(value: Any) -> str:
    """Formats a value for a message, shortened to one line."""
    if inspect.isclass(value):
        return value.__name__
    if isinstance(value, torch.nn.Module):
        return f"a {type(value).__name__}"
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    try:
        told = " ".join(repr(value).split())
    except Exception:
        told = f"a {type(value).__name__}"
    return told if len(told) <= SHOWN else told[: SHOWN - 4] + " ..."
