"""Structure of a model/guide pair, found by running it on the data with several draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_mivae.diagnostics.charts import support_of
from pyro_mivae.diagnostics.checks import (
    WholePlates,
    check_measure,
    check_plate,
    check_signatures,
    check_values,
    has_point_mass,
)
from pyro_mivae.diagnostics.isolation import seeded
from pyro_mivae.diagnostics.layout import Layout, leading, observed_sites, run_pair
from pyro_mivae.diagnostics.posterior import Posterior
from pyro_mivae.errors import PyroMivaeError, SiteError
from pyro_mivae.traces import Program, TracePair, has_mean, is_deterministic, trace_program

PROBED = 256  # data on which what needs the decoder is tried; structure is looked for on all
MOST_DRAWS = 4  # of each datum, where there are few
PAIRED = 6  # data whose codes are scored under each other's posterior in two ways


def probe(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    batch_size: int = 1024,
    device: torch.device | None = None,
    seed: int = 0,
) -> Layout:
    """Finds what the sites of a pair depend on, by several draws of all data.

    A site depends on others, or on the data, if that shows for a single datum in a single draw.
    Torch's generators stay as they are.
    """
    device = x.device if device is None else device
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    some = x[order[:PROBED]].to(device)
    with seeded(seed, device), torch.no_grad(), pyro.validation_enabled(False), _explained():
        check_signatures(model, guide)
        with WholePlates():
            pair = run_pair(model, guide, some)
        layout = _layout(pair)
        for name in layout.latent:
            check_plate(name, pair.guide.nodes[name]["fn"], len(some), layout.sizes)
            check_measure(name, pair.guide.nodes[name]["fn"], pair.model.nodes[name]["fn"])
        for name in layout.enumerated:
            check_values(name, pair.guide.nodes[name]["fn"], pair.model.nodes[name]["fn"])
        for name in observed_sites(pair):
            check_plate(name, pair.model.nodes[name]["fn"], len(some), layout.sizes)
        first, second = (trace_program(guide, (some,), {}) for _ in range(2))
        layout = replace(layout, unscored=_unscored(layout, first, second))
        values = {name: first.nodes[name]["value"] for name in layout.latent}
        _check_repeatable(model, guide, some, values, layout)
        size = max(1, batch_size // layout.num_configurations)
        chunks = (x[rows].to(device) for rows in order.split(size))
        layout = _with_dependence(layout, model, guide, chunks, len(x))
        return replace(layout, free=layout.free - _unpaired(guide, some, values, layout))


@contextmanager
def _explained() -> Iterator[None]:
    """Says what the report asks of a pair where that fails in the middle of one of its runs."""
    try:
        yield
    except PyroMivaeError:
        raise
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        lines = str(error).strip().splitlines() or [""]
        raise SiteError(
            f"the pair cannot be run on batches of the data: {type(error).__name__}: {lines[0]}; "
            "model(x) and guide(x) are called with batches of any size, so that each needs "
            "pyro.plate('data', len(x)) and no parameter of its own per datum"
        ) from error


def _layout(pair: TracePair) -> Layout:
    """Lists the sites; which are free, alone or conditional is found later."""
    if not observed_sites(pair):
        raise SiteError("the model observes nothing; give one of its sites obs=x")
    if not pair.latent:
        raise SiteError("the guide samples no site; there is no code to report on")
    nodes = pair.guide.nodes
    auxiliary = [name for name in pair.auxiliary if not nodes[name]["is_observed"]]
    if auxiliary:
        raise SiteError(
            f"sites {auxiliary} of the guide are auxiliary; the density of the code "
            "would be an integral over them: give each site of the model its own density, from x, "
            "as pyro's AutoGuides do not"
        )
    dims = {-nodes[name]["infer"]["_enumerate_dim"]: name for name in pair.enumerated}
    fixed = tuple(name for name in pair.latent if is_deterministic(nodes[name]))
    drawn = tuple(n for n in pair.latent if n not in fixed and n not in pair.enumerated)
    for name in drawn:
        if has_point_mass(nodes[name]["fn"]):
            raise SiteError(
                f"site {name!r} ({type(nodes[name]['fn']).__name__}) of the guide mixes points "
                "with a density, so that its codes have none; draw which of the two it is at a "
                "site of its own"
            )
    return Layout(
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


def _unscored(layout: Layout, first: Any, second: Any) -> dict[str, str]:
    """Sites whose density at a given value is not to be had, with the reason."""
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
        kind = type(fn).__name__
        if float(_differs(own, again, 0.01, 0.05).double().mean()) > 0.1:
            found[name] = (
                f"site {name} of the guide ({kind}) passes on other values than it scores, as "
                "straight-through samples do; a category that is not relaxed is summed out"
            )
        elif _is_coarse(value, other["value"], layout.supports[name]):
            found[name] = (
                f"values of site {name} ({float(value.abs().max()):.1g} at most) vary too little "
                f"for {str(value.dtype).removeprefix('torch.')}, given the datum; centre and "
                "scale the code, or use float64"
            )
    return found


def _is_coarse(value: Tensor, other: Tensor, support: Any) -> bool:
    """Tells whether the noise of two draws is hardly above the rounding of their type."""
    if not value.is_floating_point() or (support is not None and support.is_discrete):
        return False
    step = torch.finfo(value.dtype).eps * value.abs()
    coarse = (step > 0.1 * (value - other).abs()).reshape(len(value), -1).double()
    return bool((coarse.mean(0) > 0.5).any())


def _check_repeatable(
    model: Program, guide: Program, x: Tensor, values: Mapping[str, Tensor], layout: Layout
) -> None:
    """Refuses programs that score the same datum and code in several ways."""
    skipped = {*layout.unscored, *layout.deterministic}
    order = torch.randperm(len(x)).to(x.device)
    for role, program in (("guide", guide), ("model", model)):
        first, again = (_scores(program, x, values, skipped) for _ in range(2))
        for name, scores in first.items():
            if _moved(scores, again[name]) and scores.isnan().any():
                raise SiteError(
                    f"the {role} scores site {name!r} as NaN: its weights may have run away in "
                    "training, train anew with a lower learning rate; or data lie out of range"
                )
            if _moved(scores, again[name]):
                raise SiteError(
                    f"the {role} scores the same datum and code anew each time (site {name!r}): "
                    "it draws random numbers outside pyro.sample, as dropout does; put its "
                    "modules in evaluation mode (module.eval()), or draw them at a site"
                )
        parts: dict[str, list[Tensor]] = {name: [] for name in first}
        for rows in order.tensor_split([len(x) // 2 + 1]):
            if len(rows):
                some = {name: value[rows] for name, value in values.items()}
                for name, scores in _scores(program, x[rows], some, skipped).items():
                    parts[name].append(scores)
        for name, scores in first.items():
            moved = _differs(scores[order], torch.cat(parts[name]), 1e-3, 1e-2)
            if bool(moved.any()):
                raise SiteError(
                    f"the {role} scores a datum and its code by the other data of the batch (site "
                    f"{name!r}), as batch normalisation does in training mode; put its modules in "
                    "evaluation mode (module.eval()), or make it a function of each datum"
                )


def _scores(
    program: Program, x: Tensor, values: Mapping[str, Tensor], skipped: set[str]
) -> dict[str, Tensor]:
    """Log-density of each site of a program, ``(n,)``, with the code's values given."""
    trace = trace_program(poutine.condition(program, data=dict(values)), (x,), {})
    return {
        name: site["fn"].log_prob(site["value"]).double().expand(len(x))
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and name not in skipped and not is_deterministic(site)
    }


