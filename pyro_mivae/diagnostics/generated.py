"""Data that a model draws, each with the code that it was drawn with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.diagnostics.layout import Layout
from pyro_mivae.handlers import push_forward
from pyro_mivae.sites import data_sites
from pyro_mivae.traces import Program, trace_program

Values = dict[str, Tensor]


@dataclass(frozen=True)
class Generated:
    """Data drawn from a model, each with the code that it was drawn with.

    Attributes:
        x: The data, sampled from the likelihood, shape ``(n, ...)``.
        code: The value of every site, shape ``(n, *event)``.
        log_likelihood: :math:`log p(x | code)`, float64, shape ``(n,)``.
        observed: The site of the data.
        distribution: Name of the distribution that they were sampled from.
    """

    x: Tensor
    code: Values
    log_likelihood: Tensor
    observed: str
    distribution: str

    def take(self, rows: slice | Tensor) -> Generated:
        """Returns some of the data."""
        code = {name: value[rows] for name, value in self.code.items()}
        x, likelihood = self.x[rows], self.log_likelihood[rows]
        return Generated(x, code, likelihood, self.observed, self.distribution)


def generate(model: Program, x: Tensor, items: int, layout: Layout, batch_size: int) -> Generated:
    """Draws codes from the prior, and data from the likelihood, not its mean."""
    program = push_forward(model, lambda fn: fn.sample())
    parts = []
    for start in range(0, items, batch_size):
        places = torch.arange(start, min(items, start + batch_size), device=x.device) % len(x)
        trace = trace_program(program, (x[places],), {})
        (name,) = data_sites(trace)
        seen = trace.nodes[name]
        value = seen["value"].to(x.dtype)
        code = {site: trace.nodes[site]["value"] for site in layout.latent}
        kind = _public_name(seen["fn"])
        parts.append(Generated(value, code, seen["fn"].log_prob(value).double(), name, kind))
    return Generated(
        torch.cat([part.x for part in parts]),
        {name: torch.cat([part.code[name] for part in parts]) for name in layout.latent},
        torch.cat([part.log_likelihood for part in parts]),
        parts[0].observed,
        parts[0].distribution,
    )


def _public_name(fn: Any) -> str:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return next(c.__name__ for c in type(fn).__mro__ if not c.__name__.startswith("_"))
