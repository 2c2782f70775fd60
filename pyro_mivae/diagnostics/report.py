"""The information report: figures of what a code knows about the data, in nats."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from pyro_mivae.arguments import checked, function, text, whole
from pyro_mivae.diagnostics.context import Context, InformationOptions
from pyro_mivae.diagnostics.diagnoses import Diagnosis, diagnose
from pyro_mivae.diagnostics.elbo_parts import active_units, annealed_evidence, costs
from pyro_mivae.diagnostics.generative import generative_information
from pyro_mivae.diagnostics.mi_bounds import information_in_code
from pyro_mivae.diagnostics.per_dimension import dimensions
from pyro_mivae.figures import by_index, error_of, parsed, with_errors
from pyro_mivae.posterior.draws import draw_codes
from pyro_mivae.posterior.probe import probed
from pyro_mivae.tables import align, write_error, write_number
from pyro_mivae.traces import Program

FAMILIES = (
    costs,
    information_in_code,
    dimensions,
    active_units,
    generative_information,
    annealed_evidence,
)
ENOUGH_CODES, MOST_SAMPLES = 5000, 10  # by which num_samples is chosen
RELIABLE = 10  # data from which a standard error is one


class InformationReport(dict[str, float]):
    """Figures of `information` by name, and how they were measured; it prints as a table.

    Standard errors stand under ``<name>_se``; figures that are not defined are NaN.

    Args:
        figures: Every figure by name.
        protocol: Numbers of data, draws and codes, and the way in which each figure was measured.
        seconds: Time of each part on the clock.

    Attributes:
        protocol: As given.
        seconds: As given.
    """

    def __init__(
        self,
        figures: Mapping[str, float],
        protocol: Mapping[str, Any],
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(figures)
        self.protocol, self.seconds = dict(protocol), dict(seconds or {})

    def to_dict(self) -> dict[str, float]:
        """Returns every figure by name, as plain floats."""
        return dict(self)

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """Faults of the pair that the figures show, see `diagnose`."""
        return diagnose(self)

    @checked(site=text())
    def dimensions(self, site: str) -> dict[str, Tensor]:
        """Returns the figures of a site's dimensions, or of its categories, as tensors.

        Args:
            site: A drawn or an enumerated site.

        Returns:
            ``mi_lower``, ``mi_upper`` and, of a drawn site, ``kl``, each with its standard errors
            under ``<name>_se``; each float64, shape ``(dims,)`` or ``(categories,)``, in nats.

        Raises:
            OptionError: If the site has no such figures.
        """
        return by_index(self, site)

    def __str__(self) -> str:
        shown = [(str(k), value) for k, value in parsed(self) if k.index is None]
        lines = align(
            [(k, write_number(v, 3), write_error(error_of(self, k), 3)) for k, v in shown]
        )
        if "standard_errors" in self.protocol:
            lines.append(f"standard errors are {self.protocol['standard_errors']}")
        return "\n".join(lines)


@checked(model=function("model(x)"), guide=function("guide(x)"), seed=whole(least=0))
def information(
    model: Program, guide: Program, x: Tensor, *, seed: int = 0, **options: Any
) -> InformationReport:
    r"""Reports what a code knows about the data, for any Pyro model/guide pair, without a critic.

    The pair is called with a batch of ``x`` alone. The model observes at least one site; the
    latent sites, of whatever names, are the same in both, each with a density per datum, inside
    one plate over the data. Enumerable sites are summed out, whether annotated or not; others are
    drawn. Sites of ``pyro.deterministic`` do not count, nor do scales and masks. Several draws of
    all data find which sites depend on which, and on the data. Programs that score the same datum
    and code in several ways (dropout, statistics of the batch) are refused.

    Figures, per datum in nats unless they say otherwise:

    * ``distortion``, ``kl_<site>``, ``rate`` (their sum), ``elbo``: without weights or
      information terms. ``kl_<site>`` is the divergence given the sites that the guide draws
      before, averaged over them; in closed form where there is one.
    * ``log_px``: importance-weighted lower bound of :math:`\log p(x)`, low in expectation. With
      more than ``iwae_items`` data it is the ELBO plus the mean gain over it on so many of them.
    * ``log_px_ais``, on request: lower bound by `annealed_log_likelihood`, for guides that make
      the importance-weighted one loose, extended to all data in the same way. With deterministic
      sites it is annealed from the prior, and the mean over ``ais_items`` data.
    * ``mi_lower``, ``mi_upper``: :math:`I_q(x; code)`, under the joint distribution of data and
      guide. The lower bound is InfoNCE over all data, at most :math:`\log N`; the upper one the
      smaller of the leave-one-out bound and the rate. Each errs outwards in expectation, except
      that the smaller of two upper ones that are about equal is low by a part of its standard
      error. Of enumerated sites alone, without draws: the plug-in
      :math:`H(\bar q) - \overline{H(q)}`, low by about :math:`(K - 1) / 2N` for data drawn from a
      population, and the same with each datum left out of :math:`\bar q`, high by as much.
    * ``mi_<site>_lower``, ``mi_<site>_upper``: the same for one site, the others averaged out;
      bounded by the site's own KL divergence too where neither side makes it depend on another.
      NaN where the site's density given x alone is not known.
    * ``marginal_kl_lower``, ``marginal_kl_upper``: :math:`KL(q(code) \| p(code))` = rate - I. NaN
      where the model's prior depends on the data: the rate bounds no information then.
    * ``mi_<site>[d]_lower``, ``_upper``, ``kl_<site>[d]`` of every dimension of a drawn site (its
      event flattened, from 0): :math:`I_q(x; z_d)` on ``subset`` data, all else averaged out, and
      the dimension's part of ``kl_<site>`` on all data. The former need not add up; they are NaN
      unless the dimensions are independent given the datum, or jointly normal. The latter is NaN
      where guide or model tie the dimensions together.
    * ``mi_<site>[k]_lower``, ``_upper`` of every category of an enumerated site: its share
      :math:`E_x\, q(k \mid x) \log \frac{q(k \mid x)}{\bar q(k)} \ge 0` of I(c; x),
      :math:`\bar q(k)` times the specific information of k. The lower ones add up to
      ``mi_<site>_lower``, the upper ones to ``mi_<site>_upper`` at least.
    * ``total_correlation``, ``_lower``, ``_upper``: :math:`KL(q(z) \| \prod_d q(z_d))` over every
      dimension of the drawn sites, on ``subset`` data. The lower bound takes for q(z) a density
      fitted on the other half of these data, the upper one the mean of their posteriors, which
      errs high where log of ``subset`` limits it. The figure is that of these posteriors where
      the bounds are within 0.5 nats, and the lower bound otherwise. NaN unless the posterior of
      each dimension and that of all of them are known.
    * ``active_units``, ``active_units_<site>``: number of dimensions whose posterior mean has a
      variance above 0.01; enumerated sites do not count.
    * ``generative_mi_lower``, ``_upper``, ``generative_mi_<site>_lower``, ``_upper``:
      :math:`I_p(x; code)` and :math:`I_p(x; s)` under the model's own joint distribution, on
      ``generative_items`` data *sampled* from it (a Bernoulli likelihood gives binary ones).
      The code of each is an exact sample of its posterior, so importance sampling bounds the
      evidence from both sides; both ends close as ``generative_samples`` grows, and a poor guide
      widens them. With ``ais_items``, so many of these data are annealed in both directions
      instead, as by `bidirectional_monte_carlo`. NaN, for a reason that the protocol names, where
      the model does not observe its argument at one site, unchanged, or sites are deterministic.
    * ``saturated``: 1 where more than 0.5 nats lie between the bounds of :math:`I_q(x; code)`,
      since :math:`\log N` is the limit, and 0 otherwise. Read the next ones then.
    * ``fitted_mi_lower``, ``fitted_mi_upper``: :math:`I_q(x; code)` by a density of codes that is
      fitted on one half of the data and judged on the other (`fitted_information` has the
      mathematics). The upper one has no :math:`\log N` as its limit; the lower one has
      ``fitted_reach``, about :math:`2 \log N`. NaN for fewer than 20 data, for deterministic
      sites, and for enumerated sites alone, which need no draws.

    Lower bounds of an information are kept between 0 and the upper ones, a site's upper bound at
    or below the whole code's. A deterministic (Delta) site has no KL divergence: it, the rate, the
    ELBO, ``log_px`` and the upper bounds are NaN, and its lower bound is the entropy of its
    distinct values (to five decimals). Where the model makes the data a function of the code
    (`DeltaLikelihood`), distortion, ELBO and ``log_px`` are NaN. Where codes cannot be scored
    under other data (transforms without an inverse, straight-through samples, values that their
    floating-point type hardly tells apart), the bounds that need it are NaN, and the protocol says
    why. ``<name>_se`` is a standard error over the data, taken as a sample of their population:
    NaN for one datum, and said to be unreliable for fewer than 10.

    Args:
        model: The model, called as ``model(x)``.
        guide: The guide, called as ``guide(x)``.
        x: The data, a tensor or a NumPy array of shape ``(N, ...)``, on any device; floats of any
            precision (see `data_for`).
        seed: Of every draw. Torch's generators, Pyro's parameter store and the modules' mode are
            left as they were; every module is evaluated in evaluation mode.
        **options: Fields of `InformationOptions`: how many draws and data each figure takes.

    Returns:
        The report.

    Warns:
        PyroMivaeWarning: If annealing accepted under 40 % or over 90 % of its proposals.

    Raises:
        DataError: If there are no data, or a variant cannot score them.
        OptionError: If a number is out of range, or an option is unknown.
        SiteError: If the pair is not as said above.
        ShapeError: If a site's batch shape is not that of one plate over the data.

    References:
        Hoffman & Johnson (2016), ELBO surgery: rate = information + marginal KL divergence.
        Poole et al. (2019), On Variational Bounds of Mutual Information.
        https://arxiv.org/abs/1905.06922
        Chen et al. (2018), Isolating Sources of Disentanglement, eq. 2 (total correlation).
        https://arxiv.org/abs/1802.04942
        Burda et al. (2016), Importance Weighted Autoencoders, eq. 8 and section 5 (active units).
        https://arxiv.org/abs/1509.00519

    Example:
        >>> import math, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> report = information(model, guide, 2**0.5 * torch.randn(1000))
        >>> abs(report["mi_lower"] - 0.5 * math.log(2)) < 4 * report["mi_lower_se"]
        True
    """
    how = InformationOptions.of(options)
    with probed(model, guide, x, batch_size=how.batch_size, seed=seed) as (x, pair):
        if how.num_samples is None:
            exact = pair.layout.free - pair.layout.meanless
            least = 1 if exact.issuperset(pair.layout.latent) else 2
            num_samples = max(least, min(MOST_SAMPLES, ENOUGH_CODES // len(x)))
            how = replace(how, num_samples=num_samples)
        context = Context(pair, x, how, seed)
        figures = _measure(context)
    return InformationReport(figures, context.protocol, context.seconds)


def _measure(context: Context) -> dict[str, float]:
    """Measures every family of figures, each with its time on the clock."""
    layout, num_samples = context.layout, context.options.num_samples or 1
    context.protocol.update(
        items=len(context.x),
        seed=context.seed,
        num_samples=num_samples,
        configurations=layout.num_configurations,
    )
    if layout.meanless:
        context.protocol["active_units"] = (
            f"by means of 100 draws of each code, twice, as the guide knows no mean of "
            f"{', '.join(sorted(layout.meanless))}"
        )
    began = time.perf_counter()
    draws = draw_codes(context.pair, context.x, num_samples)
    context.seconds["draw_codes"] = time.perf_counter() - began
    values: dict[str, float] = {}
    for family in FAMILIES:
        began = time.perf_counter() - sum(context.seconds.values())
        values |= with_errors(family(context, draws))
        passed = time.perf_counter() - began
        context.seconds[family.__name__] = passed - sum(context.seconds.values())
    protocol = context.protocol
    few = [n for n, count in protocol.items() if n.endswith("items") and 0 < count < RELIABLE]
    if few:
        protocol["standard_errors"] = (
            f"unreliable where they are of under {RELIABLE} data ({', '.join(sorted(few))})"
        )
    return values
