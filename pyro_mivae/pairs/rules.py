"""Rules about the traces of a model/guide pair; each yields what it finds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites, site_is_factor, site_is_subsample
from pyro.util import check_model_guide_match
from torch import Tensor

from pyro_mivae.errors import SiteError
from pyro_mivae.pairs.findings import Finding
from pyro_mivae.posterior.layout import check_match, check_values
from pyro_mivae.sites import Site, base_of, check_event, check_shape, is_note, log_prob
from pyro_mivae.traces import TracePair

SAME_PLATES = "open the same plates around the site in model and guide, with the same sizes"
INTO_SUPPORT = (
    "draw the site in the guide from a distribution on the support that the model's has, such as "
    "LogNormal for positive numbers"
)
OF_DATA = "rescale the data, or observe them by a distribution on their range"
ANNOTATE = 'annotate the site in the guide with infer={"enumerate": "parallel"}'


class Stated(Messenger):
    """Notes what a program itself says of its sites, before other handlers change it."""

    def __init__(self) -> None:
        super().__init__()
        self.indices: dict[str, Tensor] = {}  # given to plates
        self.annotated: list[str] = []  # for enumeration

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            if msg["value"] is not None:
                self.indices[msg["name"]] = torch.as_tensor(msg["value"])
        elif msg["infer"].get("enumerate") is not None and not msg["is_observed"]:
            self.annotated.append(msg["name"])


def samples(trace: Any) -> dict[str, Site]:
    """Sample sites of a trace with a density, by name."""
    return {
        name: site
        for name, site in prune_subsample_sites(trace).nodes.items()
        if site["type"] == "sample" and not is_note(site)
    }


def in_both(guide: Any, model: Any) -> Iterator[tuple[str, Site, Site]]:
    """Latent sites of both traces: the name, the guide's site and the model's."""
    others = samples(model)
    for name, q in samples(guide).items():
        if name in others and not others[name]["is_observed"]:
            yield name, q, others[name]


def of_sites(guide: Any, model: Any) -> Iterator[Finding]:
    """Sites that are not in both programs; a model that observes nothing."""
    if not any(site["is_observed"] for site in samples(model).values()):
        yield Finding("sites", "", "the model observes nothing", "give one of its sites obs=x")
    try:
        TracePair(guide, model)
    except SiteError as error:
        yield Finding.of("sites", error)


def of_shapes(guide: Any, model: Any) -> Iterator[Finding]:
    """Batch dimensions without a plate, and shapes that differ between the programs."""
    found = []
    for where, trace in (("in the guide, ", guide), ("in the model, ", model)):
        for name, site in samples(trace).items():
            try:
                check_shape(site, math.inf)
            except ValueError as error:
                found.append(Finding.of("plate", error, name, where=where))
    for name, q, p in in_both(guide, model):
        try:
            check_event(name, q["fn"], p["fn"])
        except SiteError as error:
            found.append(Finding.of("shape", error, name))
    yield from found
    if not found:
        try:
            with warnings.catch_warnings(action="ignore"):
                check_model_guide_match(model, guide)
        except ValueError as error:
            yield Finding.of("shape", error, remedy=SAME_PLATES)


def of_supports(guide: Any, model: Any) -> Iterator[Finding]:
    """Data and codes that the model gives no density."""
    for name, site in samples(model).items():
        if site_is_factor(site) or site["mask"] is False:
            continue
        kind, remedy = ("data", OF_DATA) if site["is_observed"] else ("support", INTO_SUPPORT)
        try:
            density = scale_and_mask(log_prob(site), mask=site["mask"])
        except (ValueError, NotImplementedError) as error:
            yield Finding.of(kind, error, name, remedy=remedy)
            continue
        if not density.isfinite().all():
            value = "NaN" if bool(density.isnan().any()) else "infinite"
            yield Finding(kind, name, f"the model's log-density of {name!r} is {value}", remedy)
    for name, q, p in in_both(guide, model):
        try:
            if q["fn"].event_shape == p["fn"].event_shape:
                check_match(name, q["fn"], p["fn"])
            if q["fn"].has_enumerate_support:
                check_values(name, q["fn"], p["fn"])
        except SiteError as error:
            yield Finding.of("support", error, name)


def of_annotations(guide: Any, annotated: Iterable[str]) -> Iterator[Finding]:
    """Annotations for enumeration that have no effect, on a trace that enumerates.

    ``annotated`` names the model's own annotations.
    """
    own = samples(guide)
    for name, site in own.items():
        wanted, fn = site["infer"].get("enumerate"), site["fn"]
        told = f"site {name!r} of the guide has infer={{'enumerate': {wanted!r}}}, without effect"
        if wanted is None or site["is_observed"] or "_enumerate_dim" in site["infer"]:
            continue
        if not fn.has_enumerate_support:
            why = f": {type(base_of(fn)).__name__} has no finite support"
            yield Finding("enumeration", name, told + why, "remove the annotation")
        elif wanted != "parallel":
            yield Finding("enumeration", name, told, 'write infer={"enumerate": "parallel"}')
        else:
            why = ": a handler around it, such as replay or condition, gives it a value first"
            yield Finding("enumeration", name, told + why, "remove the handler")
    for name in annotated:
        if name not in own or own[name]["infer"].get("enumerate") is None:
            told = f"site {name!r} is annotated for enumeration in the model alone, without effect"
            yield Finding("enumeration", name, told, f"sample it in the guide too, and {ANNOTATE}")


def of_gradients(pair: TracePair) -> Iterator[Finding]:
    """Sites that are neither reparametrised nor enumerated."""
    for name, error in pair.gradient_faults():
        discrete = pair.guide.nodes[name]["fn"].has_enumerate_support
        yield Finding.of("enumeration" if discrete else "gradient", error, name)


def of_scales(guide: Any, model: Any) -> Iterator[Finding]:
    """Sites with a scale besides that of their plates."""
    common = [
        _own_scale(site)
        for site in samples(model).values()
        if site["is_observed"] and not site_is_factor(site)
    ]
    for name, q, p in in_both(guide, model):
        of_guide, of_model = _own_scale(q), _own_scale(p)
        if not _equal(of_guide, of_model):
            yield Finding(
                "scale",
                name,
                f"site {name!r} is scaled by {_told(of_guide)} in the guide and by "
                f"{_told(of_model)} in the model, so its densities make no divergence",
                f"scale neither, and give kl_weights={{{name!r}: ...}} to the objective",
            )
        elif "_enumerate_dim" in q["infer"] and common and not _equal(of_model, common[0]):
            yield Finding(
                "scale",
                name,
                f"the enumerated site {name!r} is scaled by {_told(of_model)} and the data by "
                f"{_told(common[0])}; enumerated sites and what depends on them share one scale",
                f"scale neither, and give kl_weights={{{name!r}: ...}} to the objective",
            )


def of_subsamples(guide: Any, model: Any, given: Mapping[str, Tensor]) -> Iterator[Finding]:
    """Plates whose mini-batches differ; ``given`` are the indices that the model itself states."""
    yield from _of_plates(guide, model)
    for name, indices in given.items():
        if name in guide.nodes and not _equal(indices, guide.nodes[name]["value"]):
            told = f"plate {name!r} has other indices in the model than in the guide"
            yield Finding("sub-sampling", "", told, "draw them once, and give them to both")
    apart: dict[tuple[str, str], str] = {}  # plates, with a site of theirs
    for name, q, p in in_both(guide, model):
        frames = {frame.dim: frame.name for frame in p["cond_indep_stack"]}
        for frame in q["cond_indep_stack"]:
            other = frames.get(frame.dim, frame.name)
            if other != frame.name:
                apart.setdefault((frame.name, other), name)
    for (own, other), name in apart.items():
        nodes = guide.nodes.get(own), model.nodes.get(other)
        if None not in nodes and not _equal(nodes[0]["value"], nodes[1]["value"]):
            told = f"site {name!r} is in plate {own!r} in the guide and in {other!r} in the model"
            why = ", and each draws its own mini-batch"
            yield Finding("sub-sampling", name, told + why, "give both plates one name")


def of_programs(guide: Any, model: Any) -> Iterator[Finding]:
    """Differences of two programs that ran alone, and fail together."""
    yield from _of_plates(guide, model)
    for name, q, p in in_both(guide, model):
        if q["is_observed"]:
            told = f"site {name!r} is observed in the guide and drawn in the model"
            yield Finding("sites", name, told, "draw it in both; the guide conditions on nothing")
        try:
            check_event(name, q["fn"], p["fn"])
        except SiteError as error:
            yield Finding.of("shape", error, name)


def _of_plates(guide: Any, model: Any) -> Iterator[Finding]:
    """Plates of one name whose sizes differ."""
    for name, site in guide.nodes.items():
        other = model.nodes.get(name)
        if site_is_subsample(site) and other is not None and site_is_subsample(other):
            sizes = [(len(s["value"]), s["fn"].size) for s in (site, other)]
            if sizes[0] != sizes[1]:
                told = "plate {!r} takes {} of {} data in the guide and {} of {} in the model"
                found = told.format(name, *sizes[0], *sizes[1])
                yield Finding("sub-sampling", "", found, "give both the same sizes")


def _own_scale(site: Site) -> Tensor:
    """The scale of a site without that of sub-sampled plates."""
    implied = math.prod((f.full_size or f.size) / f.size for f in site["cond_indep_stack"])
    return torch.as_tensor(site["scale"], dtype=torch.float64) / implied


def _equal(a: Any, b: Any) -> bool:
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    try:
        return bool(torch.isclose(a, b.to(a)).all())
    except RuntimeError:  # of shapes that do not broadcast
        return False


def _told(scale: Tensor) -> str:
    return (
        f"{float(scale):.4g}" if scale.numel() == 1 else f"a tensor of shape {tuple(scale.shape)}"
    )
