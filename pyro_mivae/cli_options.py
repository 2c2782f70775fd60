"""Options that several commands of the command line share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pyro_mivae.runs.options import MODEL_OPTIONS

Command = Callable[..., Any]
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

    @click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
    @trust_option
    @functools.wraps(command)
    def opens(folder: Path, trust: bool, **options: Any) -> Any:
        from pyro_mivae.runs import open_run

        return command(run=open_run(folder, trust=trust), **options)

    return opens


def read_size(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Reads height and width from ``N`` or ``HxW``."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", value)
    if not match or "0" in (match[1], match[2]):
        raise click.BadParameter(f"{value!r} given; allowed is N or HxW, e.g. 28 or 28x20")
    return int(match[1]), int(match[2] or match[1])


def read_numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Reads numbers with commas between them."""
    if value is None:
        return None
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} given; allowed are numbers, e.g. 0.5,1,2") from None


def model_options(command: Command, without: Sequence[str] = ()) -> Command:
    """Adds an option for each of `MODEL_OPTIONS`, but for those that are named."""
    for option in reversed([o for o in MODEL_OPTIONS if o.keyword not in without]):
        names = (option.flag, option.keyword)
        if option.kind is bool:
            add = click.option(*names, is_flag=True, default=None, help=option.help)
        else:
            add = click.option(*names, type=option.kind, help=option.help)
        command = add(command)
    return command


def training_options(command: Command) -> Command:
    """Adds an option for everything that a run may set of its training."""
    for add in reversed(_TRAINING):
        command = add(command)
    return command


def data_options(command: Command) -> Command:
    """Adds the options that say what is trained on."""
    for add in reversed(_DATA):
        command = add(command)
    return command


_DATA = (
    click.option(
        "--data", metavar="NAME|FILE.npz|FOLDER", help="what to train on  [default: digits]"
    ),
    root_option,
    click.option("--image-size", metavar="N|HxW", callback=read_size, help="resize the images"),
)
_TRAINING = (
    click.option(
        "--epochs",
        type=click.IntRange(1),
        help="passes over the images, by default the data set's",
    ),
    click.option("--batch-size", type=click.IntRange(1), help="images per step"),
    click.option("--lr", type=float, help="learning rate"),
    click.option("--lr-schedule", metavar="constant|cosine", help="of the learning rate"),
    click.option("--clip-norm", type=float, help="largest norm of the gradient"),
    click.option(
        "--patience",
        type=click.IntRange(1),
        help="stop once the loss on a held-out tenth has not fallen for so many epochs",
    ),
    click.option("--seed", type=SEED, help="of weights, noise and order"),
    click.option(
        "--engine",
        metavar="auto|eager|staged|compiled",
        help="how steps are taken; auto goes by the work ahead",
    ),
    click.option(
        "--precision",
        metavar="float32|tf32|bf16",
        help="of matrix products while training, forwards and backwards",
    ),
)
