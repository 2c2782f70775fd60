"""Options of the commands, made from the fields of dataclasses, and their help in groups."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from pyro_mivae.diagnostics import InformationOptions
from pyro_mivae.options import flags_of, kinds_of
from pyro_mivae.runs import open_run
from pyro_mivae.runs.config import FLAGS, TARGETED, plain_defaults
from pyro_mivae.schedules import TARGET
from pyro_mivae.variants import VARIANTS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
Complete = Callable[[click.Context, click.Parameter, str], list[Any]]
A_PATH = click.Path(path_type=Path)
SHORT = 40  # characters of choices that stand beside the flag


OTHER = "Other options"


class GroupedOption(click.Option):
    """An option with the title of its group in the help."""

    def __init__(self, *args: Any, group: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.group = group


class Command(click.Command):
    """A command whose help shows its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options, group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", OTHER), []).append(record)
        for title in sorted(groups, key=lambda title: title == OTHER):
            with formatter.section(title):
                formatter.write_dl(groups[title])


def read_size(value: str) -> tuple[int, int]:
    """Reads height and width from ``N`` or ``HxW``."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", value)
    if not match or "0" in (match[1], match[2]):
        raise click.BadParameter(f"{value!r} given; allowed is N or HxW, e.g. 28 or 28x20")
    return int(match[1]), int(match[2] or match[1])


def read_numbers(value: str) -> tuple[float, ...]:
    """Reads numbers separated by commas."""
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        none = "; a sweep takes no targets, train one model for each" * (TARGET in value)
        told = f"{value!r} given; allowed are numbers, e.g. 0.5,1,2{none}"
        raise click.BadParameter(told) from None


def read_weight(value: str) -> float | str:
    """Reads a number, or leaves ``target:N`` as it is."""
    try:
        return value if value.startswith(TARGET) else float(value)
    except ValueError:
        told = f"{value!r} given; allowed is a number, or target:N for a target of N nats"
        raise click.BadParameter(told) from None


def option(*names: str, group: str, **how: Any) -> Decorator:
    """Declares an option of a group."""
    return click.option(*names, cls=GroupedOption, group=group, **how)


def completing(names: Collection[str], *, files: bool = False) -> Complete:
    """Completes a word to one of the names, or to a file if no name begins with it."""

    def complete(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[Any]:
        found = [name for name in names if name.startswith(begun)]
        return found or [CompletionItem(begun, type="file")] * files

    return complete


def adds(options: list[Decorator]) -> Decorator:
    """Adds options, in the order of the help text."""
    return lambda command: functools.reduce(
        lambda made, add: add(made), reversed(options), command
    )


def field_options(cls: type, several: Collection[str] = (), group: str = "") -> list[Decorator]:
    """Makes a flag for each field of a dataclass; fields in ``several`` take a list.

    Without a ``group``, the fields are options of variants, grouped by the variants that have
    them.
    """
    flags, kinds = flags_of(cls), kinds_of(cls)
    made: list[tuple[str, Decorator]] = []
    for f in fields(cls):
        title, default = (group, f.default) if group else _of_variants(f.name)
        how: dict[str, Any] = {"type": kinds[f.name], **_choices(f, default)}
        if kinds[f.name] is bool:
            how |= {"is_flag": True, "default": None}
        if f.name in TARGETED:
            how |= {"type": read_weight, "metavar": "W|target:NATS"}
        if f.name in several:
            how |= {"type": read_numbers, "metavar": "W,W,..."}
        made.append((title, option(flags[f.name], f.name, group=title, **how)))
    titles = [*dict.fromkeys(title for title, _ in made)]
    return [decorator for title in titles for own, decorator in made if own == title]


def _choices(f: Field[Any], default: Any) -> dict[str, Any]:
    """Returns help, choices and default of a field, as keywords of an option."""
    help_, names = f.metadata["help"], f.metadata["names"]
    how: dict[str, Any] = {}
    if names:
        how["shell_complete"] = completing(names, files="FILE" in help_)
        choices = "|".join(names)
        if len(choices) <= SHORT:
            how["metavar"] = choices
        else:
            how["metavar"], help_ = "NAME", f"{help_}: {', '.join(names)}"
    if isinstance(default, int | float | str) and not isinstance(default, bool):
        help_ += f"  [default: {default}]"
    return {**how, "help": help_}


def _of_variants(name: str) -> tuple[str, str | None]:
    """Returns the group of a model's option, and its default in words."""
    having = [v for v, cls in VARIANTS.items() if name in {f.name for f in fields(cls.options())}]
    if not having or len(having) >= len(VARIANTS) - 1:
        title = "Model"
    else:
        title = f"Model of {', '.join(having)}"
    values = {v: plain_defaults(v).get(name) for v in having}
    shown = {v: value for v, value in values.items() if not isinstance(value, bool | None)}
    if not shown:
        return title, None
    usual = Counter(shown.values()).most_common(1)[0][0]
    others = [f"{v} {value}" for v, value in shown.items() if value != usual]
    return title, "; ".join([str(usual), *others])


def opened_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--trust`` and the argument RUN; passes the opened run as ``run``."""

    @click.argument("folder", metavar="RUN", type=A_PATH)
    @trust_option
    @functools.wraps(command)
    def opens(folder: Path, trust: bool, **options: Any) -> Any:
        return command(run=open_run(folder, trust=trust), **options)

    return opens


device_option = option(
    "--device",
    group=OTHER,
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda|cuda:N",
    help="device of the computation",
)
root_option = option(
    "--data-root",
    group="Data",
    metavar="DIR",
    help="folder of torchvision's data sets; missing ones are downloaded",
)
trust_option = option(
    "--trust",
    group=OTHER,
    is_flag=True,
    help="run the code that the run folder names; read it first",
)
overwrite_option = option(
    "--overwrite", group=OTHER, is_flag=True, help="replace an existing file"
)


def given_option(told: str, metavar: str = "FILE") -> Decorator:
    """Makes ``--given``, a file of conditions."""
    return option("--given", group="Data", metavar=metavar, help=f"{told} (.npy, .csv)")


OTHERS = "device run out category what resume overwrite trust jobs".split()
WRITTEN = {
    **FLAGS,
    **flags_of(InformationOptions),
    **{name: f"--{name}" for name in OTHERS},
    **{"root": "--data-root", "num_draws": "--draws"},
}


def in_flags(message: str) -> str:
    """Rewrites Python keywords in a message as flags."""
    names = "|".join(sorted(WRITTEN, key=len, reverse=True))
    told = re.sub(rf"\b({names})=True\b", lambda found: WRITTEN[found[1]], message)
    return re.sub(
        rf"(?<![\w.])({names})=(?=(\S?))", lambda f: WRITTEN[f[1]] + " " * bool(f[2]), told
    )
