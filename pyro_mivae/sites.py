"""Single sites of a trace: their kind, density, scale and mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import (
    Delta,
    LowRankMultivariateNormal,
    MaskedDistribution,
    MultivariateNormal,
    Normal,
    ZeroInflatedDistribution,
)
from pyro.distributions.util import broadcast_shape, sum_rightmost
from pyro.poutine.util import site_is_factor, site_is_subsample
from pyro.util import check_site_shape
from torch import Tensor
from torch.distributions import Independent, OneHotCategorical, kl_divergence

from pyro_mivae.compat import mask_of
from pyro_mivae.errors import SiteError

Site = Any

OF_PARAMETERS = "of_parameters"  # in ``infer`` of a factor that depends on parameters alone
MEAN_DRAWS, MEAN_SEED = 100, 0  # by which a mean without a closed form is taken
NORMALS: dict[Any, tuple[str, ...]] = {
    Normal: ("loc", "scale"),
    MultivariateNormal: ("loc", "scale_tril"),
    LowRankMultivariateNormal: ("loc", "cov_factor", "cov_diag"),
}
"""Families that are scored with fixed parameters, and the names of these."""


def base_of(fn: Any) -> Any:
    """Returns the base of a transformed, masked or independent distribution."""
    while hasattr(fn, "base_dist") and not isinstance(fn, ZeroInflatedDistribution):
        fn = fn.base_dist
    return fn


def is_note(site: Site) -> bool:
    """True for a site of ``pyro.deterministic``: an observed value without a density."""
    fn = site["fn"]
    if not (site["is_observed"] and isinstance(fn, MaskedDistribution)):
        return False
    return mask_of(fn) is False and isinstance(fn.base_dist, Delta)


def data_sites(trace: Any) -> list[str]:
    """Names the observed sites of a trace that hold data (no factors, no deterministic ones)."""
    return [
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and site["is_observed"]
        if not site_is_factor(site) and not is_note(site)
    ]


def is_auxiliary(site: Site) -> bool:
    """True if a site is marked as auxiliary (only in the guide), as factors are."""
    return bool(site["infer"].get("is_auxiliary"))


def log_prob(site: Site) -> Tensor:
    """Returns the log-density of a site at its value, unscaled."""
    value: Tensor = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return value


def support_log_prob(site: Site, dim: int) -> Tensor:
    """Returns the log-density of a site over its support, along a batch dimension."""
    fn, value = site["fn"], site["value"]
    support = value.shape == (*fn.event_shape, *[1] * (-dim - 1), *fn.event_shape)
    if type(fn).log_prob is not OneHotCategorical.log_prob or not support:
        return log_prob(site)
    logits: Tensor = fn.logits.movedim(-1, 0)  # (K, *batch): a one-hot value picks one of them
    return logits.reshape(len(logits), *[1] * (-dim - logits.dim()), *logits.shape[1:])


def log_density_of_draw(site: Site, log_q: Tensor) -> Tensor:
    r"""Returns :math:`\log q(z)`; its gradient omits the score, that at a fixed draw.

    The score has the expectation 0. If the guide is the posterior, the remaining gradient cancels
    that of the model for each draw. For a flow, only the score of the Normal before its layers is
    left out, see `FlowFamily`. Other distributions keep it: their support may move.

    See Roeder, Wu & Duvenaud (2017), Sticking the Landing, section 3.
    https://arxiv.org/abs/1703.09194
    """
    fn, draw = site["fn"], site["value"]
    if hasattr(fn, "without_layers"):
        fn, draw = fn.without_layers(draw) or (None, draw)
    fixed = _with_fixed_parameters(fn)
    if fixed is None:
        return log_q
    if fn is site["fn"]:
        density: Tensor = fixed.log_prob(draw)
        return density
    return log_q + (fixed.log_prob(draw) - fn.log_prob(draw))


def _with_fixed_parameters(fn: Any) -> Any:
    """Returns the same Normal with detached parameters; None for another family."""
    if isinstance(fn, Independent):
        base = _with_fixed_parameters(fn.base_dist)
        return None if base is None else base.to_event(fn.reinterpreted_batch_ndims)
    if type(fn) not in NORMALS:
        return None
    fixed = {name: getattr(fn, name).detach() for name in NORMALS[type(fn)]}
    return type(fn)(**fixed, validate_args=False)


def divergence(q: Any, p: Any) -> Tensor | float:
    """Returns the closed-form KL divergence; for normal distributions in few operations."""
    if isinstance(q, Independent) and isinstance(p, Independent):
        if q.reinterpreted_batch_ndims == p.reinterpreted_batch_ndims:
            return sum_rightmost(divergence(q.base_dist, p.base_dist), q.reinterpreted_batch_ndims)
    if type(q) is not Normal or type(p) is not Normal:
        return kl_divergence(q, p)
    ratio, shift = q.scale / p.scale, (q.loc - p.loc) / p.scale
    squares = torch.addcmul(ratio.new_full((), -0.5), ratio, ratio, value=0.5)
    return torch.addcmul(squares, shift, shift, value=0.5) - ratio.log()


def sum_of(values: Iterable[Tensor]) -> Tensor:
    """Adds up one tensor or more."""
    first, *others = values
    return sum(others, first)


def weigh(probs: Tensor, cost: Tensor) -> Tensor:
    """Multiplies costs by probabilities; a probability of 0 gives 0, since 0 log 0 = 0."""
    return probs * torch.where(probs == 0, cost.new_zeros(()), cost)


def has_mean(fn: Any) -> bool:
    """True if a distribution has a known mean, unlike a flow."""
    try:
        return isinstance(fn.mean, Tensor)
    except (AttributeError, NotImplementedError):
        return False


def mean_of(fn: Any) -> Tensor:
    """Returns the mean of a distribution, or of 100 draws if it is not known."""
    mean: Tensor = fn.mean if has_mean(fn) else _draws(fn).mean(0)
    return mean


def _draws(fn: Any) -> Tensor:
    draws: Tensor = fn(torch.Size((MEAN_DRAWS,)))
    return draws.to(torch.promote_types(draws.dtype, torch.float16))


def fixed_variance(fn: Any) -> Tensor:
    """Returns the variance of a distribution, or of 100 draws with a fixed seed."""
    try:
        variance: Tensor = fn.variance
    except (AttributeError, NotImplementedError):
        with fixed_seed(*_cuda()):
            return _draws(fn).var(0)
    return variance


def fixed_mean(fn: Any) -> Tensor:
    """Returns the same as `mean_of`, its draws with a fixed seed."""
    if has_mean(fn):
        return mean_of(fn)
    with fixed_seed(*_cuda()):
        return mean_of(fn)


def _cuda() -> list[torch.device]:
    if not torch.cuda.is_available():
        return []
    return [torch.device("cuda", torch.cuda.current_device())]


@contextmanager
def fixed_seed(*devices: torch.device, seed: int = MEAN_SEED) -> Iterator[None]:
    """Seeds the CPU and CUDA devices, and restores their states afterwards."""
    cuda = [device for device in devices if device.type == "cuda"]
    with torch.random.fork_rng(cuda):
        # torch.manual_seed would print the stack for each kind of device that is not in use.
        torch.default_generator.manual_seed(seed)
        for device in cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def negative_entropy(site: Site) -> Tensor | None:
    """Returns the expected log-density of a site under itself, if a closed form is known."""
    try:
        entropy: Tensor = site["fn"].entropy()
    except NotImplementedError:
        return None
    return -entropy


def same_weight(a: Site, b: Site) -> bool:
    """True if scale and mask of two sites are known to be the same, without reading tensors."""
    return _same(a["scale"], b["scale"]) and _same(a["mask"], b["mask"])


def same_masks(a: Any, b: Any) -> bool:
    """True if two distributions are known to have the same mask, without reading tensors."""
    masks = _masks(a), _masks(b)
    return len(masks[0]) == len(masks[1]) and all(map(_same, *masks))


def batches(trace: Any) -> Any:
    """Returns the sub-sampling sites of a trace that select a mini-batch, as a trace."""
    kept = poutine.Trace()
    for name, site in trace.nodes.items():
        if site_is_subsample(site):
            size, whole = site["fn"].subsample_size, site["fn"].size
            if size is not None and size < whole:
                kept.add_node(name, **site)
    return kept


def check_shapes(trace: Any, max_plate_nesting: int) -> None:
    """Calls Pyro's check that every batch dimension of a site is a plate or enumerated."""
    for site in trace.nodes.values():
        if site["type"] == "sample":
            check_shape(site, max_plate_nesting)


def check_shape(site: Site, max_plate_nesting: float) -> None:
    """Calls Pyro's check that every batch dimension of one site is a plate or enumerated."""
    fn, value = site["fn"], site["value"]
    batch_shape = value.shape[: value.dim() - fn.event_dim]
    shape = broadcast_shape(fn.batch_shape, batch_shape)
    shaped: Any = {**site, "log_prob": torch.zeros(()).expand(shape)}
    check_site_shape(shaped, max_plate_nesting)  # type: ignore[arg-type]


def check_event(name: str, q: Any, p: Any) -> None:
    """Checks that a site has the same event shape in the guide and in the prior."""
    if q.event_shape != p.event_shape:
        raise SiteError(
            f"site {name!r} has shape {tuple(p.event_shape)} in the prior and "
            f"{tuple(q.event_shape)} in the guide; build both with the same sizes, "
            "and a category as OneHotCategorical in both"
        )


def _same(a: Any, b: Any) -> bool:
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b))


def _masks(fn: Any) -> list[Any]:
    masks = []
    while hasattr(fn, "base_dist"):
        if isinstance(fn, MaskedDistribution):
            masks.append(mask_of(fn))
        fn = fn.base_dist
    return masks
