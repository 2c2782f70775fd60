"""The command line: a thin layer over the public functions.

Exit codes: 0 done, 2 bad usage or bad input with one line on stderr, 1 anything else.
"""

from __future__ import annotations

import difflib
import re
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from pyro_mivae.cli_options import (
    SEED,
    data_options,
    device_option,
    model_options,
    opened_run,
    overwrite_option,
    read_numbers,
    root_option,
    training_options,
    trust_option,
)
from pyro_mivae.errors import PyroMivaeError, PyroMivaeWarning, TrainingError, WriteError
from pyro_mivae.interrupts import ignore_further, stop_once
from pyro_mivae.runs.options import MODEL_OPTIONS

if TYPE_CHECKING:
    from pyro_mivae.runs import Run, RunConfig


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


@click.group(
    cls=Group, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="pyro-mivae")
def cli() -> None:
    """Mutual-information autoencoders: train one and see what it learned."""


@cli.command()
@click.argument("variant")
@data_options
@model_options
@training_options
@click.option(
    "--seeds",
    type=click.IntRange(1),
    help="train so many seeds, from --seed on, each into RUN/seed-K",
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
@trust_option
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
    trust: bool,
    **given: Any,
) -> None:
    """Train VARIANT (see `pyro-mivae list`), evaluate it, and write a report."""
    from pyro_mivae.runs import is_finished, train_run

    config = _config(variant, data, data_root, image_size, given)
    several = "" if seeds is None else "-seeds"
    name = f"{variant}-{Path(data or 'digits').resolve().stem}{several}"
    folder = folder or Path("runs") / name
    finished = resume and is_finished(folder)
    begun: list[bool] = []
    how: dict[str, Any] = {
        "resume": resume,
        "overwrite": overwrite,
        "trust": trust,
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
            raise Stopped(NOT_BEGUN) from None
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
    files = [name for name in FILES if (folder / name).is_file()]
    click.echo(f"written to {folder}: {', '.join(files)}, and its pictures as PNG")


def _config(
    variant: str,
    data: str | None,
    data_root: str | None,
    image_size: tuple[int, int] | None,
    given: Mapping[str, Any],
) -> RunConfig:
    """What was asked for; options that are not the model's are training's."""
    from pyro_mivae.runs import RunConfig

    keywords = {option.keyword for option in MODEL_OPTIONS}
    return RunConfig(
        variant,
        data,
        data_root,
        image_size,
        model={k: v for k, v in given.items() if k in keywords},
        training={k: v for k, v in given.items() if k not in keywords},
    )


def _train_seeds(config: RunConfig, folder: Path, seeds: int, how: dict[str, Any]) -> None:
    from pyro_mivae.runs import seeds_table, train_seeds

    train_seeds(config, folder, seeds, **how)
    click.echo(seeds_table(folder))
    click.echo(f"written to {folder}: seeds.json, and a run folder for each seed, seed-K")


SWEPT = ("beta", "mi_weight")
FILES = (
    "checkpoint.pt checkpoint.previous.pt config.toml history.csv metrics.json report.html".split()
)
NOT_BEGUN = "stopped before training began; nothing is kept of it"


@cli.command()
@click.argument("variant")
@click.option("--beta", metavar="B,B,...", callback=read_numbers, help="weights of the KL")
@click.option("--mi-weight", metavar="W,W,...", callback=read_numbers, help="of the information")
@click.option("--seeds", type=click.IntRange(1), help="how many, from --seed on  [default: 1]")
@data_options
@partial(model_options, without=SWEPT)
@training_options
@device_option
@click.option(
    "--run",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="where the table and the picture go  [default: runs/sweep-VARIANT-DATA]",
)
@click.option("--resume", is_flag=True, help="go on where the folder's sweep stopped")
@click.option("--overwrite", is_flag=True, help="throw the folder's sweep away")
@trust_option
def sweep(
    variant: str,
    seeds: int | None,
    data: str | None,
    data_root: str | None,
    image_size: tuple[int, int] | None,
    device: str,
    folder: Path | None,
    resume: bool,
    overwrite: bool,
    trust: bool,
    **given: Any,
) -> None:
    """Train VARIANT for every combination of weights: rate, distortion, information."""
    from pyro_mivae.runs import sweep_run

    grid = {name: value for name in SWEPT if (value := given.pop(name)) is not None}
    config = _config(variant, data, data_root, image_size, given)
    folder = folder or Path("runs") / f"sweep-{variant}-{Path(data or 'digits').resolve().stem}"
    begun: list[bool] = []
    try:
        found = sweep_run(
            config,
            folder,
            grid,
            seeds,
            resume=resume,
            overwrite=overwrite,
            trust=trust,
            device=device,
            progress=True,
            say=click.echo,
            on_start=lambda: begun.append(True),
        )
    except KeyboardInterrupt:
        if not (begun or (resume and (folder / "sweep.toml").is_file())):
            raise Stopped(NOT_BEGUN) from None
        go_on = shlex.join(["pyro-mivae", "sweep", variant, "--resume", "--run", str(folder)])
        raise Stopped(f"stopped; {folder} keeps what is done. Go on with: {go_on}") from None
    click.echo(found.table())
    for number, reason in found.failures.items():
        click.echo(f"model {number} broke down: {reason}", err=True)
    click.echo(f"written to {folder}: sweep.csv, sweep.json, sweep.png")


@cli.command()
@opened_run
@root_option
@device_option
@click.option("--full", is_flag=True, help="take all images and 5,000 importance samples of each")
@click.option("--iwae-samples", type=click.IntRange(1), help="importance samples of each image")
@click.option("--iwae-items", type=click.IntRange(1), help="how many images get them")
@click.option("--ais", "ais_items", type=click.IntRange(1), help="anneal so many images too")
@click.option("--ais-temperatures", type=click.IntRange(1), help="temperatures of each annealing")
def evaluate(
    run: Run, data_root: str | None, device: str, full: bool, **options: int | None
) -> None:
    """Measure RUN's model on its test images; writes RUN/metrics.json."""
    from pyro_mivae.runs import evaluate_run

    if options["ais_temperatures"] and not options["ais_items"]:
        raise click.UsageError("--ais-temperatures without --ais; say how many images to anneal")
    if not run.finished:
        click.echo(f"{run.folder} was not trained to its end: epoch {len(run.history)}", err=True)
    evaluate_run(
        run,
        run.dataset(data_root),
        device=device,
        full=full,
        progress=True,
        say=click.echo,
        **options,
    )
    click.echo(run.summary())
    click.echo(f"written to {run.folder / 'metrics.json'}")


@cli.command()
@opened_run
@root_option
@device_option
def report(run: Run, data_root: str | None, device: str) -> None:
    """Draw RUN's pictures and write one self-contained page, RUN/report.html."""
    from pyro_mivae.runs import report_run

    page = report_run(run, run.dataset(data_root), device=device)
    click.echo(f"written to {page}")


@cli.command()
@click.argument("folders", metavar="RUN RUN ...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="write compare.html to this folder")
@root_option
@overwrite_option
@trust_option
def compare(
    folders: tuple[Path, ...],
    out: Path | None,
    data_root: str | None,
    overwrite: bool,
    trust: bool,
) -> None:
    """Set runs side by side; a folder of several seeds counts as one, by its means."""
    from pyro_mivae.runs.compare import check_page, compare

    if out is not None:
        check_page(out, overwrite)
    comparison = compare(*folders, trust=trust)
    click.echo(comparison.table())
    if out is not None:
        page = comparison.write(out, root=data_root, overwrite=overwrite)
        click.echo(f"written to {page}")


@cli.command()
@opened_run
@click.option("--category", type=int, help="draw from this category alone")
@click.option("--n", "count", type=click.IntRange(1), default=64, show_default=True)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="a .png file")
@overwrite_option
def sample(
    run: Run, category: int | None, count: int, seed: int, out: Path, overwrite: bool
) -> None:
    """Draw images from RUN's prior, as a grid."""
    from pyro_mivae.runs import write_samples

    write_samples(run, out, count=count, category=category, seed=seed, overwrite=overwrite)
    click.echo(f"written to {out}")


@cli.command()
@opened_run
@click.option("--data", metavar="NAME|FILE.npz|FOLDER", required=True, help="what to encode")
@root_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="an .npz file")
@overwrite_option
def encode(run: Run, data: str, data_root: str | None, out: Path, overwrite: bool) -> None:
    """Encode images with RUN's model: one array per site, posterior means or probabilities."""
    from pyro_mivae.runs import write_codes

    shapes = write_codes(run, data, out, root=data_root, overwrite=overwrite)
    click.echo(f"written to {out}: " + ", ".join(f"{k} {s}" for k, s in shapes.items()))


