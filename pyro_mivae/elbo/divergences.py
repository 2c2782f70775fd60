"""Divergences of a guide: latent sites, with the auxiliary sites behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from pyro.ops.provenance import detach_provenance, get_provenance, track_provenance
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from pyro.util import get_rng_state, set_rng_state
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pyro_mivae.compat import version_of
from pyro_mivae.errors import SiteError
from pyro_mivae.handlers import are_equal
from pyro_mivae.schedules import Weight
from pyro_mivae.traces import TracePair, is_deterministic


@dataclass(frozen=True)
class Divergence:
    """Sites whose log-densities make up one divergence."""

    name: str  # the latent site, or the auxiliary one if there are several latent sites, or none
    sites: tuple[str, ...]
    latent: tuple[str, ...]  # the sites that the model samples too
    is_defined: bool = True  # False for a point mass, which has no divergence
    is_whole: bool = True  # False if an auxiliary site of the guide belongs to no latent site

    def weight(self, weights: Mapping[str, Weight]) -> Weight | None:
        """Finds the weight of the divergence."""
        found = [weights.get(name) for name in self.latent]
        if not any(found):
            return None
        if not are_equal(found):
            raise SiteError(
                f"the guide draws the sites {list(self.latent)} together, from the auxiliary "
                f"site {self.name!r}, so their divergence is one number and a weight of one of "
                "them has no meaning; give all of them the same weight, or draw each "
                "separately, as AutoNormal does"
            )
        if not self.is_whole:
            raise SiteError(
                f"the guide makes {self.name!r} a point mass and has auxiliary sites without a "
                "visible link to a latent site, so the weighted divergence is not known; "
                "compute the site's value from the auxiliary one by torch operations"
            )
        return found[0]


def divergences(pair: TracePair) -> tuple[Divergence, ...]:
    """Finds the divergences that make up the rate of a pair."""
    guide = pair.guide.nodes
    point = {name: is_deterministic(guide[name]) for name in [*pair.latent, *pair.auxiliary]}
    if not pair.auxiliary or pair.program is None:
        names = [*pair.latent, *pair.auxiliary]
        return tuple(_divergence((name,), pair, point) for name in names)
    origins = _origins(pair.program)
    drawn = [name for name in pair.auxiliary if not guide[name]["is_observed"]]
    groups = {name: {name} for name in point}

    def join(names: set[str]) -> None:
        joined = set().union(*(groups[name] for name in names))
        groups.update(dict.fromkeys(joined, joined))

    def made_of(name: str) -> set[str]:
        """Auxiliary sites that a site depends on, through others too."""
        direct = set(origins[name] & set(drawn))
        return direct.union(*(made_of(other) for other in direct))

    for auxiliary in drawn:
        users = [name for name in pair.latent if auxiliary in made_of(name)]
        points = [name for name in users if point[name]]
        join({auxiliary, *(points or users)})
    for name in set(pair.auxiliary) - set(drawn):
        join({name} | (origins[name] & groups.keys()))
    ordered = dict.fromkeys(tuple(n for n in point if n in groups[name]) for name in point)
    found = [_divergence(sites, pair, point) for sites in ordered]
    unused = any(set(part.sites) <= set(drawn) for part in found)
    return tuple(replace(part, is_whole=part.is_defined or not unused) for part in found)


def _divergence(sites: tuple[str, ...], pair: TracePair, point: Mapping[str, bool]) -> Divergence:
    latent = tuple(name for name in sites if name in pair.latent)
    others = [name for name in sites if name not in latent]
    drawn = [name for name in sites if not pair.guide.nodes[name]["is_observed"]]
    return Divergence(
        name=latent[0] if len(latent) == 1 or not others else others[0],
        sites=sites,
        latent=latent,
        is_defined=not drawn or not all(point[name] for name in drawn),
    )


class _Origins(Messenger):
    """Finds the sites that each site is computed from directly, by Pyro's provenance."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, frozenset[str]] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        name, value = msg["name"], msg["value"]
        source = msg["fn"].log_factor if site_is_factor(msg) else value
        self.found[name] = get_provenance(source)
        if not msg["is_observed"]:
            msg["value"] = track_provenance(detach_provenance(value), frozenset({name}))


def _origins(program: Any) -> Mapping[str, frozenset[str]]:
    """Runs a program again, and restores random numbers and modules."""
    origins = _Origins()
    state = get_rng_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with (
        torch.random.fork_rng(devices),
        _modules_kept(),
        torch.no_grad(),
        poutine.block(),
        origins,
    ):
        program()
    set_rng_state(state)
    return origins.found


@contextmanager
def _modules_kept() -> Iterator[None]:
    """Restores the buffers of the modules that are called inside."""
    kept: dict[int, tuple[Tensor, Tensor, int | None]] = {}

    def keep(module: nn.Module, args: Any) -> None:
        # Batch norm changes its statistics without a new version.
        silent = module.training and getattr(module, "track_running_stats", False)
        for buffer in module.buffers(recurse=False):
            version = None if silent else version_of(buffer)
            kept.setdefault(id(buffer), (buffer, buffer.detach().clone(), version))

    try:
        with register_module_forward_pre_hook(keep):
            yield
    finally:
        for buffer, value, version in kept.values():
            if version_of(buffer) != version:
                buffer.data.copy_(value)  # a graph may have saved this version
