"""Means, standard deviations and draws of a variant's code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_mivae.arguments import choice, function, whole
from pyro_mivae.errors import OptionError
from pyro_mivae.models import code_program
from pyro_mivae.sites import MEAN_DRAWS, MEAN_SEED
from pyro_mivae.traces import Program, TracePair, is_deterministic, trace_program

What = Literal["mean", "sd", "draws"]
Generated = Literal["mean", "data"]
Codes = dict[str, Tensor]
ENCODED = {
    "what": choice(*get_args(What)),
    "num_draws": whole(least=1),
    "guide": function("guide(x)"),
}
"""Checks of `Variant.encode`."""


@torch.no_grad()
def encoded(
    vae: Any,
    x: Tensor,
    what: What = "mean",
    num_draws: int | None = None,
    guide: Program | None = None,
) -> Codes:
    """Encodes data without a check of their values: also means of counts, see `Variant.encode`."""
    if num_draws is not None and what != "draws":
        raise OptionError(f"num_draws={num_draws} with what={what!r}; it belongs to 'draws'")
    x, guide = x.to(vae.device), vae.guide if guide is None else guide
    with vae.evaluating():
        if what == "draws":
            draws = [drawn_codes(vae, x, guide) for _ in range(num_draws or 1)]
            return {site: torch.stack([draw[site] for draw in draws]) for site in draws[0]}
        prior = code_program(vae.model)
        means, variances = _posterior_moments(
            lambda: TracePair.run(prior, guide, (x,), {}, max_plate_nesting=1),
            x.device,
            spread=what == "sd",
        )
    return {site: value.sqrt() for site, value in variances.items()} if what == "sd" else means


def drawn_codes(vae: Any, x: Tensor, guide: Program) -> Codes:
    """Returns one draw of the guide for each datum; a category is one-hot."""
    nodes = trace_program(guide, (x,), {}).nodes
    values = {site: nodes[site]["value"] for site in vae.sites}
    for site, value in values.items():
        if site in vae.one_hot and value.dim() == 1:
            values[site] = one_hot(value.long(), vae.sites[site]).to(vae.dtype)
    return values


def _posterior_moments(
    run: Callable[[], TracePair], device: torch.device, *, spread: bool
) -> tuple[Codes, Codes]:
    """Returns mean and, if asked for, variance of every site over several runs of the guide."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(MEAN_SEED)
        traces = run()
        runs = [_moments(traces, spread)]
        fixed = [name for name in traces.latent if is_deterministic(traces.guide.nodes[name])]
        noisy = [name not in (*traces.enumerated, *fixed) for name in traces.latent]
        if traces.auxiliary or any(noisy[:-1]):  # a site comes after a drawn one
            runs.append(_moments(run(), spread))
            first, second = (means for means, _ in runs)
            if any(not torch.allclose(first[n], second[n], equal_nan=True) for n in first):
                runs += [_moments(run(), spread) for _ in range(MEAN_DRAWS - 2)]
                means = {name: torch.stack([m[name] for m, _ in runs]) for name in first}
                within = {name: torch.stack([v[name] for _, v in runs]) for name in runs[0][1]}
                variances = {
                    name: value.mean(0) + means[name].var(0, correction=0)
                    for name, value in within.items()
                }
                return {name: value.mean(0) for name, value in means.items()}, variances
    return runs[0]


def _moments(traces: TracePair, spread: bool) -> tuple[Codes, Codes]:
    means = {name: traces.marginal_mean(name) for name in traces.latent}
    if not spread:
        return means, {}
    return means, {name: traces.marginal_variance(name, means[name]) for name in traces.latent}
