"""How far the dimensions of the aggregate posterior are from independent."""

from __future__ import annotations

import torch

from pyro_mivae.diagnostics.aggregate import contrast, contrast_dimensions, factorised
from pyro_mivae.diagnostics.context import UNDEFINED, Context, Figures, mean_of
from pyro_mivae.diagnostics.draws import Draws


def total_correlation(context: Context, draws: Draws) -> Figures:
    """Measures the total correlation of the drawn sites on a subset of the data.

    Args:
        context: What to measure.
        draws: Draws of every datum's code.

    Returns:
        ``total_correlation``, ``total_correlation_lower`` and ``total_correlation_upper``.
    """
    layout = context.layout
    figures = [UNDEFINED] * 3
    items = context.choose(context.subset)
    context.protocol["total_correlation_items"] = len(items)
    x = context.take(items)
    defined = layout.drawn and not layout.deterministic and layout.is_known(*layout.drawn)
    if defined and len(x) > 1 and factorised(context.guide, x[:2], layout):
        some = draws.codes.take(items.to(context.device))
        rows = torch.arange(len(items), device=context.device)
        batch_size, device = context.batch_size, context.device
        (whole,) = contrast(
            context.guide,
            x,
            some,
            layout,
            [(layout.drawn, rows)],
            batch_size=batch_size,
            device=device,
        )
        everyone, others = contrast_dimensions(
            context.guide, x, some, layout, batch_size=batch_size, device=device
        )
        figures = [
            mean_of(whole.everyone - everyone.sum(1)),
            mean_of(whole.others - everyone.sum(1)),
            mean_of(whole.everyone - others.sum(1)),
        ]
        if everyone.shape[1] == 1:
            figures = [(0.0, 0.0)] * 3
    names = ("total_correlation", "total_correlation_lower", "total_correlation_upper")
    return dict(zip(names, figures))
