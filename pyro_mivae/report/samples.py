"""Pictures of what the model generates, and of what it makes of data."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_mivae import plots
from pyro_mivae.figures import key
from pyro_mivae.report.data import ReportData
from pyro_mivae.report.pictures import Panel
from pyro_mivae.tables import write_number

_MAX_ROWS = 24
_MOVED = 4  # rows in which a site other than z moves


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
    shown = data.most_used[:_MAX_ROWS]
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
    for site in [site for site in alone if site not in same]:
        rows[_with_r2(data, f"{site} alone", site)] = alone[site]
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
