"""The command line: a thin layer over the public functions.

Exit codes: 0 success, 2 bad usage or bad input with one line on stderr, 1 anything else.
"""

from __future__ import annotations

import functools
import shlex
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click

from pyro_mivae import runs
from pyro_mivae.diagnostics import InformationOptions
from pyro_mivae.errors import PyroMivaeError, PyroMivaeWarning, TrainingError, WriteError, nearest
from pyro_mivae.interrupts import ignore_further, stop_once
from pyro_mivae.options import flags_of, kinds_of
from pyro_mivae.runs import ModelOptions, Run, RunConfig, open_run
from pyro_mivae.runs.build import listing
from pyro_mivae.runs.compare import check_page
from pyro_mivae.runs.config import DEFAULT_DATA, TARGETED
from pyro_mivae.runs.flags import in_flags, read_numbers, read_size, read_weight
from pyro_mivae.runs.run_folder import COMMANDS, CONFIG, KEPT, METRICS, REPORT, held
from pyro_mivae.training import TrainingOptions
from pyro_mivae.variants.encoding import Generated, What

SWEPT = ("beta", "mi_weight")
FILES = (*KEPT, CONFIG, METRICS, REPORT)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
DATA = "NAME|FILE.npz|FILE.npy|FILE.csv|FOLDER"
A_PATH = click.Path(path_type=Path)

device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda|cuda:N",
    help="device of the computation",
)
root_option = click.option(
    "--data-root",
    metavar="DIR",
    help="folder of torchvision's data sets; missing ones are downloaded",
)
trust_option = click.option(
    "--trust", is_flag=True, help="run the code that the run folder names; read it first"
)
overwrite_option = click.option("--overwrite", is_flag=True, help="replace an existing file")


def what_option(names: Any, told: str) -> Decorator:
    """Makes ``--what``, a choice of names, of which the mean is the default."""
    kinds = click.Choice(get_args(names))
    return click.option("--what", type=kinds, default="mean", show_default=True, help=told)


