"""Configurations of runs, as Python and as TOML."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any

from pyro_mivae.arguments import (
    Checker,
    choice,
    flag,
    instance,
    number,
    path,
    shape,
    shown,
    text,
    whole,
)
from pyro_mivae.data import DATASETS, FINGERPRINTS, Dataset, load_dataset
from pyro_mivae.data.dataset import image_sides
from pyro_mivae.errors import OptionError, RunError, nearest
from pyro_mivae.options import checks_of, flags_of, kinds_of, option
from pyro_mivae.training import TrainingOptions, atomic_path, versions
from pyro_mivae.variants import VARIANTS, Variant
from pyro_mivae.variants.options import copied


@dataclass(frozen=True)
class ModelParts:
    """Parts of a model that a run names."""

    network: str | None = option(None, check=text(), help="auto, or NAME")
    prior: str | None = option(None, check=path(), help="NAME, or FILE.py:NAME of your own")
    guide: str | None = option(None, check=path(), help="NAME, or FILE.py:NAME of your own")


_ALL = [*(variant.options() for variant in VARIANTS.values()), ModelParts]
_FIELDS = {f.name: (f.name, f.type, copied(f)) for options in _ALL for f in fields(options)}
ModelOptions = make_dataclass("ModelOptions", _FIELDS.values(), kw_only=True)
"""Options of any variant."""

# For a data set and a variant; "*" is any. Later rows overrule earlier ones, and what is given
# overrules all. Keys are keywords of `fit`, or of variants (left out where one does not take it).
DEFAULTS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("digits", "*", {"epochs": 80}),
    ("digits", "infogan", {"epochs": 300}),
    ("mnist", "*", {"epochs": 10, "batch_size": 256, "warm_start": 1500}),
    ("fashion-mnist", "*", {"epochs": 10, "batch_size": 256, "warm_start": 1500}),
    ("mnist", "infogan", {"epochs": 15, "batch_size": 128}),
    ("fashion-mnist", "infogan", {"epochs": 15, "batch_size": 128}),
)
TOLD = ("epochs", "batch_size", "lr", "lr_schedule", "seed")  # that every configuration holds
STEPS_ELSEWHERE = 10_000  # aimed at where no row says how many epochs


def default_options(data: str, variant: str, num_images: int) -> dict[str, Any]:
    """Returns the options of a training, and of its model, where nothing else is asked for."""
    options: dict[str, Any] = {
        f.name: f.default for f in fields(TrainingOptions) if f.name in TOLD[1:]
    }
    for of_data, of_variant, values in DEFAULTS:
        if of_data == data and of_variant in ("*", variant):
            options |= values
    if "epochs" not in options:
        per_epoch = -(-num_images // options["batch_size"])
        options["epochs"] = min(max(10, round(STEPS_ELSEWHERE / per_epoch)), 300)
    return options


def find_variant(name: str) -> type[Variant]:
    """Returns the class of a variant."""
    if name not in VARIANTS:
        hint = nearest(name, VARIANTS)
        raise OptionError(f"no variant {name!r}{hint}; allowed are {', '.join(VARIANTS)}")
    return VARIANTS[name]


def plain_defaults(variant: str) -> dict[str, Any]:
    """Returns a variant's own options and their defaults, those that a file can hold."""
    return {
        f.name: f.default
        for f in fields(find_variant(variant).options())
        if isinstance(f.default, bool | int | float | str | None)
    }


def check_model_options(variant: str, given: Mapping[str, Any]) -> None:
    """Refuses options that a variant has no use for."""
    taken = flags_of(find_variant(variant).options()) | flags_of(ModelParts)
    for name in given:
        if name not in taken:
            flag, allowed = flags_of(ModelOptions).get(name, name), ", ".join(taken.values())
            raise OptionError(f"the variant {variant!r} has no use for {flag}; it takes {allowed}")


DEFAULT_DATA = "digits"
PROGRAMS = ("prior", "guide")  # options that may name a file's code
OPTIONS = checks_of(TrainingOptions)


