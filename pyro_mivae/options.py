"""Options stated once: fields of a frozen dataclass that carry their check and their help.

Defaults and types are the field's own. Signatures, checks, TOML tables, and command-line flags are
made from ``dataclasses.fields``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, field, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pyro_mivae.arguments import Checker, choice


def option(
    default: Any = MISSING,
    *,
    help: str,
    check: Checker | None = None,
    names: Sequence[str] = (),
    flag: str | None = None,
) -> Any:
    """Declares a field of an options dataclass, which has a check, or the names that it may be.

    The flag is the field's name if omitted.
    """
    check, metavar = check or choice(*names), "|".join(names) or None
    return field(
        default=default, metadata={"check": check, "help": help, "metavar": metavar, "flag": flag}
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
    """Checks every field that is not at its default; call it in ``__post_init__``."""
    for f in fields(options):
        value = getattr(options, f.name)
        if value is not f.default:
            object.__setattr__(options, f.name, f.metadata["check"](f.name, value))


def _plain(hint: Any) -> Any:
    parts = [part for part in get_args(hint) if part is not NoneType]
    if get_origin(hint) is Literal:
        return type(parts[0])
    return _plain(parts[0]) if parts else hint
