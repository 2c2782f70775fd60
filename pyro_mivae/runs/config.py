"""Configurations of runs, in Python and TOML."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from torch import Tensor

from pyro_mivae.arguments import (
    Checker,
    Given,
    checker,
    flag,
    number,
    path,
    shape,
    shown,
    text,
    whole,
)
from pyro_mivae.data import CONDITION, DATASETS, FINGERPRINTS, Dataset, keep_labels, load_dataset
from pyro_mivae.data.dataset import image_sides
from pyro_mivae.errors import OptionError, RunError, nearest
from pyro_mivae.guides import FAMILIES
from pyro_mivae.networks import NETWORKS
from pyro_mivae.options import checks_of, flags_of, kinds_of, option
from pyro_mivae.priors import PRIORS
from pyro_mivae.schedules import TARGET, written_weight
from pyro_mivae.training import TrainingOptions, versions, write_file
from pyro_mivae.variants import VARIANTS, Variant
from pyro_mivae.variants.options import copied, takes_target


@dataclass(frozen=True)
class ModelParts:
    """Model parts of a run, by name."""

    network: str | None = option(
        None,
        check=path(),
        names=("auto", *NETWORKS),
        help="encoder and decoder, or FILE.py:NAME of your own",
    )
    prior: str | None = option(
        None, check=path(), names=tuple(PRIORS), help="prior, or FILE.py:NAME of your own"
    )
    guide: str | None = option(
        None, check=path(), names=tuple(FAMILIES), help="guide, or FILE.py:NAME of your own"
    )


_ALL = [*(variant.options() for variant in VARIANTS.values()), ModelParts]
_FIELDS = {f.name: (f.name, f.type, copied(f)) for options in _ALL for f in fields(options)}
ModelOptions = make_dataclass("ModelOptions", _FIELDS.values(), kw_only=True)
"""Options of any variant."""
TARGETED = frozenset(
    name
    for options in (*_ALL, TrainingOptions)
    for name, hint in get_type_hints(options).items()
    if takes_target(hint)
)
"""Options that hold a number, or ``target:N``."""

# For a data set and a variant; "*" is any. Later rows overrule earlier ones, and what is given
# overrules all. Keys are keywords of `fit`, or of variants (left out where one does not take it).
DEFAULTS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("digits", "*", {"epochs": 40}),
    ("digits", "infogan", {"epochs": 300}),
    ("mnist", "*", {"epochs": 10, "batch_size": 256}),
    ("fashion-mnist", "*", {"epochs": 10, "batch_size": 256}),
    ("mnist", "infogan", {"epochs": 15, "batch_size": 128}),
    ("fashion-mnist", "infogan", {"epochs": 15, "batch_size": 128}),
)
TOLD = ("epochs", "batch_size", "lr", "lr_schedule", "seed")  # that every configuration holds
STEPS_ELSEWHERE = 10_000  # target if no row gives the number of epochs


def default_options(data: str, variant: str, num_images: int) -> dict[str, Any]:
    """Returns the default options of a training and its model."""
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
    """Returns a variant's own options and defaults that a file can store."""
    return {
        f.name: f.default
        for f in fields(find_variant(variant).options())
        if isinstance(f.default, bool | int | float | str | None)
    }


def check_model_options(variant: str, given: Mapping[str, Any]) -> None:
    """Refuses options that a variant does not have."""
    taken = flags_of(find_variant(variant).options()) | flags_of(ModelParts)
    for name in given:
        if name not in taken:
            flag, allowed = flags_of(ModelOptions).get(name, name), ", ".join(taken.values())
            raise OptionError(f"the variant {variant!r} does not have {flag}; it takes {allowed}")


DEFAULT_DATA = "digits"
PROGRAMS = ("prior", "guide", "likelihood", "network")  # options that may name a file's code
KINDS: dict[type, Checker] = {int: whole(), float: number(), bool: flag(), str: text()}
MODEL = {  # by type alone: the bounds are the variant's own
    name: path() if name in PROGRAMS else written_weight() if name in TARGETED else KINDS[kind]
    for name, kind in kinds_of(ModelOptions).items()
}
NEEDED: dict[str, tuple[str, ...]] = {  # in what is read, by table
    "": ("variant", "data", "data_shape", "model", "training", "fingerprints", "versions"),
    "training.": TOLD,
    "fingerprints.": FINGERPRINTS,
    "versions.": tuple(versions()),
}
INPUTS = {
    "data": "--data",
    "image_size": "--image-size",
    "given": "--given",
    "labels": "--labels",
}
"""Flags of the fields of a configuration that are no table."""
FLAGS = INPUTS | flags_of(ModelOptions) | flags_of(TrainingOptions)
UNSAID = {f.name: f.default for f in fields(TrainingOptions)} | {"network": "auto"}
"""Values of options that a run's configuration leaves out."""


