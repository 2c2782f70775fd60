"""Table of all figures that the library reports, and the keys that name them.

A key reads ``NAME[_SITE][[INDEX]][_SIDE][_se]``, as ``kl_z[3]`` or ``mi_c_lower_se``; `key` makes
one and `parse` takes one apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Unit = Literal["nats", "share", "count", "flag", "data"]
Table = Literal["summary", "comparison", "listing"]
T = TypeVar("T")
About = Literal["labels", "factors", ""]
DIGITS: dict[Unit, int] = {"nats": 2, "share": 3, "count": 1, "flag": 0, "data": 3}
LOWER, UPPER, CRITIC, MEAN, SAMPLE = SIDES = ("lower", "upper", "critic", "mean", "sample")
WORDS = {
    LOWER: ", at least",
    UPPER: ", at most",
    CRITIC: ", by the critic",
    MEAN: ", read from the mean",
    SAMPLE: ", read from a sample",
}
ERROR = "_se"


@dataclass(frozen=True)
class Figure:
    """A quantity that the library reports.

    In its label ``{site}`` stands for the site, or the whole code. Its meaning is a sentence
    without a full stop. In it ``{of}`` stands for the measured part of the code.
    """

    name: str
    label: str
    meaning: str
    unit: Unit  # sets the digits after the point
    tables: Table  # all of them, comparisons and listings, or listings alone
    about: About  # what must be known of the data

    @property
    def labels_site(self) -> bool:
        """True if tables show the figure for each site."""
        return "{site}" in self.label


_GROUPS: dict[tuple[Unit, Table, About], dict[str, tuple[str, str]]] = {
    ("nats", "summary", ""): {
        "distortion": ("distortion, -E log p(x|code)", "−log p(x | code), averaged over codes"),
        "kl": ("KL of {site}", "KL of {of}"),
        "rate": ("rate, sum of the KLs", "KL of all sites together"),
        "elbo": ("ELBO", "Lower bound on log p(x)"),
        "log_px": ("log p(x), importance-weighted", "Lower bound, tighter than the ELBO"),
        "log_px_ais": ("log p(x), annealed", "Annealed estimate of log p(x): a lower bound"),
        "log_px_ais_gap": (
            "gap of log p(x), annealed",
            "Largest mean error of the annealed estimate on data that the model draws: bounds of "
            "their log p(x) from both sides are so far apart",
        ),
        "amortization_gap": (
            "amortisation gap",
            "ELBO that gradient steps on the posterior of each datum gain over the guide's, at "
            "least",
        ),
        "mi": ("I(x; {site})", "Information that {of} holds about the data"),
    },
    ("nats", "comparison", ""): {
        "fitted_mi": (
            "I(x; {site}), by a fitted marginal",
            "Information that the whole code holds about the data, by a marginal of the codes "
            "that is fitted to other data",
        ),
        "generative_mi": (
            "I(x; {site}) in samples",
            "Information between {of} and data that the model generates",
        ),
    },
    ("nats", "listing", ""): {
        "barber_agakov": (
            "I(x; {site})",
            "Lower bound on the information between {of} and data that it generates",
        ),
        "fitted_reach": ("reach of the fitted marginal", "Largest value of its lower bound"),
        "marginal_kl": ("KL of all codes together", "KL of all codes together from the prior"),
        "total_correlation": (
            "total correlation",
            "Dependence among the dimensions of the code",
        ),
    },
    ("flag", "listing", ""): {
        "saturated": ("saturated", "1 if the bounds on the information are over 0.5 nats apart"),
        "critic_falls_short": (
            "critic falls short",
            "1 if a critic finds less than half of the information's lower bound",
        ),
    },
    ("count", "comparison", ""): {
        "active_units": (
            "active units",
            "Dimensions of {of} whose posterior mean varies (variance above 0.01)",
        ),
    },
    ("count", "summary", ""): {
        "categories_used": ("categories in use", "Categories that take data"),
    },
    ("share", "comparison", ""): {
        "reconstruction_r2": (
            "R² of the reconstruction",
            "Share of the variance that {of} accounts for when it is decoded, every other site "
            "at its prior mean; 1 is all of it",
        ),
    },
    ("share", "listing", ""): {
        "occupancy": ("share of category {site}", "Share of the data in category {of}"),
        "category_agreement_accuracy": (
            "pairs: agreement",
            "Share of the data in the same category of two models, after the best renaming",
        ),
        "category_agreement_nmi": ("pairs: NMI", "NMI of two models' categories"),
        "category_agreement_ari": ("pairs: ARI", "ARI of two models' categories"),
    },
    ("data", "listing", ""): {
        "fixed_scale": ("fixed scale", "Fixed scale of the Gaussian likelihood"),
        "data_scale": (
            "scale of the data",
            "Standard deviation of the data in the direction that varies most",
        ),
    },
    ("share", "summary", "labels"): {
        "classification_accuracy": (
            "classification accuracy",
            "Share of the data whose most probable category is their label, with the categories "
            "numbered by the labels of the training",
        ),
        "cluster_accuracy": (
            "clustering accuracy",
            "Share of the data whose category stands for their label",
        ),
        "nmi": (
            "normalised mutual information",
            "Normalised mutual information of categories and labels, 0 to 1",
        ),
        "generation_accuracy": (
            "generation accuracy",
            "Share of a category's samples that a classifier of real data gives the label of "
            "the category; each category has a different label",
        ),
        "generation_consistency": (
            "generation consistency",
            "Share of a category's samples with the most frequent label that a classifier of "
            "real data gives them",
        ),
        "linear_probe": (
            "linear probe of the code",
            "Accuracy of a linear classifier that reads labels from {of}",
        ),
    },
    ("share", "comparison", "labels"): {
        "ari": (
            "adjusted Rand index",
            "Adjusted Rand index: 0 by chance, 1 if categories equal the labels",
        ),
        "purity": (
            "purity",
            "Share of the data with the most frequent label of their category; more categories "
            "raise it",
        ),
        "mlp_probe": (
            "MLP probe of the code",
            "Accuracy of a small network that reads labels from the code",
        ),
    },
    ("share", "listing", "labels"): {
        "cluster_accuracy_chance": (
            "clustering accuracy by chance",
            "Clustering accuracy of the same categories with the labels shuffled",
        ),
        "judge_accuracy": (
            "accuracy of the judge",
            "Accuracy on real data of the classifier that judges samples",
        ),
        "largest_label": (
            "share of the largest label",
            "Share of the most frequent label: the accuracy of a constant guess",
        ),
        "linear_probe_sampled": (
            "linear probe of drawn codes",
            "Accuracy of a linear classifier that reads labels from one draw of each code",
        ),
        "mlp_probe_sampled": (
            "MLP probe of drawn codes",
            "Accuracy of a small network that reads labels from one draw of each code",
        ),
    },
    ("share", "summary", "factors"): {
        "mig": (
            "mutual information gap (MIG)",
            "Lead of the best dimension in information on a factor",
        ),
        "sap": (
            "separated attribute predictability",
            "Lead of the best dimension over the second best in predicting a factor",
        ),
        "dci_disentanglement": (
            "DCI disentanglement",
            "Degree to which each dimension depends on one factor",
        ),
        "dci_completeness": (
            "DCI completeness",
            "Degree to which each factor is in one dimension",
        ),
        "dci_informativeness": (
            "DCI informativeness",
            "Accuracy of random forests on the factors",
        ),
        "factor_vae_score": (
            "FactorVAE score",
            "Accuracy with which the least varying dimension identifies a fixed factor",
        ),
        "modularity": ("modularity", "Degree to which each dimension knows only one factor"),
    },
}
FIGURES = {
    name: Figure(name, label, meaning, unit, tables, about)
    for (unit, tables, about), rows in _GROUPS.items()
    for name, (label, meaning) in rows.items()
}
"""All figures by name, in the order of the tables."""


AGREEMENT = tuple(name for name in FIGURES if name.startswith("category_agreement"))
OF_SWEEPS = ("distortion", "rate", "elbo", "mi_lower", "mi_upper")
OF_SEEDS = (
    *"distortion rate elbo log_px mi_lower mi_upper cluster_accuracy nmi".split(),
    *"classification_accuracy generation_accuracy linear_probe categories_used".split(),
    *AGREEMENT[:2],
)
"""Keys in the tables of sweeps, and of several seeds."""


@dataclass(frozen=True)
class Key:
    """A parsed key.

    The site may be several sites joined by ``_``, or a category's number; it is empty for the
    whole code. The index is a dimension of the site, or one of its categories.
    """

    figure: Figure
    site: str = ""
    index: int | None = None
    side: str = ""  # one of `SIDES`, or empty
    is_error: bool = False

    @property
    def name(self) -> str:
        """Name of the figure."""
        return self.figure.name

    @property
    def label(self) -> str:
        """Name of the figure in tables, with its side if it has one."""
        site = self.site or "code"
        text = self.figure.label.format(
            site=site if self.index is None else f"{site}[{self.index}]"
        )
        if self.site and not self.figure.labels_site:
            text += f", {self.site}"
        return text + WORDS.get(self.side, "")

    def explain(self, of: str = "") -> str:
        """Returns a sentence that explains the figure; ``of`` is a better name of its part."""
        if not of:
            of = self.site or "the whole code"
            kind = "dimension" if self.name == "kl" else "dimension, or category,"
            of = of if self.index is None else f"{kind} {self.index} of {of}"
        text = self.figure.meaning.format(of=of) + WORDS.get(self.side, "")
        return (
            f"{text} on held-out data; it may err either way."
            if self.side == CRITIC
            else f"{text}."
        )

    def __str__(self) -> str:
        return key(self.name, self.site, self.side, index=self.index) + ERROR * self.is_error


_NAMES = "|".join(sorted(FIGURES, key=len, reverse=True))
_KEY = re.compile(rf"({_NAMES})(?:_(.+?))??(?:\[(\d+)\])?(?:_({'|'.join(SIDES)}))?({ERROR})?")


def key(name: str, site: str = "", side: str = "", *, index: int | None = None) -> str:
    """Makes the public key of a figure.

    Example:
        >>> key("rate"), key("mi", "c", "lower"), key("kl", "z", index=3)
        ('rate', 'mi_c_lower', 'kl_z[3]')
    """
    place = "" if index is None else f"[{index}]"
    return "_".join(filter(None, (name, site + place, side)))


def parse(text: str) -> Key | None:
    """Parses a key; None if it names no figure.

    Example:
        >>> found = parse("mi_my_site[3]_lower_se")
        >>> found.name, found.site, found.index, found.side, found.is_error
        ('mi', 'my_site', 3, 'lower', True)
    """
    match = _KEY.fullmatch(text)
    if match is None:
        return None
    name, site, index, side, error = match.groups()
    figure = FIGURES[name]
    if site and "{of}" not in figure.meaning:
        return None
    return Key(figure, site or "", int(index) if index else None, side or "", error is not None)


def parsed(values: Mapping[str, Any], name: str | None = None) -> Iterator[tuple[Key, Any]]:
    """Yields the figures in ``values``, or those of one name, without standard errors."""
    for text, value in values.items():
        found = parse(text)
        if found is not None and not found.is_error and name in (None, found.name):
            yield found, value


def label(text: str) -> str:
    """Returns the label of a key, or the key itself if it names no figure."""
    found = parse(text)
    return text if found is None else found.label


def meaning_of(text: str, of: str = "") -> str:
    """Returns the meaning of a key as a sentence, empty if it names no figure."""
    found = parse(text)
    return "" if found is None else found.explain(of)


def error_of(values: Mapping[str, float], text: str, *, missing: float = math.nan) -> float:
    """Returns the standard error of a figure, by its key."""
    return values.get(text + ERROR, missing)


def without_errors(values: Mapping[str, T]) -> dict[str, T]:
    """Returns all values except the standard errors of its figures."""
    return {
        k: v for k, v in values.items() if not (k.endswith(ERROR) and k[: -len(ERROR)] in values)
    }


def with_errors(values: Mapping[str, float | tuple[float, float]]) -> dict[str, float]:
    """Splits pairs of a figure and its standard error into two keys."""
    found: dict[str, float] = {}
    for text, value in values.items():
        if isinstance(value, tuple):
            found[text], found[text + ERROR] = value
        else:
            found[text] = value
    return found


def interval(values: Mapping[str, float], name: str, site: str = "") -> tuple[float, float]:
    """Returns lower and upper bound of a figure; NaN for a missing one."""
    low, high = (values.get(key(name, site, side), math.nan) for side in (LOWER, UPPER))
    return low, high


def sites_of(values: Mapping[str, float]) -> list[str]:
    """Returns the sites whose KL is in ``values``."""
    return [found.site for found, _ in parsed(values, "kl") if found.index is None]
