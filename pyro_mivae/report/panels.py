"""The pictures of a report, in order: each a function from the subject to its panels, if any.

To add a picture to the page, write such a function and put it in `PANELS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pyro_mivae.report.categories import confusion, occupancy
from pyro_mivae.report.centres import interpolations, radii
from pyro_mivae.report.decoded import reconstructions, samples, traversals
from pyro_mivae.report.factors import factor_matrix
from pyro_mivae.report.nats import contributions, information_bar, sandwich
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.space import latent_space, neighbouring_codes
from pyro_mivae.report.subject import Subject
from pyro_mivae.report.training import information_curves, loss_curves

PANELS: Sequence[Callable[[Subject], Iterator[Panel]]] = (
    samples,
    interpolations,
    radii,
    reconstructions,
    traversals,
    sandwich,
    information_bar,
    contributions,
    occupancy,
    confusion,
    latent_space,
    neighbouring_codes,
    factor_matrix,
    loss_curves,
    information_curves,
)
