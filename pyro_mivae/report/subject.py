"""What a report is about: a trained model and its data, with the codes that its panels share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from pyro_mivae.diagnostics import Diagnosis, diagnose
from pyro_mivae.errors import OptionError
from pyro_mivae.figures import by_index
from pyro_mivae.handlers import decode_means
from pyro_mivae.likelihoods import DeltaLikelihood
from pyro_mivae.models import code_program
from pyro_mivae.plots.codes import match_categories, spread_out
from pyro_mivae.plots.grids import is_image
from pyro_mivae.traces import TracePair, is_deterministic, trace_program

if TYPE_CHECKING:
    from pyro_mivae.plots.curves import Columns
    from pyro_mivae.variants import Variant

_BATCH = 500
_MAX_DATA = 10_000
STEPS = 9
"""Pictures of a row along which a code moves."""


@dataclass
class Subject:
    """A trained model with the data, history and numbers that a report shows.

    Attributes:
        vae: The model.
        x: Data that it was not trained on, shape ``(n, *data_shape)``; at most 10,000
            count, evenly spread over them.
        labels: Integer labels, shape ``(n,)``, or None. Only shown, never learned from.
        history: The columns of the training run.
        metrics: Numbers by name, in nats per datum where they are information.
        class_names: Name of label 0, 1, ...
        factors: What made each datum, where it is known, integers, ``(n, F)``, or None.
        factor_names: A name for each factor.
        num_data: How many data there are in all.
    """

    vae: Variant
    x: Tensor
    labels: Tensor | None
    history: Columns
    metrics: Mapping[str, float]
    class_names: Sequence[str] | None = None
    factors: Tensor | None = None
    factor_names: Sequence[str] = ()
    num_data: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_data = len(self.x)
        shown = spread_out(self.num_data, _MAX_DATA)
        self.x = self.x[shown.to(self.x.device)].to(self.vae.device)
        if self.labels is not None:
            self.labels = self.labels.cpu()[shown]
        if self.factors is not None:
            self.factors = self.factors.cpu()[shown]

    @property
    def num_categories(self) -> int | None:
        """How many categories there are, or None where the code has none."""
        return self.vae.num_categories

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """What stands out in the metrics; that noise tells nothing does not."""
        return diagnose(self.metrics, noise=self.vae.noise)

    @property
    def category(self) -> str | None:
        """Name of the site that is a category, if there is one."""
        return self.vae.category

    @property
    def has_density(self) -> bool:
        """Whether the model gives data a density, so that its code has a cost in nats."""
        return not isinstance(self.vae.likelihood, DeltaLikelihood)

    @property
    def noun(self) -> str:
        """What a datum is called on the page."""
        return "image" if is_image(self.vae.data_shape) else "datum"

    @property
    def a_noun(self) -> str:
        """It with its article."""
        return "an image" if self.noun == "image" else "a datum"

    @property
    def nouns(self) -> str:
        """The plural of it."""
        return "images" if self.noun == "image" else "data"

    @property
    def is_grey(self) -> bool:
        """Whether the data are neither 0 nor 1 somewhere."""
        return bool(((self.x > 0) & (self.x < 1)).any())

    @cached_property
    def codes(self) -> dict[str, Tensor]:
        """Posterior means of every site but the noise, ``(n, d)`` each, as ``vae.encode``'s.

        Of a category, the probabilities.
        """
        parts = [self.vae.encode(batch) for batch in self.x.split(_BATCH)]
        sites = [site for site in parts[0] if site not in self.vae.noise]
        return {site: torch.cat([part[site].cpu() for part in parts]) for site in sites}

    @property
    def continuous_sites(self) -> list[str]:
        """The sites that are not categories, those of the fewest dimensions first."""
        sites = [site for site in self.codes if site != self.category]
        return sorted(sites, key=lambda site: self.codes[site].shape[1])

    @cached_property
    def categories(self) -> Tensor:
        """The most probable category of each datum, ``(n,)``."""
        return self.codes[str(self.category)].argmax(-1)

    @cached_property
    def occupancy(self) -> Tensor:
        """Share of the data whose most probable category is k, ``(K,)``."""
        counts = torch.bincount(self.categories, minlength=self.num_categories or 0)
        return counts / counts.sum()

    @property
    def category_colors(self) -> list[int]:
        """Place in the palette of each category: its label's, where there are labels."""
        k = self.num_categories or 0
        if self.labels is None:
            return list(range(k))
        return match_categories(self.labels, self.categories, k)

    @cached_property
    def examples(self) -> Tensor:
        """Places of ten data to show: one per label as far as that goes, then the first ones."""
        firsts: list[int] = []
        if self.labels is not None:
            firsts = [int((self.labels == g).nonzero()[0]) for g in self.labels.unique()[:10]]
        rest = [i for i in range(min(len(self.x), 10)) if i not in firsts]
        return torch.tensor((firsts + rest)[:10])

    @cached_property
    def site_nats(self) -> dict[str, Tensor]:
        """KL of every site: per dimension ``(d,)`` where it is a sum over these, else ``()``.

        It is a mean over the data, NaN where no KL is defined.
        """
        sums: dict[str, Tensor] = {}
        for batch in self.x.split(_BATCH):
            for site, nats in _divergences(self.vae, batch).items():
                sums[site] = sums.get(site, 0.0) + nats.cpu().double() / len(self.x)
        return sums

    def indexed(self, site: str) -> dict[str, Tensor]:
        """Returns what was measured of every dimension of a site, or of every category."""
        try:
            figures = by_index(self.metrics, site)
        except OptionError:
            return {}
        size = self.codes[site].shape[1]
        return figures if all(len(column) == size for column in figures.values()) else {}

    def ranking(self, site: str) -> tuple[Tensor, str]:
        """Ranks the dimensions of a continuous site by the best measure known."""
        lower = self.indexed(site).get("mi_lower")
        if lower is not None and bool(lower.isfinite().all()):
            return lower, "information"
        nats = self.site_nats[site]
        if nats.shape == self.codes[site].shape[1:] and bool(nats.isfinite().all()):
            return nats, "KL"
        return self.codes[site].var(0, correction=0).double(), "variance"

    @cached_property
    def centres(self) -> dict[str, Tensor]:
        """Prior mean of every continuous site in each category, ``(K, d)``.

        Empty where there are no categories, or they all have the same.
        """
        if not self.num_categories or self.category is None:
            return {}
        program = code_program(self.vae.model)
        x = self.x[:1].expand(self.num_categories, *self.x.shape[1:])
        fn = trace_program(program, (x,), {}).nodes[self.category]["fn"]
        value = torch.arange(self.num_categories, device=self.vae.device)
        if fn.event_dim:
            value = torch.eye(self.num_categories, device=self.vae.device, dtype=self.vae.dtype)
        nodes = trace_program(decode_means(program, {self.category: value}), (x,), {}).nodes
        means = {site: nodes[site]["value"].cpu() for site in self.continuous_sites}
        apart = any(not torch.equal(mean, mean[:1].expand_as(mean)) for mean in means.values())
        return means if apart else {}

    def decode_along(self, starts: Mapping[str, Tensor], ends: Mapping[str, Tensor]) -> Tensor:
        """Decodes codes along straight lines, in equal steps, the category of the nearer end."""
        share = torch.linspace(0, 1, STEPS)
        rows = len(next(iter(starts.values())))
        values = {}
        for site, start in starts.items():
            at = share[:, None] if site != self.category else (share > 0.5).to(share)[:, None]
            lines = start[:, None] * (1 - at) + ends[site][:, None] * at  # (rows, steps, d)
            values[site] = lines.flatten(0, 1).to(self.vae.device, self.vae.dtype)
        return self.vae.decode(values, rows * STEPS).cpu().unflatten(0, (rows, STEPS))

    def traverse(
        self, site: str, moves: Sequence[tuple[int, int]], *, steps: int = STEPS
    ) -> Tensor:
        """Decodes codes with one dimension moving through its middle 98 % of the data's codes."""
        starts = torch.tensor([start for start, _ in moves])
        values = {s: codes[starts].repeat_interleave(steps, 0) for s, codes in self.codes.items()}
        quantiles = torch.tensor([0.01, 0.99])
        for row, (_, dim) in enumerate(moves):
            low, high = self._drawn[site][:, dim].quantile(quantiles).tolist()
            values[site][row * steps : (row + 1) * steps, dim] = torch.linspace(low, high, steps)
        values = {s: value.to(self.x.device) for s, value in values.items()}
        decoded = self.vae.decode(values, len(moves) * steps)
        return decoded.cpu().unflatten(0, (len(moves), steps))

    @cached_property
    def _drawn(self) -> dict[str, Tensor]:
        """One draw of every site from the guide, ``(n, d)``, for 1,000 data at most."""
        x = self.x[spread_out(len(self.x), 1000).to(self.x.device)]
        nodes = trace_program(self.vae.guide, (x,), {}).nodes
        return {site: nodes[site]["value"].float().cpu() for site in self.codes}


def _divergences(vae: Variant, x: Tensor) -> dict[str, Tensor]:
    """KL of every site summed over the data, per dimension where that is possible."""
    pair = TracePair.run(code_program(vae.model), vae.guide, (x,), {}, max_plate_nesting=1)
    result = {}
    for name in pair.latent:
        q, p = pair.guide.nodes[name], pair.model.nodes[name]
        if is_deterministic(q):
            result[name] = torch.tensor(math.nan)
            continue
        parts = None if pair.divergence(name) is None else _parts(q["fn"], p["fn"])
        if parts is None:
            result[name] = pair.rate(name)
        else:
            result[name] = torch.stack([pair.expectation(part, q) for part in parts.unbind(-1)])
    return result


def _parts(q: Distribution, p: Distribution) -> Tensor | None:
    """KL per dimension of two distributions whose dimensions are independent, else None."""
    if not (isinstance(q, Independent) and isinstance(p, Independent)):
        return None
    if q.reinterpreted_batch_ndims != 1 or p.reinterpreted_batch_ndims != 1:
        return None
    try:
        return kl_divergence(q.base_dist, p.base_dist)
    except NotImplementedError:
        return None