@checker
def _variant(given: Given) -> str:
    find_variant(name := text()(given.name, given.value))
    return str(name)


def _table(checks: Mapping[str, Checker]) -> Any:
    return field(default_factory=dict, metadata={"check": checks})


def _checked(name: str, value: Any, before: str = "") -> Any:
    """Checks a field of a configuration; ``before`` stands before the names in a table."""
    check = CHECKS.get(name)
    if check is None:
        raise OptionError(f"{name}={shown(value)}; allowed are {', '.join(CHECKS)}")
    if callable(check):
        return check(name, value)
    if not isinstance(value, Mapping):
        raise OptionError(f"{name}={shown(value)}; allowed are tables, [{name}]")
    for key in value.keys() - check.keys():
        raise OptionError(f"{before}{key}={shown(value[key])}; allowed are {', '.join(check)}")
    return {key: check[key](before + key, v) for key, v in value.items() if v is not None}


@dataclass(frozen=True)
class RunConfig:
    """A model, its data and its training; `complete` fills in missing values."""

    variant: str = option(check=_variant(), help="name of a variant")
    data: str | None = option(None, check=path(), help="name, or path of a file or folder")
    data_root: str | None = option(None, check=path(), help="folder of torchvision's data sets")
    image_size: tuple[int, int] | None = option(None, check=image_sides(), help="height, width")
    given: str | None = option(None, check=path(), help="file of the condition of each datum")
    labels: int | None = option(None, check=whole(least=1), help="number of labels to train with")
    model: Mapping[str, Any] = _table(MODEL)
    training: Mapping[str, Any] = _table(checks_of(TrainingOptions))
    # filled in:
    data_shape: tuple[int, ...] | None = option(None, check=shape(), help="of one image")
    given_shape: tuple[int, ...] | None = option(None, check=shape(), help="of one condition")
    programs: Mapping[str, str] = _table(dict.fromkeys(PROGRAMS, text()))  # SHA-256 of the files
    fingerprints: Mapping[str, str] = _table(  # of the data
        dict.fromkeys((*FINGERPRINTS, CONDITION), text())
    )
    versions: Mapping[str, str] = _table(dict.fromkeys(versions(), text()))

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not f.default:
                object.__setattr__(self, f.name, _checked(f.name, value))

    def complete(self, dataset: Dataset) -> RunConfig:
        """Fills in the defaults, which depend on the data."""
        taken, data = plain_defaults(self.variant), self.data or DEFAULT_DATA
        own = replace(self, data=data)._resolved()
        defaults = default_options(data, self.variant, len(dataset.x_train))
        model = {**taken, **{k: v for k, v in defaults.items() if k in taken}, **own.model}
        training = {k: v for k, v in defaults.items() if k in TOLD}
        return replace(
            own,
            model={k: v for k, v in model.items() if v is not None},
            training={**training, **self.training},
            data_shape=dataset.data_shape,
            given_shape=dataset.given_shape,
            fingerprints=dataset.fingerprints,
            versions=versions(),
        )

    def resumed_from(self, stored: RunConfig, folder: Path) -> RunConfig:
        """Returns a stored run's configuration; refuses given values that contradict it."""
        if self.variant != stored.variant:
            go_on = f"give {stored.variant}"
            raise started_with("VARIANT", self.variant, stored.variant, folder, go_on)
        ours, theirs = self._resolved()._options(), UNSAID | stored._options()
        for name, value in ours.items():
            if value is not None and value != theirs.get(name):
                raise started_with(FLAGS[name], value, theirs.get(name), folder)
        return replace(stored, data_root=self.data_root or stored.data_root)

    def over(self, stored: RunConfig) -> RunConfig:
        """Fills in values from a stored run of the same variant."""
        if self.variant != stored.variant:
            return self
        return replace(
            stored,
            **{f: getattr(self, f) or getattr(stored, f) for f in (*INPUTS, "data_root")},
            model={**stored.model, **self.model},
            training={**stored.training, **self.training},
            programs={k: v for k, v in stored.programs.items() if k not in self.model},
        )

    def load_dataset(self, root: str | Path | None = None) -> Dataset:
        """Loads the data, split."""
        return load_dataset(
            self.data or DEFAULT_DATA,
            root=root or self.data_root,
            image_size=self.image_size,
            binarize=self.binarize,
            given=self.given,
        )

    def kept_labels(self, dataset: Dataset) -> Tensor | None:
        """Returns the labels that training sees, chosen by the run's seed; None without any."""
        if self.labels is None:
            return None
        if dataset.y_train is None:
            raise OptionError(
                f"labels={self.labels}, but {dataset.name} has no labels; leave it out, or give "
                "data with some, such as a .csv with a column label"
            )
        return keep_labels(dataset.y_train, self.labels, seed=self.training["seed"])

    @property
    def binarize(self) -> str:
        """The protocol of the pixels."""
        return str(self.training.get("binarize", TrainingOptions.binarize))

    @property
    def command(self) -> str:
        """The command that makes the same run."""
        words = ["pyro-mivae", "train", self.variant]
        for name, value in replace(self, data=self.data or DEFAULT_DATA)._options().items():
            if name == "image_size" and value is not None:
                value = "{}x{}".format(*value)
            if value is not None and value is not False:
                words += [FLAGS[name]] + ([] if value is True else [str(value)])
        return shlex.join(words)

    def _options(self) -> dict[str, Any]:
        """Returns the values of its flags, by keyword."""
        return {f: getattr(self, f) for f in INPUTS} | {**self.model, **self.training}

    def _resolved(self) -> RunConfig:
        """Makes its paths absolute, so that the run can be read from anywhere."""
        places = {f: getattr(self, f) for f in ("data", "data_root", "given")}
        if self.data in DATASETS:
            del places["data"]
        own: dict[str, Any] = {
            f: str(Path(p).resolve()) for f, p in places.items() if p is not None
        }
        own["model"] = {name: absolute_program(value) for name, value in self.model.items()}
        return replace(self, **own)

    def describe(self) -> dict[str, Any]:
        """Returns the configuration and its command as plain values."""
        return {**_set(asdict(self)), "command": self.command}

    def write(self, path: Path) -> None:
        """Writes the configuration as TOML."""
        write_file(path, self.dumps())

    def dumps(self) -> str:
        """Returns the configuration as TOML."""
        import tomli_w

        return tomli_w.dumps(_set(asdict(self)))

    @classmethod
    def read_options(cls, path: Path, variant: str) -> RunConfig:
        """Reads the options of a variant from a TOML file, which may hold some of them."""
        try:
            content = {"variant": variant} | tomllib.loads(path.read_text(encoding="utf-8"))
            told = {k: v for k, v in content.items() if k not in FILLED_IN}
            options = cls(**{k: _checked(k, value, f"{k}.") for k, value in told.items()})
        except (OSError, ValueError, RecursionError) as error:
            raise OptionError(f"cannot read the options of {path}: {error}") from error
        if options.variant != variant:
            raise OptionError(
                f"{path} holds options of {options.variant}, but {variant} is to be trained; "
                f"train {options.variant}, or give another --config"
            )
        return options

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        """Reads what `write` wrote."""
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
            for table, needed in NEEDED.items():
                part = content[table[:-1]] if table else content
                for name in needed:
                    if isinstance(part, dict) and name not in part:
                        told = f"{table}{name} is missing; needed are {', '.join(needed)}"
                        raise OptionError(told)
            return cls(**{k: _checked(k, value, f"{k}.") for k, value in content.items()})
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"cannot read the run's configuration {path}: {error}") from error


CHECKS: dict[str, Any] = checks_of(RunConfig)
FILLED_IN = ("data_shape", "given_shape", "programs", "fingerprints", "versions")


def started_with(
    name: str, given: object, known: object, folder: Path, go_on: str = "leave it out"
) -> OptionError:
    """The error for an option that differs from the folder's training."""
    return OptionError(
        f"{name} {given} given, but the training in {folder} was started with {known}; {go_on} "
        "to resume, or start over with --overwrite"
    )


def names_file(value: Any) -> bool:
    """Returns True for a value of the form ``FILE.py:NAME``."""
    return isinstance(value, str) and ":" in value and not value.startswith(TARGET)


def absolute_program(value: Any) -> Any:
    """Makes the file of ``FILE.py:NAME`` absolute; other values do not change."""
    if not names_file(value):
        return value
    file, name = value.rsplit(":", 1)
    return f"{Path(file).resolve()}:{name}"


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
