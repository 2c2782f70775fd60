r"""Annealed importance sampling of :math:`\log p(x)`, where importance sampling is loose."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

import pyro
import torch
from torch import Tensor

from pyro_mivae.arguments import checked, choice, function, number, whole
from pyro_mivae.diagnostics.annealing import Callback, Options, Run
from pyro_mivae.diagnostics.context import UNDEFINED, Context, Figures, mean_of
from pyro_mivae.diagnostics.draws import Draws
from pyro_mivae.diagnostics.generated import generate
from pyro_mivae.diagnostics.generative import ITEMS_TRIED, why_undefined
from pyro_mivae.diagnostics.isolation import device_of, isolated
from pyro_mivae.diagnostics.layout import Layout, observed_sites, run_pair
from pyro_mivae.diagnostics.probe import probe
from pyro_mivae.diagnostics.progress import tell
from pyro_mivae.diagnostics.target import Start
from pyro_mivae.errors import DataError, SiteError
from pyro_mivae.models import data_for
from pyro_mivae.traces import Program, is_deterministic

DRAWS = whole(least=1, most=10**7)  # beyond which no run would end
GIVEN = {
    "model": function("model(x)"),
    "guide": function("guide(x)"),
    "start": choice(*get_args(Start)),
    "num_temperatures": DRAWS,
    "num_chains": DRAWS,
    "leapfrog_steps": DRAWS,
    "target_acceptance": number(above=0, below=1),
    "batch_size": whole(least=1),
    "seed": whole(least=0),
    "callback": function("callback(done, total)"),
}


@dataclass(frozen=True)
class AnnealedLogLikelihood:
    r"""What `annealed_log_likelihood` found.

    Attributes:
        log_px: Lower bound of :math:`\log p(x)` in expectation, float64, shape ``(n,)``.
        acceptance: Share of the proposals that were accepted; NaN where nothing had to be drawn.
        acceptance_by_part: The same in each tenth of the run, from the start to the posterior.
    """

    log_px: Tensor
    acceptance: float
    acceptance_by_part: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean of ``log_px``, in nats per datum."""
        return float(self.log_px.mean())

    @property
    def se(self) -> float:
        """Standard error of the mean over the data; NaN for one datum."""
        n = len(self.log_px)
        return float(self.log_px.std()) / math.sqrt(n) if n > 1 else math.nan


@dataclass(frozen=True)
class BidirectionalBounds:
    r"""What `bidirectional_monte_carlo` found, on data that the model drew.

    Attributes:
        log_px_lower: Lower bound of :math:`\log p(x')` in expectation, float64, shape ``(n,)``.
        log_px_upper: Upper bound of it in expectation.
        log_likelihood: :math:`\log p(x' \mid code)` at the code that was drawn with each datum.
        acceptance: Share of the proposals that were accepted.
    """

    log_px_lower: Tensor
    log_px_upper: Tensor
    log_likelihood: Tensor
    acceptance: float

    @property
    def gap(self) -> float:
        """Mean distance of the bounds: what either is off by, at most, in nats per datum."""
        return float((self.log_px_upper - self.log_px_lower).mean())

    @property
    def information(self) -> tuple[float, float]:
        """Lower and upper bound of :math:`I_p(x; code)` in expectation, in nats."""
        low, high = (
            self.log_likelihood - self.log_px_upper,
            self.log_likelihood - self.log_px_lower,
        )
        return float(low.mean()), float(high.mean())


