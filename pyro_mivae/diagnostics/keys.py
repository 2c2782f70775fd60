"""Names of figures that come one per dimension of a site, or one per category of it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_mivae.errors import OptionError

_INDEXED = re.compile(r"(kl|mi)_(.+)\[(\d+)\](?:_(.+))?")


def is_indexed(name: str) -> bool:
    """Tells whether a figure is that of a single dimension or category, as ``kl_z[3]``."""
    return _INDEXED.fullmatch(name) is not None


def by_index(figures: Mapping[str, float], site: str) -> dict[str, Tensor]:
    """Collects the figures of a site's dimensions, or categories.

    Example:
        >>> by_index({"kl_z[0]": 1.5, "kl_z[1]": 0.0, "kl_z": 1.5}, "z")["kl"].tolist()
        [1.5, 0.0]
    """
    columns: dict[str, dict[int, float]] = {}
    sites = []
    for name, value in figures.items():
        match = _INDEXED.fullmatch(name)
        if match is None:
            continue
        kind, its_site, index, suffix = match.groups()
        sites.append(its_site)
        if its_site == site:
            column = kind if suffix is None else f"{kind}_{suffix}"
            columns.setdefault(column, {})[int(index)] = torch.nan if value is None else value
    if not columns:
        raise OptionError(
            f"site {site!r} has no figures of single dimensions or categories; sites that have: "
            f"{', '.join(dict.fromkeys(sites)) or 'none'}"
        )
    return {
        name: torch.tensor([column[d] for d in sorted(column)], dtype=torch.float64)
        for name, column in columns.items()
    }
