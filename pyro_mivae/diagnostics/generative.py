r"""Generative information :math:`I_p(x; code)`, from both sides, on data that the model draws."""

from __future__ import annotations

import math
import time
from functools import partial

import pyro
import torch
from torch import Tensor

from pyro_mivae.diagnostics.context import (
    OWN_ANNEALED,
    UNDEFINED,
    Context,
    Figure,
    Figures,
    ends,
    in_order,
    mean_of,
)
from pyro_mivae.evidence.annealing import ITEMS_TRIED, AnnealingOptions, AnnealingRun
from pyro_mivae.evidence.importance import (
    Bounds,
    Evidence,
    PriorPredictive,
    generate,
    refusal,
    same,
    why_undefined,
)
from pyro_mivae.posterior.densities import Draws, rows_of
from pyro_mivae.posterior.layout import ProbedPair
from pyro_mivae.progress import tell


def generative_information(context: Context, _: Draws) -> Figures:
    """Bounds the information between the code and data drawn from the model."""
    layout, options = context.pair.layout, context.options
    sites = ("", *layout.latent)  # the whole code, and each site
    if not options.generative_items:
        return {}
    some = context.take(context.choose(ITEMS_TRIED))
    reason = why_undefined(context.pair, some)
    if reason is None:
        data = generate(context.pair, some, options.generative_items)
        reason = refusal(context.pair, data.x)
    if reason is not None:
        context.protocol["generative_mi"] = f"not defined: {reason}"
        every = [ends("generative_mi", UNDEFINED, UNDEFINED, site) for site in sites]
        return {name: figure for both in every for name, figure in both.items()}
    measured = GenerativeInformation(context.pair, data, options.generative_samples)
    num_samples = measured.evidence.num_samples
    whole = torch.equal(data.x, data.x.round()) and not torch.equal(context.x, context.x.round())
    note = ", with whole numbers, unlike the given data" if whole else ""
    context.protocol.update(
        generative_items=options.generative_items,
        generative_samples=num_samples,
        generative_mi=f"{len(data.x)} data drawn from the model, each a sample of its "
        f"{data.distribution}{note}; {num_samples} importance samples of each",
    )
    figures: dict[str, Figure] = {}
    if options.ais_items:
        if layout.drawn:  # otherwise the bounds are exact
            _anneal(context, measured)
        low, high = (bound[: options.ais_items] for bound in measured.closer[""])
        figures["log_px_ais_gap"] = mean_of(high - low)
        context.protocol["ais_gap_items"] = len(low)
    ceilings: list[Figure] = []  # a site knows no more than the code
    for site in sites:
        bounds = measured.site(site) if site else measured.code()
        lower, upper = in_order(mean_of(bounds[0]), mean_of(bounds[1]), ceilings)[:2]
        figures |= ends("generative_mi", lower, upper, site)
        ceilings = ceilings or [upper]
    if any(math.isnan(mean) for mean, _ in figures.values()):
        context.protocol["generative_mi"] += "; not defined if their densities are NaN"
    return figures


