"""Pictures of how categories are used, and how they fit labels."""

from __future__ import annotations

from collections.abc import Iterator

from pyro_mivae import plots
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.subject import Subject

_MAX_ROWS = 12


def occupancy(subject: Subject) -> Iterator[Panel]:
    """Draws how many data each category takes."""
    k = subject.num_categories
    if not k:
        return
    shown = min(k, 2 * _MAX_ROWS)
    figure, ax = plots.new_figure(0.6 + 0.24 * shown)
    plots.plot_occupancy(ax, subject.occupancy, max_bars=shown)
    sentence = f"The share of the {subject.nouns} whose most probable category is this one."
    if k > shown:
        sentence += f" The {shown} most used of {k} are shown."
    yield Panel(
        "occupancy",
        "How the categories are used",
        sentence,
        "A category near zero is one that the model gave up. Equal shares are not the aim, unless "
        "the kinds of things in the data are equally many.",
        figure,
    )


def confusion(subject: Subject) -> Iterator[Panel]:
    """Draws how labels spread over categories."""
    k = subject.num_categories
    if not k or subject.labels is None:
        return
    rows = len(subject.labels.unique())
    figure, ax = plots.new_figure(0.6 + (4.2 * rows / k if k <= 2 * rows <= 4 * k else 0.3 * rows))
    plots.plot_confusion_matrix(
        ax,
        subject.labels,
        subject.categories,
        num_categories=k,
        label_names=subject.class_names,
    )
    yield Panel(
        "confusion",
        "Categories and labels",
        f"A row per label, a column per category: the percentage of the label's {subject.nouns} "
        "in that category. The categories are put in the order that fits the labels best. The "
        "model never saw a label.",
        "A dark diagonal: the categories that the model found are the ones that people use. Two "
        "dark cells in a row are a label split in two; in a column, two labels in one category.",
        figure,
    )
