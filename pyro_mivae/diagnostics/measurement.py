"""The figures of the information report, one after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.diagnostics.aggregate import (
    Codes,
    Contrast,
    contrast,
    contrast_conditioned,
    contrast_dimensions,
    factorised,
)
from pyro_mivae.diagnostics.draws import Draws, draw_codes, importance_weighted
from pyro_mivae.diagnostics.posterior import Layout
from pyro_mivae.traces import Program

ACTIVE = 0.01  # variance of the posterior mean from which a dimension counts as active
OPEN = 0.5  # nats between the bounds from which the sandwich counts as open
DECIMALS = 5  # to which values of deterministic sites are compared

Figure = tuple[float, float]
UNDEFINED: Figure = (math.nan, math.nan)


class Measurement:
    """One run of the report, figure by figure; see `information`.

    Args:
        model: The model.
        guide: The guide.
        x: The data, shape ``(n, ...)``.
        layout: Layout of the pair.
        sizes: ``num_samples``, ``iwae_samples``, ``iwae_items``, ``subset`` and ``batch_size``.
        seed: Of the choice of subsets.
        device: Where the programs run.

    Attributes:
        values: Every figure by name.
        protocol: How it was measured.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        x: Tensor,
        layout: Layout,
        sizes: dict[str, int],
        seed: int,
        device: torch.device,
    ) -> None:
        self.model, self.guide, self.x, self.device = model, guide, x, device
        self.layout = layout
        self.sizes = sizes
        self.batch_size = max(1, sizes["batch_size"] // layout.num_configurations)
        generator = torch.Generator().manual_seed(seed)
        self.order = torch.randperm(len(x), generator=generator)
        self.values: dict[str, float] = {}
        self.protocol: dict[str, Any] = {
            "items": len(x),
            "seed": seed,
            "num_samples": sizes["num_samples"],
            "iwae_samples": sizes["iwae_samples"],
            "iwae_items": min(len(x), sizes["iwae_items"]),
            "information_items": len(x),
            "total_correlation_items": min(len(x), sizes["subset"]),
            "configurations": layout.num_configurations,
        }

    def run(self) -> None:
        """Measures every figure."""
        layout = self.layout
        draws = draw_codes(
            self.model,
            self.guide,
            self.x,
            layout,
            num_samples=self.sizes["num_samples"],
            batch_size=self.batch_size,
            device=self.device,
        )
        rate = torch.stack(list(draws.divergences.values())).sum(0)
        elbo = -draws.distortion - rate
        self._put("distortion", _mean(draws.distortion))
        self._put("rate", _mean(rate))
        self._put("elbo", _mean(elbo))
        self._put("log_px", self._log_likelihood(elbo))
        for name, divergence in draws.divergences.items():
            self._put(f"kl_{name}", _mean(divergence))
        codes = Codes(draws.values, draws.configuration, _groups(draws, layout))
        self._information(draws, codes, rate)
        self._total_correlation(codes)
        self._active_units(draws)

    def _put(self, name: str, figure: Figure) -> None:
        self.values[name], self.values[f"{name}_se"] = figure

    def _subset(self, size: int) -> Tensor:
        return self.order[:size].sort().values

    def _log_likelihood(self, elbo: Tensor) -> Figure:
        if elbo.isnan().any():
            return UNDEFINED
        items = self._subset(self.sizes["iwae_items"])
        bound, same_draws = importance_weighted(
            self.model,
            self.guide,
            self.x[items.to(self.x.device)].to(self.device),
            num_samples=self.sizes["iwae_samples"],
            batch_size=self.sizes["batch_size"],
        )
        if len(items) == len(self.x):
            return _mean(bound)
        gain, error = _mean(bound - same_draws)
        mean, elbo_error = _mean(elbo)
        return mean + gain, math.hypot(error, elbo_error)

    def _information(self, draws: Draws, codes: Codes, rate: Tensor) -> None:
        layout = self.layout
        everything = torch.arange(len(self.x), device=self.device)
        mixed = self._subset(self.sizes["subset"]).to(self.device)
        known = layout.is_known(*layout.latent)
        targets: list[tuple[tuple[str, ...] | None, Tensor]] = []
        if known and layout.enumerated != layout.latent:
            targets.append((None, everything))
        for name in layout.drawn:
            if layout.is_known(name):
                targets.append(((name,), mixed if name in layout.branching else everything))
        contrasts = dict(zip((names for names, _ in targets), self._contrast(codes, targets)))

        rows: Contrast | _Plugin
        if layout.enumerated == layout.latent:
            rows = _Plugin(draws.log_weights.exp())
        elif known:
            rows = contrasts[None]
        else:
            x = self.x.to(self.device)
            rows = contrast_conditioned(self.guide, x, codes, layout, mixed)
            self.protocol["information_items"] = len(rows.rows)
        lower, upper, saturated = _sandwich(rows, [_mean(rate)], bool(layout.deterministic))
        self._put("mi_lower", lower)
        self._put("mi_upper", upper)
        self.values["saturated"] = saturated
        self._marginal_divergence(rate, rows, lower, upper)
        for name in layout.latent:
            self._site_information(name, draws, codes, contrasts, upper)

    def _contrast(
        self, codes: Codes, targets: list[tuple[tuple[str, ...] | None, Tensor]]
    ) -> list[Contrast]:
        if not targets:
            return []
        return contrast(
            self.guide,
            self.x,
            codes,
            self.layout,
            targets,
            batch_size=self.batch_size,
            device=self.device,
        )

    def _marginal_divergence(
        self, rate: Tensor, rows: Contrast | _Plugin, lower: Figure, upper: Figure
    ) -> None:
        mean, error = _mean(rate)
        for name, bound, each in (
            ("marginal_kl_lower", upper, rows.upper),
            ("marginal_kl_upper", lower, rows.lower),
        ):
            if bound[0] == mean:  # the rate itself is the bound
                figure = (0.0, 0.0)
            elif len(each) == len(rate):
                figure = (mean - bound[0], _mean(rate - each)[1])
            else:
                figure = (mean - bound[0], math.hypot(error, bound[1]))
            self._put(name, figure)

    def _site_information(
        self,
        name: str,
        draws: Draws,
        codes: Codes,
        contrasts: Mapping[tuple[str, ...] | None, Contrast],
        ceiling: Figure,
    ) -> None:
        layout = self.layout
        lower = upper = UNDEFINED
        own = _mean(draws.divergences[name]) if name in layout.alone else UNDEFINED
        if name in layout.deterministic:
            if name in layout.free:
                values = _distinct(draws.values[name])
                lower = _mean(math.log(len(values)) - values.bincount()[values].double().log())
        elif name in layout.enumerated:
            rows = _Plugin(_marginal(draws.log_weights.exp(), layout, name))
            lower, upper, _ = _sandwich(rows, [own, ceiling], False)
            if not layout.free.issuperset(layout.enumerated):  # weights hold what was drawn
                lower = UNDEFINED
        elif (name,) in contrasts:
            lower, upper, _ = _sandwich(contrasts[(name,)], [own, ceiling], False)
        self._put(f"mi_{name}_lower", lower)
        self._put(f"mi_{name}_upper", upper)

    def _total_correlation(self, codes: Codes) -> None:
        layout = self.layout
        figures = [UNDEFINED] * 3
        items = self._subset(self.sizes["subset"])
        x = self.x[items.to(self.x.device)]
        defined = layout.drawn and not layout.deterministic and layout.is_known(*layout.drawn)
        if defined and len(x) > 1 and factorised(self.guide, x[:2].to(self.device), layout):
            some = codes.take(items.to(self.device))
            options: dict[str, Any] = {"batch_size": self.batch_size, "device": self.device}
            rows = torch.arange(len(items), device=self.device)
            (whole,) = contrast(self.guide, x, some, layout, [(layout.drawn, rows)], **options)
            everyone, others = contrast_dimensions(self.guide, x, some, layout, **options)
            figures = [
                _mean(whole.everyone - everyone.sum(1)),
                _mean(whole.others - everyone.sum(1)),
                _mean(whole.everyone - others.sum(1)),
            ]
            if everyone.shape[1] == 1:
                figures = [(0.0, 0.0)] * 3
        for name, figure in zip(("", "_lower", "_upper"), figures):
            self._put(f"total_correlation{name}", figure)

    def _active_units(self, draws: Draws) -> None:
        counts = {}
        for name in (*self.layout.drawn, *self.layout.deterministic):
            first, last = draws.means[0][name].double(), draws.means[-1][name].double()
            if len(first) < 2 or (len(draws.means) < 2 and name not in self.layout.free):
                counts[name] = math.nan
                continue
            # Two draws of what comes before: their covariance is free of that noise.
            products = (first - first.mean(0)) * (last - last.mean(0))
            counts[name] = float((products.sum(0) / (len(first) - 1) > ACTIVE).sum())
        self.values["active_units"] = float(sum(counts.values()))
        for name, count in counts.items():
            self.values[f"active_units_{name}"] = count


class _Plugin:
    """Both bounds for a categorical code, with the category summed out.

    Args:
        probs: Posterior probabilities, shape ``(n, categories)``.
    """

    def __init__(self, probs: Tensor) -> None:
        self.count = len(probs)
        everyone = probs.mean(0)
        others = (probs.sum(0) - probs).clamp_min(0) / max(1, len(probs) - 1)
        self.lower = (probs.xlogy(probs) - probs.xlogy(everyone)).sum(1)
        self.upper = (probs.xlogy(probs) - probs.xlogy(others)).sum(1)
        if len(probs) < 2:
            self.upper = torch.full_like(self.upper, torch.nan)


def _sandwich(
    rows: Contrast | _Plugin, ceilings: list[Figure], deterministic: bool
) -> tuple[Figure, Figure, float]:
    """Lower bound, upper bound, and 1.0 where the data are too few to close the gap."""
    lower, upper = _mean(rows.lower), _mean(rows.upper)
    defined = [figure for figure in (*ceilings, upper) if not math.isnan(figure[0])]
    if defined:
        upper = min(defined)
    gap = upper[0] - lower[0]
    if upper[0] < 0:
        upper = (0.0, upper[1])
    if lower[0] < 0:
        lower = (0.0, lower[1])
    if lower[0] > upper[0]:
        lower = (upper[0], lower[1])
    return lower, UNDEFINED if deterministic else upper, float(gap > OPEN)


def _groups(draws: Draws, layout: Layout) -> Tensor | None:
    if not layout.deterministic:
        return None
    flat = [draws.values[name].reshape(len(draws.distortion), -1) for name in layout.deterministic]
    return _distinct(torch.cat(flat, 1))


def _distinct(values: Tensor) -> Tensor:
    """Index of each distinct value, shape ``(n,)``."""
    rounded = values.double().reshape(len(values), -1).round(decimals=DECIMALS)
    index: Tensor = torch.unique(rounded, dim=0, return_inverse=True)[1]
    return index


def _marginal(probs: Tensor, layout: Layout, name: str) -> Tensor:
    """Probabilities of one enumerated site, shape ``(n, categories)``."""
    # Enumerated dimensions go leftwards in the order of the guide.
    dim = len(layout.sizes) - layout.enumerated.index(name)
    table = probs.reshape(-1, *layout.sizes)
    rest = [d for d in range(1, table.dim()) if d != dim]
    return table.sum(rest) if rest else table


def _mean(rows: Tensor) -> Figure:
    """Mean and its standard error."""
    error = rows.std() / math.sqrt(len(rows)) if len(rows) > 1 else torch.tensor(torch.nan)
    return float(rows.mean()), float(error)
