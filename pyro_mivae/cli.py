"""The command line: a thin layer over the public functions.

Exit codes: 0 done, 2 bad usage or bad input with one line on stderr, 1 anything else.
"""

from __future__ import annotations

import difflib
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from pyro_mivae.errors import PyroMivaeError, PyroMivaeWarning, TrainingError
from pyro_mivae.runs.options import MODEL_OPTIONS

if TYPE_CHECKING:
    from pyro_mivae.runs import RunConfig

Command = Callable[..., Any]
SEED = click.IntRange(0, 2**32 - 1)

device_option = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cuda|cpu", help="where to compute"
)
root_option = click.option(
    "--data-root",
    metavar="DIR",
    help="folder of torchvision's data sets; they are downloaded only if they are not there",
)
run_argument = click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
overwrite_option = click.option("--overwrite", is_flag=True, help="replace a file that exists")


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


class Group(click.Group):
    """Commands whose misspelt names are met with the nearest ones."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command."""
        if self.get_command(ctx, args[0]) is None:
            names = self.list_commands(ctx)
            near = difflib.get_close_matches(args[0], names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"no command {args[0]!r}{hint}; allowed are {', '.join(names)}")
        return super().resolve_command(ctx, args)


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


@click.group(
    cls=Group, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="pyro-mivae")
def cli() -> None:
    """Mutual-information autoencoders: train one and see what it learned."""


@cli.command()
@click.argument("variant")
@click.option("--data", metavar="NAME|FILE.npz|FOLDER", help="what to train on  [default: digits]")
@root_option
@click.option("--image-size", metavar="N|HxW", callback=read_size, help="resize the images")
@model_options
@click.option(
    "--epochs", type=click.IntRange(1), help="passes over the images, by default the data set's"
)
@click.option("--batch-size", type=click.IntRange(1), help="images per step")
@click.option("--lr", type=float, help="learning rate")
@click.option("--lr-schedule", metavar="constant|cosine", help="of the learning rate")
@click.option("--clip-norm", type=float, help="largest norm of the gradient")
@click.option(
    "--patience",
    type=click.IntRange(1),
    help="stop once the loss on a held-out tenth has not fallen for so many epochs",
)
@click.option("--seed", type=SEED, help="of weights, noise and order")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    help="train so many seeds at once, from --seed on, each into RUN/seed-K",
)
@click.option(
    "--engine",
    metavar="auto|eager|staged|compiled",
    help="how steps are taken; auto goes by the work ahead",
)
@click.option(
    "--precision",
    metavar="float32|tf32|bf16",
    help="of matrix products while training, forwards and backwards",
)
@device_option
@click.option(
    "--run",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="the run folder  [default: runs/VARIANT-DATA, or runs/VARIANT-DATA-seeds]",
)
@click.option("--tensorboard", is_flag=True, help="also write the history for TensorBoard")
@click.option("--resume", is_flag=True, help="go on where the run folder's run stopped")
@click.option("--overwrite", is_flag=True, help="throw the run folder's run away")
def train(
    variant: str,
    data: str | None,
    data_root: str | None,
    image_size: tuple[int, int] | None,
    seeds: int | None,
    device: str,
    folder: Path | None,
    tensorboard: bool,
    resume: bool,
    overwrite: bool,
    **given: Any,
) -> None:
    """Train VARIANT (see `pyro-mivae list`), evaluate it, and write a report."""
    from pyro_mivae.runs import RunConfig, is_finished, train_run

    keywords = {option.keyword for option in MODEL_OPTIONS}
    config = RunConfig(
        variant,
        data,
        data_root,
        image_size,
        model={k: v for k, v in given.items() if k in keywords},
        training={k: v for k, v in given.items() if k not in keywords},
    )
    several = "" if seeds is None else "-seeds"
    name = f"{variant}-{Path(data or 'digits').resolve().stem}{several}"
    folder = folder or Path("runs") / name
    finished = resume and is_finished(folder)
    begun: list[bool] = []
    how: dict[str, Any] = {
        "resume": resume,
        "overwrite": overwrite,
        "device": device,
        "progress": True,
        "tensorboard": tensorboard,
        "say": click.echo,
        "on_start": lambda: begun.append(True),
    }
    try:
        if seeds is not None:
            _train_seeds(config, folder, seeds, how)
            return
        run = train_run(config, folder, **how)
    except KeyboardInterrupt:
        there = [*folder.glob("config.toml"), *folder.glob("seed-*/config.toml")]
        if not (begun or (resume and there)):
            raise Stopped("stopped before training began; nothing is kept of it") from None
        words = ["pyro-mivae", "train", variant]
        if seeds is not None:
            words += ["--seeds", str(seeds)]
            words += [] if given["seed"] is None else ["--seed", str(given["seed"])]
        go_on = shlex.join([*words, "--resume", "--run", str(folder)])
        done = any((path.parent / "checkpoint.pt").is_file() for path in there)
        kept = "keeps what is done" if done else "holds no whole epoch yet"
        raise Stopped(f"stopped; {folder} {kept}. Go on with: {go_on}") from None
    click.echo(run.summary())
    if finished:
        return
    files = [p.name for p in sorted(folder.iterdir()) if p.suffix != ".png"]
    click.echo(f"written to {folder}: {', '.join(files)}, and its pictures as PNG")


def _train_seeds(config: RunConfig, folder: Path, seeds: int, how: dict[str, Any]) -> None:
    from pyro_mivae.runs import seeds_table, train_seeds

    train_seeds(config, folder, seeds, **how)
    click.echo(seeds_table(folder))
    click.echo(f"written to {folder}: seeds.json, and a run folder for each seed, seed-K")


SWEPT = ("beta", "mi_weight")


