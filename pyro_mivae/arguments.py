"""Checks of arguments, declared beside the signatures of public functions."""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from pyro_mivae.errors import DataError, OptionError, ShapeError
from pyro_mivae.inputs import as_tensor

Function = TypeVar("Function", bound=Callable[..., Any])
Sizes = dict[str, int]
LARGEST = 2**31 - 1
GUARDS = (LARGEST, 10**6, 10**7, 1e30)  # limits that are told where they are passed alone
SHOWN = 60
_MISSING = object()


class Checker(Protocol):
    """A check of one argument."""

    def __call__(self, name: str, value: Any, sizes: Sizes | None = None) -> Any:
        """Returns the value as the function takes it."""


def checked(**checks: Checker) -> Callable[[Function], Function]:
    """Makes a function check its arguments before it runs.

    A value that is the parameter's default passes unchecked, so that None stands for "not given"
    where it is the default. Each of ``*args`` is checked by the checker of their name. Arguments
    given by keyword are checked in the order of the checks, whatever theirs is.

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


def whole(*, least: int | None = None, most: int = LARGEST) -> Checker:
    """Whole numbers, of Python, NumPy or torch; returned as ``int``."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> int:
        try:
            if isinstance(value, bool | np.bool_) or getattr(value, "dtype", None) == torch.bool:
                raise TypeError
            number = operator.index(value)
        except (TypeError, RuntimeError, ValueError):
            raise _refused(name, value, "whole numbers" + _range(least, most)) from None
        if number > most or (least is not None and number < least):
            beyond = number > most and most in GUARDS
            told = f" up to {most}" if beyond else _range(least, most)
            raise _refused(name, value, "whole numbers" + told)
        return number

    return check


def number(
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    finite: bool = True,
) -> Checker:
    """Numbers, finite ones unless said otherwise, never NaN; returned as ``int`` or ``float``."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> float:
        fits = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
        try:
            fits = fits and (math.isfinite(value) or (not finite and not math.isnan(value)))
        except OverflowError:  # a whole number beyond float
            fits = False
        if (
            not fits
            or (least is not None and value < least)
            or (above is not None and value <= above)
            or (most is not None and value > most)
            or (below is not None and value >= below)
        ):
            allowed = "finite " * finite + "numbers"
            beyond = fits and most in GUARDS and value > most
            told = f" up to {most}" if beyond else _range(least, most, above, below)
            raise _refused(name, value, allowed + told)
        plain: float = value.item() if isinstance(value, np.generic) else value
        return plain

    return check


def flag() -> Checker:
    """True or False; returned as ``bool``."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> bool:
        if not isinstance(value, bool | np.bool_):
            raise _refused(name, value, "True and False")
        return bool(value)

    return check


def text() -> Checker:
    """Text that is not empty, and holds no NUL."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> str:
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise _refused(name, value, "texts that are not empty")
        return str(value)

    return check


def path() -> Checker:
    """A path, text or ``Path``, that is not empty; returned as it is."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> str | Path:
        if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
            raise _refused(name, value, "paths, text or pathlib.Path, that are not empty")
        return value

    return check


def choice(*allowed: str) -> Checker:
    """One of several names."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise _refused(name, value, ", ".join(allowed))
        return str(value)

    return check


def instance(*kinds: type, example: str) -> Checker:
    """An instance of a class."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> Any:
        _refuse_class(name, value)
        if not isinstance(value, kinds):
            told = " or ".join(kind.__name__ for kind in kinds)
            raise _refused(name, value, f"instances of {told}, such as {example}")
        return value

    return check


