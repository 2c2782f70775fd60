"""The numbers of a report, each with what it means in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pyro_mivae.figures import (
    CRITIC,
    LOWER,
    UPPER,
    error_of,
    interval,
    key,
    label,
    meaning_of,
    parsed,
    without_errors,
)
from pyro_mivae.likelihoods import BernoulliLikelihood
from pyro_mivae.report.subject import Subject
from pyro_mivae.tables import write_error, write_interval, write_number


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


_OPEN = 0.5  # nats between the bounds from which a sentence says why


def summarize(subject: Subject) -> str:
    """Says the result in two or three plain sentences."""
    m, sentences = subject.metrics, []
    if _defined(m, "elbo", "distortion", "rate"):
        sentences.append(
            f"{subject.a_noun.capitalize()} costs {-m['elbo']:.1f} nats: {m['rate']:.1f} for its "
            f"code, and {m['distortion']:.1f} for what the code leaves open."
        )
    if subject.num_categories:
        used = f"{_used(subject)} of {subject.num_categories} categories are in use"
        if _defined(m, "cluster_accuracy"):
            used += (
                "; matched to the labels, which the model never saw, they are right for "
                f"{100 * m['cluster_accuracy']:.0f} % of the {subject.nouns}"
            )
        sentences.append(used + ".")
    return " ".join(sentences)


def headline(subject: Subject) -> Iterator[Number]:
    """Gives the numbers to read first; those that were not measured are left out."""
    m = subject.metrics
    if "elbo" in m and subject.has_density:
        meaning = "Lower bound on log p(x): minus distortion, minus KL. Higher is better."
        if isinstance(subject.vae.likelihood, BernoulliLikelihood) and subject.is_grey:
            meaning += (
                f" The {subject.nouns} are grey and the likelihood is Bernoulli, so this is a "
                "cross-entropy and no log-probability: compare it with its like only."
            )
        if not math.isfinite(m["elbo"]):
            meaning = "Not defined, since a site that is a function of the data has no KL."
        yield _figure(m, "elbo", meaning)
    if "distortion" in m and subject.has_density:
        meaning = (
            f"−log p(x | code): what is left to say of {subject.a_noun} once its code is known. "
            "Lower is better."
        )
        yield _figure(m, "distortion", meaning)
    for site in subject.codes:
        if key("kl", site) in m and subject.has_density:
            yield _kl(subject, site)
    for site in subject.codes:
        if any(key("mi", site, side) in m for side in (LOWER, UPPER)):
            yield _information(subject, site)
    for k, _ in parsed(m, "mi"):
        if k.side == CRITIC:
            yield _figure(m, str(k), k.meaning)
    if _defined(m, "cluster_accuracy"):
        meaning = (
            "Each category is matched to one label, as well as can be: the share of the "
            f"{subject.nouns} for which that is right. Labels serve this number, not the training."
        )
        value = f"{100 * m['cluster_accuracy']:.1f}"
        yield Number(_title("cluster_accuracy"), value, "%", meaning)
    if subject.num_categories:
        meaning = f"Categories that take {subject.nouns}; fewer can tell less apart."
        value = f"{_used(subject)} of {subject.num_categories}"
        yield Number(_title("categories_used"), value, "", meaning)


def remaining(subject: Subject) -> Iterator[Number]:
    """Gives every metric under its key, in the order in which they were measured."""
    for name, value in without_errors(subject.metrics).items():
        written = f"{value:.4g}".replace("-", "−") if math.isfinite(value) else "not defined"
        error = error_of(subject.metrics, name)
        margin = f"± {error:.2g}" if math.isfinite(error) else ""
        yield Number(name, written, margin, meaning_of(name))


def _figure(metrics: Mapping[str, float], name: str, meaning: str) -> Number:
    value = metrics[name]
    unit = f"nats {write_error(error_of(metrics, name))}".rstrip()
    return Number(_title(name), write_number(value), unit if math.isfinite(value) else "", meaning)


def _title(name: str) -> str:
    text = label(name)
    return text[:1].upper() + text[1:]


def _kl(subject: Subject, site: str) -> Number:
    if subject.category and site != subject.category:
        meaning = (
            f"How far {site} is from the prior of its category: its cost, the category known."
        )
    else:
        meaning = (
            f"How far q({site} | x) is from the prior, on average: the cost of {site}, and an "
            "upper bound on its information."
        )
    if not math.isfinite(subject.metrics[key("kl", site)]):
        meaning = f"The guide makes {site} a function of the data, so that no KL is defined."
    return _figure(subject.metrics, key("kl", site), meaning)


def _information(subject: Subject, site: str) -> Number:
    lower, upper = interval(subject.metrics, "mi", site)
    name, k = label(key("mi", site)), subject.num_categories
    meaning = f"What {site} really says about which {subject.noun} it is, between two bounds."
    if k and site == subject.category:
        meaning = (
            f"What the category really says of {subject.a_noun}, between two bounds. It cannot "
            f"exceed log {k} = {math.log(k):.2f} nats."
        )
    if upper - lower > _OPEN:
        n = subject.num_data
        meaning += (
            f" They are far apart, since with {n:,} {subject.nouns} the lower one cannot exceed "
            f"log {n:,} = {math.log(n):.2f}."
        )
    written = write_interval(lower, upper)
    if written == "not defined":
        return Number(name, written, "", f"No bound is defined for {site} here.")
    return Number(name, written, "nats", meaning)


def _used(subject: Subject) -> int:
    used = subject.metrics.get("categories_used", math.nan)
    return round(used) if math.isfinite(used) else int((subject.occupancy > 0).sum())


def _defined(metrics: Mapping[str, float], *keys: str) -> bool:
    return all(math.isfinite(metrics.get(key, math.nan)) for key in keys)