@checked(**GIVEN)
def annealed_log_likelihood(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    start: Start = "guide",
    num_temperatures: int = 500,
    num_chains: int = 4,
    leapfrog_steps: int = 5,
    target_acceptance: float = 0.8,
    batch_size: int = 1024,
    seed: int = 0,
    callback: Callback | None = None,
) -> AnnealedLogLikelihood:
    r"""Lower-bounds each datum's :math:`\log p(x)` by annealed importance sampling.

    Chains start at draws of the guide and follow :math:`f_t(z) = q(z \mid x)^{1 - \beta_t}\,
    p(x, z)^{\beta_t}` from :math:`\beta_0 = 0` to :math:`\beta_T = 1`, one transition of
    Hamiltonian Monte Carlo at each :math:`\beta_t` between. Their weights

    .. math:: w = \prod_{t=1}^T \frac{f_t(z_{t-1})}{f_{t-1}(z_{t-1})}

    have mean :math:`p(x)` whatever the transitions do, so that the logarithm of their average over
    the chains is low in expectation; it rises to :math:`\log p(x)` as T grows, where importance
    sampling needs exponentially many draws. With T = 1 it is the importance-weighted bound.

    Enumerable sites are summed out; the others move in unconstrained coordinates, all data and
    chains at once. A pilot run, of 140 transitions, chooses each datum's step sizes and where the
    temperatures crowd; both are fixed before the run that counts, which would be biased otherwise.
    Memory does not grow with the temperatures. The cost is that of about ``num_chains *
    (num_temperatures + 140) * leapfrog_steps`` gradients of the model for each datum.

    Args:
        model: The model, called as ``model(x)``.
        guide: The guide, called as ``guide(x)``.
        x: The data, shape ``(n, ...)``.
        start: Where chains begin: the guide, or the prior, which serves guides that are far off
            and guides with deterministic sites, at the price of more temperatures.
        num_temperatures: T.
        num_chains: Chains of each datum.
        leapfrog_steps: Steps of each transition.
        target_acceptance: Share of the proposals that the pilot run aims at.
        batch_size: Number of chains at once, over all data.
        seed: Of every draw. Everything is left as it was, as by `information`.
        callback: Called after each temperature with the number of transitions done, and of all.

    Returns:
        The bounds, and how many proposals were accepted.

    Raises:
        DataError: If there are no data.
        OptionError: If an option is out of range.
        SiteError: If a site is discrete and cannot be enumerated, the data have no density given
            the code, or chains cannot start at the guide.

    Warns:
        PyroMivaeWarning: If under 40 % or over 90 % of the proposals were accepted.

    References:
        Neal (2001), Annealed Importance Sampling, eq. 3 to 9.
        https://arxiv.org/abs/physics/9803008
        Wu, Burda, Salakhutdinov & Grosse (2017), On the Quantitative Analysis of Decoder-Based
        Generative Models, section 3 (from the prior, with Hamiltonian Monte Carlo).
        https://arxiv.org/abs/1611.04273

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 0.1), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.0 * x, 1.0))
        >>> x = torch.tensor([0.5, 2.0])
        >>> found = annealed_log_likelihood(
        ...     model, guide, x, num_temperatures=200, num_chains=100, leapfrog_steps=3
        ... )
        >>> exact = dist.Normal(0.0, 1.01**0.5).log_prob(x)
        >>> bool(((found.log_px - exact).abs() < 0.1).all())
        True
    """
    options = Options(
        start, num_temperatures, num_chains, leapfrog_steps, target_acceptance, batch_size
    )
    x = data_for(model, guide, x)
    _check_data(x)
    device = device_of(x, model, guide)
    with isolated(seed, model, guide, device=device), pyro.validation_enabled(False):
        layout = probe(model, guide, x, batch_size=batch_size, device=device, seed=seed)
        _check_density(model, guide, x[:ITEMS_TRIED].to(device), layout, start)
        run = Run(model, guide, layout, options, len(x), 1, callback)
        parts = [run.bound(chunk.to(device))[0] for chunk in x.split(options.data_at_once)]
    run.warn()
    return AnnealedLogLikelihood(torch.cat(parts), run.acceptance, run.acceptance_by_part)


