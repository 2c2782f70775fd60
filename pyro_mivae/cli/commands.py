"""The commands: a thin layer over the public functions."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import click

from pyro_mivae import runs
from pyro_mivae.cli.names import COMMANDS, Stopped
from pyro_mivae.cli.new import KINDS, write_skeleton
from pyro_mivae.cli.options import (
    A_PATH,
    OTHER,
    Command,
    Decorator,
    adds,
    completing,
    device_option,
    field_options,
    given_option,
    opened_run,
    option,
    overwrite_option,
    read_size,
    root_option,
    trust_option,
)
from pyro_mivae.data import DATASETS
from pyro_mivae.diagnostics import InformationOptions
from pyro_mivae.errors import OptionError, RankError
from pyro_mivae.interrupts import stop_once
from pyro_mivae.ranks import Ranks, process_group, working
from pyro_mivae.runs import ModelOptions, Run, RunConfig
from pyro_mivae.runs.build import listing, named_programs, names
from pyro_mivae.runs.compare import check_page
from pyro_mivae.runs.config import DEFAULT_DATA
from pyro_mivae.runs.run_folder import CONFIG, KEPT, MADE_BY, METRICS, REPORT, SEEDS, defined, held
from pyro_mivae.training import TrainingOptions
from pyro_mivae.variants import VARIANTS
from pyro_mivae.variants.encoding import Generated, What

TOGETHER = ("train", "sweep", "evaluate")  # by several processes
SWEPT = ("beta", "mi_weight")
FILES = (*KEPT, CONFIG, METRICS, REPORT)
ENCODED = (
    "an .npz file, in the order of the data: an array per site, (n, size), for draws (draws, n, "
    "size); beside means SITE_sd, the standard deviations of a continuous site; split, train or "
    "test, as a training on these data splits them; labels, indices into class_names, if any"
)
DATA = "NAME|FILE.npz|FILE.npy|FILE.csv|FOLDER"


@dataclass(frozen=True)
class Output:
    """Prints messages and results, as ``--quiet`` and ``--json`` ask for."""

    quiet: bool = False
    as_json: bool = False

    @property
    def progress(self) -> bool:
        """True if bars may be shown."""
        return not self.quiet

    def say(self, message: str) -> None:
        """Prints a message; beside JSON it goes to stderr."""
        if not self.quiet:
            click.echo(message, err=self.as_json)

    def result(self, text: str, **values: Any) -> None:
        """Prints a result, as text or as JSON."""
        if self.as_json:
            click.echo(json.dumps(defined(values), indent=2, ensure_ascii=False))
        else:
            self.say(text)


def command(name: str, *examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a command with ``--quiet`` and ``--json``, and examples in its help."""
    lines = (f"  pyro-mivae {name} {example}".rstrip() for example in examples)
    epilog = "\b\nExamples:\n" + "\n".join(lines)
    outputs: list[Decorator] = [
        option("--quiet", "-q", group=OTHER, is_flag=True, help="print errors and warnings alone"),
        option("--json", "as_json", group=OTHER, is_flag=True, help="print the result as JSON"),
    ]

    def decorate(function: Callable[..., Any]) -> click.Command:
        def run(quiet: bool, as_json: bool, **given: Any) -> None:
            stop_once()
            with process_group() as ranks:
                if ranks.is_first:
                    function(output=Output(quiet, as_json), **given)
                elif name in TOGETHER:
                    function(output=Output(quiet=True), **given)

        run.__dict__.update(vars(function))  # click keeps the options there
        make = click.command(name, cls=Command, help=COMMANDS[name], epilog=epilog)
        return make(adds(outputs)(run))

    return decorate


def what_option(names: Any, told: str) -> Decorator:
    """Makes ``--what``, a choice of names, of which the mean is the default."""
    kinds: Any = click.Choice(get_args(names))
    how = {"type": kinds, "default": "mean", "show_default": True, "help": told}
    return option("--what", group="Output", **how)


