"""Pictures of where the nats of the code are."""

from __future__ import annotations

from collections.abc import Iterator

from pyro_mivae import plots
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.subject import Subject


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
