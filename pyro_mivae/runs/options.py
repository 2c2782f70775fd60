"""The options of a model that a run may set, by keyword and by flag, and their defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pyro_mivae.errors import OptionError
from pyro_mivae.options import flags_of, kinds_of
from pyro_mivae.variants import VARIANTS, Variant


@dataclass(frozen=True)
class Option:
    """An option of a model.

    Attributes:
        keyword: Its name in Python.
        flag: Its name on the command line.
        kind: Type of its value.
        help: What it is, in a line.
    """

    keyword: str
    flag: str
    kind: type
    help: str

    def is_taken_by(self, variant_class: type[Variant]) -> bool:
        """True if a variant has a use for it."""
        return self.keyword in (*PARTS, *flags_of(variant_class.options()))


def _of_variants() -> Iterator[Option]:
    of = {f.name: (f, cls.options()) for cls in VARIANTS.values() for f in fields(cls.options())}
    for name, (field, cls) in of.items():
        yield Option(name, flags_of(cls)[name], kinds_of(cls)[name], field.metadata["help"])


PARTS = ("network", "prior", "guide")
MODEL_OPTIONS = (
    *_of_variants(),
    Option("network", "--network", str, "auto, or NAME"),
    Option("prior", "--prior", str, "NAME, or FILE.py:NAME of your own"),
    Option("guide", "--guide", str, "NAME, or FILE.py:NAME of your own"),
)

# For a data set and a variant; "*" is any. Later rows overrule earlier ones, and what is given
# overrules all. Keys are keywords of `fit`, or of variants (left out where one does not take it).
DEFAULTS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("*", "*", {"batch_size": 128, "lr": 1e-3, "lr_schedule": "constant", "seed": 0}),
    ("digits", "*", {"epochs": 80}),
    ("digits", "infogan", {"epochs": 300}),
    ("mnist", "*", {"epochs": 10, "batch_size": 256, "warm_start": 1500}),
    ("fashion-mnist", "*", {"epochs": 10, "batch_size": 256, "warm_start": 1500}),
    ("mnist", "infogan", {"epochs": 15, "batch_size": 128}),
    ("fashion-mnist", "infogan", {"epochs": 15, "batch_size": 128}),
)
STEPS_ELSEWHERE = 10_000  # aimed at where no row says how many epochs


def default_options(data: str, variant: str, num_images: int) -> dict[str, Any]:
    """Gives the options that hold where nothing else is asked for."""
    options: dict[str, Any] = {}
    for of_data, of_variant, values in DEFAULTS:
        if of_data in ("*", data) and of_variant in ("*", variant):
            options |= values
    if "epochs" not in options:
        per_epoch = -(-num_images // options["batch_size"])
        options["epochs"] = min(max(10, round(STEPS_ELSEWHERE / per_epoch)), 300)
    return options


def check_model_options(
    variant: str, variant_class: type[Variant], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Refuses options that a variant has no use for."""
    taken = {o.keyword: o.flag for o in MODEL_OPTIONS if o.is_taken_by(variant_class)}
    flags = {o.keyword: o.flag for o in MODEL_OPTIONS}
    for keyword, value in given.items():
        if value is not None and keyword not in taken:
            raise OptionError(
                f"the variant {variant!r} has no use for {flags.get(keyword, keyword)}; "
                f"it takes {', '.join(taken.values())}"
            )
    return {keyword: value for keyword, value in given.items() if value is not None}
