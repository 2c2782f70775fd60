"""The options of a model that a run may set, by keyword and by flag, and their defaults."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyro_mivae.errors import OptionError


@dataclass(frozen=True)
class Option:
    """An option of a model.

    Attributes:
        keyword: Its name in Python.
        flag: Its name on the command line.
        kind: Type of its value.
        help: What it is, in a line.
        needs: Keywords of a variant's constructor that it acts through, if not its own.
    """

    keyword: str
    flag: str
    kind: type
    help: str
    needs: tuple[str, ...] = ()

    def is_taken_by(self, variant_class: type) -> bool:
        """Tells whether a variant has a use for it."""
        parameters = inspect.signature(variant_class).parameters
        return any(name in parameters for name in self.needs or (self.keyword,))


MODEL_OPTIONS = (
    Option("latent_dim", "--latent-dim", int, "size of the continuous code"),
    Option("code_dim", "--code-dim", int, "size of the part c of the code, or of InfoGAN's u"),
    Option("num_categories", "--categories", int, "number of categories"),
    Option(
        "categorical", "--categorical", str, "how c is treated: enumerate, sample, soft or gumbel"
    ),
    Option("decodes", "--decodes", int, "how many categories of each image sample decodes"),
    Option("mi_weight", "--mi-weight", float, "weight of the information term, per image"),
    Option("informed", "--informed", str, "site that the information term is about, or all"),
    Option("generated", "--generated", str, "what that term recognises: mean, relaxed, ..."),
    Option("continuous_weight", "--continuous-weight", float, "that of InfoGAN's uniform codes"),
    Option("saturating", "--saturating", bool, "let InfoGAN's generator minimise V itself"),
    Option("beta", "--beta", float, "weight of the KL divergence"),
    Option("bound", "--bound", str, "the critic's bound: nwj, infonce, donsker-varadhan, ..."),
    Option("critic", "--critic", str, "joint, separable, bilinear or chain"),
    Option("critic_lr", "--critic-lr", float, "the critic's learning rate, for a model's of 1e-3"),
    Option("marginal_weight", "--marginal-weight", float, "weight that holds q(z) at the prior"),
    Option("kernel", "--kernel", str, "of the discrepancy: rbf or imq"),
    Option("radius", "--radius", float, "distance of the categories' means from the origin"),
    Option("temperature", "--temperature", float, "temperature of the relaxed category"),
    Option("deterministic", "--deterministic", bool, "make c a function of the image"),
    Option("warm_start", "--warm-start", int, "steps of the categories' unsupervised start"),
    Option("start_weight", "--start-weight", float, "weight with which that start goes on"),
    Option("warmup", "--warmup", float, "share of the training in which the weights rise from 0"),
    Option("likelihood", "--likelihood", str, "bernoulli, continuous-bernoulli or gaussian"),
    Option("network", "--network", str, "auto, or NAME", ("encoder", "decoder")),
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
    variant: str, variant_class: type, given: Mapping[str, Any]
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