def _with_dependence(
    layout: Layout, model: Program, guide: Program, chunks: Iterator[Tensor], n: int
) -> Layout:
    """Finds which sites depend on drawn ones, on any others, and on the data."""
    draws = 1 + max(1, min(MOST_DRAWS, PROBED // n)) if len(layout.latent) > 1 else 1
    moved: set[str] = set()
    entangled: set[str] = set()
    conditional: set[str] = set()
    for chunk in chunks:
        guides = [_guide_trace(guide, chunk) for _ in range(draws)]
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


def _guide_trace(guide: Program, x: Tensor) -> Any:
    program = EnumMessenger(first_available_dim=-2)(config_enumerate(guide, default="parallel"))
    return trace_program(program, (x,), {})


class _Drawn(Exception):
    """Ends a run of the model once its code is drawn."""


class _UntilDrawn(Messenger):
    """Ends the program after the last of some sites, before anything is decoded."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.left = set(names)

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        self.left.discard(msg["name"])
        if not self.left:
            raise _Drawn


def _prior_trace(model: Program, guide_trace: Any, x: Tensor, names: tuple[str, ...]) -> Any:
    """Traces the model's code, at the values of a guide's trace."""
    tracer = poutine.trace()
    program = poutine.replay(EnumMessenger()(model), trace=guide_trace)
    with tracer, _UntilDrawn(names):
        try:
            program(x)
        except _Drawn:
            pass
    return tracer.trace


def _site_moved(first: Any, second: Any, name: str, drawn: bool = False) -> bool:
    """Tells whether a site's distribution differs between two traces of the same data."""
    a, b = first.nodes[name], second.nodes[name]
    if is_deterministic(a) and is_deterministic(b):
        return _moved(a["fn"].mean, b["fn"].mean)
    value = a["value"].clone() if drawn else a["value"]
    try:
        return _moved(a["fn"].log_prob(value), b["fn"].log_prob(value))
    except (KeyError, NotImplementedError, ValueError):
        return True


def _moved(first: Tensor, second: Tensor) -> bool:
    """Tells whether numbers that the same operations made differ, NaN from all others too."""
    kind = first.dtype if first.is_floating_point() else torch.float32
    tolerance = torch.finfo(kind).eps ** 0.7  # what rounding may do where kernels vary
    return bool(_differs(first, second, tolerance, tolerance).any())


def _differs(first: Tensor, second: Tensor, relative: float, absolute: float) -> Tensor:
    first, second = torch.broadcast_tensors(first.double(), second.double())
    return ~torch.isclose(first, second, rtol=relative, atol=absolute)


def _unpaired(
    guide: Program, x: Tensor, values: Mapping[str, Tensor], layout: Layout
) -> frozenset[str]:
    """Sites whose density is wrong, or fails, when codes are broadcast against data."""
    few = x[:PAIRED]
    n = len(few)
    repeated = Posterior(guide, few.repeat(n, *[1] * (few.dim() - 1)), layout)
    paired = Posterior(guide, few, layout)
    found = []
    for name in layout.drawn:
        if not layout.is_known(name):
            continue
        value = values[name][:n]
        written = repeated.fns[name].log_prob(value.repeat_interleave(n, 0)).double()
        count = paired.configurations(name)
        sizes = layout.sizes if written.dim() > 1 else ()
        written = written.expand(*sizes, n * n).reshape(count, n, n)
        try:
            wrong = _differs(paired.log_densities(name, value), written, 1e-3, 1e-2)
        except (IndexError, RuntimeError, ValueError):
            found.append(name)
            continue
        inside = written.isfinite()  # outside of a support a density may be anything
        if bool((wrong & inside).any()):
            found.append(name)
    return frozenset(found)
