"""Variants from configurations: names and files become modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from pyro_mivae.errors import OptionError, PyroMivaeError, nearest
from pyro_mivae.guides import GUIDES
from pyro_mivae.priors import PRIORS, prior_sites
from pyro_mivae.runs.config import (
    PROGRAMS,
    ModelParts,
    RunConfig,
    check_model_options,
    find_variant,
    names_file,
)
from pyro_mivae.runs.programs import run_program
from pyro_mivae.variants import Variant


def build_variant(config: RunConfig, data_shape: Sequence[int]) -> Variant:
    """Builds the variant that a run trains, its weights drawn from the run's seed."""
    variant_class = find_variant(config.variant)
    check_model_options(config.variant, config.model)
    options = dict(config.model)
    parts = {f.name: options.pop(f.name, None) for f in fields(ModelParts)}
    network = parts["network"] or "auto"
    digests = config.programs
    seed = config.training.get("seed", 0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = _sizes(variant_class, data_shape, options) if any(parts.values()) else {}
        modules: dict[str, Any] = {}
        if parts["prior"]:
            modules["prior"] = load_program(parts["prior"], PRIORS, "prior", sizes, digests)
            sizes |= _site_sizes(modules["prior"])
        # A named guide would else normalise by the batch, which its class does not know about.
        if network != "auto" or (parts["guide"] and not variant_class.batch_norm):
            prior = modules.get("prior") or variant_class.build(data_shape, **options).prior
            networks = variant_class.build_networks(network, data_shape, prior_sites(prior)[1])
            modules["encoder"], modules["decoder"] = networks
        if parts["guide"]:
            sizes["encoder"] = modules.pop("encoder", None)
            modules["guide"] = load_program(parts["guide"], GUIDES, "guide", sizes, digests)
        torch.manual_seed(seed)
        own = [f"--{name} {parts[name]}" for name in PROGRAMS if parts[name]]
        with _blaming(f"{' and '.join(own)}: running it fails") if own else nullcontext():
            return variant_class.build(data_shape, **options, **modules)


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Names the code of the user's own that raises."""
    try:
        yield
    except PyroMivaeError:
        raise
    except Exception as error:
        raise OptionError(f"{what}: {type(error).__name__}: {error}") from error


def load_program(
    spec: str,
    registry: Mapping[str, Any],
    kind: str,
    sizes: Mapping[str, Any],
    digests: Mapping[str, str],
) -> Any:
    """Makes a prior or a guide."""
    if names_file(spec):
        factory = run_program(spec, kind, digests.get(kind))
    elif spec in registry:
        factory = registry[spec]
    else:
        allowed = f"{nearest(spec, registry)}; allowed are {', '.join(registry)}, or FILE.py:NAME"
        raise OptionError(f"no {kind} {spec!r}{allowed}")
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise OptionError(
            f"--{kind} {spec} is a {type(factory).__name__}; allowed is a class or function"
        )
    signature = inspect.signature(factory)
    known = {name: value for name, value in sizes.items() if value is not None}
    taken = {name: value for name, value in known.items() if name in signature.parameters}
    try:
        signature.bind(**taken)
    except TypeError as error:
        raise OptionError(
            f"--{kind} {spec}: {error}; what can be passed to it here is {', '.join(known)}: give "
            "the others a default"
        ) from error
    with _blaming(f"--{kind} {spec} fails"):
        return factory(**taken)


def _sizes(
    variant_class: type[Variant], data_shape: Sequence[int], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Sizes that priors and guides may ask for: the variant's own, else those that are given."""
    sizes: dict[str, Any] = {"data_shape": tuple(data_shape)}
    for name in ("latent_dim", "code_dim", "num_categories"):
        sizes[name] = options.get(name)
    try:
        sizes |= _site_sizes(variant_class.build(data_shape, **options).prior)
    except OptionError:
        pass  # sizes that the variant's own prior refuses may suit another
    return sizes


def _site_sizes(prior: Callable[[], torch.Tensor]) -> dict[str, int]:
    """Sizes of a prior's sites, by the keyword that stands for each."""
    sizes: dict[str, int] = {}
    for name, fn in prior_sites(prior)[0].items():
        if fn.has_enumerate_support:
            sizes["num_categories"] = int(fn.probs.shape[-1])
        elif name in ("z", "c"):
            keyword = "latent_dim" if name == "z" else "code_dim"
            sizes[keyword] = int(fn.event_shape.numel())
    return sizes
