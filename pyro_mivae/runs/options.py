"""Options of a run: those of its model, and the defaults for each data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, make_dataclass
from typing import Any

from pyro_mivae.arguments import path, text
from pyro_mivae.errors import OptionError, nearest
from pyro_mivae.options import flags_of, option
from pyro_mivae.training import TrainingOptions
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
    options = {f.name: f.default for f in fields(TrainingOptions) if f.name in TOLD[1:]}
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
