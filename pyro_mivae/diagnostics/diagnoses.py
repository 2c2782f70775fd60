"""Sentences that say what is wrong with a model, from the figures of its report."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

from pyro_mivae.arguments import checked, instance, named, several, text
from pyro_mivae.figures import CRITIC, LOWER, UPPER, error_of, interval, key, parsed, sites_of

NOTHING = 0.02  # nats under which a site, a dimension or a category says nothing
RARE = 0.005  # share of the data under which a category is out of use
MOST = 0.9  # share of the data from which one category has them all
HALF, MARGIN = 0.5, 0.5  # what falls short is under half of another figure, and 0.5 nats under it
LOOSE = 3.0  # nats from which a gap between bounds of log p(x) is worth a word
FAR = 1.0  # nats from which all codes together are far from the prior


@dataclass(frozen=True)
class Diagnosis:
    """Something that stands out in a model's figures.

    Attributes:
        kind: Which of the rules of `diagnose` it is.
        about: The site, ``code`` for all of them together, or ``critic``.
        sentence: It in words, with the figures.
    """

    kind: str
    about: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@checked(figures=named(instance(Real, example="0.5")), noise=several(text(), least=0))
def diagnose(figures: Mapping[str, float], *, noise: Collection[str] = ()) -> list[Diagnosis]:
    """Reads the figures of a model as someone would who has seen many.

    The rules, by kind; figures that are missing or not defined set off none, nor those whose
    standard error is not defined; where two measured figures are compared they must differ by two
    standard errors besides:

    * ``collapsed``: a site's information is under 0.02 nats at most; a likelihood's fixed scale
      is named where it is the cause.
    * ``unused dimensions``: that of some of its dimensions is.
    * ``unused categories``: some hold under 0.5 % of the data (or, where occupancy was not
      measured, under 0.02 nats of the information at most).
    * ``one category``: one holds over 90 % of the data.
    * ``ignored by the decoder``: a site's information in the guide is, at least, twice what it
      has in the model's own samples at most, and 0.5 nats above it: the code is richer than
      what the decoder uses.
    * ``critic too low``, ``critic too high``: a critic hears under half of the information there
      is at least, and 0.5 nats under it; or 0.5 nats more than there is at most.
    * ``prior unlike the codes``: all codes together are 1 nat or more from the prior, and a
      quarter of the rate or more.
    * ``loose bound``: the importance-weighted (or annealed) bound of log p(x) is 3 nats or more
      above the ELBO.
    * ``saturated``: the data are too few to close the bounds on the code's information.

    Args:
        figures: What `information`, `evaluate` or a ``metrics.json`` holds.
        noise: Sites that are not meant to say anything of the data, as InfoGAN's noise.

    Returns:
        What stands out, the sites' first; nothing where all is well.

    Example:
        >>> figures = {"kl_z": 0.003, "mi_z_lower": 0.0, "mi_z_upper": 0.002}
        >>> print(*diagnose(figures))
        z is collapsed: it holds 0.002 nats about the data at most, at a cost of 0.003.
    """
    found: list[Diagnosis] = []
    for site in _sites(figures):
        found += _site(figures, site)
    found += _categories(figures)
    found += _decoder(figures)
    found += _critics(figures)
    found += _code(figures)
    return [diagnosis for diagnosis in found if diagnosis.about not in noise]


def _sites(figures: Mapping[str, float]) -> list[str]:
    return [site for site in sites_of(figures) if key("mi", site, LOWER) in figures]


def _site(figures: Mapping[str, float], site: str) -> Iterator[Diagnosis]:
    most = interval(figures, "mi", site)[1]
    if most + 2 * _error(figures, key("mi", site, UPPER)) < NOTHING:
        cost = _get(figures, key("kl", site))
        spent = "" if math.isnan(cost) else f", at a cost of {_nats(cost)}"
        yield Diagnosis(
            "collapsed",
            site,
            f"{site} is collapsed: it holds {_nats(most)} nats about the data at most{spent}."
            + _cause(figures),
        )
        return
    every = {
        k.index: value
        for k, value in parsed(figures, "mi")
        if k.site == site and k.index is not None and k.side == UPPER
    }
    # Categories have shares of the information, and no KL of their own.
    is_category = key("kl", site, index=0) not in figures
    unused = [index for index, value in every.items() if value < NOTHING]
    if not unused or (is_category and any(parsed(figures, "occupancy"))):
        return
    kind = "categories" if is_category else "dimensions"
    yield Diagnosis(
        f"unused {kind}",
        site,
        f"{len(unused)} of {len(every)} {kind} of {site} ({_list(unused)}) hold under "
        f"{NOTHING} nats each.",
    )


def _cause(figures: Mapping[str, float]) -> str:
    """Names a likelihood's fixed scale that no code can pay for, if there is one."""
    scale, spread = _get(figures, "fixed_scale"), _get(figures, "data_scale")
    if not scale >= spread:
        return ""
    return (
        f" The likelihood's fixed scale of {scale:.3g} is the cause: the data spread by "
        f"{spread:.3g} at most in any direction, so that no code pays for itself. Learn the "
        'scale (likelihood="gaussian").'
    )


