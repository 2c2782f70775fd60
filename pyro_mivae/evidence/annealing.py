r"""Annealed importance sampling of :math:`\log p(x)`, tighter than importance sampling."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, get_args

import pyro
import torch
from torch import Tensor

from pyro_mivae.arguments import checked, choice, function, number, whole
from pyro_mivae.errors import PyroMivaeWarning, SiteError
from pyro_mivae.evidence.annealing_path import (
    AnnealingPath,
    Plan,
    Start,
    SummedDensity,
    make_plan,
    transition,
)
from pyro_mivae.evidence.importance import PriorPredictive, generate, refusal, why_undefined
from pyro_mivae.evidence.staging import Stager
from pyro_mivae.options import check_fields, made_of, option
from pyro_mivae.posterior.densities import repeat, rows_of
from pyro_mivae.posterior.layout import ProbedPair, run_pair
from pyro_mivae.posterior.probe import probed
from pyro_mivae.traces import Program, is_deterministic

ITEMS_TRIED = 64  # data, at random, on which it is tried if the model can draw its own
ACCEPTED = (0.4, 0.9)  # share of proposals outside of which the estimate is called in question
PARTS = 10  # of the path, for each of which the acceptance is shown
DRAWS = whole(least=1, most=10**7)  # beyond which no run would end
GIVEN = {
    "model": function("model(x)"),
    "guide": function("guide(x)"),
    "seed": whole(least=0),
    "callback": function("callback(done, total)"),
}

Callback = Callable[[int, int], None]


OWNER = (
    "annealing (for a pair with a condition mi.information(model, guide, x, given=u, ais_items=n) "
    "anneals)"
)


@dataclass(frozen=True)
class AnnealingOptions:
    """Options of annealing, explained by the help of each field."""

    start: Start = option(
        "guide",
        check=choice(*get_args(Start)),
        help=(
            "start of the chains: the guide; or the prior, for a poor guide or one with "
            "deterministic sites, which needs more temperatures"
        ),
    )
    num_temperatures: int = option(200, check=DRAWS, help="steps from the start to the posterior")
    num_chains: int = option(4, check=DRAWS, help="chains of each datum, in each direction")
    leapfrog_steps: int = option(5, check=DRAWS, help="steps of each transition")
    target_acceptance: float = option(
        0.8, check=number(above=0, below=1), help="share of accepted proposals to aim at"
    )
    batch_size: int = option(1024, check=whole(least=1), help="chains at once, over all data")

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def data_at_once(self) -> int:
        """Number of data whose chains run at once."""
        return max(1, self.batch_size // self.num_chains)


@dataclass(frozen=True)
class AnnealedLogLikelihood:
    r"""Result of `annealed_log_likelihood`.

    Attributes:
        log_px: Lower bound of :math:`\log p(x)` in expectation, float64, shape ``(n,)``.
        acceptance: Share of accepted proposals; NaN if all sites are summed out.
        acceptance_by_part: The same for each tenth of the run, from the start to the posterior.
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
    r"""Result of `bidirectional_monte_carlo`, on data that the model drew.

    Attributes:
        log_px_lower: Lower bound of :math:`\log p(x')` in expectation, float64, shape ``(n,)``.
        log_px_upper: Upper bound of it in expectation.
        log_likelihood: :math:`\log p(x' \mid code)` at the code of each datum.
        acceptance: Share of the proposals that were accepted.
    """

    log_px_lower: Tensor
    log_px_upper: Tensor
    log_likelihood: Tensor
    acceptance: float

    @property
    def gap(self) -> float:
        """Mean difference of the bounds, the largest possible error of each, in nats per datum."""
        return float((self.log_px_upper - self.log_px_lower).mean())

    @property
    def information(self) -> tuple[float, float]:
        """Lower and upper bound of :math:`I_p(x; code)` in expectation, in nats."""
        low = self.log_likelihood - self.log_px_upper
        high = self.log_likelihood - self.log_px_lower
        return float(low.mean()), float(high.mean())