class GenerativeInformation:
    r"""Bounds :math:`I_p(x; s)` for the whole code and for its sites, without a critic.

    With :math:`(s^*, x')` drawn from the model,
    :math:`I_p(x; s) = E[\log p(x' \mid s^*) - \log p(x')]`, and the terms without a closed form
    are bounded from both sides by `Evidence`.

    For an enumerable site c, with the sums :math:`\hat p(c)` and :math:`\hat p` of `Evidence`,

    .. math:: E \log \frac{\hat p(c^*)}{\hat p} + H(c) \le I_p(x; c)
        \le E_P \log \frac{\hat p(c^*)}{\hat p} + H(c).

    On the left is the bound of Barber and Agakov (2003), with a posterior of c from draws that do
    not depend on :math:`c^*`. On the right the mean exceeds the information by
    :math:`E\,KL(P(\cdot \mid c^*) \| \prod_j q_j) - KL(P \| \prod_j q_j) = I_P(c^*; r_{1:k} \mid
    x') \ge 0`. Both share their draws, and neither exceeds H(c).

    For a drawn site s, :math:`\log p(x', s^*)` is bounded over the other sites with s fixed in
    guide and model. So is :math:`\log p(s^*)`, over draws of the prior, if it is not a finite sum.

    Attributes:
        evidence: Bounds of the evidence.
        closer: Closer bounds for the first data, by annealing: of the evidence, and by site of the
            evidence with that site's value fixed. All other data are then left out.
    """

    def __init__(self, pair: ProbedPair, data: PriorPredictive, num_samples: int) -> None:
        self._layout = pair.layout
        self.evidence = Evidence(pair, data, num_samples)
        self._tables = self.evidence.bound()
        self.closer: dict[str, Bounds] = {"": _summed(self._tables)}

    def code(self) -> Bounds:
        """Bounds the information in the whole code, a row for each datum, in nats."""
        low, high = self.closer[""]
        log_likelihood = self.evidence.data.log_likelihood[: len(low)]
        return log_likelihood - high, log_likelihood - low

    def site(self, name: str) -> Bounds:
        """Bounds the information in one site, a row for each datum, in nats."""
        if self._layout.latent == (name,):
            return self.code()
        prior_low, prior_high = self._log_prior(name)
        if name in self._layout.enumerated and name not in self.closer:
            below, above = (self._of_own(t, name) - t.logsumexp(0) for t in self._tables)
            return below - prior_high, above - prior_low
        low, high = self.closer[""]
        joint = self.closer.get(name)
        below, above = _summed(self.evidence.bound(name)) if joint is None else joint
        few = slice(len(low))
        return below[few] - prior_high[few] - high, above[few] - prior_low[few] - low

    def _log_prior(self, name: str) -> Bounds:
        """Bounds the log-density of a site's value under the prior; for a category its mean."""
        tables = self.evidence.bound_prior(name)
        if name not in self._layout.enumerated:
            return _summed(tables)
        if not self.evidence.is_known(name):
            return self._of_own(tables[0], name), self._of_own(tables[1], name)
        log_probs = tables[0][:, 0]  # the same for every datum
        values = self.evidence.configurations[name]
        marginal = log_probs.masked_fill(~same(values, values), -torch.inf).logsumexp(1)
        return ((log_probs.exp() * marginal).sum().expand(tables[0].shape[1]),) * 2

    def _of_own(self, table: Tensor, name: str) -> Tensor:
        """Sums a table over the configurations that agree with a site's value."""
        return table.masked_fill(~self.evidence.agrees(name), -torch.inf).logsumexp(0)


def _anneal(context: Context, measured: GenerativeInformation) -> None:
    """Tightens the bounds for the first data by annealing, without and with each site fixed."""
    began = time.perf_counter()
    layout, temperatures = context.pair.layout, context.options.ais_temperatures
    few = rows_of(measured.evidence.data, slice(context.options.ais_items))
    sites = [name for name in layout.latent if set(layout.drawn) - {name}]
    fixed = ["", *(sites if len(layout.latent) > 1 else [])]
    run = AnnealingRun(
        context.pair,
        AnnealingOptions(num_temperatures=temperatures, batch_size=context.options.batch_size),
        len(few.x),
        runs=2 * len(fixed),
        callback=partial(tell, OWN_ANNEALED),
    )
    with pyro.validation_enabled(False):
        for name in fixed:
            measured.closer[name] = run.sandwich(few, [name] if name else [])
    run.warn()
    context.protocol["generative_ais_items"] = len(few.x)
    context.protocol["generative_ais_acceptance"] = run.acceptance
    context.protocol["generative_mi"] += (
        f"; {len(few.x)} of them annealed both ways at {temperatures} temperatures, "
        f"{run.acceptance:.0%} of the proposals accepted"
    )
    context.seconds["annealed_generation"] = time.perf_counter() - began


def _summed(tables: Bounds) -> Bounds:
    return tables[0].logsumexp(0), tables[1].logsumexp(0)
