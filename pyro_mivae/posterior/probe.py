"""Structure of a model/guide pair, found by running it on the data with several draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.runtime import NonlocalExit
from torch import Tensor

from pyro_mivae.errors import DataError, PyroMivaeError, SiteError
from pyro_mivae.models import data_for
from pyro_mivae.posterior.densities import Posterior, conditioned_trace, enumerated_trace, repeat
from pyro_mivae.posterior.layout import (
    ProbedPair,
    SiteLayout,
    WholePlates,
    check_match,
    check_plate,
    check_signature,
    check_values,
    has_point_mass,
    leading,
    run_pair,
    support_of,
)
from pyro_mivae.posterior.preserved_state import device_of, preserved_state, seeded
from pyro_mivae.sites import has_mean
from pyro_mivae.traces import Program, TracePair, is_deterministic, trace_program

PROBED = 256  # data on which what needs the decoder is tried; structure is looked for on all
MOST_DRAWS = 4  # of each datum, where there are few
PAIRED = 6  # data whose codes are scored under each other's posterior in two ways


@contextmanager
def probed(
    model: Program, guide: Program, x: Tensor, *, batch_size: int, seed: int
) -> Iterator[tuple[Tensor, ProbedPair]]:
    """Checks the data and probes the pair; restores all state, see `preserved_state`."""
    x = data_for(model, guide, x)
    if x.dim() < 1 or not len(x):
        raise DataError(f"x has shape {tuple(x.shape)}; allowed is (n, ...), n of 1 or more")
    device = device_of(x, model, guide)
    with preserved_state(seed, model, guide, device=device):
        layout = probe(model, guide, x, batch_size=batch_size, seed=seed)
        yield x, ProbedPair(model, guide, layout, device, batch_size)


def probe(
    model: Program, guide: Program, x: Tensor, *, batch_size: int = 1024, seed: int = 0
) -> SiteLayout:
    """Finds the dependencies of a pair's sites, by several draws of all data.

    A site depends on others, or on the data, if one datum shows it in one draw. Torch's generators
    are not changed.
    """
    device = device_of(x, model, guide)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    some = x[order[:PROBED]].to(device)
    with seeded(seed, device), torch.no_grad(), pyro.validation_enabled(False), _explained():
        for role, program in (("model", model), ("guide", guide)):
            check_signature(role, program)
        with WholePlates():
            pair = run_pair(model, guide, some)
        layout = _layout(pair)
        ends = {n: (pair.guide.nodes[n]["fn"], pair.model.nodes[n]["fn"]) for n in layout.latent}
        for name, (q, p) in ends.items():
            check_plate(name, q, len(some), layout.sizes)
            check_match(name, q, p)
        for name in layout.enumerated:
            check_values(name, *ends[name])
        for name in pair.observed:
            check_plate(name, pair.model.nodes[name]["fn"], len(some), layout.sizes)
        first, second = (trace_program(guide, (some,), {}) for _ in range(2))
        layout = replace(layout, unscored=_unscored(layout, first, second))
        values = {name: first.nodes[name]["value"] for name in layout.latent}
        skipped = {*layout.unscored, *layout.deterministic}
        shuffled = torch.randperm(len(some)).to(some.device)
        for role, program in (("guide", guide), ("model", model)):
            _check_repeatable(role, program, some, values, skipped, shuffled)
        size = max(1, batch_size // layout.num_configurations)
        chunks = (x[rows].to(device) for rows in order.split(size))
        layout = _with_dependence(layout, model, guide, chunks, len(x))
        return replace(layout, free=layout.free - _unpaired(guide, some, values, layout))


@contextmanager
def _explained() -> Iterator[None]:
    """Explains an error inside a run of the pair."""
    try:
        yield
    except PyroMivaeError:
        raise
    except Exception as error:
        line = str(error).strip().partition("\n")[0]
        raise SiteError(
            f"the pair cannot be run on batches of the data: {type(error).__name__}: {line}; "
            "model(x) and guide(x) are called with batches of any size, so each needs "
            "pyro.plate('data', len(x)) and no parameter of its own per datum"
        ) from error


def _layout(pair: TracePair) -> SiteLayout:
    """Lists the sites; their dependencies are found later."""
    if not pair.observed:
        raise SiteError("the model observes nothing; give one of its sites obs=x")
    if not pair.latent:
        raise SiteError("the guide samples no site; let it sample the sites of the code")
    nodes = pair.guide.nodes
    auxiliary = [name for name in pair.auxiliary if not nodes[name]["is_observed"]]
    if auxiliary:
        raise SiteError(
            f"sites {auxiliary} of the guide are auxiliary; the density of the code "
            "would be an integral over them: sample each site of the model from a distribution "
            "given x, in place of pyro's AutoGuides"
        )
    dims = {-nodes[name]["infer"]["_enumerate_dim"]: name for name in pair.enumerated}
    fixed = tuple(name for name in pair.latent if is_deterministic(nodes[name]))
    drawn = tuple(n for n in pair.latent if n not in fixed and n not in pair.enumerated)
    for name in drawn:
        if has_point_mass(nodes[name]["fn"]):
            raise SiteError(
                f"site {name!r} ({type(nodes[name]['fn']).__name__}) of the guide mixes points "
                "with a density, so its codes have none; draw the choice between the two at "
                "another site"
            )
    return SiteLayout(
        latent=tuple(pair.latent),
        enumerated=tuple(pair.enumerated),
        deterministic=fixed,
        drawn=drawn,
        free=frozenset(pair.latent),
        alone=frozenset(pair.latent),
        branching=frozenset(n for n in pair.latent if leading(nodes[n]["fn"]) > 1),
        sizes=tuple(pair.log_density(dims[dim]).shape[-dim] for dim in sorted(dims, reverse=True)),
        meanless=frozenset(name for name in drawn if not has_mean(nodes[name]["fn"])),
        supports={
            name: support_of(nodes[name]["fn"]) or support_of(pair.model.nodes[name]["fn"])
            for name in drawn
        },
    )


def _unscored(layout: SiteLayout, first: Any, second: Any) -> dict[str, str]:
    """Sites whose density at a given value is not available, with the reason."""
    found = {}
    for name in layout.drawn:
        site, other = first.nodes[name], second.nodes[name]
        fn, value = site["fn"], site["value"]
        try:
            own, again = fn.log_prob(value), fn.log_prob(value.clone())
        except (KeyError, NotImplementedError):
            found[name] = (
                f"site {name} of the guide is scored at its own draws alone, as a transform has "
                "no inverse; use one that has (pyro's affine_autoregressive, spline_coupling)"
            )
            continue
        if float(_differs(own, again, 0.01, 0.05).double().mean()) > 0.1:
            found[name] = (
                f"site {name} of the guide ({type(fn).__name__}) passes on other values than it "
                "scores, as straight-through samples do; a category that is not relaxed is summed "
                "out"
            )
        elif _is_coarse(value, other["value"], layout.supports[name]):
            found[name] = (
                f"values of site {name} ({float(value.abs().max()):.1g} at most) vary too little "
                f"for {str(value.dtype).removeprefix('torch.')}, given the datum; centre and "
                "scale the code, or use float64"
            )
    return found


def _is_coarse(value: Tensor, other: Tensor, support: Any) -> bool:
    """True if the difference of two draws is close to the rounding of their type."""
    if not value.is_floating_point() or (support is not None and support.is_discrete):
        return False
    step = torch.finfo(value.dtype).eps * value.abs()
    coarse = (step > 0.1 * (value - other).abs()).reshape(len(value), -1).double()
    return bool((coarse.mean(0) > 0.5).any())


def _check_repeatable(
    role: str,
    program: Program,
    x: Tensor,
    values: Mapping[str, Tensor],
    skipped: set[str],
    order: Tensor,
) -> None:
    """Refuses a program whose scores of the same datum and code vary."""

    def scores(rows: Tensor | slice) -> dict[str, Tensor]:
        """Log-density of each site of some data, with the code's values given."""
        some = {name: value[rows] for name, value in values.items()}
        trace = conditioned_trace(program, x[rows], some)
        return {
            name: site["fn"].log_prob(site["value"]).double().expand(len(x[rows]))
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and name not in skipped and not is_deterministic(site)
        }

    first, again = (scores(slice(None)) for _ in range(2))
    for name in first:
        if not _moved(first[name], again[name]):
            continue
        if first[name].isnan().any():
            raise SiteError(
                f"the {role} scores site {name!r} as NaN: its weights may have run away in "
                "training, train again with a lower learning rate; or data are out of range"
            )
        raise SiteError(
            f"the {role} scores the same datum and code differently each time (site {name!r}): "
            "it draws random numbers outside pyro.sample, as dropout does; put its modules in "
            "evaluation mode (module.eval()), or draw them at a site"
        )
    halves = [scores(rows) for rows in order.tensor_split([len(x) // 2 + 1]) if len(rows)]
    for name in first:
        apart = torch.cat([half[name] for half in halves])
        if bool(_differs(first[name][order], apart, 1e-3, 1e-2).any()):
            raise SiteError(
                f"the {role} scores a datum and its code by the other data of the batch (site "
                f"{name!r}), as batch normalisation does in training mode; put its modules in "
                "evaluation mode (module.eval()), or make it a function of each datum"
            )


def _with_dependence(
    layout: SiteLayout, model: Program, guide: Program, chunks: Iterator[Tensor], n: int
) -> SiteLayout:
    """Finds which sites depend on drawn ones, on any others, and on the data."""
    draws = 1 + max(1, min(MOST_DRAWS, PROBED // n)) if len(layout.latent) > 1 else 1
    moved: set[str] = set()
    entangled: set[str] = set()
    conditional: set[str] = set()
    for chunk in chunks:
        guides = [enumerated_trace(guide, chunk) for _ in range(draws)]
        priors = [_prior_trace(model, trace, chunk, layout.latent) for trace in guides]
        shifted = _prior_trace(model, guides[0], chunk.roll(1, 0), layout.latent)
        for name in layout.latent:
            conditional |= {name} if _site_moved(priors[0], shifted, name) else set()
            for other, prior in zip(guides[1:], priors[1:], strict=True):
                moved |= {name} if _site_moved(guides[0], other, name, drawn=True) else set()
                entangled |= {name} if _site_moved(priors[0], prior, name) else set()
            ends = (guides[0].nodes[name]["fn"], priors[0].nodes[name]["fn"])
            entangled |= {name} if any(leading(fn) > 1 for fn in ends) else set()
    return replace(
        layout,
        free=layout.free - moved,
        alone=layout.alone - moved - entangled - conditional,
        conditional=frozenset(conditional),
    )


def _prior_trace(model: Program, guide_trace: Any, x: Tensor, names: tuple[str, ...]) -> Any:
    """Traces the model's code at the values of a guide's trace, without the decoder."""
    left = set(names)

    def is_last(msg: Any) -> bool:
        left.discard(msg["name"])
        return not left

    program = poutine.replay(EnumMessenger()(model), trace=guide_trace)
    with poutine.escape(escape_fn=is_last), poutine.trace() as tracer, suppress(NonlocalExit):
        program(x)
    return tracer.trace


def _site_moved(first: Any, second: Any, name: str, drawn: bool = False) -> bool:
    """True if a site's distribution differs between two traces of the same data."""
    a, b = first.nodes[name], second.nodes[name]
    if is_deterministic(a) and is_deterministic(b):
        return _moved(a["fn"].mean, b["fn"].mean)
    value = a["value"].clone() if drawn else a["value"]
    try:
        return _moved(a["fn"].log_prob(value), b["fn"].log_prob(value))
    except (KeyError, NotImplementedError, ValueError):
        return True


def _moved(first: Tensor, second: Tensor) -> bool:
    """True if numbers from the same operations differ; NaN differs from all other numbers."""
    kind = first.dtype if first.is_floating_point() else torch.float32
    tolerance = torch.finfo(kind).eps ** 0.7  # what rounding may do where kernels vary
    return bool(_differs(first, second, tolerance, tolerance).any())


def _differs(first: Tensor, second: Tensor, relative: float, absolute: float) -> Tensor:
    first, second = torch.broadcast_tensors(first.double(), second.double())
    return ~torch.isclose(first, second, rtol=relative, atol=absolute)


def _unpaired(
    guide: Program, x: Tensor, values: Mapping[str, Tensor], layout: SiteLayout
) -> frozenset[str]:
    """Sites whose density is wrong, or fails, when codes are broadcast against data."""
    few = x[:PAIRED]
    n = len(few)
    repeated = Posterior(guide, repeat(few, n), layout)
    paired = Posterior(guide, few, layout)
    found = set()
    for name in filter(layout.is_known, layout.drawn):
        value = values[name][:n]
        written = repeated.fns[name].log_prob(value.repeat_interleave(n, 0)).double()
        count = paired.configurations(name)
        sizes = layout.sizes if written.dim() > 1 else ()
        written = written.expand(*sizes, n * n).reshape(count, n, n)
        try:
            wrong = _differs(paired.log_density(name, value), written, 1e-3, 1e-2)
        except (IndexError, RuntimeError, ValueError):
            found.add(name)
            continue
        # Outside of a support a density may be anything.
        found |= {name} if bool((wrong & written.isfinite()).any()) else set()
    return frozenset(found)
