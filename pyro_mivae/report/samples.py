"""Pictures from the model: samples, reconstructions, and rows along which a code moves."""

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
from pyro_mivae.tables import letter, write_number
from pyro_mivae.traces import trace_program

_MAX_CATEGORIES = 24
_MOVED = 4  # rows in which another site than the first moves
_MAX_ROWS = 12
_MIN_ROWS = 4
_MAX_CENTRES = 10
_NEGLIGIBLE = 0.01  # nats
_FARTHEST = 2.0  # times the centre
_DRAWS = 1000
_ABOUT = {"information": "at least ", "KL": ""}
_BESIDE = {
    "information": (
        "The number is a lower bound on the dimension's information in nats, the largest first."
    ),
    "KL": (
        "The number is the dimension's KL in nats, an upper bound on its information, the "
        "largest first."
    ),
    "variance": (
        "The dimension with the largest variance comes first; KL and information are not known."
    ),
}


def samples(data: ReportData) -> Iterator[Panel]:
    """Draws samples of the model, a row per category if there are categories."""
    vae = data.vae
    if not vae.categories:
        figure, ax = plots.grid_figure(5, 10, vae.data_shape, label_width=0.1)
        plots.plot_samples(ax, data.sample(50))
        yield Panel(
            "samples",
            "Samples",
            f"Samples: codes drawn from the prior and decoded{data.told}.",
            "Each sample should look like the data. Together they should vary as the data do.",
            figure,
        )
        return
    for site in vae.categories:
        yield _samples_of(data, site)


def _samples_of(data: ReportData, site: str) -> Panel:
    vae, shares = data.vae, data.shares(site)
    shown = shares.argsort(descending=True, stable=True)[:_MAX_CATEGORIES]
    rows = torch.stack([data.sample(10, {site: c}) for c in shown.tolist()])
    figure, ax = plots.grid_figure(len(shown), 10, vae.data_shape)
    names = [f"{site} = {letter(c)}" for c in shown.tolist()]
    plots.plot_conditional_samples(ax, rows, shares[shown], names)
    sentence = (
        f"A row per category, the most used first: its letter, its share of the {data.nouns}, "
        f"and ten samples of it{data.told}."
    )
    if len(shares) > len(shown):
        sentence += f" The {len(shown)} most used of {len(shares)} are shown."
    several = len(vae.categories) > 1
    return Panel(
        f"samples_{site}" if several and site != data.category else "samples",
        f"Samples of each category{f' of {site}' if several else ''}",
        sentence,
        f"A row with one kind of {data.noun}: a category with a meaning. Two rows of the same "
        "kind: two categories share it. A row of mixed kinds: one category holds several.",
        figure,
    )


def reconstructions(data: ReportData) -> Iterator[Panel]:
    """Draws data, and their reconstructions from the whole code and from each site alone.

    With several continuous sites, further rows move each of them except the first.
    """
    vae, x = data.vae, data.x[data.examples.to(data.x.device)]
    u = data.condition(data.examples)
    sites = sorted(data.codes, key=lambda site: site == _first(data))
    whole = vae.reconstruct(x, given=u)
    alone = {site: vae.reconstruct(x, keep={site}, given=u) for site in sites if len(sites) > 1}
    same = [site for site, picture in alone.items() if torch.allclose(picture, whole, atol=1e-4)]
    rows = {_with_r2(data, " and ".join(sites) if alone else "decoded"): whole}
    rows |= {_with_r2(data, f"{s} alone", s): alone[s] for s in alone if s not in same}
    moved, names = _moving_rows(data, steps=len(x))
    figure, ax = plots.grid_figure(
        1 + len(rows) + len(names), len(x), vae.data_shape, label_width=1.3
    )
    plots.plot_parts(ax, x, rows, moved, names)
    sentence = (
        f"Top: {data.nouns} that the model was not trained on. Below: their reconstructions from "
        "the code."
    )
    look_for = "Details that are lost from top to bottom are not in the code."
    if alone:
        sentence += (
            " Then from one site alone: every other site is at its prior mean given that site."
        )
        look_for += (
            " If the row of a site resembles the originals, that site holds the picture. A site "
            "alone may look worse than its information: the decoder was not trained on such "
            "codes."
        )
    if alone and data.category:
        sentence += f" {data.category} alone is the centre of the category."
    for site in same:
        sentence += (
            f" {site} alone gives the same as the whole code, because it determines the rest."
        )
    if any("R²" in name for name in rows):
        sentence += " R² is the share of the variance that these pictures explain."
    if names:
        sentence += (
            f" Under the line: in the code of one {data.noun}, one dimension moves through the "
            "middle 98 % of its values."
        )
    if vae.noise:
        sentence += f" The noise {' and '.join(sorted(vae.noise))} is at its mean in all pictures."
    title = "Reconstructions from parts of the code" if alone else "Reconstructions"
    yield Panel("reconstructions", title, sentence, look_for, figure)


