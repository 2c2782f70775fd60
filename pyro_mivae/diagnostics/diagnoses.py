"""Sentences about faults of a model, from the figures of its report."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

from pyro_mivae.arguments import checked, instance, named, several, text
from pyro_mivae.figures import CRITIC, LOWER, UPPER, error_of, interval, key, parsed, sites_of

NOTHING = 0.02  # nats under which a site, a dimension or a category says nothing
RARE = 0.005  # share of the data under which a category is unused
MOST = 0.9  # share of the data from which one category has them all
HALF, MARGIN = 0.5, 0.5  # an estimate falls short if under half of a bound, and 0.5 nats under it
LOOSE = 3.0  # nats from which a gap between bounds of log p(x) is worth a word
FAR = 1.0  # nats from which all codes together are far from the prior
SHOWN = 8  # numbers of dimensions or categories in a sentence

Fault = tuple[str, str, str]


@dataclass(frozen=True)
class Diagnosis:
    """A fault that a model's figures show.

    Attributes:
        kind: One of the rules of `diagnose`.
        about: The site, ``code`` for all of them together, or ``critic``.
        sentence: The fault in words, with the figures.
    """

    kind: str
    about: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@checked(figures=named(instance(Real, example="0.5")), noise=several(text(), least=0))
def diagnose(figures: Mapping[str, float], *, noise: Collection[str] = ()) -> list[Diagnosis]:
    """Finds faults of a model in its figures.

    Each kind is a rule. Missing or undefined figures, and those with an undefined standard error,
    are ignored. A difference of two measured figures must also exceed two standard errors:

    * ``collapsed``: the upper bound on a site's information is under 0.02 nats; a fixed scale of
      the likelihood is named if it is the cause.
    * ``unused dimensions``: that bound is under 0.02 nats for some of its dimensions.
    * ``unused categories``: some hold under 0.5 % of the data (or, if occupancy was not measured,
      at most 0.02 nats of the information).
    * ``one category``: one holds over 90 % of the data.
    * ``ignored by the decoder``: the lower bound on a site's information in the guide is twice the
      upper bound in the model's own samples, and 0.5 nats above it: the decoder does not use all
      of the code.
    * ``critic too low``, ``critic too high``: a critic's estimate is under half of the lower bound
      on the information, and 0.5 nats under it; or 0.5 nats above the upper bound.
    * ``prior unlike the codes``: all codes together are 1 nat or more from the prior, and a
      quarter of the rate or more.
    * ``loose bound``: the importance-weighted (or annealed) bound of log p(x) is 3 nats or more
      above the ELBO.
    * ``annealed too briefly``: the annealed bounds of log p(x) are 0.5 nats or more apart on the
      model's own data.
    * ``saturated``: the data are too few to close the bounds on the code's information.

    Args:
        figures: The figures of `information`, `evaluate` or a ``metrics.json``.
        noise: Sites without intended information, such as InfoGAN's noise.

    Returns:
        The faults, those of sites first; empty if there are none.

    Example:
        >>> figures = {"kl_z": 0.003, "mi_z_lower": 0.0, "mi_z_upper": 0.002}
        >>> print(*diagnose(figures))
        z is collapsed: it holds 0.002 nats about the data at most, at a cost of 0.003.
    """
    table = _Table(figures)
    rules = (_of_sites, _of_categories, _of_the_decoder, _of_critics, _of_the_code)
    found = [Diagnosis(*fault) for rule in rules for fault in rule(table)]
    return [diagnosis for diagnosis in found if diagnosis.about not in noise]


class _Table(dict[str, float]):
    """Figures by key, NaN where they are missing."""

    def __missing__(self, name: str) -> float:
        return math.nan

    def margin(self, *names: str) -> float:
        """Two standard errors; 0 if there are none, NaN if undefined (one datum)."""
        return 2 * math.hypot(*(error_of(self, name, missing=0.0) for name in names))

    @property
    def sites(self) -> list[str]:
        """Sites whose information is bounded."""
        return [site for site in sites_of(self) if key("mi", site, LOWER) in self]


def _of_sites(figures: _Table) -> Iterator[Fault]:
    for site in figures.sites:
        most = interval(figures, "mi", site)[1]
        every = {
            k.index: value
            for k, value in parsed(figures, "mi")
            if k.site == site and k.index is not None and k.side == UPPER
        }
        unused = [index for index, value in every.items() if value < NOTHING]
        # Categories have shares of the information, and no KL of their own.
        is_category = key("kl", site, index=0) not in figures
        if most + figures.margin(key("mi", site, UPPER)) < NOTHING:
            cost = figures[key("kl", site)]
            spent = "" if math.isnan(cost) else f", at a cost of {_nats(cost)}"
            sentence = f"{site} is collapsed: it holds {_nats(most)} nats about the data at most"
            yield "collapsed", site, f"{sentence}{spent}.{_cause(figures)}"
        elif unused and not (is_category and any(parsed(figures, "occupancy"))):
            kind = "categories" if is_category else "dimensions"
            which = f"{len(unused)} of {len(every)} {kind} of {site} ({_list(unused)})"
            hold, each = ("holds", "") if len(unused) == 1 else ("hold", " each")
            yield f"unused {kind}", site, f"{which} {hold} under {NOTHING} nats{each}."


def _cause(figures: _Table) -> str:
    """Names a fixed scale of the likelihood that is too large for any code to pay off."""
    scale, spread = figures["fixed_scale"], figures["data_scale"]
    if not scale >= spread:
        return ""
    return (
        f" The likelihood's fixed scale of {scale:.3g} is the cause: the data spread by "
        f"{spread:.3g} at most in any direction, so no code pays for itself. Learn the "
        'scale (likelihood="gaussian").'
    )


def _of_categories(figures: _Table) -> Iterator[Fault]:
    shares = {int(k.site): value for k, value in parsed(figures, "occupancy") if k.site.isdigit()}
    largest = max(shares, key=lambda k: shares[k], default=0)
    rare = sorted(k for k, share in shares.items() if share < RARE)
    if len(shares) > 1 and shares[largest] > MOST:
        taken = f"Category {largest} takes {shares[largest]:.0%} of the data"
        yield "one category", "c", f"{taken}: the others hold almost no information."
    elif rare:
        which = f"Category {rare[0]} takes" if len(rare) == 1 else f"Categories {_list(rare)} take"
        under = f"under {RARE:.1%} of the data{'' if len(rare) == 1 else ' each'}"
        left = f"{len(shares) - len(rare)} of {len(shares)} are in use."
        yield "unused categories", "c", f"{which} {under}: {left}"


def _of_the_decoder(figures: _Table) -> Iterator[Fault]:
    for site in figures.sites:
        written, read = key("mi", site, LOWER), key("generative_mi", site, UPPER)
        if falls_short(figures[read] + figures.margin(read, written), figures[written]):
            yield (
                "ignored by the decoder",
                site,
                f"{site} is richer than the decoder uses: the guide writes at least "
                f"{_nats(figures[written])} nats about the data into it, and the model's samples "
                f"show at most {_nats(figures[read])} of it.",
            )


def _of_critics(figures: _Table) -> Iterator[Fault]:
    for k, heard in parsed(figures, "mi"):
        if k.side != CRITIC:
            continue
        # A critic of all sites, joined by _ in any order, is one of the whole code.
        is_whole = sorted(k.site.split("_")) == sorted("_".join(figures.sites).split("_"))
        least, most = interval(figures, "mi", "" if is_whole else k.site)
        hears = f"The critic estimates {_nats(heard)} nats of I(x; {k.site}), which is"
        if falls_short(heard, least):
            end = f"{_nats(least)} at least: its term raised only a part of the information."
            yield "critic too low", "critic", f"{hears} {end}"
        elif heard - MARGIN - figures.margin(str(k)) > most:
            end = f"{_nats(most)} at most: its estimate cannot be trusted."
            yield "critic too high", "critic", f"{hears} {end}"


def _of_the_code(figures: _Table) -> Iterator[Fault]:
    far, rate = interval(figures, "marginal_kl")[0], figures["rate"]
    if far - figures.margin(key("marginal_kl", side=LOWER)) > max(FAR, rate / 4):
        yield (
            "prior unlike the codes",
            "code",
            f"The KL of all codes together from the prior is {_nats(far)} nats or more, of a "
            f"rate of {_nats(rate)}: samples of the prior lie where few codes of data are.",
        )
    for bound, name in (("log_px_ais", "annealed"), ("log_px", "importance-weighted")):
        gap = figures[bound] - figures["elbo"]
        if gap - figures.margin(bound) > LOOSE:
            yield (
                "loose bound",
                "code",
                f"The {name} bound of log p(x) is {_nats(gap)} nats above the ELBO: the "
                "approximate posterior costs at least this many nats.",
            )
            break
    apart = figures["log_px_ais_gap"]
    if apart - figures.margin("log_px_ais_gap") > MARGIN:
        yield (
            "annealed too briefly",
            "code",
            f"The annealed bounds of log p(x) are {_nats(apart)} nats apart on the model's own "
            "data: the annealed log p(x) may be low by as much; give more temperatures.",
        )
    if figures["saturated"] == 1:
        (least, most), fitted = interval(figures, "mi"), interval(figures, "fitted_mi")
        between = "" if math.isnan(most) else f" and {_nats(most)} at most"
        other = f"; a fitted marginal gives {_nats(fitted[0])} to {_nats(fitted[1])}"
        yield (
            "saturated",
            "code",
            f"The code holds {_nats(least)} nats about the data at least{between}: the data are "
            "too few for closer bounds, because the lower one cannot exceed the log of their "
            f"number{'' if math.isnan(sum(fitted)) else other}.",
        )


def falls_short(heard: float, least: float) -> bool:
    """True if an estimate is under half of a lower bound, and more than 0.5 nats below it."""
    return heard < HALF * least and heard < least - MARGIN


def _nats(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def _list(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN]))
    return shown if len(numbers) <= SHOWN else f"{shown}, ..."