@cli.command("list")
def list_all() -> None:
    """List variants, priors, guides, likelihoods, networks and data sets."""
    from pyro_mivae.runs.listing import listing

    click.echo(listing())


class Stopped(Exception):
    """Training that was stopped from the keyboard."""


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its code; a signal stops it once, see `stop_once`."""
    stop_once()
    code = run_command(args)
    ignore_further()
    sys.exit(code)


def run_command(args: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    _warned.clear()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            _refuse_empty(sys.argv[1:] if args is None else args)
            cli.main(args, prog_name="pyro-mivae", standalone_mode=False)
    except click.UsageError as error:
        command = "pyro-mivae" if error.ctx is None else error.ctx.command_path
        return _fail(f"{error.format_message()} (see {command} --help)", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except (TrainingError, WriteError) as error:
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


def _refuse_empty(args: Sequence[str]) -> None:
    """Refuses empty words, which a variable that was forgotten leaves in a shell."""
    for before, word in zip(["", *args], args):
        option, given, value = word.partition("=")
        if given and option.startswith("--"):
            before, word = option, value
        if not word.strip() or "\0" in word:
            name = before if before.startswith("--") else "an argument"
            raise click.UsageError(f"{name} is {word!r}; give it a value that is not empty")


_warned: set[str] = set()


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
        told = " ".join(str(message).split())
        if told not in _warned:
            click.echo(f"warning: {told}", err=True)
        _warned.add(told)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        click.echo(text, file=file, err=file is None, nl=False)


FLAGS = (
    {option.keyword: option.flag for option in MODEL_OPTIONS}
    | {
        name: "--" + name.replace("_", "-")
        for name in (
            "epochs batch_size lr lr_schedule clip_norm patience seed engine precision device "
            "image_size run out category resume overwrite trust"
        ).split()
    }
    | {"root": "--data-root", "data": "--data"}
)


def in_flags(message: str) -> str:
    """Says in flags what the library says in Python's keywords.

    Example:
        >>> in_flags("lr=-1.0; allowed are finite numbers above 0, or give resume=True")
        '--lr -1.0; allowed are finite numbers above 0, or give --resume'
    """
    names = "|".join(sorted(FLAGS, key=len, reverse=True))
    told = re.sub(rf"\b({names})=True\b", lambda found: FLAGS[found[1]], message)
    return re.sub(
        rf"(?<![\w.])({names})=(?=(\S?))", lambda f: FLAGS[f[1]] + " " * bool(f[2]), told
    )


def _fail(message: str, code: int) -> int:
    message = in_flags(message)
    click.echo("error: " + " ".join(message.split()), err=True)
    return code


if __name__ == "__main__":
    main()
