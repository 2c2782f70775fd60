"""Pictures of the space between and beyond the centres of the categories."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_mivae import plots
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.subject import STEPS, Subject

_MAX_ROWS = 10
_FARTHEST = 2.0  # times the centre


def interpolations(subject: Subject) -> Iterator[Panel]:
    """Draws what lies between the centres of categories; nothing where these have none."""
    if not subject.centres:
        return
    rows = _most_used(subject)
    if len(rows) < 2:
        return
    following = rows.roll(-1) if len(rows) > 2 else rows.roll(-1)[:1]
    rows = rows[: len(following)]
    codes = _codes(subject)
    pictures = subject.decode_along(
        {site: code[rows] for site, code in codes.items()},
        {site: code[following] for site, code in codes.items()},
    )
    figure, ax = plots.grid_figure(len(rows), STEPS, subject.vae.data_shape, label_width=1.3)
    starts, ends = ([f"c = {k}" for k in side.tolist()] for side in (rows, following))
    plots.plot_interpolations(ax, pictures, starts, ends)
    yield Panel(
        "interpolations",
        "From category to category",
        "Each row goes in equal steps, along a straight line, from the centre of one category to "
        "that of another: their prior means, of which no datum need be the code. The category at "
        "the right is that of the next row.",
        "The ends are what the categories stand for at their most typical. Where a row turns from "
        "one into the other at once, the decoder has a border there; where its middle is a blur, "
        "or neither of the two, no data are there.",
        figure,
    )


def radii(subject: Subject) -> Iterator[Panel]:
    """Draws what lies along the line from the origin through each category's centre."""
    if not subject.centres:
        return
    far = sum((mean.square().sum(1) for mean in subject.centres.values()), torch.zeros(1))
    rows = torch.stack([k for k in _most_used(subject) if float(far[k]) > 0][:_MAX_ROWS])
    category = torch.eye(subject.num_categories or 0)[rows]
    ends = {site: _FARTHEST * mean[rows] for site, mean in subject.centres.items()}
    starts = {site: torch.zeros_like(end) for site, end in ends.items()}
    name = str(subject.category)
    pictures = subject.decode_along(starts | {name: category}, ends | {name: category})
    figure, ax = plots.grid_figure(len(rows), STEPS, subject.vae.data_shape)
    multiples = [_FARTHEST * step / (STEPS - 1) for step in range(STEPS)]
    plots.plot_radii(ax, pictures, multiples, [f"c = {k}" for k in rows.tolist()])
    yield Panel(
        "radii",
        "Away from the origin",
        "Each row starts at the origin, which belongs to no category, and moves away from it in "
        "the coordinates of one category, straight through its centre: above the columns stands "
        "the distance, 1 where the centre is.",
        "The first column is the same in all rows: what the decoder makes of no category at all. "
        "A row that gets clearer up to 1, and more extreme beyond, has a direction that means "
        "the category; one that falls apart beyond 1 has left the data.",
        figure,
    )


def _most_used(subject: Subject) -> Tensor:
    return subject.occupancy.argsort(descending=True, stable=True)[:_MAX_ROWS]


def _codes(subject: Subject) -> dict[str, Tensor]:
    """The centre of each category and the category itself, by site."""
    return {**subject.centres, str(subject.category): torch.eye(subject.num_categories or 0)}
