"""Evaluation on held-out images after each epoch, by graphs where training is staged."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.engine import TrainStep, is_due
from pyro_mivae.engine.comparison import Outcome, run_graph
from pyro_mivae.engine.snapshot import noise_state, preserved
from pyro_mivae.engine.steps import MOST_GRAPHS
from pyro_mivae.engine.tracing import TracedStep, trace_run
from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.training.meter import Meter

VALIDATION_BATCH = 512


class Validation:
    """Evaluates the loss of held-out images without a gradient.

    The program evaluates in the first epochs, and from then on where its graph is compared with
    it. Which epochs these are follows from their number alone, so that a resumed training rounds
    as a whole one does.
    """

    def __init__(
        self, program: TrainStep, images: Tensor, sizes: list[int], device: torch.device
    ) -> None:
        self.program, self.images, self.sizes, self.device = program, images, sizes, device
        self._graphs: dict[Any, TracedStep | None] = {}  # None where the program is no graph

    @torch.no_grad()
    def run(self, number: int, *, staged: bool) -> dict[str, float]:
        """Evaluates on all images; the host waits once, at the end."""
        meter = Meter()
        for part in self.images.split(self.sizes):
            x = part.to(self.device, non_blocking=True)
            entries = self._evaluate(x, number) if staged else self._by_program(x)
            meter.add(tuple(entries), torch.stack(list(entries.values())), len(x))
        return meter.means()

    def _by_program(self, x: Tensor) -> dict[str, Tensor]:
        return dict(self.program.loss(x)[1])

    def _evaluate(self, x: Tensor, number: int) -> dict[str, Tensor]:
        """Evaluates on a batch by the graph, if its turn has come."""
        key, due = (x.shape, self.program.state_of_python()), is_due(number)
        fresh = key not in self._graphs
        if fresh and (due or len(self._graphs) >= MOST_GRAPHS):
            return self._by_program(x)
        if fresh:
            self._graphs[key] = self._stage(x)
        graph = self._graphs[key]
        if graph is None:
            return self._by_program(x)
        if not (due or fresh):
            values, _ = graph(x)
            return dict(zip(graph.entries, values.unbind(), strict=True))
        outcome = run_graph(graph, x)
        entries = self._by_program(x)
        own = Outcome(entries, {}, graph.written, noise_state(self.device))
        difference = own.difference(outcome)
        if difference:
            self._graphs[key] = None
            _tell_difference(difference, number + 1)
        return entries if due or difference else dict(outcome.ledger)

    def _stage(self, x: Tensor) -> TracedStep | None:
        """Returns the graph of the evaluation, None if it has none; all is as it was before."""
        program = self.program
        try:
            with preserved([*program.state, x], self.device):
                return trace_run(program.loss, [x], program.guards, leaves=[]).traced
        except Exception:  # the program itself may have no trouble
            return None


def _tell_difference(difference: str, epoch: int) -> None:
    warnings.warn(
        f"the graph of the validation differs from its program at epoch {epoch}: {difference}. "
        "Values of val_ columns since the last comparison may be off. From here on the program "
        "evaluates, slower; a number that changes is better a tensor, an argument or a buffer",
        PyroMivaeWarning,
        stacklevel=4,
    )
