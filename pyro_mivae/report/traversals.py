"""Pictures of rows along which a code moves."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from pyro_mivae import plots
from pyro_mivae.models import code_program
from pyro_mivae.report.data import MIDDLE, STEPS, ReportData
from pyro_mivae.report.pictures import Panel
from pyro_mivae.traces import trace_program

_MAX_ROWS = 12
_MIN_ROWS = 4
_MAX_CATEGORIES = 10
_NEGLIGIBLE = 0.01  # nats
_FARTHEST = 2.0  # times the centre
_DRAWS = 1000
_ABOUT = {"information": "at least ", "KL": ""}
_BESIDE = {
    "information": "Beside it stands what the dimension says of the data at least, in nats, the "
    "largest first.",
    "KL": "Beside it stands the dimension's KL in nats, the most that it can say, the largest "
    "first.",
    "variance": "The dimension that varies most comes first; neither KL nor information is known.",
}


def traversals(data: ReportData) -> Iterator[Panel]:
    """Draws, for each continuous site, what moving one dimension at a time changes."""
    if data.vae.noise:
        yield from _prior_traversals(data)
        return
    for site in data.continuous_sites:
        dims = data.codes[site].shape[1]
        sizes, kind = data.ranking(site)
        is_known = kind != "variance"
        if dims == 1:
            moves = [(int(example), 0) for example in data.examples[:6]]
            names = [f"{data.noun} {row + 1}" for row in range(len(moves))]
            beside = torch.full((len(moves),), math.nan)
            sentence = f"The one dimension of {site} moves, each row from another {data.noun}."
            if is_known:
                sentence += f" Its {kind} is {_ABOUT[kind]}{float(sizes):.2f} nats."
        else:
            used = int((sizes >= _NEGLIGIBLE).sum()) if is_known else dims
            rows = min(_MAX_ROWS, max(used, _MIN_ROWS))
            order = sizes.argsort(descending=True, stable=True)[:rows].tolist()
            moves = [(int(data.examples[0]), dim) for dim in order]
            names = [f"{site}{dim}" for dim in order]
            beside = sizes[order] if is_known else torch.full((len(order),), math.nan)
            sentence = (
                f"From the code of one {data.noun}, each row moves one dimension of {site} and "
                f"holds the others. {_BESIDE[kind]}"
            )
            if dims > len(order):
                sentence += f" The first {len(order)} of {dims} are shown"
                sentence += "." if used > rows else f"; none of the others has {_NEGLIGIBLE}."
        figure, ax = plots.grid_figure(len(moves), STEPS, data.vae.data_shape, label_width=1.2)
        plots.plot_traversals(ax, data.traverse(site, moves), beside, names)
        yield Panel(
            f"traversals_{site}",
            f"Traversals of {site}",
            sentence + " The ends leave out the outermost 1 % of the codes on either side.",
            "A row in which one thing changes, slant or thickness, say, is a dimension with a "
            "meaning. A row in which nothing changes is one that the decoder ignores.",
            figure,
        )


def _prior_traversals(data: ReportData) -> Iterator[Panel]:
    """Draws what each continuous code of a game changes, in rows that differ in all the rest."""
    vae = data.vae
    example = data.x[:1].expand(_DRAWS, *data.x.shape[1:])
    nodes = trace_program(code_program(vae.model), (example,), {}).nodes
    draws = {site: nodes[site]["value"] for site in vae.sites}
    for site in data.continuous_sites:
        dims = min(vae.sites[site], _MAX_ROWS)
        each = max(1, min(_MAX_ROWS // dims, 6))
        count = dims * each
        starts, ends = ({s: draw[:count].clone() for s, draw in draws.items()} for _ in range(2))
        names = [f"{site}{row // each}" if dims > 1 else site for row in range(count)]
        if data.category:
            shown = data.most_used[:each]
            kinds = shown[torch.arange(count) % len(shown)]
            starts[data.category] = ends[data.category] = torch.eye(data.num_categories)[kinds]
            names = [f"{name}  c = {kind}" for name, kind in zip(names, kinds.tolist())]
        lows, highs = draws[site].quantile(torch.tensor(MIDDLE).to(draws[site]), 0)
        for row in range(count):
            dim = row // each
            starts[site][row, dim], ends[site][row, dim] = lows[dim], highs[dim]
        figure, ax = plots.grid_figure(count, STEPS, vae.data_shape, label_width=1.2)
        pictures = data.decode_along(starts, ends)
        plots.plot_traversals(ax, pictures, torch.full((count,), math.nan), names)
        yield Panel(
            f"traversals_{site}",
            f"What {site} changes",
            f"Each row moves one dimension of {site} through the middle 98 % of its prior and "
            "holds noise and other codes, which differ from row to row"
            + (", the most used categories in turn." if data.category else "."),
            "Rows of one dimension in which the same thing changes, slant or width, say: a code "
            "with a meaning. Rows in which nothing changes: a code that the generator ignores.",
            figure,
        )


def interpolations(data: ReportData) -> Iterator[Panel]:
    """Draws what lies between the centres of categories; nothing where these have none."""
    rows = data.most_used[:_MAX_CATEGORIES] if data.centres else torch.empty(0)
    if len(rows) < 2:
        return
    following = rows.roll(-1) if len(rows) > 2 else rows.roll(-1)[:1]
    rows = rows[: len(following)]
    codes = {**data.centres, data.category: torch.eye(data.num_categories)}
    pictures = data.decode_along(
        {site: code[rows] for site, code in codes.items()},
        {site: code[following] for site, code in codes.items()},
    )
    figure, ax = plots.grid_figure(len(rows), STEPS, data.vae.data_shape, label_width=1.3)
    starts, ends = ([f"c = {k}" for k in side.tolist()] for side in (rows, following))
    plots.plot_interpolations(ax, pictures, starts, ends)
    yield Panel(
        "interpolations",
        "From category to category",
        "Each row goes in equal steps, along a straight line, from the centre of one category to "
        "that of the next row's: their prior means, of which no datum need be the code.",
        "The ends are what the categories stand for at their most typical. Where a row turns from "
        "one into the other at once, the decoder has a border there; where its middle is a blur, "
        "or neither of the two, no data are there.",
        figure,
    )


def radii(data: ReportData) -> Iterator[Panel]:
    """Draws what lies along the line from the origin through each category's centre."""
    if not data.centres:
        return
    far = torch.cat(list(data.centres.values()), 1).square().sum(1)
    rows = [k for k in data.most_used[:_MAX_CATEGORIES].tolist() if float(far[k]) > 0]
    category = {data.category: torch.eye(data.num_categories)[rows]}
    ends = {site: _FARTHEST * mean[rows] for site, mean in data.centres.items()}
    starts = {site: torch.zeros_like(end) for site, end in ends.items()}
    figure, ax = plots.grid_figure(len(rows), STEPS, data.vae.data_shape)
    multiples = [_FARTHEST * step / (STEPS - 1) for step in range(STEPS)]
    pictures = data.decode_along(starts | category, ends | category)
    plots.plot_radii(ax, pictures, multiples, [f"c = {k}" for k in rows])
    yield Panel(
        "radii",
        "Away from the origin",
        "Each row starts at the origin, which belongs to no category, and moves straight through "
        "the centre of one category: above the columns stands the distance, 1 at the centre.",
        "The first column is the same in all rows: what the decoder makes of no category at all. "
        "A row that gets clearer up to 1, and more extreme beyond, has a direction that means "
        "the category; one that falls apart beyond 1 has left the data.",
        figure,
    )
