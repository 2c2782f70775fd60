"""The numbers of a report, each with its meaning in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pyro_mivae.figures import (
    CRITIC,
    LOWER,
    UPPER,
    Key,
    error_of,
    interval,
    key,
    label,
    meaning_of,
    parse,
    parsed,
    without_errors,
)
from pyro_mivae.report.data import ReportData
from pyro_mivae.tables import letter, write_error, write_interval, write_number


class Number(NamedTuple):
    """One number of the page as text, with its unit, standard error, and meaning."""

    name: str
    value: str
    unit: str
    meaning: str


_OPEN = 0.5  # nats between the bounds from which a sentence says why


def summarize(data: ReportData) -> str:
    """Summarises the result in two or three sentences."""
    m, sentences = data.metrics, []
    if _defined(m, "elbo", "distortion", "rate"):
        sentences.append(
            f"{data.a_noun.capitalize()} costs {-m['elbo']:.1f} nats: {m['rate']:.1f} for its "
            f"code, and {m['distortion']:.1f} for the rest given the code."
        )
    if data.num_categories:
        used = f"{_used(data)} of {data.num_categories} categories are in use"
        if _defined(m, "cluster_accuracy"):
            used += (
                f". Matched to the labels, {data.seen_labels}, they are correct for "
                f"{100 * m['cluster_accuracy']:.0f} % of the {data.nouns}"
            )
        sentences.append(used + ".")
    return " ".join(sentences)


def story(data: ReportData, network: str = "") -> str:
    """Says what was trained, on what, and for how long."""
    vae, history = data.vae, data.history
    size = sum(p.numel() for p in vae.parameters())
    sentences = [f"{type(vae).__name__} with {network or 'networks'} of {size:,} parameters."]
    if len(history):
        on = f"{data.num_train:,} {data.nouns}" if data.num_train else data.nouns
        shape = " × ".join(map(str, vae.data_shape))
        told = f"It was trained on {on} of {shape}, for {len(history)} epochs"
        if "step" in history:
            told += f" or {int(history['step'][-1]):,} steps"
        if "seconds" in history:
            told += f", in {_duration(math.fsum(history['seconds']))}"
        sentences.append(told + ".")
    if vae.given_shape is not None:
        sentences.append(
            f"Model and guide see a condition u of each {data.noun}: log p(x) stands for "
            "log p(x | u), and information is that given u."
        )
    start = getattr(vae, "start", None)
    if start is not None and data.num_train:
        plan = start.plan(data.num_train)
        if plan["steps"]:
            several = f"the better of {plan['starts']} starts" if plan["starts"] > 1 else "a start"
            sentences.append(
                f"Before that, q({data.category} | x) alone was trained without the decoder: "
                f"{several}, of {plan['steps']:,} steps."
            )
    return " ".join(sentences)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def headline(data: ReportData) -> Iterator[Number]:
    """Yields the main numbers that were measured."""
    m = data.metrics
    if "elbo" in m and data.has_density:
        meaning = "Lower bound on log p(x): minus distortion, minus KL. Higher is better."
        if misfit := data.vae.likelihood.misfit(data.x):
            meaning += f" Note: {misfit}."
        if not math.isfinite(m["elbo"]):
            meaning = "Not defined, because a site that is a function of the data has no KL."
        yield _figure(m, "elbo", meaning)
    if "distortion" in m and data.has_density:
        meaning = f"−log p(x | code): the cost of {data.a_noun} given its code. Lower is better."
        yield _figure(m, "distortion", meaning)
    for site in data.codes:
        if key("kl", site) in m and data.has_density:
            yield _kl(data, site)
    for site in data.codes:
        if any(key("mi", site, side) in m for side in (LOWER, UPPER)):
            yield _information(data, site)
    for k, _ in parsed(m, "mi"):
        if k.side == CRITIC:
            yield _figure(m, str(k), k.explain())
    if _defined(m, "cluster_accuracy"):
        meaning = (
            f"The share of the {data.nouns} whose category is matched to their label, by the "
            f"best one-to-one matching, {data.seen_labels}."
        )
        value = f"{100 * m['cluster_accuracy']:.1f}"
        margin = write_error(100 * error_of(m, "cluster_accuracy"), 1)
        yield Number(_title("cluster_accuracy"), value, f"% {margin}".rstrip(), meaning)
    if data.num_categories:
        meaning = f"Categories with at least one in 200 {data.nouns}."
        value = f"{_used(data)} of {data.num_categories}"
        yield Number(_title("categories_used"), value, "", meaning)


def remaining(data: ReportData) -> Iterator[Number]:
    """Yields every metric by its key, in the order of measurement."""
    for name, value in without_errors(data.metrics).items():
        written = f"{value:.4g}".replace("-", "−") if math.isfinite(value) else "not defined"
        error = error_of(data.metrics, name)
        of = parse(name)
        nats = "nats " if of is not None and of.figure.unit == "nats" else ""
        margin = f"± {error:.2g}" if math.isfinite(error) else ""
        unit = f"{nats}{margin}".rstrip() if math.isfinite(value) else ""
        yield Number(name, written, unit, meaning_of(name, _part(data, of)))


def _part(data: ReportData, of: Key | None) -> str:
    """Names the category or dimension that a figure is about; empty if it is about neither."""
    if of is None:
        return ""
    if of.name == "occupancy":
        return letter(int(of.site))
    if of.index is None:
        return ""
    if of.site in data.vae.categories:
        return f"category {letter(of.index)} of {of.site}"
    return f"dimension {of.index} of {of.site}"


def _figure(metrics: Mapping[str, float], name: str, meaning: str) -> Number:
    value = metrics[name]
    unit = f"nats {write_error(error_of(metrics, name))}".rstrip()
    return Number(_title(name), write_number(value), unit if math.isfinite(value) else "", meaning)


def _title(name: str) -> str:
    text = label(name)
    return text[:1].upper() + text[1:]


def _kl(data: ReportData, site: str) -> Number:
    if data.category and site not in data.vae.categories:
        meaning = (
            f"KL divergence of {site} from the prior of its category: its cost given the category."
        )
    else:
        meaning = (
            f"Mean KL divergence of q({site} | x) from the prior: the cost of {site}, and an "
            "upper bound on its information."
        )
    if not math.isfinite(data.metrics[key("kl", site)]):
        meaning = f"The guide makes {site} a function of the data, so its KL is not defined."
    return _figure(data.metrics, key("kl", site), meaning)


def _information(data: ReportData, site: str) -> Number:
    lower, upper = interval(data.metrics, "mi", site)
    name, k = label(key("mi", site)), data.vae.categories.get(site)
    meaning = f"Information of {site} about the {data.noun}: a lower and an upper bound."
    if k is not None:
        meaning = (
            f"Information of the category about the {data.noun}: a lower and an upper bound. It "
            f"cannot exceed log {k} = {math.log(k):.2f} nats."
        )
    if upper - lower > _OPEN:
        n = data.num_data
        meaning += (
            f" They are far apart, because with {n:,} {data.nouns} the lower one cannot exceed "
            f"log {n:,} = {math.log(n):.2f}."
        )
    written = write_interval(lower, upper)
    if written == "not defined":
        return Number(name, written, "", f"No bound is defined for {site}.")
    ends = [key("mi", site, side) for side in (LOWER, UPPER)]
    errors = [e for e in (error_of(data.metrics, end) for end in ends) if math.isfinite(e)]
    margin = write_error(max(errors, default=math.nan))
    return Number(name, written, f"nats {margin}".rstrip(), meaning)


def _used(data: ReportData) -> int:
    used = data.metrics.get("categories_used", math.nan)
    return round(used) if math.isfinite(used) else int((data.occupancy > 0).sum())


def _defined(metrics: Mapping[str, float], *keys: str) -> bool:
    return all(math.isfinite(metrics.get(key, math.nan)) for key in keys)
