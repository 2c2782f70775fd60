"""A trained model and its data, with the codes for all pictures of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_mivae.diagnostics import Diagnosis, diagnose
from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.figures import LOWER, key
from pyro_mivae.handlers import decode_means
from pyro_mivae.inputs import as_condition
from pyro_mivae.likelihoods import DeltaLikelihood
from pyro_mivae.metrics import match_labels
from pyro_mivae.models import code_program
from pyro_mivae.plots.codes import spread_out
from pyro_mivae.plots.grids import is_image
from pyro_mivae.tables import by_index
from pyro_mivae.traces import trace_program
from pyro_mivae.training import History

if TYPE_CHECKING:
    from pyro_mivae.variants import Variant

_BATCH = 500
_MAX_DATA = 10_000
_MIDDLE = (0.01, 0.99)  # quantiles between which a dimension moves
STEPS = 9
"""Number of pictures in a row along which a code moves."""


@dataclass
class ReportData:
    """A trained model with the data, history and numbers of a report."""

    vae: Variant
    x: Tensor  # held-out data, (n, *data_shape); at most 10,000, evenly spaced, are used
    labels: Tensor | None  # (n,), integers; only shown
    history: History
    metrics: Mapping[str, float]
    class_names: Sequence[str] | None = None  # of labels 0, 1, ...
    factors: Tensor | None = None  # (n, F), integers
    factor_names: Sequence[str] = ()
    column_names: Sequence[str] = ()  # of a table
    num_train: int | None = None  # number of data that it was trained on
    given: Any = None  # condition of each datum, see `Variant.arguments`

    def __post_init__(self) -> None:
        self.num_data = n = len(self.x)
        shape = tuple(self.vae.data_shape)
        factors = (n, len(self.factor_names))
        for name, given, wanted, remedy in (
            ("x", self.x, (max(n, 1), *shape), "one datum or more"),
            ("labels", self.labels, (n,), "one label per datum"),
            ("factors", self.factors, factors, "a row per datum and a name per column"),
        ):
            if given is not None and tuple(given.shape) != wanted:
                raise ShapeError(
                    f"{name} has shape {tuple(given.shape)}; expected {wanted}: give {remedy}"
                )
        shown = spread_out(self.num_data, _MAX_DATA)
        given = as_condition(self.given, self.vae.given_shape, n)
        if given is not None:
            self.given = given[shown.to(given.device)].to(self.vae.device, self.vae.dtype)
        self.x = self.x[shown.to(self.x.device)].to(self.vae.device)
        if self.labels is not None:
            self.labels = self.labels.cpu()[shown]
        if self.factors is not None:
            self.factors = self.factors.cpu()[shown]
        self.category = self.vae.category or ""
        self.num_categories = self.vae.num_categories or 0
        self.has_density = not isinstance(self.vae.likelihood, DeltaLikelihood)
        words = ("image", "an image", "images"), ("datum", "a datum", "data")
        self.noun, self.a_noun, self.nouns = words[0 if is_image(shape) else 1]

    @property
    def seen_labels(self) -> str:
        """A clause that says if training used labels."""
        used = "classification_accuracy" in self.metrics
        return "some of which training used" if used else "which the model never saw"

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """Diagnoses of the metrics, without those of noise sites."""
        return diagnose(self.metrics, noise=self.vae.noise)

    @cached_property
    def codes(self) -> dict[str, Tensor]:
        """Posterior means of every site except noise, ``(n, d)``; probabilities of a category."""
        rows = torch.arange(len(self.x)).split(_BATCH)
        parts = [self.vae.encode(self.x[i], given=self.condition(i)) for i in rows]
        sites = [site for site in parts[0] if site not in self.vae.noise]
        return {site: torch.cat([part[site].cpu() for part in parts]) for site in sites}

    def condition(self, rows: Sequence[int] | Tensor) -> Tensor | None:
        """Returns the condition of some data; None if there is none."""
        return None if self.given is None else self.given[torch.as_tensor(rows).to(self.x.device)]

    def sample(self, n: int, category: Mapping[str, int] | None = None) -> Tensor:
        """Draws samples, of the first data's conditions if there are any."""
        given = self.condition(torch.arange(n) % len(self.x))
        return self.vae.sample(n, category, given=given)

    @property
    def told(self) -> str:
        """A clause on the condition of samples."""
        return "" if self.given is None else f", given the conditions of the first {self.nouns}"

    @property
    def told_of_one(self) -> str:
        """The same for pictures of one condition."""
        return "" if self.given is None else f"; all is given the condition of one {self.noun}"

    @property
    def continuous_sites(self) -> list[str]:
        """The continuous sites, those with the fewest dimensions first."""
        sites = [site for site in self.codes if site not in self.vae.categories]
        return sorted(sites, key=lambda site: self.codes[site].shape[1])

    @cached_property
    def categories(self) -> Tensor:
        """The most probable category of each datum, ``(n,)``."""
        return self.codes[self.category].argmax(-1)

    @cached_property
    def occupancy(self) -> Tensor:
        """Share of the data whose most probable category is k, ``(K,)``."""
        return self.shares(self.category)

    def shares(self, site: str) -> Tensor:
        """Share of the data in each category of a site, ``(K,)``."""
        found = self.codes[site].argmax(-1)
        return found.bincount(minlength=self.codes[site].shape[1]) / len(self.x)

    @property
    def most_used(self) -> Tensor:
        """The categories, the most used first."""
        return self.occupancy.argsort(descending=True, stable=True)

    @property
    def category_colors(self) -> list[int]:
        """Palette index of each category: that of its matched label, if there are labels."""
        if self.labels is None:
            return list(range(self.num_categories))
        matched = match_labels(self.categories, self.labels, self.num_categories)
        return [int(label) for label in matched]

    @cached_property
    def examples(self) -> Tensor:
        """Indices of ten data to show: one per label if possible, then the first ones."""
        firsts: list[int] = []
        if self.labels is not None:
            firsts = [int((self.labels == g).nonzero()[0]) for g in self.labels.unique()[:10]]
        rest = [i for i in range(min(len(self.x), 10)) if i not in firsts]
        return torch.tensor((firsts + rest)[:10])

    def indexed(self, site: str) -> dict[str, Tensor]:
        """Returns the measured figures of every dimension of a site, or of every category."""
        try:
            figures = by_index(self.metrics, site)
        except OptionError:
            return {}
        size = self.codes[site].shape[1]
        return figures if all(len(column) == size for column in figures.values()) else {}

    def ranking(self, site: str) -> tuple[Tensor, str]:
        """Ranks the dimensions of a continuous site by the best known measure."""
        figures = self.indexed(site)
        for name, kind in {key("mi", side=LOWER): "information", "kl": "KL"}.items():
            if name in figures and bool(figures[name].isfinite().all()):
                return figures[name], kind
        return self.codes[site].var(0, correction=0).double(), "variance"

    @cached_property
    def centres(self) -> dict[str, Tensor]:
        """Prior mean of every continuous site in each category, ``(K, d)``.

        Empty if there are no categories, or all have the same mean.
        """
        if not self.num_categories:
            return {}
        program = code_program(self.vae.model)
        args = self.vae.blank(self.num_categories, self.condition([0] * self.num_categories))
        fn = trace_program(program, args, {}).nodes[self.category]["fn"]
        value = torch.arange(self.num_categories, device=self.vae.device)
        if fn.event_dim:
            value = torch.eye(self.num_categories, device=self.vae.device, dtype=self.vae.dtype)
        nodes = trace_program(decode_means(program, {self.category: value}), args, {}).nodes
        means = {site: nodes[site]["value"].cpu() for site in self.continuous_sites}
        apart = any(not torch.equal(mean, mean[:1].expand_as(mean)) for mean in means.values())
        return means if apart else {}

    def decode_along(
        self,
        starts: Mapping[str, Tensor],
        ends: Mapping[str, Tensor],
        *,
        steps: int = STEPS,
        of: Sequence[int] | None = None,
    ) -> Tensor:
        """Decodes equal steps along straight lines, with the category of the nearer end.

        ``of`` are the data whose condition the lines have; the first datum if omitted.
        """
        share = torch.linspace(0, 1, steps)[:, None]
        values = {}
        for site, start in starts.items():
            at = (share > 0.5).to(share) if site in self.vae.categories else share
            lines = torch.lerp(start[:, None], ends[site][:, None], at.to(start))
            values[site] = lines.flatten(0, 1).to(self.vae.device, self.vae.dtype)
        rows = len(start)
        given = self.condition(torch.as_tensor(of or [0] * rows).repeat_interleave(steps))
        decoded = self.vae.decode(values, rows * steps, given=given)
        return decoded.cpu().unflatten(0, (rows, steps))

    def traverse(
        self,
        site: str,
        moves: Sequence[tuple[int, int]],
        codes: Mapping[str, Tensor] | None = None,
        *,
        steps: int = STEPS,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decodes codes (by default those of the data) with one dimension moving in each row.

        A move is the row of the code and the dimension, which goes through the middle 98 % of its
        values. Returns the pictures, the values ``(rows, steps)``, and those of the codes
        themselves, ``(rows,)``.
        """
        spread = (self._drawn if codes is None else codes)[site]
        codes = self.codes if codes is None else codes
        rows, dims = torch.tensor(moves).T
        starts, ends = ({s: code[rows] for s, code in codes.items()} for _ in range(2))
        lows, highs = spread.quantile(torch.tensor(_MIDDLE).to(spread), 0)[:, dims]
        own = starts[site][range(len(moves)), dims].clone()
        starts[site][range(len(moves)), dims] = lows.to(starts[site])
        ends[site][range(len(moves)), dims] = highs.to(ends[site])
        share = torch.linspace(0, 1, steps).to(lows)
        values = torch.lerp(lows[:, None], highs[:, None], share)
        pictures = self.decode_along(starts, ends, steps=steps, of=rows.tolist())
        return pictures, values.float(), own.float().cpu()

    @cached_property
    def _drawn(self) -> dict[str, Tensor]:
        """One draw of every site from the guide, ``(n, d)``, for 1,000 data at most."""
        shown = spread_out(len(self.x), 1000)
        args = self.vae.arguments(self.x[shown.to(self.x.device)], self.condition(shown))
        nodes = trace_program(self.vae.guide, args, {}).nodes
        return {site: nodes[site]["value"].float().cpu() for site in self.codes}