def data_option(told: str, **how: Any) -> Decorator:
    """Makes ``--data``, a name or a file."""
    how |= {"metavar": DATA, "shell_complete": completing(DATASETS, files=True), "help": told}
    return option("--data", group="Data", **how)


def trains(default_folder: str, swept: Collection[str] = ()) -> Decorator:
    """Adds the argument VARIANT and the options of a training, or of a sweep."""
    where = f"run folder  [default: {default_folder}]"
    several, at_once = "number of seeds, from --seed on", "number of models to train at once"
    stored = "TOML file of options, as the config.toml of a run; flags override it"
    run = "Run"
    return adds(
        [
            click.argument("variant", shell_complete=completing(VARIANTS)),
            data_option("training data  [default: digits]"),
            root_option,
            given_option("condition of each datum, a row for each in the order of the data"),
            option(
                "--image-size",
                group="Data",
                metavar="N|HxW",
                type=read_size,
                help="resize the images",
            ),
            *field_options(ModelOptions, swept),
            *field_options(TrainingOptions, group="Training"),
            option("--config", group=run, metavar="FILE", type=A_PATH, help=stored),
            option("--seeds", group=run, type=click.IntRange(1), help=several),
            option("--jobs", group=run, type=click.IntRange(1), default=1, help=at_once),
            option("--run", "folder", group=run, metavar="DIR", type=A_PATH, help=where),
            option("--resume", group=run, is_flag=True, help="continue where it stopped"),
            option("--overwrite", group=run, is_flag=True, help="delete the folder's training"),
            device_option,
            trust_option,
        ]
    )


@command("train", "infocat", "cat --labels 100 --epochs 20", "vae --prior vamp --seeds 5")
@trains("runs/VARIANT-DATA, or runs/VARIANT-DATA-seeds")
@option("--labels", group="Data", type=click.IntRange(1), help="labels to use, drawn by --seed")
@option("--tensorboard", group="Run", is_flag=True, help="also log the history for TensorBoard")
def train(folder: Path | None, seeds: int | None, output: Output, **given: Any) -> None:
    """Trains one run, or a run for each of several seeds."""
    config, how = _asked(given, output)
    folder = folder or Path("runs") / (_name(config) + "-seeds" * (seeds is not None))
    words = ["train", config.variant]
    if seeds is not None:
        words += ["--seeds", str(seeds)]
        seed = config.training.get("seed")
        words += [] if seed is None else ["--seed", str(seed)]
        with _stopping(words, folder, how):
            runs.train_seeds(config, folder, seeds, **how)
        content = json.loads((folder / SEEDS).read_text(encoding="utf-8"))
        output.result(runs.seeds_table(folder), run=folder, **content)
        output.say(f"written to {folder}: seeds.json, and a run folder for each seed, seed-K")
        return
    finished = how["resume"] and runs.is_finished(folder)
    with _stopping(words, folder, how):
        run = runs.train_run(config, folder, **how)
    output.result(run.summary(), run=folder, metrics=run.measured()[0])
    if not finished:
        files = [name for name in FILES if (folder / name).is_file()]
        output.say(f"written to {folder}: {', '.join(files)}, and its pictures as PNG")


@command("sweep", "beta --beta 0.25,1,4 --epochs 20", "infocat --mi-weight 0,5 --seeds 3")
@trains("runs/sweep-VARIANT-DATA", SWEPT)
def sweep(folder: Path | None, seeds: int | None, output: Output, **given: Any) -> None:
    """Trains a grid of weights."""
    grid = {name: value for name in SWEPT if (value := given.pop(name)) is not None}
    config, how = _asked(given, output)
    folder = folder or Path("runs") / f"sweep-{_name(config)}"
    with _stopping(["sweep", config.variant], folder, how):
        found = runs.sweep_run(config, folder, grid, seeds, **how)
    output.result(found.table(), run=folder, rows=found.rows, failures=found.failures)
    for number, reason in found.failures.items():
        click.echo(f"model {number} broke down: {reason}", err=True)
    output.say(f"written to {folder}: sweep.csv, sweep.json, sweep.png")