@checked(**GIVEN)
def annealed_log_likelihood(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    seed: int = 0,
    callback: Callback | None = None,
    **options: Any,
) -> AnnealedLogLikelihood:
    r"""Lower-bounds each datum's :math:`\log p(x)` by annealed importance sampling.

    Chains start at draws of the guide and follow :math:`f_t(z) = q(z \mid x)^{1 - \beta_t}\,
    p(x, z)^{\beta_t}` from :math:`\beta_0 = 0` to :math:`\beta_T = 1`, one transition of
    Hamiltonian Monte Carlo at each :math:`\beta_t` between. Their weights

    .. math:: w = \prod_{t=1}^T \frac{f_t(z_{t-1})}{f_{t-1}(z_{t-1})}

    have mean :math:`p(x)` for any transitions. So the logarithm of their average over the chains
    is low in expectation. It rises to :math:`\log p(x)` as T grows, while importance sampling
    needs exponentially many draws. With T = 1 it is the importance-weighted bound.

    Enumerable sites are summed out; the others move in unconstrained coordinates. A pilot run of
    50 transitions on the same data, with chains and random numbers of its own, sets each datum's
    step sizes and the temperatures. So neither depends on the chains of the run itself, whose
    weights stay unbiased. For each datum the cost is about
    ``num_chains * (num_temperatures + 50) * leapfrog_steps`` gradients of the model.

    The densities are recorded as a graph of tensor operations, and compiled if there is enough
    work. Densities that no graph can hold are evaluated in Pyro, with the same results.

    Args:
        model: The model, called as ``model(x)``.
        guide: The guide, called as ``guide(x)``.
        x: The data, shape ``(n, ...)``.
        seed: Seed of every draw; generators and modes are restored, as by `information`.
        callback: Called after each temperature with the numbers of finished and of all
            transitions.
        **options: Fields of `AnnealingOptions`.

    Returns:
        The bounds and the acceptance rates.

    Raises:
        DataError: If there are no data.
        OptionError: If an option is out of range, or unknown.
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
        Huang, Makhzani, Cao & Grosse (2020), Evaluating Lossy Compression Rates of Deep Generative
        Models (step sizes from a run of their own). https://arxiv.org/abs/2008.06653

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
        ...     model, guide, x, num_temperatures=60, num_chains=100, leapfrog_steps=3
        ... )
        >>> exact = dist.Normal(0.0, 1.01**0.5).log_prob(x)
        >>> bool(((found.log_px - exact).abs() < 0.2).all())
        True
    """
    how = made_of(AnnealingOptions, options, OWNER)
    with (
        probed(model, guide, x, batch_size=how.batch_size, seed=seed) as (x, pair),
        pyro.validation_enabled(False),
    ):
        _check_density(pair, x[:ITEMS_TRIED].to(pair.device), how.start)
        run = AnnealingRun(pair, how, len(x), callback=callback)
        parts = [run.bound(chunk.to(pair.device))[0] for chunk in x.split(how.data_at_once)]
    run.warn()
    return AnnealedLogLikelihood(torch.cat(parts), run.acceptance, run.acceptance_by_part)


@checked(**GIVEN, items=DRAWS)
def bidirectional_monte_carlo(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    items: int = 100,
    seed: int = 0,
    callback: Callback | None = None,
    **options: Any,
) -> BidirectionalBounds:
    r"""Bounds :math:`\log p(x')` from both sides, on data that the model drew.

    The code that generated a datum is an exact sample of its posterior. Chains from it that follow
    the path of `annealed_log_likelihood` backwards have weights whose inverse has mean :math:`1 /
    p(x')`. So minus the logarithm of that average is high in expectation. Step sizes and
    temperatures, from the pilot run on :math:`x'`, serve both directions. They do not depend on
    the code given :math:`x'`, so neither bound is biased to the wrong side. Both together also
    bound :math:`I_p(x; code)`, as ``generative_mi`` of `information` does with less work.

    Args:
        model: The model; it observes its argument, unchanged, at one site.
        guide: The guide.
        x: Data of the shape and type that the model draws, shape ``(n, ...)``.
        items: Number of data to draw.
        seed: Seed of every draw.
        callback: As in `annealed_log_likelihood`, with the same errors and warnings.
        **options: Fields of `AnnealingOptions`.

    Returns:
        The bounds.

    Raises:
        SiteError: If the pair cannot draw data of its own.

    References:
        Grosse, Ghahramani & Adams (2015), Sandwiching the marginal likelihood using bidirectional
        Monte Carlo, section 3. https://arxiv.org/abs/1511.02543

    Example:
        >>> vae, x = mi.VAE((1, 4, 4), latent_dim=2), torch.rand(20, 1, 4, 4)
        >>> how = {"items": 20, "num_temperatures": 20, "num_chains": 2}
        >>> abs(bidirectional_monte_carlo(vae.model, vae.guide, x, **how).gap) < 0.5
        True
    """
    how = made_of(AnnealingOptions, options, OWNER)
    with (
        probed(model, guide, x, batch_size=how.batch_size, seed=seed) as (x, pair),
        pyro.validation_enabled(False),
    ):
        some, known = x[:ITEMS_TRIED].to(pair.device), pair
        if how.start == "prior":
            known = replace(pair, layout=replace(pair.layout, deterministic=(), unscored={}))
        reason = why_undefined(known, some)
        if reason is None:
            data = generate(pair, some, items)
            reason = refusal(pair, data.x)
        if reason is not None:
            raise SiteError(f"the bounds need data that the model drew, but {reason}")
        run = AnnealingRun(pair, how, items, runs=2, callback=callback)
        lower, upper = run.sandwich(data)
    run.warn()
    return BidirectionalBounds(lower, upper, data.log_likelihood, run.acceptance)


