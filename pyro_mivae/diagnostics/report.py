"""The information report: figures of the information in a code, in nats."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from pyro_mivae.arguments import checked, function, text, whole
from pyro_mivae.diagnostics.conditional import (
    UNGROUPED,
    SideBySide,
    at,
    groups_of,
    pooled,
    protocol_of,
    shared_out,
    with_condition,
)
from pyro_mivae.diagnostics.context import Context, InformationOptions
from pyro_mivae.diagnostics.diagnoses import Diagnosis, diagnose
from pyro_mivae.diagnostics.elbo_parts import active_units, amortization, annealed_evidence, costs
from pyro_mivae.diagnostics.generative import generative_information
from pyro_mivae.diagnostics.mi_bounds import dimensions, information_in_code
from pyro_mivae.figures import error_of, parsed, with_errors
from pyro_mivae.posterior.densities import draw_codes
from pyro_mivae.posterior.preserved_state import evaluation_mode
from pyro_mivae.posterior.probe import probed
from pyro_mivae.tables import Shown, align, by_index, write_error, write_number
from pyro_mivae.traces import Program

FAMILIES = (
    costs,
    information_in_code,
    dimensions,
    active_units,
    generative_information,
    annealed_evidence,
    amortization,
)
SEEDS_APART = 1_000_003  # of two conditions, whose draws are independent
OF_SINGLE_DATA = costs, active_units, annealed_evidence, amortization
ENOUGH_CODES, MOST_SAMPLES = 5000, 10  # by which num_samples is chosen
RELIABLE = 10  # data from which a standard error is one


class InformationReport(Shown, dict[str, float]):
    """Figures of `information` by name, with their protocol; it prints as a table.

    Standard errors have the keys ``<name>_se``; undefined figures are NaN.

    Args:
        figures: Every figure by name.
        protocol: Numbers of data, draws and codes, and the way in which each figure was measured;
            kept as an attribute.
        seconds: Wall time of each part; kept as an attribute.
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
        """Faults of the pair in its figures, see `diagnose`."""
        return diagnose(self)

    @checked(site=text())
    def dimensions(self, site: str) -> dict[str, Tensor]:
        """Returns the figures of a site's dimensions, or of its categories, as tensors.

        Args:
            site: A drawn or an enumerated site.

        Returns:
            ``mi_lower``, ``mi_upper`` and, for a drawn site, ``kl``, each with its standard errors
            under ``<name>_se``; each float64, shape ``(dims,)`` or ``(categories,)``, in nats.

        Raises:
            OptionError: If the site has no such figures.
        """
        return by_index(self, site)

    def __repr__(self) -> str:
        return f"InformationReport({len(self)} figures)"

    def __str__(self) -> str:
        shown = [(str(k), value) for k, value in parsed(self) if k.index is None]
        lines = align(
            [(k, write_number(v, 3), write_error(error_of(self, k), 3)) for k, v in shown]
        )
        if "standard_errors" in self.protocol:
            lines.append(f"standard errors are {self.protocol['standard_errors']}")
        return "\n".join(lines)


