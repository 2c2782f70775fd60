"""Comparison of a graph's step with the program's step on the same noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.engine.fallback import first_cause
from pyro_mivae.engine.snapshot import preserved, rng_state
from pyro_mivae.engine.tracing import TracedStep

Ledger = Mapping[str, Tensor]
Gradients = Mapping[Tensor, Tensor]
ROUNDING = 64  # allowed difference in units of the last place: the order of sums may differ
ROUNDING_ON_CUDA = 2**-11  # the same in float32 on CUDA, relative, for TF32 too
EVERY = 200  # most steps between two comparisons
EVERY_CAPTURED = 2000  # the same if captured: a comparison takes as long as about 25 steps


def most_unchecked(device: torch.device) -> int:
    """Returns the largest number of steps between two comparisons on a device."""
    return EVERY_CAPTURED if device.type == "cuda" else EVERY


def is_due(step: int, every: int = EVERY) -> bool:
    """Returns True for a step that is compared with its program.

    Example:
        >>> [step for step in range(500) if is_due(step)]
        [0, 1, 2, 4, 8, 16, 32, 64, 128, 200, 400]
    """
    return step % every == 0 or (step < every and step & (step - 1) == 0)


def is_due_in_epoch(step: int, *, steps_per_epoch: int, every: int = EVERY) -> bool:
    """As `is_due`, but the last batches of epochs, of another size, are chosen by the epoch."""
    epoch, batch = divmod(step, steps_per_epoch)
    return is_due(step, every) or (batch == steps_per_epoch - 1 and is_due(epoch))


@dataclass(frozen=True)
class Outcome:
    """Results of a step, and the state after it."""

    ledger: Ledger
    gradients: Gradients  # of each leaf that has one
    written: tuple[Tensor, ...]  # tensors that it changes in place, as it leaves them
    noise: Mapping[str, Tensor]  # state of the random number generators after it

    def difference(self, other: Outcome) -> str:
        """Describes the first difference of the graph's outcome from this one; empty if none.

        Numbers agree if they are equal to rounding, relative to their own size or the loss.
        """
        if tuple(self.ledger) != tuple(other.ledger):
            return f"the ledger has {list(self.ledger)}, that of the graph {list(other.ledger)}"
        size = self.ledger["loss"].abs()
        for name in sorted(self.ledger, key="loss".__eq__):  # what makes the loss another first
            wanted = self.ledger[name]
            if not _agree(wanted, other.ledger[name], size):
                return (
                    f"{name} is {float(wanted):g}, and {float(other.ledger[name]):g} by the graph"
                )
        if self.gradients.keys() != other.gradients.keys():
            return "the parameters with a gradient differ from those of the graph"
        norms = [gradient.detach().norm() for gradient in self.gradients.values()]
        size = torch.stack(norms).norm() if norms else size
        for parameter, wanted in self.gradients.items():
            if not _agree(wanted, other.gradients[parameter], size):
                return f"the gradient of a parameter of shape {tuple(wanted.shape)} differs"
        for wanted, found in zip(self.written, other.written, strict=True):
            if not _agree(wanted, found, wanted.abs().amax() if wanted.numel() else size):
                return f"a tensor of shape {tuple(wanted.shape)} that it changes differs"
        if not all(torch.equal(state, other.noise[kind]) for kind, state in self.noise.items()):
            return "the state of the random number generator after it differs"
        return ""


def compared(
    traced: TracedStep, data: Sequence[Tensor], take: Callable[[], tuple[Any, Ledger, Gradients]]
) -> tuple[Any, str]:
    """Takes the program's step, and describes how the graph's differs on the same noise.

    The program returns any result, its ledger, and its gradients.
    """
    device = data[0].device
    try:
        with preserved(traced.changed(*data), device):
            values, gradients = traced(*data)
            by_graph = Outcome(
                dict(zip(traced.entries, values.clone().unbind(), strict=True)),
                {p: g.clone() for p, g in zip(traced.leaves, gradients, strict=True)},
                tuple(tensor.detach().clone() for tensor in traced.written),
                rng_state(device),
            )
    except Exception as error:  # the program itself may have no trouble
        return take()[0], f"the graph fails with {first_cause(error)}"
    taken, ledger, found = take()
    own = Outcome(ledger, found, traced.written, rng_state(device))
    return taken, own.difference(by_graph)


def _agree(wanted: Tensor, found: Tensor, size: Tensor) -> bool:
    """Returns True if two tensors are equal to the rounding of numbers of their size."""
    if not wanted.is_floating_point() or wanted.shape != found.shape:
        return torch.equal(wanted, found)
    found = found.to(wanted.dtype)
    if torch.equal(wanted, found) or not torch.equal(wanted.isnan(), found.isnan()):
        return torch.equal(wanted.isnan(), found.isnan())
    unit = ROUNDING * torch.finfo(wanted.dtype).eps
    if wanted.is_cuda and wanted.dtype == torch.float32:
        unit = ROUNDING_ON_CUDA
    wanted, found = wanted.nan_to_num(0.0), found.nan_to_num(0.0)
    allowed = unit * torch.maximum(wanted.norm(), size.to(wanted).nan_to_num(0.0) / 8)
    return bool((wanted - found).norm() <= allowed)