@checked(**GIVEN, items=DRAWS)
def bidirectional_monte_carlo(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    items: int = 100,
    start: Start = "guide",
    num_temperatures: int = 500,
    num_chains: int = 4,
    leapfrog_steps: int = 5,
    target_acceptance: float = 0.8,
    batch_size: int = 1024,
    seed: int = 0,
    callback: Callback | None = None,
) -> BidirectionalBounds:
    r"""Bounds :math:`\log p(x')` from both sides, on data that the model drew.

    The code that a datum was drawn with is an exact sample of its posterior. Chains that go the
    way of `annealed_log_likelihood` back from it have weights whose inverse has mean
    :math:`1 / p(x')`: minus the logarithm of that average is high in expectation. The gap says how
    far such annealing falls short on this model, and the two ends bound :math:`I_p(x; code)`, as
    ``generative_mi`` of `information` does with less work and, on sharp posteriors, less closely.

    Args:
        model: The model; it observes its argument, unchanged, at one site.
        guide: The guide.
        x: Data that say what the model's have for shape and type, shape ``(n, ...)``.
        items: How many data to draw.
        start: As in `annealed_log_likelihood`, like all that follow.
        num_temperatures: Steps from the start to the posterior.
        num_chains: Chains of each datum, in each direction.
        leapfrog_steps: Steps of each transition.
        target_acceptance: Share of the proposals that the pilot run aims at.
        batch_size: Number of chains at once, over all data.
        seed: Of every draw.
        callback: Called after each temperature with the number of transitions done, and of all.

    Returns:
        The bounds.

    Raises:
        DataError: If there are no data.
        OptionError: If an option is out of range.
        SiteError: If the pair cannot draw data of its own, or cannot be annealed.

    Warns:
        PyroMivaeWarning: If under 40 % or over 90 % of the proposals were accepted.

    References:
        Grosse, Ghahramani & Adams (2015), Sandwiching the marginal likelihood using bidirectional
        Monte Carlo, section 3. https://arxiv.org/abs/1511.02543
    """
    options = Options(
        start, num_temperatures, num_chains, leapfrog_steps, target_acceptance, batch_size
    )
    x = data_for(model, guide, x)
    _check_data(x)
    device = device_of(x, model, guide)
    with isolated(seed, model, guide, device=device), pyro.validation_enabled(False):
        some = x[:ITEMS_TRIED].to(device)
        layout = probe(model, guide, x, batch_size=batch_size, device=device, seed=seed)
        known = layout
        if start == "prior":
            known = replace(layout, deterministic=(), unscored={})
        reason = why_undefined(model, guide, some, known)
        if reason is not None:
            raise SiteError(f"no data of the model's own to bound the evidence of: {reason}")
        data = generate(model, some, items, layout, batch_size)
        run = Run(model, guide, layout, options, items, 2, callback)
        lower, upper = run.sandwich(data)
    run.warn()
    return BidirectionalBounds(lower, upper, data.log_likelihood, run.acceptance)


def _check_data(x: Tensor) -> None:
    if x.dim() < 1 or not len(x):
        raise DataError(f"x: expected one or more data, shape (n, ...), got {tuple(x.shape)}")


def _check_density(
    model: Program, guide: Program, x: Tensor, layout: Layout, start: Start
) -> None:
    if start == "guide" and layout.why_unscored:
        raise SiteError(f"{layout.why_unscored}; or use start='prior'")
    pair = run_pair(model, guide, x)
    for name in observed_sites(pair):
        if is_deterministic(pair.model.nodes[name]):
            raise SiteError(
                f"the model makes the data, at site {name!r}, a function of the code: they have "
                "no density; give the model a likelihood with noise"
            )


def annealed_evidence(context: Context, draws: Draws) -> Figures:
    """Anneals some of the data, where the report was asked to."""
    if not context.ais_items:
        return {}
    items = context.choose(context.ais_items)
    layout = context.layout
    start: Start = "prior" if layout.deterministic or layout.unscored else "guide"
    try:
        found = annealed_log_likelihood(
            context.model,
            context.guide,
            context.take(items),
            start=start,
            num_temperatures=context.ais_temperatures,
            batch_size=context.codes_at_once,
            seed=context.seed,
            callback=partial(tell, "log p(x), annealed"),
        )
    except SiteError as reason:
        context.protocol["ais"] = f"not defined: {reason}"
        return {"log_px_ais": UNDEFINED}
    context.protocol["ais"] = f"annealed from the {start}, Hamiltonian Monte Carlo"
    context.protocol["ais_items"] = len(items)
    context.protocol["ais_temperatures"] = context.ais_temperatures
    context.protocol["ais_acceptance"] = found.acceptance
    context.protocol["ais_acceptance_by_tenth"] = list(found.acceptance_by_part)
    elbo = -draws.distortion - draws.rate
    if len(items) == len(context.x) or elbo.isnan().any():
        return {"log_px_ais": mean_of(found.log_px)}
    gain, error = mean_of(found.log_px - elbo[items.to(elbo.device)])
    mean, elbo_error = mean_of(elbo)
    return {"log_px_ais": (mean + gain, math.hypot(error, elbo_error))}
