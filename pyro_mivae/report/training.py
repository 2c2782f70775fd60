"""Pictures of the training run."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pyro_mivae import plots
from pyro_mivae.figures import parse
from pyro_mivae.plots.curves import epochs_of
from pyro_mivae.plots.style import MUTED
from pyro_mivae.report.data import ReportData
from pyro_mivae.report.pictures import Panel


def loss_curves(data: ReportData) -> Iterator[Panel]:
    """Draws the loss of the training run and its parts; of a game what each player loses."""
    columns = data.history.columns
    if "loss_generator" in columns:
        yield _players(data)
        return
    if not {"loss", "elbo", "distortion"} & set(columns):
        return
    figure, ax = plots.new_figure(2.9)
    plots.plot_loss_curves(ax, data.history)
    look_for = "Curves that have become level. Where they still fall, more epochs would help."
    if any(column.startswith("val_") for column in columns):
        look_for += " Dashed curves that turn up: the model has begun to memorise."
    yield Panel(
        "loss_curves",
        "Training: the loss",
        "Epoch by epoch: the loss that is minimised, −ELBO (every weight 1 and no further term: "
        "it may rise while the loss falls), and the distortion in both. Lower is better.",
        look_for,
        figure,
    )


def _players(data: ReportData) -> Panel:
    curves = {name: data.history[f"loss_{name}"] for name in ("discriminator", "generator")}
    figure, ax = plots.new_figure(2.9)
    plots.plot_curves(ax, curves, epochs=epochs_of(data.history))
    draw = math.copysign(math.log(2.0), curves["generator"][-1])  # negative where it saturates
    for level in (math.log(4.0), draw):
        ax.axhline(level, color=MUTED, linewidth=1.0, linestyle=":")
    return Panel(
        "loss_curves",
        "Training: the players",
        "Epoch by epoch: what the discriminator minimises, −V, and what the generator minimises "
        "beside the information terms. The dotted lines are log 4 and log 2 nats: there the "
        f"discriminator cannot tell {data.nouns} from what is generated.",
        "Curves that stay near their lines: an even game. A discriminator that falls to 0 has "
        "won, and teaches the generator little. Lower is not better here.",
        figure,
    )


def information_curves(data: ReportData) -> Iterator[Panel]:
    """Draws what the sites carry, epoch by epoch."""
    figure, ax = plots.new_figure(2.9)
    plots.plot_information_curves(ax, data.history, num_categories=data.num_categories)
    if not ax.lines:
        return
    columns = data.history.columns
    sentence = "A curve per site, epoch by epoch."
    names = {found.name for found in map(parse, columns) if found is not None}
    if "kl" in names:
        sentence += " The KL of a site is the most that it can say of the data"
        sentence += " (of z: once the category is known)." if data.category else "."
    if "mi" in names:
        sentence += (
            " The information terms of the objective: at least so much of a site can be read back "
            "from what the model generates (from its mean or from a sample, as it says)."
        )
    if data.category:
        sentence += " No category can say more than the dotted line."
    yield Panel(
        "information_curves",
        "Training: the information",
        sentence,
        "A curve that falls to 0: a site that the model gave up. One that rises and stays: a site "
        "that it came to use.",
        figure,
    )