def _categories(figures: Mapping[str, float]) -> Iterator[Diagnosis]:
    shares = {int(k.site): value for k, value in parsed(figures, "occupancy") if k.site.isdigit()}
    if not shares:
        return
    largest = max(shares, key=lambda k: shares[k])
    if shares[largest] > MOST and len(shares) > 1:
        yield Diagnosis(
            "one category",
            "c",
            f"Category {largest} takes {shares[largest]:.0%} of the data: the others tell "
            "nothing apart.",
        )
        return
    rare = sorted(k for k, share in shares.items() if share < RARE)
    if rare:
        which = f"Category {rare[0]} takes" if len(rare) == 1 else f"Categories {_list(rare)} take"
        each = "" if len(rare) == 1 else " each"
        yield Diagnosis(
            "unused categories",
            "c",
            f"{which} under {RARE:.1%} of the data{each}: {len(shares) - len(rare)} of "
            f"{len(shares)} are in use.",
        )


def _decoder(figures: Mapping[str, float]) -> Iterator[Diagnosis]:
    for site in _sites(figures):
        written, read = key("mi", site, LOWER), key("generative_mi", site, UPPER)
        if _is_short(figures, read, written):
            yield Diagnosis(
                "ignored by the decoder",
                site,
                f"{site} is richer than the decoder uses: the guide writes at least "
                f"{_nats(figures[written])} nats about the data into it, and the model's samples "
                f"show at most {_nats(figures[read])} of it.",
            )


def _critics(figures: Mapping[str, float]) -> Iterator[Diagnosis]:
    for k, heard in parsed(figures, "mi"):
        if k.side != CRITIC:
            continue
        sites = k.site
        least, most = interval(figures, "mi", "" if _is_whole(figures, sites) else sites)
        if falls_short(heard, least):
            yield Diagnosis(
                "critic too low",
                "critic",
                f"The critic hears {_nats(heard)} nats of I(x; {sites}), of which there are "
                f"{_nats(least)} at least: its term raised a part of the information.",
            )
        elif heard - MARGIN - 2 * _error(figures, str(k)) > most:
            yield Diagnosis(
                "critic too high",
                "critic",
                f"The critic hears {_nats(heard)} nats of I(x; {sites}), of which there are "
                f"{_nats(most)} at most: its estimate cannot be trusted.",
            )


def _code(figures: Mapping[str, float]) -> Iterator[Diagnosis]:
    far, rate = interval(figures, "marginal_kl")[0], _get(figures, "rate")
    if far - 2 * _error(figures, key("marginal_kl", side=LOWER)) > max(FAR, rate / 4):
        yield Diagnosis(
            "prior unlike the codes",
            "code",
            f"All codes together are {_nats(far)} nats or more from the prior, of a rate of "
            f"{_nats(rate)}: what is sampled from the prior is decoded where few data are.",
        )
    elbo = _get(figures, "elbo")
    for bound, name in (("log_px_ais", "annealed"), ("log_px", "importance-weighted")):
        gap = _get(figures, bound) - elbo
        if gap - 2 * _error(figures, bound) > LOOSE:
            yield Diagnosis(
                "loose bound",
                "code",
                f"The {name} bound of log p(x) is {_nats(gap)} nats above the ELBO: so much, or "
                "more, is lost since the guide is not the posterior.",
            )
            break
    if _get(figures, "saturated") == 1:
        least, most = interval(figures, "mi")
        between = "" if math.isnan(most) else f" and {_nats(most)} at most"
        fitted = interval(figures, "fitted_mi")
        other = f"; a fitted marginal says {_nats(fitted[0])} to {_nats(fitted[1])}"
        ending = "" if math.isnan(sum(fitted)) else other
        yield Diagnosis(
            "saturated",
            "code",
            f"The code holds {_nats(least)} nats about the data at least{between}: the data are "
            "too few for bounds closer together, as the first cannot exceed the log of their "
            f"number{ending}.",
        )


def falls_short(heard: float, least: float) -> bool:
    """Tells whether an estimate is under half of a lower bound, and 0.5 nats under it."""
    return heard < HALF * least and heard < least - MARGIN


def _is_short(figures: Mapping[str, float], small: str, large: str) -> bool:
    margin = 2 * math.hypot(_error(figures, small), _error(figures, large))
    return falls_short(_get(figures, small) + margin, _get(figures, large))


def _is_whole(figures: Mapping[str, float], sites: str) -> bool:
    """Tells whether sites joined by ``_`` are all there are, in any order."""
    return sorted(sites.split("_")) == sorted("_".join(_sites(figures)).split("_"))


def _get(figures: Mapping[str, float], name: str) -> float:
    return figures.get(name, math.nan)


def _error(figures: Mapping[str, float], name: str) -> float:
    """Standard error of a figure, 0 where there is none; NaN, as of one datum, stays."""
    return error_of(figures, name, missing=0.0)


def _nats(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def _list(numbers: Sequence[int], at_most: int = 8) -> str:
    shown = ", ".join(map(str, numbers[:at_most]))
    return shown if len(numbers) <= at_most else f"{shown}, ..."