def _asked(given: dict[str, Any], output: Output) -> tuple[RunConfig, dict[str, Any]]:
    """Separates a training's configuration from the options of running it."""
    stored = given.pop("config")
    model = {f.name: given[f.name] for f in fields(ModelOptions) if f.name in given}
    training = {f.name: given[f.name] for f in fields(TrainingOptions)}
    what: Any = {k: given.get(k) for k in "variant data data_root image_size given labels".split()}
    how = {k: v for k, v in given.items() if k not in model | training | what}
    config = RunConfig(**what, model=model, training=training)
    if stored is not None:
        read = RunConfig.read_options(stored, config.variant)
        code = named_programs(read) - named_programs(config)
        if code and not how["trust"]:
            raise OptionError(
                f"--config {stored} names code, for {', '.join(sorted(code))}; read that file, "
                "then give --trust to run it"
            )
        config = config.over(read)
    return config, {**how, "progress": output.progress, "say": output.say}


def _name(config: RunConfig) -> str:
    return f"{config.variant}-{Path(config.data or DEFAULT_DATA).resolve().stem}"


@contextmanager
def _stopping(words: list[str], folder: Path, how: dict[str, Any]) -> Iterator[None]:
    """Prints how to continue a training that was stopped from the keyboard, or by a process."""
    begun: list[bool] = []
    size = Ranks.of_group().size
    program = f"torchrun --nproc-per-node {size} -m -- pyro_mivae" if size > 1 else "pyro-mivae"
    go_on = f"{program} {shlex.join([*words, '--resume', '--run', str(folder)])}"
    how["on_start"] = lambda: begun.append(True)
    try:
        yield
    except KeyboardInterrupt:
        if not (begun or (how["resume"] and held(folder) in MADE_BY)):
            raise Stopped("stopped before training began; nothing was saved") from None
        kept = any(folder.rglob("checkpoint.pt"))
        told = "keeps the finished part" if kept else "holds no complete epoch yet"
        raise Stopped(f"stopped; {folder} {told}. Continue with: {go_on}") from None
    except RankError as error:
        raise RankError(f"{error}. Continue with: {go_on}") from error


@command("evaluate", "runs/infocat-digits", "runs/infocat-digits --ais 20 --json")
@opened_run
@root_option
@device_option
@option(
    "--full",
    group="Figures",
    is_flag=True,
    help="use all images and 5,000 importance samples of each",
)
@adds(field_options(InformationOptions, group="Figures"))
def evaluate(run: Run, data_root: str | None, device: str, output: Output, **options: Any) -> None:
    """Measures a run, and writes ``metrics.json``."""
    if options["ais_temperatures"] and not options["ais_items"]:
        raise click.UsageError("--ais-temperatures without --ais; give the number of images too")
    if not run.finished:
        click.echo(f"{run.folder} was not trained to the end: epoch {len(run.history)}", err=True)
    how: dict[str, Any] = {"device": device, "progress": output.progress, "say": output.say}
    ranks = Ranks.of_group()
    with working(ranks):
        metrics = runs.evaluate_run(run, run.dataset(data_root), **how, **options)
    ranks.wait()
    output.result(run.summary(), run=run.folder, metrics=metrics)
    output.say(f"written to {run.folder / 'metrics.json'}")


@command("report", "runs/infocat-digits")
@opened_run
@root_option
@device_option
def report(run: Run, data_root: str | None, device: str, output: Output) -> None:
    """Draws a run's page."""
    data = run.dataset(data_root)
    page = runs.report_run(run, data, device=device, progress=output.progress)
    output.result(f"written to {page}", page=page)


