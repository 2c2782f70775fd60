"""The pictures of a report: each a function from the subject to its panels, none if it has none.

To add a picture to the page, write such a function and put it in `PANELS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from pyro_mivae import plots
from pyro_mivae.report.game import code_traversals, player_curves
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


def latent_space(subject: Subject) -> Iterator[Panel]:
    """Draws the code in the plane, coloured by category and by label."""
    sites = subject.continuous_sites
    if not sites:
        return
    codes = torch.cat([subject.codes[site] for site in sites], 1)
    plane = f"A point per {subject.noun}: its code {' and '.join(sites)} (posterior mean), "
    if codes.shape[1] > 2:
        plane += f"{codes.shape[1]} dimensions seen along the two in which it varies most, "
    if subject.category:
        figure, ax = plots.new_figure(4.2)
        plots.plot_latent_space(ax, codes, subject.categories, colors=subject.category_colors)
        sentence = plane + "coloured by the most probable category."
        if subject.labels is not None:
            sentence += " A category has the colour of the label that it is matched to."
        yield Panel(
            "latent_space_by_category",
            "The code, by category",
            sentence,
            "Islands of one colour are categories that the code keeps apart.",
            figure,
        )
    figure, ax = plots.new_figure(4.2)
    plots.plot_latent_space(ax, codes, subject.labels, names=subject.class_names)
    if subject.labels is not None:
        yield Panel(
            "latent_space_by_label",
            "The code, by label",
            plane + "coloured by label.",
            "Labels that lie apart can be read off the code with ease. Labels that overlap here "
            "may still lie apart in the dimensions that are not seen.",
            figure,
        )
    elif not subject.category:
        yield Panel(
            "latent_space",
            "The code",
            plane + "all in one colour, since there are no labels.",
            "Clumps and gaps: the prior has none, so they are what the model found in the data.",
            figure,
        )


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


def information_bar(subject: Subject) -> Iterator[Panel]:
    """Draws how the rate is shared among sites and dimensions."""
    if not subject.has_density:  # there is no rate to pay
        return
    nats = {site: v for site, v in subject.site_nats.items() if v.isfinite().all()}
    if sum(float(v.sum()) for v in nats.values()) <= 0:
        return
    figure, ax = plots.new_figure(1.35)
    plots.plot_information_bar(ax, nats)
    sentence = (
        f"The rate, in nats: what the code of {subject.a_noun} costs, and the most that it can "
        "say. Each colour is a site, each piece one of its dimensions, the largest first."
    )
    for site in subject.site_nats.keys() - nats.keys():
        sentence += f" {site} is deterministic: it has no KL and is left out."
    yield Panel(
        "information",
        "Where the nats are",
        sentence,
        "Wide pieces do the work. A site or a dimension without width is one that the model does "
        "not use.",
        figure,
    )


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
    if any(column.startswith("kl_") for column in columns):
        sentence += " The KL of a site is the most that it can say of the data"
        sentence += " (of z: once the category is known)." if subject.category else "."
    if any(column.startswith("mi_") for column in columns):
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


PANELS: Sequence[Callable[[Subject], Iterator[Panel]]] = (
    samples,
    reconstructions,
    occupancy,
    confusion,
    latent_space,
    traversals,
    information_bar,
    loss_curves,
    information_curves,
)
