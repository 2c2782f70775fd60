"""The pictures of a model that was trained as a game: its players, and what its codes do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from pyro_mivae import plots
from pyro_mivae.models import code_program
from pyro_mivae.plots.style import MUTED
from pyro_mivae.report.panel import Panel
from pyro_mivae.traces import trace_program

if TYPE_CHECKING:
    from pyro_mivae.report.subject import Subject

_STEPS = 9
_ROWS = 12
_DRAWS = 1000


def player_curves(subject: Subject) -> Panel:
    """Draws what discriminator and generator lose, epoch by epoch."""
    history = subject.history
    curves = {name: history[f"loss_{name}"] for name in ("discriminator", "generator")}
    figure, ax = plots.new_figure(2.9)
    epochs = history["epoch"] if "epoch" in history.columns else None
    plots.plot_curves(ax, curves, epochs=epochs)
    draw = math.copysign(math.log(2.0), curves["generator"][-1])  # negative where it saturates
    for level in (math.log(4.0), draw):
        ax.axhline(level, color=MUTED, linewidth=1.0, linestyle=":")
    return Panel(
        "loss_curves",
        "Training: the players",
        "Epoch by epoch: what the discriminator minimises, −V, and what the generator minimises "
        "beside the information terms. The dotted lines are log 4 and log 2 nats: there the "
        f"discriminator cannot tell {subject.nouns} from what is generated.",
        "Curves that stay near their lines: an even game. A discriminator that falls to 0 has "
        "won, and teaches the generator little. Lower is not better here.",
        figure,
    )


def code_traversals(subject: Subject) -> Iterator[Panel]:
    """Draws, for each continuous code, what it changes, in rows that differ in all the rest."""
    vae = subject.vae
    example = subject.x[:1].expand(_DRAWS, *subject.x.shape[1:])
    nodes = trace_program(code_program(vae.model), (example,), {}).nodes
    draws = {site: nodes[site]["value"] for site in vae.sites}
    for site in subject.continuous_sites:
        dims = min(vae.sites[site], _ROWS)
        each = max(1, min(_ROWS // dims, 6))
        count = dims * each
        codes = {s: draw[:count].repeat_interleave(_STEPS, 0) for s, draw in draws.items()}
        names = [f"{site}{row // each}" if dims > 1 else site for row in range(count)]
        if subject.category and vae.category in draws:
            shown = subject.occupancy.argsort(descending=True, stable=True)[:each]
            rows = shown[torch.arange(count) % len(shown)].repeat_interleave(_STEPS)
            kind = torch.eye(subject.num_categories or 0, device=vae.device, dtype=vae.dtype)
            codes[subject.category] = kind[rows.to(vae.device)]
            names = [f"{n}  c = {int(shown[i % len(shown)])}" for i, n in enumerate(names)]
        ends = draws[site].quantile(torch.tensor([0.01, 0.99]).to(draws[site]), 0)
        for row in range(count):
            low, high = ends[:, row // each].tolist()
            moved = torch.linspace(low, high, _STEPS).to(codes[site])
            codes[site][row * _STEPS : (row + 1) * _STEPS, row // each] = moved
        pictures = vae.decode(codes, count * _STEPS).cpu().unflatten(0, (count, _STEPS))
        figure, ax = plots.grid_figure(count, _STEPS, vae.data_shape, label_width=1.2)
        plots.plot_traversals(ax, pictures, torch.full((count,), math.nan), names)
        yield Panel(
            f"traversals_{site}",
            f"What {site} changes",
            f"Each row moves one dimension of {site} through the middle 98 % of its prior and "
            "holds noise and other codes, which differ from row to row"
            + (", the most used categories in turn." if subject.category else "."),
            "Rows of one dimension in which the same thing changes, slant or width, say: a code "
            "with a meaning. Rows in which nothing changes: a code that the generator ignores.",
            figure,
        )