@command("compare", "runs/infocat-digits runs/cat-digits --out runs")
@click.argument("folders", metavar="RUN RUN ...", nargs=-1, type=A_PATH)
@option("--out", group="Output", type=A_PATH, help="folder to write compare.html to")
@root_option
@overwrite_option
@trust_option
def compare(
    folders: tuple[Path, ...],
    out: Path | None,
    data_root: str | None,
    overwrite: bool,
    trust: bool,
    output: Output,
) -> None:
    """Compares runs; a folder of several seeds counts as one, by its means."""
    if out is not None:
        check_page(out, overwrite)
    comparison = runs.compare(*folders, trust=trust)
    metrics = {side.name: side.metrics for side in comparison.sides}
    output.result(comparison.table(), metrics=metrics, warnings=comparison.warnings)
    if out is not None:
        page = comparison.write(out, root=data_root, overwrite=overwrite)
        output.say(f"written to {page}")


@command("sample", "runs/infocat-digits --category D --out grid.png")
@opened_run
@option(
    "--category",
    group="Output",
    multiple=True,
    metavar="[SITE=]CATEGORY",
    help="draw only from this category, a letter or number; of each site, if there are several",
)
@what_option(Generated, "the likelihood's means, or data drawn from it")
@given_option("their conditions, the file's rows in turn; or a label, that of all", "FILE|LABEL")
@option(
    "--n",
    "count",
    group="Output",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="number of images",
)
@option(
    "--seed",
    group="Output",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="seed of the draws",
)
@option("--out", group="Output", type=A_PATH, required=True, help="a .png file")
@overwrite_option
def sample(run: Run, out: Path, output: Output, **options: Any) -> None:
    """Draws images from a run's prior."""
    options["category"] = _chosen_categories(options["category"])
    options["given"] = _number_or_text(options["given"])
    runs.write_samples(run, out, **options)
    output.result(f"written to {out}", out=out)


def _chosen_categories(texts: tuple[str, ...]) -> Any:
    """Reads a category, or those of several sites, as `Variant.sample` takes them."""
    pairs = [text.rpartition("=")[::2] for text in texts]
    if not all(site for site, _ in pairs) and len(pairs) > 1:
        raise OptionError(f"category={', '.join(texts)}: name each of several as SITE=CATEGORY")
    chosen = {site: _number_or_text(category) for site, category in pairs}
    return chosen.get("", chosen or None)


def _number_or_text(text: str | None) -> int | str | None:
    return int(text) if text and text.isdecimal() else text


@command("encode", "runs/infocat-digits --data digits --out codes.npz")
@opened_run
@data_option("images to encode", required=True)
@root_option
@given_option("their condition, if the run has one")
@what_option(What, "means (for a category its probabilities), standard deviations, or draws")
@option("--draws", "num_draws", group="Output", type=click.IntRange(1), help="draws of each code")
@option("--out", group="Output", type=A_PATH, required=True, help=ENCODED)
@overwrite_option
def encode(
    run: Run, data: str, data_root: str | None, out: Path, output: Output, **options: Any
) -> None:
    """Writes the arrays of a posterior, with labels and split."""
    shapes = runs.write_codes(run, data, out, root=data_root, **options)
    told = ", ".join(f"{k} {s}" for k, s in shapes.items())
    output.result(f"written to {out}: {told}", out=out, shapes=shapes)


@command("list", "")
def list_all(output: Output) -> None:
    """Lists the names that options take."""
    output.result(listing(), **names())


@command("new", "prior my_prior.py", "guide my_guide.py", "term my_term.py")
@click.argument("kind", metavar="|".join(KINDS), type=click.Choice(KINDS))
@click.argument("file", metavar="FILE.py", type=A_PATH)
@overwrite_option
def new(kind: str, file: Path, overwrite: bool, output: Output) -> None:
    """Writes a file that passes ``mi.check`` and trains."""
    write_skeleton(kind, file, overwrite=overwrite)
    output.result(f"written to {file}; run it: python {file}", out=file)