@checked(
    model=function("model(x), such as vae.model"),
    guide=function("guide(x), such as vae.guide"),
    seed=whole(least=0),
)
def information(
    model: Program, guide: Program, x: Tensor, *, given: Any = None, seed: int = 0, **options: Any
) -> InformationReport:
    r"""Measures the information in a code, for any Pyro model/guide pair, without a critic.

    Model and guide are called with a batch of ``x``, and of ``given`` if there is one. The model
    observes at least one site.
    Both have the same latent sites, with any names, each with a density per datum inside one plate
    over the data. Enumerable sites are summed out, annotated or not; others are drawn. Scales,
    masks and ``pyro.deterministic`` are ignored. Programs whose scores vary for the same datum and
    code (dropout, batch statistics) are refused.

    Figures, in nats per datum unless they say otherwise; ``docs/evaluation.md`` says how each is
    measured, how it errs, and where it is NaN:

    * ``distortion``, ``kl_<site>``, ``rate`` (their sum), ``elbo``: without weights or
      information terms;
    * ``log_px`` and, on request, ``log_px_ais``: lower bounds of :math:`\log p(x)`, by importance
      sampling and by `annealed_log_likelihood`; ``log_px_ais_gap``: the mean distance of its
      bounds from both sides on data that the model draws, see `bidirectional_monte_carlo`;
    * ``amortization_gap``, on request: the gain in ELBO of a `RefinedGuide`;
    * ``mi_lower``, ``mi_upper``, and ``mi_<site>_...``: :math:`I_q(x; code)`, under the joint
      distribution of data and guide, and that of one site, the others averaged out;
      ``mi_<site>[d]_...`` and ``kl_<site>[d]`` of a single dimension, from 0, or a category;
    * ``fitted_mi_lower``, ``fitted_mi_upper``: the same by a density fitted on other data, not
      limited by :math:`\log N`; the limit of the lower one is ``fitted_reach``. Read them if
      ``saturated`` is 1: ``mi_lower`` and ``mi_upper`` are more than 0.5 nats apart;
    * ``marginal_kl_lower``, ``marginal_kl_upper``: :math:`KL(q(code) \| p(code))` = rate - I;
    * ``total_correlation``, ``_lower``, ``_upper``: :math:`KL(q(z) \| \prod_d q(z_d))`;
    * ``active_units``, ``active_units_<site>``: dimensions whose posterior mean has a variance
      above 0.01;
    * ``generative_mi_lower``, ``_upper``, ``generative_mi_<site>_...``: :math:`I_p(x; code)` and
      :math:`I_p(x; s)` under the model's own joint distribution, on data *sampled* from it.

    Of a conditional pair, p(x, code | u) and q(code | x, u), every figure is the mean over the
    conditions u of the figure at u: ``log_px`` bounds log p(x | u), and the information is I(x;
    code | u). Whatever compares data, such as information, needs at most 200 conditions with two
    data or more of each. Otherwise, as with a continuous u, it is left out.

    ``<name>_se`` is a standard error over the data, as a sample of a population: NaN for one
    datum, and reported as unreliable for fewer than 10.

    Args:
        model: The model, called as ``model(x)``.
        guide: The guide, called as ``guide(x)``.
        x: The data, a tensor or a NumPy array of shape ``(N, ...)``, on any device; floats of any
            precision (see ``data_for``).
        given: The condition of each datum, any tensor of shape ``(N, ...)``; labels too for the
            model of a variant.
        seed: Seed of every draw. All modules run in evaluation mode. Torch's generators, Pyro's
            parameter store and the modules' mode are restored.
        **options: Fields of `InformationOptions`: numbers of draws and data.

    Returns:
        The report.

    Warns:
        PyroMivaeWarning: If annealing accepted under 40 % or over 90 % of its proposals.

    Raises:
        DataError: If there are no data, or a variant cannot score them.
        OptionError: If a number is out of range, or an option is unknown.
        SiteError: If the pair does not meet the conditions above.
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
    if given is None:
        return _report(model, guide, x, how, seed, FAMILIES)
    x, u = with_condition(model, guide, x, given)
    groups = groups_of(u)
    with evaluation_mode(model, guide):
        if groups is None:
            both = SideBySide(x, u)
            pair = both.bind(model), both.bind(guide)
            report = _report(*pair, both.rows, how, seed, OF_SINGLE_DATA)
            report.protocol["mi"] = UNGROUPED
            return report
        counts = [len(rows) for rows in groups]
        reports = []
        for number, rows in enumerate(groups):
            one, own = u[rows[0]], seed + number * SEEDS_APART
            few = shared_out(how, len(rows) / len(x))
            reports.append(_report(at(model, one), at(guide, one), x[rows], few, own, FAMILIES))
    protocol = protocol_of([report.protocol for report in reports], counts)
    parts = dict.fromkeys(name for report in reports for name in report.seconds)
    seconds = {name: sum(r.seconds.get(name, 0.0) for r in reports) for name in parts}
    return InformationReport(pooled(reports, counts), protocol, seconds)


def _report(
    model: Program,
    guide: Program,
    x: Tensor,
    how: InformationOptions,
    seed: int,
    families: tuple[Any, ...],
) -> InformationReport:
    """Measures the figures of an unconditional pair."""
    with probed(model, guide, x, batch_size=how.batch_size, seed=seed) as (x, pair):
        layout = pair.layout
        if how.num_samples is None:
            least = 1 if (layout.free - layout.meanless).issuperset(layout.latent) else 2
            num_samples = max(least, min(MOST_SAMPLES, ENOUGH_CODES // len(x)))
            how = replace(how, num_samples=num_samples)
        protocol: dict[str, Any] = {
            "items": len(x),
            "seed": seed,
            "num_samples": how.num_samples,
            "configurations": layout.num_configurations,
        }
        if layout.meanless:
            protocol["active_units"] = (
                "by means of 100 draws of each code, twice, because the guide has no known mean "
                f"of {', '.join(sorted(layout.meanless))}"
            )
        began = time.perf_counter()
        draws = draw_codes(pair, x, how.num_samples or 1)
        seconds = {"draw_codes": time.perf_counter() - began}
        context = Context(pair, x, how, seed, protocol, seconds)
        figures: dict[str, float] = {}
        for family in families:
            began = time.perf_counter() - sum(seconds.values())
            figures |= with_errors(family(context, draws))
            passed = time.perf_counter() - began
            seconds[family.__name__] = passed - sum(seconds.values())
    few = [n for n, count in protocol.items() if n.endswith("items") and 0 < count < RELIABLE]
    if few:
        protocol["standard_errors"] = (
            f"unreliable for fewer than {RELIABLE} data ({', '.join(sorted(few))})"
        )
    return InformationReport(figures, protocol, seconds)
