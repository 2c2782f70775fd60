"""What there is to choose from, by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

from pyro_mivae.data import DATASETS
from pyro_mivae.guides import GUIDES
from pyro_mivae.likelihoods import LIKELIHOODS
from pyro_mivae.networks import NETWORKS
from pyro_mivae.priors import PRIORS
from pyro_mivae.runs.options import MODEL_OPTIONS
from pyro_mivae.variants import VARIANTS


def listing() -> str:
    """Lists variants with the options that they take, priors, guides, and data sets.

    Returns:
        Lines of text.
    """
    lines = ["variants (pyro-mivae train VARIANT)"]
    width = max(map(len, VARIANTS))
    for name, variant_class in VARIANTS.items():
        flags = [o.flag for o in MODEL_OPTIONS if o.is_taken_by(variant_class)]
        lines += [f"  {name:<{width}}  {_first_line(variant_class)}"]
        lines += [f"  {'':<{width}}  {' '.join(flags)}"]
    sections: dict[str, Mapping[str, object]] = {
        "data sets (--data NAME, or FILE.npz, or FOLDER)": DATASETS,
        "priors (--prior NAME, or FILE.py:NAME)": PRIORS,
        "guides (--guide NAME, or FILE.py:NAME)": GUIDES,
        "likelihoods (--likelihood NAME)": LIKELIHOODS,
        "networks (--network NAME, or auto)": NETWORKS,
    }
    for title, registry in sections.items():
        width = max(map(len, registry))
        lines += ["", title]
        lines += [
            f"  {name:<{width}}  {_first_line(of)}".rstrip() for name, of in registry.items()
        ]
    return "\n".join(lines)


def _first_line(of: object) -> str:
    """First paragraph of a docstring, its mathematics as plain text."""
    text = " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split())
    text = re.sub(r"(?:: )?:math:`[^`]{30,}`", "", text)  # what is too long for a list
    text = re.sub(r":math:`([^`]*)`|``([^`]*)``", r"\1\2", text)
    return text.replace(r"\lambda", "λ").replace(r"\beta", "β").rstrip(".")
