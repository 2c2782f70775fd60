"""Pictures of the training run."""

from __future__ import annotations

from collections.abc import Iterator

from pyro_mivae import plots
from pyro_mivae.figures import parse
from pyro_mivae.report.game import player_curves
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.subject import Subject


def loss_curves(subject: Subject) -> Iterator[Panel]:
    """Draws the loss of the training run and its parts."""
    columns = subject.history.columns
    if "loss_generator" in columns:
        yield player_curves(subject)
        return
    if not {"loss", "elbo", "distortion"} & set(columns):
        return
    figure, ax = plots.new_figure(2.9)
    plots.plot_loss_curves(ax, subject.history)
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


def information_curves(subject: Subject) -> Iterator[Panel]:
    """Draws what the sites carry, epoch by epoch."""
    figure, ax = plots.new_figure(2.9)
    plots.plot_information_curves(ax, subject.history, num_categories=subject.num_categories)
    if not ax.lines:
        return
    columns = subject.history.columns
    sentence = "A curve per site, epoch by epoch."
    names = {found.name for found in map(parse, columns) if found is not None}
    if "kl" in names:
        sentence += " The KL of a site is the most that it can say of the data"
        sentence += " (of z: once the category is known)." if subject.category else "."
    if "mi" in names:
        sentence += (
            " The information terms of the objective: at least so much of a site can be read back "
            "from what the model generates (from its mean or from a sample, as it says)."
        )
    if subject.category:
        sentence += " No category can say more than the dotted line."
    yield Panel(
        "information_curves",
        "Training: the information",
        sentence,
        "A curve that falls to 0: a site that the model gave up. One that rises and stays: a site "
        "that it came to use.",
        figure,
    )
