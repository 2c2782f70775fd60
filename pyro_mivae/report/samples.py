"""Pictures that the model draws: samples, reconstructions, and rows along which a code moves."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_mivae import plots
from pyro_mivae.figures import key
from pyro_mivae.models import code_program
from pyro_mivae.report.data import STEPS, ReportData
from pyro_mivae.report.pictures import Panel
from pyro_mivae.tables import write_number
from pyro_mivae.traces import trace_program

_MAX_CATEGORIES = 24
_MOVED = 4  # rows in which a site other than z moves
_MAX_ROWS = 12
_MIN_ROWS = 4
_MAX_CENTRES = 10
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


def samples(data: ReportData) -> Iterator[Panel]:
    """Draws what the model generates, a row per category where it has categories."""
    vae, k = data.vae, data.num_categories
    if not k:
        figure, ax = plots.grid_figure(5, 10, vae.data_shape, label_width=0.1)
        plots.plot_samples(ax, vae.sample(50))
        yield Panel(
            "samples",
            "Samples",
            "What the model generates from codes drawn from the prior.",
            "Each should look like the data, and they should differ as the data do.",
            figure,
        )
        return
    shown = data.most_used[:_MAX_CATEGORIES]
    rows = torch.stack([vae.sample(10, category=c) for c in shown.tolist()])
    figure, ax = plots.grid_figure(len(shown), 10, vae.data_shape)
    names = [f"c = {c}" for c in shown.tolist()]
    plots.plot_conditional_samples(ax, rows, data.occupancy[shown], names)
    sentence = (
        f"A row per category, the most used first: its number, its share of the {data.nouns}, and "
        "ten samples that the model generates from it."
    )
    if k > len(shown):
        sentence += f" The {len(shown)} most used of {k} are shown."
    yield Panel(
        "samples",
        "What each category draws",
        sentence,
        "A row that keeps to one kind of thing is a category with a meaning. Two rows of the same "
        "kind share it between them; a row of mixed kinds has taken in several.",
        figure,
    )


def reconstructions(data: ReportData) -> Iterator[Panel]:
    """Draws data, their reconstructions from all of the code and from each site alone.

    Of several continuous sites all but z also move by themselves.
    """
    vae, x = data.vae, data.x[data.examples.to(data.x.device)]
    sites = sorted(data.codes, key=lambda site: site == "z")
    whole = vae.reconstruct(x)
    alone = {site: vae.reconstruct(x, keep={site}) for site in sites if len(sites) > 1}
    same = [site for site, picture in alone.items() if torch.allclose(picture, whole, atol=1e-4)]
    rows = {_with_r2(data, " and ".join(sites) if alone else "decoded"): whole}
    rows |= {_with_r2(data, f"{s} alone", s): alone[s] for s in alone if s not in same}
    moved, names = _moving_rows(data, steps=len(x))
    figure, ax = plots.grid_figure(
        1 + len(rows) + len(names), len(x), vae.data_shape, label_width=1.3
    )
    plots.plot_parts(ax, x, rows, moved, names)
    sentence = (
        f"Top: {data.nouns} that the model was not trained on. Below: what it decodes from their "
        "codes."
    )
    look_for = "What is lost from top to bottom is what the code does not carry."
    if alone:
        sentence += " Then from one site alone, with every other one at its prior mean given it."
        look_for += (
            " The site whose row resembles the originals carries the picture. A site alone may "
            "look worse than what it knows: the decoder is not used to such codes."
        )
    if alone and data.category:
        sentence += f" {data.category} alone is the centre of the category."
    for site in same:
        sentence += f" {site} alone would give the same as all of the code: it holds the rest too."
    if any("R²" in name for name in rows):
        sentence += " R² is the share of the variance that such pictures account for."
    if names:
        sentence += (
            f" Under the line, from the code of one {data.noun}, one dimension moves through the "
            "middle 98 % of its values."
        )
    if vae.noise:
        sentence += f" The noise {' and '.join(sorted(vae.noise))} stands at its mean throughout."
    title = "What each part of the code draws" if alone else "Reconstructions"
    yield Panel("reconstructions", title, sentence, look_for, figure)


def _moving_rows(data: ReportData, steps: int) -> tuple[list[Tensor], list[str]]:
    """Rows in which a site other than z moves, where there are several continuous ones."""
    sites = data.continuous_sites if len(data.continuous_sites) > 1 else []
    moving = [site for site in sites if site != "z"]
    pictures: list[Tensor] = []
    names: list[str] = []
    for site in moving:
        count = max(1, _MOVED // len(moving))
        dims = data.ranking(site)[0].argsort(descending=True, stable=True)[:count].tolist()
        moves = [(int(data.examples[0]), dim) for dim in dims]
        if data.codes[site].shape[1] == 1:
            moves = [(int(start), 0) for start in data.examples[:count]]
        names += [f"{site}{dim} moves" if len(dims) > 1 else f"{site} moves" for _, dim in moves]
        pictures += data.traverse(site, moves, steps=steps)
    return pictures, names


def _with_r2(data: ReportData, name: str, site: str = "") -> str:
    value = data.metrics.get(key("reconstruction_r2", site), math.nan)
    return f"{name}  R² {write_number(round(value, 2) + 0.0)}" if math.isfinite(value) else name


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
        moves = [(row, row // each) for row in range(dims * each)]
        names = [f"{site}{dim}" if dims > 1 else site for _, dim in moves]
        if data.category:
            shown = data.most_used[:each]
            kinds = shown[torch.arange(_DRAWS) % len(shown)]
            draws[data.category] = torch.eye(data.num_categories)[kinds]
            names = [f"{name}  c = {kind}" for name, kind in zip(names, kinds.tolist())]
        figure, ax = plots.grid_figure(len(moves), STEPS, vae.data_shape, label_width=1.2)
        beside = torch.full((len(moves),), math.nan)
        plots.plot_traversals(ax, data.traverse(site, moves, draws), beside, names)
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
    rows = data.most_used[:_MAX_CENTRES] if data.centres else torch.empty(0)
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
    rows = [k for k in data.most_used[:_MAX_CENTRES].tolist() if float(far[k]) > 0]
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


DRAWN = (samples, interpolations, radii, reconstructions, traversals)