class AnnealingRun:
    """Annealing in batches of data, with a count of accepted proposals."""

    def __init__(
        self,
        pair: ProbedPair,
        options: AnnealingOptions,
        items: int,
        *,
        runs: int = 1,
        callback: Callback | None = None,
    ) -> None:
        self._pair, self._options, self._callback = pair, options, callback
        chunks = math.ceil(items / options.data_at_once)
        self._done, self._total = 0, chunks * options.num_temperatures * runs
        self._stager = Stager()
        self._accepted, self._proposed = torch.zeros(2, PARTS, dtype=torch.float64)

    @property
    def acceptance(self) -> float:
        """Share of all proposals that were accepted."""
        return float(self._accepted.sum() / self._proposed.sum())

    @property
    def acceptance_by_part(self) -> tuple[float, ...]:
        """The same for each part of the path."""
        return tuple((self._accepted / self._proposed).tolist())

    def warn(self) -> None:
        """Warns if the chains hardly moved, or if their steps were too small."""
        low, high = ACCEPTED
        if self.acceptance < low or self.acceptance > high:
            warnings.warn(
                f"{self.acceptance:.0%} of the proposals were accepted; {low:.0%} to {high:.0%} "
                "are good: the bound may be loose; change leapfrog_steps or target_acceptance, "
                "or give more num_temperatures",
                PyroMivaeWarning,
                stacklevel=3,
            )

    def sandwich(self, data: PriorPredictive, fixed: Iterable[str] = ()) -> tuple[Tensor, Tensor]:
        """Bounds log p(x) of generated data from both sides, float64, shape ``(n,)`` each."""
        size = self._options.data_at_once
        chunks = (rows_of(data, slice(k, k + size)) for k in range(0, len(data.x), size))
        lower, upper = zip(*(self.bound(chunk.x, chunk.code, fixed) for chunk in chunks))
        return torch.cat(lower), torch.cat(upper)

    def bound(
        self, x: Tensor, code: dict[str, Tensor] | None = None, fixed: Iterable[str] = ()
    ) -> tuple[Tensor, Tensor]:
        """Bounds log p(x) from below and, given the code of each datum, from above."""
        if set(self._pair.layout.latent) == set(self._pair.layout.enumerated):
            exact = SummedDensity(self._pair, x, {})({})[1]
            return exact, exact
        how = self._options
        rows = repeat(x, how.num_chains)
        own = {name: repeat(value, how.num_chains) for name, value in (code or {}).items()}
        kept = {name: own[name] for name in fixed}
        path = AnnealingPath(self._pair, rows, how.start, kept)
        path.stage(self._stager, (self._total - self._done) * how.leapfrog_steps)
        plan = make_plan(
            path, how.num_chains, how.num_temperatures, how.leapfrog_steps, how.target_acceptance
        )
        lower = self._anneal(path, plan, path.draw())
        if code is None:
            return lower, lower
        return lower, -self._anneal(path, plan, path.coordinates(own), backwards=True)

    def _anneal(
        self, path: AnnealingPath, plan: Plan, place: Tensor, backwards: bool = False
    ) -> Tensor:
        """Log of the mean weight of each datum's chains; backwards, of the inverse weights."""
        temperatures, count = plan.temperatures, len(plan.temperatures) - 1
        if backwards:
            temperatures = temperatures.flip(0)
        point = path.at(place)
        log_weight = torch.zeros_like(point.gain)
        for i in range(1, count + 1):
            log_weight += (temperatures[i] - temperatures[i - 1]) * point.gain
            if i < count:
                now = temperatures[i]
                step = plan.step(now)
                point, chance = transition(path, point, now, step, plan.scale, plan.leapfrogs)
                part = PARTS * (i - 1) // (count - 1)
                part = PARTS - 1 - part if backwards else part
                self._accepted[part] += float(chance.sum())
                self._proposed[part] += len(chance)
            self._done += 1
            if self._callback is not None:
                self._callback(self._done, self._total)
        chains = log_weight.unflatten(0, (self._options.num_chains, -1))
        return chains.logsumexp(0) - math.log(len(chains))


def _check_density(probed: ProbedPair, x: Tensor, start: Start) -> None:
    if start == "guide" and probed.layout.why_unscored:
        raise SiteError(f"{probed.layout.why_unscored}; or use start='prior'")
    pair = run_pair(probed.model, probed.guide, x)
    for name in pair.observed:
        if is_deterministic(pair.model.nodes[name]):
            raise SiteError(
                f"the model makes the data, at site {name!r}, a function of the code, so they "
                "have no density; give the model a likelihood with noise"
            )
