"""Options declared once: fields of a frozen dataclass, with their check and their help.

Signatures, checks, TOML tables, and command-line flags are made from ``dataclasses.fields``.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, field, fields
from functools import wraps
from inspect import Parameter, signature
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pyro_mivae.arguments import Checker, choice
from pyro_mivae.errors import OptionError, nearest

Result = TypeVar("Result")


def option(
    default: Any = MISSING,
    *,
    help: str,
    check: Checker | None = None,
    names: Sequence[str] = (),
    flag: str | None = None,
) -> Any:
    """Declares a field of an options dataclass, with a check, or names that may be given, or both.

    The flag is the field's name if omitted.
    """
    check, names = check or choice(*names), tuple(names)
    return field(
        default=default, metadata={"check": check, "help": help, "names": names, "flag": flag}
    )


def checks_of(cls: type) -> dict[str, Checker]:
    """Returns the checkers of an options dataclass, by field."""
    return {f.name: f.metadata["check"] for f in fields(cls)}


def flags_of(cls: type) -> dict[str, str]:
    """Returns the command-line flags of an options dataclass, by field."""
    return {f.name: f.metadata["flag"] or "--" + f.name.replace("_", "-") for f in fields(cls)}


def kinds_of(cls: type) -> dict[str, type]:
    """Returns the plain types (int, float, bool, str) of an options dataclass, by field."""
    return {name: _plain(hint) for name, hint in get_type_hints(cls).items()}


def check_fields(options: Any) -> None:
    """Checks every field that differs from its default; call it in ``__post_init__``."""
    for f in fields(options):
        value = getattr(options, f.name)
        if value is not f.default:
            object.__setattr__(options, f.name, f.metadata["check"](f.name, value))


def made_of(cls: Callable[..., Result], options: Mapping[str, Any], owner: str) -> Result:
    """Makes options from keywords of their owner; an unknown one is an `OptionError`."""
    allowed = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(options.keys() - set(allowed))
    if unknown:
        raise OptionError(
            f"options {', '.join(unknown)} are unknown; allowed are those of {owner}: "
            f"{', '.join(allowed)}"
        )
    return cls(**options)


def takes_options(
    cls: type, *, without: Collection[str] = ()
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Makes a function take the fields of an options dataclass as keywords.

    In its signature and docstring they replace the parameter ``options``, which receives them as
    one object.
    """
    taken = [f for f in fields(cls) if f.name not in without]

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        own = dict(signature(function).parameters)
        hint = own.pop("options")
        default = {f.name: hint.empty if f.default is MISSING else f.default for f in taken}
        added = [
            Parameter(f.name, hint.KEYWORD_ONLY, default=default[f.name], annotation=f.type)
            for f in taken
        ]
        parameters = sorted([*own.values(), *added], key=lambda p: (p.kind, p not in added))
        shown = signature(function).replace(parameters=parameters)

        @wraps(function)
        def wrapper(*args: Any, **given: Any) -> Result:
            for name in given.keys() - shown.parameters.keys():
                raise TypeError(
                    f"{function.__name__} takes {', '.join(shown.parameters)}; {name!r} is none "
                    f"of them{nearest(name, shown.parameters)}"
                )
            shown.bind(*args, **given)
            options = cls(**{f.name: given.pop(f.name) for f in taken if f.name in given})
            return function(*args, options=options, **given)

        told = "".join(
            textwrap.fill(
                f"{f.name}: {f.metadata['help'][:1].upper()}{f.metadata['help'][1:]}.",
                width=99,
                initial_indent=" " * 8,
                subsequent_indent=" " * 12,
            )
            + "\n"
            for f in taken
        )
        wrapper.__signature__ = shown  # type: ignore[attr-defined]
        wrapper.__doc__ = re.sub(r" +options: .*\n", lambda _: told, function.__doc__ or "")
        return wrapper

    return decorate


def _plain(hint: Any) -> Any:
    parts = [part for part in get_args(hint) if part is not NoneType]
    if get_origin(hint) is Literal:
        return type(parts[0])
    return _plain(parts[0]) if parts else hint
