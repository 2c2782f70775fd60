"""The numbers of a report, each with what it means in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pyro_mivae.diagnostics.keys import is_indexed
from pyro_mivae.likelihoods import BernoulliLikelihood
from pyro_mivae.plots.bars import write_interval
from pyro_mivae.report.data import ReportData


@dataclass(frozen=True)
class Number:
    """One number of the page.

    Attributes:
        name: What it is.
        value: It, written out.
        unit: Its unit and standard error, or nothing.
        meaning: What it says, in a sentence.
    """

    name: str
    value: str
    unit: str
    meaning: str


_MEANINGS = {
    "elbo": "Lower bound on log p(x).",
    "distortion": "−log p(x | code), on average over codes.",
    "rate": "KL of all sites together.",
    "log_px": "Importance-weighted estimate of log p(x): a tighter lower bound than the ELBO.",
    "mi_lower": "Information that the whole code has on the data, at least.",
    "mi_upper": "The same, at most.",
    "marginal_kl_lower": "How far all codes together are from the prior, at least.",
    "marginal_kl_upper": "The same, at most.",
    "total_correlation": "How much the dimensions of the code depend on each other.",
    "total_correlation_lower": "The same, at least.",
    "total_correlation_upper": "The same, at most.",
    "active_units": "Dimensions whose posterior mean varies (variance above 0.01).",
    "critic_falls_short": "1 where a critic hears under half of the information's lower bound.",
    "fitted_mi_lower": "Information that the whole code has on the data, at least, by a marginal "
    "of the codes that was fitted to other data.",
    "fitted_mi_upper": "The same, at most.",
    "generative_mi_lower": "Information between code and data that the model generates, at least.",
    "generative_mi_upper": "The same, at most.",
    "log_px_ais": "Annealed estimate of log p(x): a lower bound.",
    "saturated": "1 where the bounds on the information are more than 0.5 nats apart.",
    "cluster_accuracy": "Share of the data whose category stands for their label.",
    "categories_used": "Categories that take data.",
    "nmi": "Normalised mutual information of categories and labels, 0 to 1.",
    "ari": "Adjusted Rand index: 0 by chance, 1 where categories are the labels.",
    "cluster_accuracy_chance": "What the same categories get with the labels shuffled.",
    "generation_accuracy": "Share of a category's samples that a classifier of real data takes "
    "for the label that the category stands for; each category stands for another one.",
    "generation_consistency": "Share of a category's samples that a classifier of real data takes "
    "for one and the same label, whichever it is.",
    "largest_label": "Share of the most frequent label: the accuracy of a constant guess.",
    "reconstruction_r2": "Share of the variance that decoded codes account for: 1 is all of it.",
    "linear_probe": "Accuracy of a linear classifier that reads labels from the code.",
    "mlp_probe": "Accuracy of a small network that reads labels from the code.",
}


_OPEN = 0.5  # nats between the bounds from which a sentence says why


def summarize(data: ReportData) -> str:
    """Says the result in two or three plain sentences."""
    m, sentences = data.metrics, []
    if _defined(m, "elbo", "distortion", "rate"):
        sentences.append(
            f"{data.a_noun.capitalize()} costs {-m['elbo']:.1f} nats: {m['rate']:.1f} for its "
            f"code, and {m['distortion']:.1f} for what the code leaves open."
        )
    if data.num_categories:
        used = f"{_used(data)} of {data.num_categories} categories are in use"
        if _defined(m, "cluster_accuracy"):
            used += (
                "; matched to the labels, which the model never saw, they are right for "
                f"{100 * m['cluster_accuracy']:.0f} % of the {data.nouns}"
            )
        sentences.append(used + ".")
    return " ".join(sentences)


def headline(data: ReportData) -> Iterator[Number]:
    """Gives the numbers to read first; those that were not measured are left out."""
    m = data.metrics
    if "elbo" in m and data.has_density:
        meaning = "Lower bound on log p(x): minus distortion, minus KL. Higher is better."
        if isinstance(data.vae.likelihood, BernoulliLikelihood) and is_grey(data):
            meaning += (
                f" The {data.nouns} are grey and the likelihood is Bernoulli, so this is a "
                "cross-entropy and no log-probability: compare it with its like only."
            )
        if not math.isfinite(m["elbo"]):
            meaning = "Not defined, since a site that is a function of the data has no KL."
        yield _figure(m, "elbo", "ELBO", meaning)
    if "distortion" in m and data.has_density:
        meaning = (
            f"−log p(x | code): what is left to say of {data.a_noun} once its code is known. "
            "Lower is better."
        )
        yield _figure(m, "distortion", "Distortion", meaning)
    for site in data.codes:
        if f"kl_{site}" in m and data.has_density:
            yield _kl(data, site)
    for site in data.codes:
        if f"mi_{site}_lower" in m or f"mi_{site}_upper" in m:
            yield _information(data, site)
    for key in m:
        if key.startswith("mi_") and key.endswith("_critic"):
            yield _figure(m, key, f"Critic's I({_heard(key)}; x)", _meaning(key))
    if _defined(m, "cluster_accuracy"):
        meaning = (
            "Each category is matched to one label, as well as can be: the share of the "
            f"{data.nouns} for which that is right. Labels serve this number, not the training."
        )
        value = f"{100 * m['cluster_accuracy']:.1f}"
        yield Number("Clustering accuracy", value, "%", meaning)
    if data.num_categories:
        meaning = f"Categories that take {data.nouns}; fewer can tell less apart."
        value = f"{_used(data)} of {data.num_categories}"
        yield Number("Categories in use", value, "", meaning)


def remaining(data: ReportData) -> Iterator[Number]:
    """Gives every metric under its key, in the order in which they were measured."""
    m = data.metrics
    for key, value in m.items():
        if key.removesuffix("_se") in m and key.endswith("_se"):
            continue
        written = f"{value:.4g}".replace("-", "−") if math.isfinite(value) else "not defined"
        error = m.get(f"{key}_se", math.nan)
        margin = f"± {error:.2g}" if math.isfinite(error) else ""
        yield Number(key, written, margin, _meaning(key))


def _meaning(key: str) -> str:
    if key in _MEANINGS:
        return _MEANINGS[key]
    if is_indexed(key):
        return _meaning_of_one(key)
    kind, _, rest = key.partition("_")
    if kind == "kl" and rest:
        return f"KL of {rest}."
    if kind == "mi" and rest.endswith(("_lower", "_upper")):
        site, _, side = rest.rpartition("_")
        return f"Information that {site} has on the data, at {_SIDES[side]}."
    if kind == "mi" and rest.endswith("_critic"):
        return f"What the critic hears of {_heard(key)} in held-out data; it may err either way."
    if key.startswith("generative_mi_") and rest.endswith(("_lower", "_upper")):
        site, _, side = key.removeprefix("generative_mi_").rpartition("_")
        return f"The same of {site} alone, at {_SIDES[side]}."
    if key.startswith("occupancy_"):
        return f"Share of the data in category {rest}."
    if key.startswith("linear_probe_"):
        return f"The same, from {key.removeprefix('linear_probe_')} alone."
    if key.startswith("reconstruction_r2_"):
        site = key.removeprefix("reconstruction_r2_")
        return f"The same, of {site} alone, the rest of the code at its prior mean."
    if key.startswith("active_units_"):
        return f"The same, of {key.removeprefix('active_units_')}."
    return ""


def _meaning_of_one(key: str) -> str:
    name, _, side = key.partition("]")
    kind, _, place = name.partition("_")
    site, _, index = place.partition("[")
    if kind == "kl":
        return f"KL of dimension {index} of {site}."
    least = _SIDES.get(side.removeprefix("_"), "most")
    return f"Information of dimension, or category, {index} of {site}, at {least}."


def _heard(key: str) -> str:
    return key.removeprefix("mi_").removesuffix("_critic")


_SIDES = {"lower": "least", "upper": "most"}


def _figure(metrics: Mapping[str, float], key: str, name: str, meaning: str) -> Number:
    value = metrics[key]
    if not math.isfinite(value):
        return Number(name, "not defined", "", meaning)
    written = f"{value:.2f}".replace("-", "−")
    error = metrics.get(f"{key}_se", math.nan)
    unit = f"nats ± {error:.2f}" if math.isfinite(error) else "nats"
    return Number(name, written, unit, meaning)


def _kl(data: ReportData, site: str) -> Number:
    if data.category and site != data.category:
        meaning = (
            f"How far {site} is from the prior of its category: its cost, the category known."
        )
    else:
        meaning = (
            f"How far q({site} | x) is from the prior, on average: the cost of {site}, and an "
            "upper bound on its information."
        )
    if not math.isfinite(data.metrics[f"kl_{site}"]):
        meaning = f"The guide makes {site} a function of the data, so that no KL is defined."
    return _figure(data.metrics, f"kl_{site}", f"KL of {site}", meaning)


def _information(data: ReportData, site: str) -> Number:
    lower, upper = (data.metrics.get(f"mi_{site}_{s}", math.nan) for s in ("lower", "upper"))
    name, k = f"I({site}; x)", data.num_categories
    meaning = f"What {site} really says about which {data.noun} it is, between two bounds."
    if k and site == data.category:
        meaning = (
            f"What the category really says of {data.a_noun}, between two bounds. It cannot "
            f"exceed log {k} = {math.log(k):.2f} nats."
        )
    if upper - lower > _OPEN:
        n = data.num_data
        meaning += (
            f" They are far apart, since with {n:,} {data.nouns} the lower one cannot exceed "
            f"log {n:,} = {math.log(n):.2f}."
        )
    written = write_interval(lower, upper)
    if written == "not defined":
        return Number(name, written, "", f"No bound is defined for {site} here.")
    return Number(name, written, "nats", meaning)


def _used(data: ReportData) -> int:
    used = data.metrics.get("categories_used", math.nan)
    return round(used) if math.isfinite(used) else int((data.occupancy > 0).sum())


def _defined(metrics: Mapping[str, float], *keys: str) -> bool:
    return all(math.isfinite(metrics.get(key, math.nan)) for key in keys)


def is_grey(data: ReportData) -> bool:
    """Says whether the data are neither 0 nor 1 somewhere."""
    return bool(((data.x > 0) & (data.x < 1)).any())
