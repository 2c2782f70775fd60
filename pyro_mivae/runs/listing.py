"""Lists of all that is chosen by name."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping

from pyro_mivae.data import DATASETS
from pyro_mivae.guides import GUIDES
from pyro_mivae.likelihoods import LIKELIHOODS
from pyro_mivae.networks import ADVERSARIAL_NETWORKS, NETWORKS
from pyro_mivae.options import flags_of
from pyro_mivae.priors import PRIORS
from pyro_mivae.runs.config import ModelParts, plain_defaults
from pyro_mivae.variants import VARIANTS

NO_BREAK = "\N{NO-BREAK SPACE}"
SYMBOLS = {r"\mid": "|", r"\sim": "~", r"\,": " ", r"\lambda": "λ", r"\beta": "β"}


def listing() -> str:
    """Lists variants with the options that they take, priors, guides, and data sets."""
    sections: dict[str, Mapping[str, object]] = {
        "variants (pyro-mivae train VARIANT)": VARIANTS,
        "data sets (--data NAME, or FILE.npz, or FOLDER)": DATASETS,
        "priors (--prior NAME, or FILE.py:NAME)": PRIORS,
        "guides (--guide NAME, or FILE.py:NAME)": GUIDES,
        "likelihoods (--likelihood NAME)": LIKELIHOODS,
        "networks (--network NAME, or auto)": NETWORKS,
        "networks of infogan (--network NAME, or auto)": ADVERSARIAL_NETWORKS,
    }
    lines = []
    for title, registry in sections.items():
        width = max(map(len, registry))
        lines += ["", title]
        for name, of in registry.items():
            lines.append(f"  {name:<{width}}  {_first_line(of)}".rstrip())
            options = ", ".join(_options(name)) if registry is VARIANTS else ""
            told = textwrap.wrap(options, 96 - width, break_on_hyphens=False)
            lines += [f"  {'':<{width}}  {line.replace(NO_BREAK, ' ')}" for line in told]
    return "\n".join(lines[1:])


def _options(variant: str) -> Iterator[str]:
    """Flags of a variant's options, with the defaults that hold for all data."""
    defaults = plain_defaults(variant)
    for name, flag in (flags_of(VARIANTS[variant].options()) | flags_of(ModelParts)).items():
        default = defaults.get(name)
        yield (
            flag if default is None or isinstance(default, bool) else f"{flag}{NO_BREAK}{default}"
        )


def _first_line(of: object) -> str:
    """First paragraph of a docstring, its mathematics as plain text."""
    text = " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split())
    text = re.sub(r"(?:: )?:math:`[^`]{30,}`", "", text)  # what is too long for a list
    text = re.sub(r":math:`([^`]*)`|``([^`]*)``", r"\1\2", text)
    for latex, plain in SYMBOLS.items():
        text = text.replace(latex, plain)
    return text.replace("`", "").rstrip(".")
