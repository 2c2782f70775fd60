"""Options that commands share; those that are fields of a dataclass are made from it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from pyro_mivae.diagnostics import InformationOptions
from pyro_mivae.options import flags_of, kinds_of
from pyro_mivae.runs import ModelOptions, open_run
from pyro_mivae.training import TrainingOptions

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]
DATA = "NAME|FILE.npz|FOLDER"
A_PATH = click.Path(path_type=Path)
SEED = click.IntRange(0, 2**32 - 1)

device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda|cuda:N",
    help="where to compute",
)
root_option = click.option(
    "--data-root",
    metavar="DIR",
    help="folder of torchvision's data sets; they are downloaded only if they are not there",
)
trust_option = click.option(
    "--trust", is_flag=True, help="run the code that the run folder names; read it first"
)
overwrite_option = click.option("--overwrite", is_flag=True, help="replace a file that exists")


def opened_run(command: Command) -> Command:
    """Adds the argument RUN, which the command gets opened as ``run``, and ``--trust``."""

    @click.argument("folder", metavar="RUN", type=A_PATH)
    @trust_option
    @functools.wraps(command)
    def opens(folder: Path, trust: bool, **options: Any) -> Any:
        return command(run=open_run(folder, trust=trust), **options)

    return opens


def field_options(cls: type, several: Collection[str] = ()) -> list[Decorator]:
    """Makes an option of each field of an options dataclass; ``several`` take many values."""
    flags, kinds = flags_of(cls), kinds_of(cls)
    made: list[Decorator] = []
    for f in fields(cls):
        how: dict[str, Any] = {"type": kinds[f.name], "metavar": f.metadata["metavar"]}
        if kinds[f.name] is bool:
            how = {"is_flag": True, "default": None}
        if f.name in several:
            how = {"type": read_numbers, "metavar": "W,W,..."}
        made.append(click.option(flags[f.name], f.name, help=f.metadata["help"], **how))
    return made


def trains(default_folder: str, swept: Collection[str] = ()) -> Decorator:
    """Adds the argument VARIANT and the options of a training, or of a sweep of trainings."""
    where = f"where to  [default: {default_folder}]"
    several, at_once = "train so many, from --seed on", "train so many at the same time"
    return _adds(
        [
            click.argument("variant"),
            click.option("--data", metavar=DATA, help="what to train on  [default: digits]"),
            root_option,
            click.option(
                "--image-size", metavar="N|HxW", type=read_size, help="resize the images"
            ),
            *field_options(ModelOptions, swept),
            *field_options(TrainingOptions),
            click.option("--seeds", type=click.IntRange(1), help=several),
            click.option("--jobs", type=click.IntRange(1), default=1, help=at_once),
            device_option,
            click.option("--run", "folder", metavar="DIR", type=A_PATH, help=where),
            click.option("--resume", is_flag=True, help="go on where its training stopped"),
            click.option("--overwrite", is_flag=True, help="throw its training away"),
            trust_option,
        ]
    )


def measures(command: Command) -> Command:
    """Adds the options of an information report."""
    return _adds(field_options(InformationOptions))(command)


def _adds(options: list[Decorator]) -> Decorator:
    return lambda command: functools.reduce(
        lambda made, add: add(made), reversed(options), command
    )


def read_size(value: str) -> tuple[int, int]:
    """Reads height and width from ``N`` or ``HxW``."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", value)
    if not match or "0" in (match[1], match[2]):
        raise click.BadParameter(f"{value!r} given; allowed is N or HxW, e.g. 28 or 28x20")
    return int(match[1]), int(match[2] or match[1])


def read_numbers(value: str) -> tuple[float, ...]:
    """Reads numbers with commas between them."""
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} given; allowed are numbers, e.g. 0.5,1,2") from None