def opened_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--trust`` and the argument RUN; passes the opened run as ``run``."""

    @click.argument("folder", metavar="RUN", type=A_PATH)
    @trust_option
    @functools.wraps(command)
    def opens(folder: Path, trust: bool, **options: Any) -> Any:
        return command(run=open_run(folder, trust=trust), **options)

    return opens


def field_options(cls: type, several: Collection[str] = ()) -> list[Decorator]:
    """Makes a flag for each field of a dataclass; fields in ``several`` take a list."""
    flags, kinds = flags_of(cls), kinds_of(cls)
    made: list[Decorator] = []
    for f in fields(cls):
        how: dict[str, Any] = {"type": kinds[f.name], "metavar": f.metadata["metavar"]}
        if kinds[f.name] is bool:
            how = {"is_flag": True, "default": None}
        if f.name in TARGETED:
            how = {"type": read_weight, "metavar": "W|target:NATS"}
        if f.name in several:
            how = {"type": read_numbers, "metavar": "W,W,..."}
        made.append(click.option(flags[f.name], f.name, help=f.metadata["help"], **how))
    return made


def adds(options: list[Decorator]) -> Decorator:
    """Adds options, in the order of the help text."""
    return lambda command: functools.reduce(
        lambda made, add: add(made), reversed(options), command
    )


def trains(default_folder: str, swept: Collection[str] = ()) -> Decorator:
    """Adds the argument VARIANT and the options of a training, or of a sweep."""
    where = f"run folder  [default: {default_folder}]"
    several, at_once = "number of seeds, from --seed on", "number of models to train at once"
    return adds(
        [
            click.argument("variant"),
            click.option("--data", metavar=DATA, help="training data  [default: digits]"),
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
            click.option("--resume", is_flag=True, help="continue where its training stopped"),
            click.option("--overwrite", is_flag=True, help="delete its training"),
            trust_option,
        ]
    )


class Group(click.Group):
    """Group of commands; the error for an unknown command suggests similar names."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command."""
        if self.get_command(ctx, args[0]) is None:
            hint, known = nearest(args[0], self.commands), ", ".join(self.commands)
            raise click.UsageError(f"no command {args[0]!r}{hint}; allowed are {known}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=Group, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="pyro-mivae")
def cli() -> None:
    """Mutual-information autoencoders: train one and see what it learned."""


@cli.command()
@trains("runs/VARIANT-DATA, or runs/VARIANT-DATA-seeds")
@click.option("--labels", type=click.IntRange(1), help="labels to train with, drawn by --seed")
@click.option("--tensorboard", is_flag=True, help="also write the history for TensorBoard")
def train(folder: Path | None, seeds: int | None, **given: Any) -> None:
    """Train VARIANT, evaluate it, and write a report. See `pyro-mivae list`."""
    config, how = _asked(given)
    folder = folder or Path("runs") / (_name(config) + "-seeds" * (seeds is not None))
    words = ["train", config.variant]
    if seeds is not None:
        words += ["--seeds", str(seeds)]
        seed = config.training.get("seed")
        words += [] if seed is None else ["--seed", str(seed)]
        with _stopping(words, folder, how):
            runs.train_seeds(config, folder, seeds, **how)
        click.echo(runs.seeds_table(folder))
        click.echo(f"written to {folder}: seeds.json, and a run folder for each seed, seed-K")
        return
    finished = how["resume"] and runs.is_finished(folder)
    with _stopping(words, folder, how):
        run = runs.train_run(config, folder, **how)
    click.echo(run.summary())
    if not finished:
        files = [name for name in FILES if (folder / name).is_file()]
        click.echo(f"written to {folder}: {', '.join(files)}, and its pictures as PNG")


@cli.command()
@trains("runs/sweep-VARIANT-DATA", SWEPT)
def sweep(folder: Path | None, seeds: int | None, **given: Any) -> None:
    """Train a grid of weights of VARIANT. Compares rate, distortion and information."""
    grid = {name: value for name in SWEPT if (value := given.pop(name)) is not None}
    config, how = _asked(given)
    folder = folder or Path("runs") / f"sweep-{_name(config)}"
    with _stopping(["sweep", config.variant], folder, how):
        found = runs.sweep_run(config, folder, grid, seeds, **how)
    click.echo(found.table())
    for number, reason in found.failures.items():
        click.echo(f"model {number} broke down: {reason}", err=True)
    click.echo(f"written to {folder}: sweep.csv, sweep.json, sweep.png")


def _asked(given: Mapping[str, Any]) -> tuple[RunConfig, dict[str, Any]]:
    """Separates a training's configuration from the options of running it."""
    model = {f.name: given[f.name] for f in fields(ModelOptions) if f.name in given}
    training = {f.name: given[f.name] for f in fields(TrainingOptions)}
    what: Any = {k: given.get(k) for k in "variant data data_root image_size labels".split()}
    how = {k: v for k, v in given.items() if k not in model | training | what}
    config = RunConfig(**what, model=model, training=training)
    return config, {**how, "progress": True, "say": click.echo}


def _name(config: RunConfig) -> str:
    return f"{config.variant}-{Path(config.data or DEFAULT_DATA).resolve().stem}"


@contextmanager
def _stopping(words: list[str], folder: Path, how: dict[str, Any]) -> Iterator[None]:
    """Prints how to continue a training that was stopped from the keyboard."""
    begun: list[bool] = []
    how["on_start"] = lambda: begun.append(True)
    try:
        yield
    except KeyboardInterrupt:
        if not (begun or (how["resume"] and held(folder) in COMMANDS)):
            raise Stopped("stopped before training began; nothing was saved") from None
        kept = any(folder.rglob("checkpoint.pt"))
        told = "keeps the finished part" if kept else "holds no complete epoch yet"
        go_on = shlex.join(["pyro-mivae", *words, "--resume", "--run", str(folder)])
        raise Stopped(f"stopped; {folder} {told}. Continue with: {go_on}") from None


@cli.command()
@opened_run
@root_option
@device_option
@click.option("--full", is_flag=True, help="use all images and 5,000 importance samples of each")
@adds(field_options(InformationOptions))
def evaluate(run: Run, data_root: str | None, device: str, **options: Any) -> None:
    """Measure RUN on its test images. Writes RUN/metrics.json."""
    if options["ais_temperatures"] and not options["ais_items"]:
        raise click.UsageError("--ais-temperatures without --ais; give the number of images too")
    if not run.finished:
        click.echo(f"{run.folder} was not trained to the end: epoch {len(run.history)}", err=True)
    how: dict[str, Any] = {"device": device, "progress": True, "say": click.echo}
    runs.evaluate_run(run, run.dataset(data_root), **how, **options)
    click.echo(run.summary())
    click.echo(f"written to {run.folder / 'metrics.json'}")


@cli.command()
@opened_run
@root_option
@device_option
def report(run: Run, data_root: str | None, device: str) -> None:
    """Draw RUN's pictures. Writes one self-contained page, RUN/report.html."""
    click.echo(f"written to {runs.report_run(run, run.dataset(data_root), device=device)}")


@cli.command()
@click.argument("folders", metavar="RUN RUN ...", nargs=-1, type=A_PATH)
@click.option("--out", type=A_PATH, help="write compare.html to this folder")
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
    """Compare runs. A folder of several seeds counts as one, by its means."""
    if out is not None:
        check_page(out, overwrite)
    comparison = runs.compare(*folders, trust=trust)
    click.echo(comparison.table())
    if out is not None:
        page = comparison.write(out, root=data_root, overwrite=overwrite)
        click.echo(f"written to {page}")


@cli.command()
@opened_run
@click.option("--category", type=int, help="draw only from this category")
@what_option(Generated, "the likelihood's means, or data drawn from it")
@click.option("--n", "count", type=click.IntRange(1), default=64, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--out", type=A_PATH, required=True, help="a .png file")
@overwrite_option
def sample(run: Run, out: Path, **options: Any) -> None:
    """Draw images from RUN's prior, as a grid."""
    runs.write_samples(run, out, **options)
    click.echo(f"written to {out}")


@cli.command()
@opened_run
@click.option("--data", metavar=DATA, required=True, help="images to encode")
@root_option
@what_option(What, "means (of a category its probabilities), standard deviations, or draws")
@click.option("--draws", "num_draws", type=click.IntRange(1), help="draws of each code")
@click.option("--out", type=A_PATH, required=True, help="an .npz file")
@overwrite_option
def encode(run: Run, data: str, data_root: str | None, out: Path, **options: Any) -> None:
    """Encode images. Writes arrays of their posterior.

    The file holds, in the order of the data: an array per site, (n, size), of draws (draws, n,
    size); beside means SITE_sd, the standard deviations of a continuous site; split, train or
    test, as a training on these data splits them; and labels, indices into class_names, if any.
    """
    shapes = runs.write_codes(run, data, out, root=data_root, **options)
    click.echo(f"written to {out}: " + ", ".join(f"{k} {s}" for k, s in shapes.items()))


@cli.command("list")
def list_all() -> None:
    """List variants, priors, guides, likelihoods, networks and data sets."""
    click.echo(listing())


class Stopped(Exception):
    """A training was stopped from the keyboard."""


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its code. A signal stops it once, see `stop_once`."""
    stop_once()
    code = run_command(args)
    ignore_further()
    sys.exit(code)


def run_command(args: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    _warned.clear()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn  # type: ignore[assignment]
            _refuse_empty(sys.argv[1:] if args is None else args)
            cli.main(args, prog_name="pyro-mivae", standalone_mode=False)
    except click.UsageError as error:
        command = "pyro-mivae" if error.ctx is None else error.ctx.command_path
        return _fail(f"{error.format_message()} (see {command} --help)", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except PyroMivaeError as error:
        return _fail(str(error), 1 if isinstance(error, TrainingError | WriteError) else 2)
    except Stopped as error:
        click.echo(str(error), err=True)
        return 1
    except (KeyboardInterrupt, click.Abort):
        return _fail("stopped", 1)
    except click.exceptions.Exit as error:
        return error.exit_code
    return 0


def _refuse_empty(args: Sequence[str]) -> None:
    """Refuses empty words: a shell passes them for unset variables."""
    for before, word in zip(["", *args], args):
        option, given, value = word.partition("=")
        if given and option.startswith("--"):
            before, word = option, value
        if not word.strip() or "\0" in word:
            name = before if before.startswith("--") else "an argument"
            raise click.UsageError(f"{name} is {word!r}; give it a value that is not empty")


_warned: set[str] = set()


def _warn(message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Shows our own warnings once, as one line, and others as Python does."""
    if issubclass(category, PyroMivaeWarning):
        told = " ".join(str(message).split())
        if told not in _warned:
            click.echo(f"warning: {told}", err=True)
        _warned.add(told)
    else:
        filename, lineno, file, line = (*place, None, None)[:4]
        text = warnings.formatwarning(message, category, filename, lineno, line)
        click.echo(text, file=file, err=file is None, nl=False)


def _fail(message: str, code: int) -> int:
    click.echo("error: " + " ".join(in_flags(message).split()), err=True)
    return code


if __name__ == "__main__":
    main()
