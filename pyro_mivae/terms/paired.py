"""Terms that set each datum, or its code, beside those of the others in the batch."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.errors import PyroMivaeWarning, ShapeError, SiteError
from pyro_mivae.schedules import Schedule
from pyro_mivae.terms.base import InformationTerm, Particle

ENOUGH_DATA = 64
"""Data that a batch needs for the others to say something about the whole."""


class PairedTerm(InformationTerm):
    """A term on continuous sites that are drawn once per datum, and compared within the batch.

    Args:
        sites: The sites, taken together in this order.
        weight: Its weight per datum, a number or a schedule of the training step.
    """

    pairs_data = True

    def __init__(self, *sites: str, weight: float | Schedule = 1.0) -> None:
        super().__init__(*sites, weight=weight)
        self._has_warned = False

    def count(self, particle: Particle) -> Tensor | float:
        """Gives for how many data the batch stands: its size, times the plate's scale.

        The scale is that of the data which the model observes in a plate of the term's sites,
        apart from plates that these are not in.

        Args:
            particle: One run of the model/guide pair.

        Raises:
            SiteError: If the model observes no data.
        """
        model = particle.traces.model.nodes
        if not particle.traces.data:
            raise SiteError(
                f"{type(self).__name__} is summed over the data that the model observes, and it "
                "observes none; give one of its sites obs=x"
            )
        plates = {frame.name for frame in model[self.sites[0]]["cond_indep_stack"]}
        stacks = {name: model[name]["cond_indep_stack"] for name in particle.traces.data}
        name = max(stacks, key=lambda n: len(plates & {frame.name for frame in stacks[n]}))
        scale: Tensor | float = model[name]["scale"]
        for frame in stacks[name]:
            if frame.name not in plates and frame.full_size:
                scale = scale * (frame.size / frame.full_size)
        return scale * len(particle.args[0])

    def codes(self, trace: Any, particle: Particle) -> Tensor:
        """Gives what the named sites drew in a trace, flattened and joined.

        Args:
            trace: The guide's, or the model's.
            particle: The run that it belongs to.

        Returns:
            Shape ``(particles, batch, size)``.

        Raises:
            ShapeError: If the batch holds a single datum.
            SiteError: If a site is missing, discrete, beside an enumerated one, or not drawn once
                per datum.
        """
        n = len(particle.args[0])
        self._check_batch(n)
        return torch.cat([self._values(trace, particle, name, n) for name in self.sites], -1)

    def _values(self, trace: Any, particle: Particle, name: str, n: int) -> Tensor:
        traces, told = particle.traces, type(self).__name__
        if name not in traces.latent:
            raise SiteError(
                f"{told} names the site {name!r}; the latent sites are {traces.latent}"
            )
        site = trace.nodes[name]
        fn, value = site["fn"], site["value"]
        if traces.enumerated or fn.support.is_discrete:
            raise SiteError(
                f"{told} follows the gradient of what was drawn, and {name!r} is discrete, or "
                f"drawn beside the enumerated {traces.enumerated}; use BarberAgakov there"
            )
        if value.dim() == fn.event_dim or value.shape[value.dim() - fn.event_dim - 1] != n:
            raise SiteError(
                f"{told} needs a value of {name!r} for each of {n} data; its shape is "
                f"{tuple(value.shape)}: draw it in the plate over the data, and give model and "
                "guide the mini-batch itself where the plate sub-samples them"
            )
        codes: Tensor = value.reshape(-1, n, fn.event_shape.numel())
        return codes

    def _check_batch(self, n: int) -> None:
        if n < 2:
            raise ShapeError(
                f"a batch of {n} given to {type(self).__name__}, which sets each datum beside the "
                f"others; 2 are needed, {ENOUGH_DATA} or more are of use: use a larger batch"
            )
        if n < ENOUGH_DATA and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"a batch of {n} for {type(self).__name__}: fewer than {ENOUGH_DATA} data say "
                "little about the whole; use a larger batch",
                PyroMivaeWarning,
                stacklevel=2,
            )