@cli.command()
@click.argument("variant")
@click.option("--beta", metavar="B,B,...", callback=read_numbers, help="weights of the KL")
@click.option("--mi-weight", metavar="W,W,...", callback=read_numbers, help="of the information")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--data", metavar="NAME|FILE.npz|FOLDER", help="what to train on  [default: digits]")
@root_option
@click.option("--image-size", metavar="N|HxW", callback=read_size, help="resize the images")
@partial(model_options, without=SWEPT)
@click.option("--epochs", type=click.IntRange(1), help="passes over the images")
@click.option("--batch-size", type=click.IntRange(1), help="images per step")
@click.option("--lr", type=float, help="learning rate")
@click.option("--seed", type=SEED, help="the first seed")
@device_option
@click.option(
    "--run",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="where the table and the picture go  [default: runs/sweep-VARIANT-DATA]",
)
@click.option("--overwrite", is_flag=True, help="throw the folder's sweep away")
def sweep(
    variant: str,
    seeds: int,
    data: str | None,
    data_root: str | None,
    image_size: tuple[int, int] | None,
    device: str,
    folder: Path | None,
    overwrite: bool,
    **given: Any,
) -> None:
    """Train VARIANT for every combination of weights at once: rate, distortion, information."""
    from pyro_mivae.runs import RunConfig, sweep_run

    keywords = {option.keyword for option in MODEL_OPTIONS}
    config = RunConfig(
        variant,
        data,
        data_root,
        image_size,
        model={k: v for k, v in given.items() if k in keywords and k not in SWEPT},
        training={k: v for k, v in given.items() if k not in keywords},
    )
    grid = {name: given[name] for name in SWEPT if given[name] is not None}
    folder = folder or Path("runs") / f"sweep-{variant}-{Path(data or 'digits').resolve().stem}"
    found = sweep_run(
        config,
        folder,
        grid,
        seeds,
        overwrite=overwrite,
        device=device,
        progress=True,
        say=click.echo,
    )
    click.echo(found.table())
    for number, reason in found.failures.items():
        click.echo(f"model {number} broke down: {reason}", err=True)
    click.echo(f"written to {folder}: sweep.csv, sweep.json, sweep.png")


@cli.command()
@run_argument
@root_option
@device_option
def evaluate(folder: Path, data_root: str | None, device: str) -> None:
    """Measure RUN's model on its test images; writes RUN/metrics.json."""
    from pyro_mivae.runs import evaluate_run, open_run

    run = open_run(folder)
    evaluate_run(run, run.dataset(data_root), device=device)
    click.echo(run.summary())
    click.echo(f"written to {folder / 'metrics.json'}")


@cli.command()
@run_argument
@root_option
@device_option
def report(folder: Path, data_root: str | None, device: str) -> None:
    """Draw RUN's pictures and write one self-contained page, RUN/report.html."""
    from pyro_mivae.runs import open_run, report_run

    run = open_run(folder)
    page = report_run(run, run.dataset(data_root), device=device)
    click.echo(f"written to {page}")


@cli.command()
@run_argument
@click.option("--category", type=int, help="draw from this category alone")
@click.option("--n", "count", type=click.IntRange(1), default=64, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="a .png file")
@overwrite_option
def sample(
    folder: Path, category: int | None, count: int, seed: int, out: Path, overwrite: bool
) -> None:
    """Draw images from RUN's prior, as a grid."""
    from pyro_mivae.runs import open_run, write_samples

    run = open_run(folder)
    write_samples(run, out, count=count, category=category, seed=seed, overwrite=overwrite)
    click.echo(f"written to {out}")


@cli.command()
@run_argument
@click.option("--data", metavar="NAME|FILE.npz|FOLDER", required=True, help="what to encode")
@root_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="an .npz file")
@overwrite_option
def encode(folder: Path, data: str, data_root: str | None, out: Path, overwrite: bool) -> None:
    """Encode images with RUN's model: one array per site, posterior means or probabilities."""
    from pyro_mivae.runs import open_run, write_codes

    shapes = write_codes(open_run(folder), data, out, root=data_root, overwrite=overwrite)
    click.echo(f"written to {out}: " + ", ".join(f"{k} {s}" for k, s in shapes.items()))


@cli.command("list")
def list_all() -> None:
    """List variants, priors, guides, likelihoods, networks and data sets."""
    from pyro_mivae.runs.listing import listing

    click.echo(listing())


class Stopped(Exception):
    """Training that was stopped from the keyboard."""


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its code.

    Args:
        args: The arguments; those of the process if omitted.
    """
    try:
        code = run_command(args)
    except KeyboardInterrupt:  # once more, while the first was answered
        code = 1
    sys.exit(code)


def run_command(args: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        args: The arguments; those of the process if omitted.

    Returns:
        The exit code.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            cli.main(args, prog_name="pyro-mivae", standalone_mode=False)
    except click.UsageError as error:
        command = "pyro-mivae" if error.ctx is None else error.ctx.command_path
        return _fail(f"{error.format_message()} (see {command} --help)", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except TrainingError as error:
        return _fail(str(error), 1)
    except PyroMivaeError as error:
        return _fail(str(error), 2)
    except Stopped as error:
        click.echo(str(error), err=True)
        return 1
    except (KeyboardInterrupt, click.Abort):
        return _fail("stopped", 1)
    except click.exceptions.Exit as error:
        return error.exit_code
    return 0


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Shows our own warnings as one line, and others, which need their place, as ever."""
    if issubclass(category, PyroMivaeWarning):
        click.echo("warning: " + " ".join(str(message).split()), err=True)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        click.echo(text, file=file, err=file is None, nl=False)


def _fail(message: str, code: int) -> int:
    click.echo("error: " + " ".join(message.split()), err=True)
    return code


if __name__ == "__main__":
    main()
