"""Pictures that the model draws: samples, reconstructions, and what moving the code changes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from pyro_mivae import plots
from pyro_mivae.report.game import code_traversals
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.subject import Subject

_MAX_ROWS = 12
_MIN_ROWS = 4
_NEGLIGIBLE = 0.01  # nats
_ABOUT = {"information": "at least ", "KL": ""}
_BESIDE = {
    "information": "Beside it stands what the dimension says of the data at least, in nats, the "
    "largest first.",
    "KL": "Beside it stands the dimension's KL in nats, the most that it can say, the largest "
    "first.",
    "variance": "The dimension that varies most comes first; neither KL nor information is known.",
}
_R2 = "R² is the share of the variance that such pictures account for."
_MOVED = 4  # rows in which a site other than z moves


def samples(subject: Subject) -> Iterator[Panel]:
    """Draws what the model generates, a row per category where it has categories."""
    vae, k = subject.vae, subject.num_categories
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
    shown = subject.occupancy.argsort(descending=True, stable=True)[: 2 * _MAX_ROWS]
    rows = torch.stack([vae.sample(10, category=c) for c in shown.tolist()])
    figure, ax = plots.grid_figure(len(shown), 10, vae.data_shape)
    names = [f"c = {c}" for c in shown.tolist()]
    plots.plot_conditional_samples(ax, rows, subject.occupancy[shown], names)
    sentence = (
        f"A row per category, the most used first: its number, the share of the {subject.nouns} "
        "that it takes, and ten samples that the model generates from it."
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


def reconstructions(subject: Subject) -> Iterator[Panel]:
    """Draws data above their reconstructions, and those from one part of the code alone."""
    if len(subject.continuous_sites) > 1:
        yield parts(subject)
        return
    vae, x = subject.vae, subject.x[subject.examples.to(subject.x.device)]
    whole = vae.reconstruct(x)
    rows = {_share(subject, "decoded", ""): whole}
    same = []
    for site in subject.codes if len(subject.codes) > 1 else ():
        alone = vae.reconstruct(x, keep={site})
        if torch.allclose(alone, whole, atol=1e-4):
            same.append(site)
        else:
            rows[_share(subject, f"{site} alone", f"_{site}")] = alone
    figure, ax = plots.grid_figure(len(rows) + 1, len(x), vae.data_shape, label_width=1.3)
    plots.plot_reconstructions(ax, x, rows)
    sentence = (
        f"Top: {subject.nouns} that the model was not trained on. Below: what it decodes from "
        "their codes."
    )
    look_for = "What is lost from top to bottom is what the code does not carry."
    if len(rows) > 1:
        sentence += " Then from one site alone, with every other one at its prior mean given it"
        sentence += f": {subject.category} alone is the centre of the category."
        look_for += (
            f" What {subject.category} alone shows is what the category says by itself; the rest "
            f"is up to {' and '.join(subject.continuous_sites)}."
        )
    for site in same:
        sentence += f" {site} alone would give the same as all of the code: it holds the rest too."
    if any("R²" in name for name in rows):
        sentence += f" {_R2}"
    if vae.noise:
        sentence += f" The noise {' and '.join(sorted(vae.noise))} stands at its mean throughout."
    yield Panel("reconstructions", "Reconstructions", sentence, look_for, figure)


def parts(subject: Subject) -> Panel:
    """Draws what the whole code gives back and what each site alone does, and moves all but z."""
    vae, x = subject.vae, subject.x[subject.examples.to(subject.x.device)]
    sites = sorted(subject.codes, key=lambda site: site == "z")
    rows = {_share(subject, " and ".join(sites), ""): vae.reconstruct(x)}
    for site in sites:
        rows[_share(subject, f"{site} alone", f"_{site}")] = vae.reconstruct(x, keep={site})
    moving = [site for site in subject.continuous_sites if site != "z"]
    pictures: list[torch.Tensor] = []
    names: list[str] = []
    for site in moving:
        ranked = subject.ranking(site)[0].argsort(descending=True, stable=True)
        dims = ranked[: max(1, _MOVED // len(moving))].tolist()
        starts = [(int(subject.examples[0]), dim) for dim in dims]
        if subject.codes[site].shape[1] == 1:
            starts = [(int(start), 0) for start in subject.examples[: _MOVED // len(moving)]]
        names += [f"{site}{dim} moves" if len(dims) > 1 else f"{site} moves" for _, dim in starts]
        pictures += subject.traverse(site, starts, steps=len(x))
    height = 1 + len(rows) + len(names)
    figure, ax = plots.grid_figure(height, len(x), vae.data_shape, label_width=1.3)
    plots.plot_parts(ax, x, rows, pictures, names)
    sentence = (
        f"Top: {subject.nouns} that the model was not trained on. Below: what it decodes from "
        "their codes, then from one site alone, with every other one at its prior mean."
    )
    if any("R²" in name for name in rows):
        sentence += f" {_R2}"
    if names:
        sentence += (
            f" Under the line, from the code of one {subject.noun}, one dimension moves through "
            "the middle 98 % of its values."
        )
    look_for = (
        "The site whose row resembles the originals carries the picture; what moves under the "
        "line is what it says. Read the rows together: with a site at its mean, the decoder sees "
        "codes that it is not used to, so that one may look worse than what it knows."
    )
    return Panel("reconstructions", "What each part of the code draws", sentence, look_for, figure)


def _share(subject: Subject, name: str, suffix: str) -> str:
    value = subject.metrics.get(f"reconstruction_r2{suffix}", math.nan)
    if not math.isfinite(value):
        return name
    return f"{name}  R² {round(value, 2) + 0.0:.2f}".replace("-", "−")


def traversals(subject: Subject) -> Iterator[Panel]:
    """Draws, for each continuous site, what moving one dimension at a time changes."""
    if subject.vae.noise:
        yield from code_traversals(subject)
        return
    for site in subject.continuous_sites:
        dims = subject.codes[site].shape[1]
        sizes, kind = subject.ranking(site)
        nats = sizes if kind != "variance" else torch.full((dims,), math.nan)
        if dims == 1:
            moves = [(int(example), 0) for example in subject.examples[:6]]
            names = [f"{subject.noun} {row + 1}" for row in range(len(moves))]
            row_nats = torch.full((len(moves),), math.nan)
            sentence = f"The one dimension of {site} moves, each row from another {subject.noun}."
            if kind != "variance":
                sentence += f" Its {kind} is {_ABOUT[kind]}{float(nats):.2f} nats."
        else:
            used = int((sizes >= _NEGLIGIBLE).sum()) if kind != "variance" else dims
            rows = min(_MAX_ROWS, max(used, _MIN_ROWS))
            order = sizes.argsort(descending=True, stable=True)[:rows].tolist()
            moves = [(int(subject.examples[0]), dim) for dim in order]
            names, row_nats = [f"{site}{dim}" for dim in order], nats[order]
            sentence = (
                f"From the code of one {subject.noun}, each row moves one dimension of {site} and "
                f"holds the others. {_BESIDE[kind]}"
            )
            if dims > len(order):
                sentence += f" The first {len(order)} of {dims} are shown"
                sentence += "." if used > rows else f"; none of the others has {_NEGLIGIBLE}."
        sentence += " The ends leave out the outermost 1 % of the codes on either side."
        figure, ax = plots.grid_figure(len(moves), 9, subject.vae.data_shape, label_width=1.2)
        plots.plot_traversals(ax, subject.traverse(site, moves), row_nats, names)
        yield Panel(
            f"traversals_{site}",
            f"Traversals of {site}",
            sentence,
            "A row in which one thing changes, slant or thickness, say, is a dimension with a "
            "meaning. A row in which nothing changes is one that the decoder ignores.",
            figure,
        )