def function(example: str) -> Checker:
    """A function, or an object that can be called."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> Any:
        _refuse_class(name, value)
        if not callable(value):
            raise _refused(name, value, f"functions, called as {example}")
        return value

    return check


def several(each: Checker, *, least: int = 1) -> Checker:
    """A list, tuple or other sequence; returned as a list, each element checked."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> list[Any]:
        if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable):
            raise _refused(name, value, "sequences, such as lists")
        try:
            values = list(value)
        except TypeError:  # a tensor without dimensions is iterable by its class
            raise _refused(name, value, "sequences, such as lists") from None
        if len(values) < least:
            raise OptionError(f"{name} holds {len(values)}; give {least} or more")
        return [each(f"{name}[{i}]", item, sizes) for i, item in enumerate(values)]

    return check


def named(each: Checker, *, least: int = 0) -> Checker:
    """A mapping from names; returned as a ``dict``, each value checked."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise _refused(name, value, "dicts whose keys are names")
        if len(value) < least:
            raise OptionError(f"{name} holds {len(value)}; give {least} or more")
        return {key: each(f"{name}[{key!r}]", item, sizes) for key, item in value.items()}

    return check


def either(*checks: Checker) -> Checker:
    """What one of several checkers accepts; the message is that of a shape, or of the first."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> Any:
        errors = []
        for attempt in checks:
            try:
                return attempt(name, value, sizes)
            except (OptionError, DataError, ShapeError) as error:
                errors.append(error)
        raise next((error for error in errors if isinstance(error, ShapeError)), errors[0])

    return check


def floats(*shape: str | int, finite: bool = True, least: int = 1, hint: str = "") -> Checker:
    """Tensors or arrays of floating-point numbers; arrays become tensors."""
    return _tensors(shape, "fc", "floating-point numbers", finite, least, hint)


def integers(*shape: str | int, least: int = 1, hint: str = "") -> Checker:
    """Tensors or arrays of integers or booleans; arrays become tensors. See `floats`."""
    return _tensors(shape, "iub", "integers", False, least, hint)


def numbers(*shape: str | int, finite: bool = True, least: int = 1, hint: str = "") -> Checker:
    """Tensors or arrays of any real numbers; arrays become tensors. See `floats`."""
    return _tensors(shape, "fciub", "numbers", finite, least, hint)


def _tensors(
    shape: tuple[str | int, ...], kinds: str, told: str, finite: bool, least: int, hint: str
) -> Checker:
    def check(name: str, value: Any, sizes: Sizes | None = None) -> Tensor:
        tensor = as_tensor(value, name)
        kind = "f" if tensor.is_floating_point() else "i"
        if kind not in kinds:
            raise DataError(f"{name} has dtype {tensor.dtype}; allowed are {told}")
        if shape:
            _fit(name, tuple(tensor.shape), shape, {} if sizes is None else sizes, least, hint)
        if finite and kind == "f" and not bool(tensor.detach().isfinite().all()):
            raise DataError(f"{name} holds NaN or infinities; allowed are finite numbers")
        return tensor

    return check


def _fit(
    name: str,
    got: tuple[int, ...],
    shape: tuple[str | int, ...],
    sizes: Sizes,
    least: int,
    hint: str,
) -> None:
    """Matches a tensor's shape, and learns the sizes of named dimensions from it."""
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


def _range(
    least: float | None,
    most: float | None,
    above: float | None = None,
    below: float | None = None,
) -> str:
    parts = [f" above {above}"] if above is not None else []
    parts += [f" below {below}"] if below is not None else []
    if least is not None and -least not in GUARDS:
        up = most is None or most in GUARDS
        parts += [f" from {least} up" if up else f" from {least} to {most}"]
    elif most is not None and most not in GUARDS:
        parts += [f" up to {most}"]
    return " and".join(parts)


def _refuse_class(name: str, value: Any) -> None:
    if inspect.isclass(value):
        called = value.__name__
        raise OptionError(f"{name}={called} is a class; give an instance, {called}(...)")


def _refused(name: str, value: Any, allowed: str) -> OptionError:
    return OptionError(f"{name}={shown(value)}; allowed are {allowed}")


def shown(value: Any) -> str:
    """Shows a value in a message: short, and on one line."""
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
