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
    rows = {"decoded": vae.reconstruct(x)}
    if subject.category and len(subject.codes) > 1:
        rows |= {f"{subject.category} alone": vae.reconstruct(x, keep={subject.category})}
    figure, ax = plots.grid_figure(len(rows) + 1, len(x), vae.data_shape, label_width=0.8)
    plots.plot_reconstructions(ax, x, rows)
    sentence = (
        f"Top: {subject.nouns} that the model was not trained on. Below: what it decodes from "
        "their codes."
    )
    look_for = "What is lost from top to bottom is what the code does not carry."
    if len(rows) > 1:
        sentence += " The last row keeps only the category, and the centre of it."
        rest = " and ".join(site for site in vae.sites if site != subject.category)
        look_for += f" The last row is what the category says by itself; the rest is up to {rest}."
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
        dims = _ranked_dimensions(subject, site)[: max(1, _MOVED // len(moving))]
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
        sentence += " R² is the share of the variance that such pictures account for."
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


def _ranked_dimensions(subject: Subject, site: str) -> list[int]:
    """Dimensions of a site, by their KL where it is known and else by the means' variance."""
    nats = subject.site_nats[site]
    known = nats.shape == subject.codes[site].shape[1:] and bool(nats.isfinite().all())
    sizes = nats if known else subject.codes[site].var(0, correction=0)
    return sizes.argsort(descending=True, stable=True).tolist()


def traversals(subject: Subject) -> Iterator[Panel]:
    """Draws, for each continuous site, what moving one dimension at a time changes."""
    if subject.vae.noise:
        yield from code_traversals(subject)
        return
    for site in subject.continuous_sites:
        dims = subject.codes[site].shape[1]
        nats = subject.site_nats[site].float()
        nats = nats if nats.shape == (dims,) else torch.full((dims,), math.nan)
        known = bool(nats.isfinite().all())
        if dims == 1:
            moves = [(int(example), 0) for example in subject.examples[:6]]
            names = [f"{subject.noun} {row + 1}" for row in range(len(moves))]
            row_nats = torch.full((len(moves),), math.nan)
            sentence = f"The one dimension of {site} moves, each row from another {subject.noun}."
            if known:
                sentence += f" Its KL is {float(nats):.2f} nats."
        else:
            sizes = nats if known else subject.codes[site].var(0, correction=0)
            used = int((sizes >= _NEGLIGIBLE).sum()) if known else dims
            rows = min(_MAX_ROWS, max(used, _MIN_ROWS))
            order = sizes.argsort(descending=True, stable=True)[:rows].tolist()
            moves = [(int(subject.examples[0]), dim) for dim in order]
            names, row_nats = [f"{site}{dim}" for dim in order], nats[order]
            sentence = (
                f"From the code of one {subject.noun}, each row moves one dimension of {site} and "
                "holds the others. "
            )
            sentence += (
                "Beside it stands the dimension's KL in nats, the largest first."
                if known
                else "The dimension that varies most comes first; none has a KL."
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