KINDS: dict[type, Checker] = {int: whole(), float: number(), bool: flag(), str: text()}
MODEL = {  # by type alone: the bounds are the variant's own
    name: path() if name in PROGRAMS else KINDS[kind]
    for name, kind in kinds_of(ModelOptions).items()
}
STORED: dict[str, Checker | dict[str, Checker]] = {
    "variant": choice(*VARIANTS),
    "data": path(),
    "data_root": path(),
    "image_size": image_sides(),
    "data_shape": shape(),
    "model": MODEL,
    "training": OPTIONS,
    "programs": dict.fromkeys(PROGRAMS, text()),
    "fingerprints": dict.fromkeys(FINGERPRINTS, text()),
    "versions": dict.fromkeys(versions(), text()),
}
NEEDED: dict[str, tuple[str, ...]] = {
    "": ("variant", "data", "data_shape", "model", "training", "fingerprints", "versions"),
    "training.": TOLD,
    "fingerprints.": FINGERPRINTS,
    "versions.": tuple(versions()),
}
FLAGS = flags_of(ModelOptions) | flags_of(TrainingOptions)


UNSAID = {f.name: f.default for f in fields(TrainingOptions)} | {"network": "auto"}
"""Values of options that a run's configuration leaves out."""


@dataclass(frozen=True)
class RunConfig:
    """A model, its data and its training; `complete` fills in what is left out."""

    variant: str
    data: str | None = None  # name of a data set, or path of a file or folder
    data_root: str | None = None
    image_size: tuple[int, int] | None = None
    model: Mapping[str, Any] = field(default_factory=dict)  # see `ModelOptions`
    training: Mapping[str, Any] = field(default_factory=dict)  # see `TrainingOptions`
    # filled in:
    data_shape: tuple[int, ...] | None = None
    programs: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of files that model names
    fingerprints: Mapping[str, str] = field(default_factory=dict)  # of the data
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        text()("variant", self.variant)
        for name in ("data", "data_root", "image_size"):
            if getattr(self, name) is not None:
                value = STORED[name](name, getattr(self, name))  # type: ignore[operator]
                object.__setattr__(self, name, value)
        for table, checks in (("model", MODEL), ("training", OPTIONS)):
            given = instance(Mapping, example="{'beta': 2.0}")(table, getattr(self, table))
            plain = {name: value for name, value in given.items() if value is not None}
            for name in plain.keys() & checks.keys():
                plain[name] = checks[name](name, plain[name])
            object.__setattr__(self, table, plain)
        unknown = self.training.keys() - OPTIONS.keys()
        if unknown:
            raise OptionError(f"training={min(unknown)!r}; allowed are {', '.join(OPTIONS)}")

    def complete(self, dataset: Dataset) -> RunConfig:
        """Fills in the defaults, which depend on the data."""
        taken = plain_defaults(self.variant)
        data = self.data or DEFAULT_DATA
        defaults = default_options(data, self.variant, len(dataset.x_train))
        model = {**taken, **{k: v for k, v in defaults.items() if k in taken}, **self.model}
        training = {k: v for k, v in defaults.items() if k in OPTIONS}
        return replace(
            self,
            data=absolute_path(data),
            data_root=None if self.data_root is None else str(Path(self.data_root).resolve()),
            model={k: absolute_program(v) for k, v in model.items() if v is not None},
            training={**training, **self.training},
            data_shape=dataset.data_shape,
            fingerprints=dataset.fingerprints,
            versions=versions(),
        )

    def resumed_from(self, stored: RunConfig, folder: Path) -> RunConfig:
        """Takes a stored run's configuration on, if nothing that is given contradicts it."""
        given: dict[str, Any] = {}
        if self.data is not None:
            given["--data"] = absolute_path(self.data), stored.data
        if self.image_size is not None:
            given["--image-size"] = self.image_size, stored.image_size
        for ours, theirs in ((self.model, stored.model), (self.training, stored.training)):
            for name, value in ours.items():
                known = theirs.get(name, UNSAID.get(name))
                given[FLAGS[name]] = absolute_program(value), known
        if self.variant != stored.variant:
            go_on = f"give {stored.variant}"
            raise started_with("VARIANT", self.variant, stored.variant, folder, go_on)
        for flag_, (value, known) in given.items():
            if value != known:
                raise started_with(flag_, value, known, folder)
        return replace(stored, data_root=self.data_root or stored.data_root)

    def over(self, stored: RunConfig) -> RunConfig:
        """Takes from a stored run of the same variant what is not given here."""
        if self.variant != stored.variant:
            return self
        return replace(
            stored,
            data=self.data or stored.data,
            data_root=self.data_root or stored.data_root,
            image_size=self.image_size or stored.image_size,
            model={**stored.model, **self.model},
            training={**stored.training, **self.training},
        )

    def load_dataset(self, root: str | Path | None = None) -> Dataset:
        """Loads the data, split."""
        return load_dataset(
            self.data or DEFAULT_DATA, root=root or self.data_root, image_size=self.image_size
        )

    @property
    def command(self) -> str:
        """The command that makes the same run."""
        words = ["pyro-mivae", "train", self.variant, "--data", self.data or DEFAULT_DATA]
        if self.image_size is not None:
            words += ["--image-size", "{}x{}".format(*self.image_size)]
        for keyword, value in {**self.model, **self.training}.items():
            if value is not False:
                words += [FLAGS[keyword]] + ([] if value is True else [str(value)])
        return shlex.join(words)

    def describe(self) -> dict[str, Any]:
        """Gives all of it as plain values, with the command beside them."""
        return {**_set(asdict(self)), "command": self.command}

    def write(self, path: Path) -> None:
        """Writes the configuration as TOML."""
        with atomic_path(path) as scratch:
            scratch.write_text(self.dumps(), encoding="utf-8")

    def dumps(self) -> str:
        """Returns the configuration as TOML."""
        import tomli_w

        return tomli_w.dumps(_set(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        """Reads what `write` wrote."""
        try:
            content = _checked(tomllib.loads(path.read_text(encoding="utf-8")), STORED)
            return cls(**content)
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"cannot read the run's configuration {path}: {error}") from error


def started_with(
    name: str, given: object, known: object, folder: Path, go_on: str = "leave it out"
) -> OptionError:
    """The error on an option that is not the one that a folder's training was started with."""
    return OptionError(
        f"{name} {given} given, but the training in {folder} was started with {known}; {go_on} to "
        "resume, or start anew with --overwrite"
    )


def absolute_path(data: str) -> str:
    """Makes a path absolute, so that the run can be read from anywhere; a name stays."""
    return data if data in DATASETS else str(Path(data).resolve())


def names_file(value: Any) -> bool:
    """Tells ``FILE.py:NAME`` from every other value of an option."""
    return isinstance(value, str) and ":" in value


def absolute_program(value: Any) -> Any:
    """Makes the file of ``FILE.py:NAME`` absolute; every other value stays."""
    if not names_file(value):
        return value
    file, name = value.rsplit(":", 1)
    return f"{Path(file).resolve()}:{name}"


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _checked(
    content: Any, checks: Mapping[str, Checker | dict[str, Checker]], table: str = ""
) -> dict[str, Any]:
    """Checks a table of a stored configuration, and those within it."""
    if not isinstance(content, dict):
        raise OptionError(f"{table[:-1]}={shown(content)}; allowed are tables, [{table[:-1]}]")
    needed = NEEDED.get(table, ())
    missing = [name for name in needed if name not in content]
    if missing:
        raise OptionError(f"{table}{missing[0]} is missing; needed are {', '.join(needed)}")
    values = {}
    for name, value in content.items():
        check = checks.get(name)
        if check is None:
            raise OptionError(f"{table}{name}={shown(value)}; allowed are {', '.join(checks)}")
        if isinstance(check, dict):
            values[name] = _checked(value, check, f"{name}.")
        else:
            values[name] = check(table + name, value)
    return values