def _first(data: ReportData) -> str:
    """The first continuous site in the order of the guide, or none."""
    return next((site for site in data.codes if site in data.continuous_sites), "")


def _moving_rows(data: ReportData, steps: int) -> tuple[list[Tensor], list[str]]:
    """Rows in which a continuous site other than the first moves."""
    moving = [site for site in data.continuous_sites if site != _first(data)]
    pictures: list[Tensor] = []
    names: list[str] = []
    for site in moving:
        count = max(1, _MOVED // len(moving))
        dims = data.ranking(site)[0].argsort(descending=True, stable=True)[:count].tolist()
        moves = [(int(data.examples[0]), dim) for dim in dims]
        if data.codes[site].shape[1] == 1:
            moves = [(int(start), 0) for start in data.examples[:count]]
        names += [f"{site}{dim} moves" if len(dims) > 1 else f"{site} moves" for _, dim in moves]
        pictures += data.traverse(site, moves, steps=steps)[0]
    return pictures, names


def _with_r2(data: ReportData, name: str, site: str = "") -> str:
    value = data.metrics.get(key("reconstruction_r2", site), math.nan)
    return f"{name}  R² {write_number(round(value, 2) + 0.0)}" if math.isfinite(value) else name


def traversals(data: ReportData) -> Iterator[Panel]:
    """Draws rows in which one dimension moves, for each continuous site."""
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
            sentence = f"The only dimension of {site} moves, in each row for another {data.noun}."
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
                f"Each row moves one dimension of {site} in the code of one {data.noun}, and "
                f"keeps the others. {_BESIDE[kind]}"
            )
            if dims > len(order):
                sentence += f" The first {len(order)} of {dims} are shown"
                sentence += "." if used > rows else f"; the others are below {_NEGLIGIBLE}."
        figure, ax = plots.grid_figure(len(moves), STEPS, data.vae.data_shape, label_width=1.2)
        pictures, values, own = data.traverse(site, moves)
        plots.plot_traversals(ax, pictures, beside, names, values=values, own=own)
        yield Panel(
            f"traversals_{site}",
            f"Traversals of {site}",
            sentence
            + " The values at the right are those of the ends, without the outermost 1 % of the "
            f"codes on both sides. A frame marks the value nearest to the {data.noun}'s own.",
            "A row in which one thing changes, such as slant or thickness: a dimension with a "
            "meaning. A row without change: a dimension that the decoder ignores.",
            figure,
        )


def _prior_traversals(data: ReportData) -> Iterator[Panel]:
    """Draws rows in which one continuous code of a game moves; other codes differ by row."""
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
            names = [
                f"{name}  {data.category} = {letter(kind)}"
                for name, kind in zip(names, kinds.tolist())
            ]
        figure, ax = plots.grid_figure(len(moves), STEPS, vae.data_shape, label_width=1.2)
        beside = torch.full((len(moves),), math.nan)
        pictures, values, _ = data.traverse(site, moves, draws)
        plots.plot_traversals(ax, pictures, beside, names, values=values)
        yield Panel(
            f"traversals_{site}",
            f"Traversals of {site}",
            f"Each row moves one dimension of {site} through the middle 98 % of its prior. Noise "
            "and other codes are constant in a row and differ between rows"
            + (", the most used categories in turn." if data.category else "."),
            "The same change in all rows of a dimension, such as slant or width: a code with a "
            "meaning. Rows without change: a code that the generator ignores.",
            figure,
        )


def interpolations(data: ReportData) -> Iterator[Panel]:
    """Draws steps between the centres of categories, if there are centres."""
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
    starts, ends = (
        [f"{data.category} = {letter(k)}" for k in side.tolist()] for side in (rows, following)
    )
    plots.plot_interpolations(ax, pictures, starts, ends)
    yield Panel(
        "interpolations",
        "From category to category",
        "Each row goes in equal steps along a straight line from the centre of one category to "
        "that of the next row. A centre is the category's prior mean, and not the code of a "
        f"datum{data.told_of_one}.",
        "The ends show typical examples of the categories. A sudden change in a row: a border "
        "of the decoder. A blurred middle, or one like neither end: a region without data.",
        figure,
    )


def radii(data: ReportData) -> Iterator[Panel]:
    """Draws steps along the line from the origin through each category's centre."""
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
    plots.plot_radii(ax, pictures, multiples, [f"{data.category} = {letter(k)}" for k in rows])
    yield Panel(
        "radii",
        "Away from the origin",
        "Each row starts at the origin, which belongs to no category, and moves straight "
        "through the centre of one category. The numbers above the columns are distances, 1 at "
        f"the centre{data.told_of_one}.",
        "The first column, the same in all rows, belongs to no category. A row that gets "
        "clearer up to 1 and more extreme beyond: its direction means the category. A row that "
        "degrades beyond 1: a region without data.",
        figure,
    )


DRAWN = (samples, interpolations, radii, reconstructions, traversals)
