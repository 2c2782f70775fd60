"""Comparison of a graph's step with its program's, on the same noise."""

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

ROUNDING = 64
"""Allowed difference, in units of the last place: sums may be added in another order."""

ROUNDING_ON_CUDA = 2**-11
"""Allowed relative difference in float32 on CUDA: that of TF32, and of sums in any order."""

EVERY = 200
"""Most steps between two comparisons."""

EVERY_CAPTURED = 2000
"""The like where steps are captured: a comparison takes as long as some 25 of them."""


def most_unchecked(device: torch.device) -> int:
    """Returns the most steps between two comparisons on a device."""
    return EVERY_CAPTURED if device.type == "cuda" else EVERY


def is_due(step: int, every: int = EVERY) -> bool:
    """Returns whether a step is compared with its program.

    Example:
        >>> [step for step in range(500) if is_due(step)]
        [0, 1, 2, 4, 8, 16, 32, 64, 128, 200, 400]
    """
    return step % every == 0 or (step < every and step & (step - 1) == 0)


def is_due_in_epoch(step: int, *, steps_per_epoch: int, every: int = EVERY) -> bool:
    """Returns whether a step is compared where epochs end in a batch of a size of its own."""
    epoch, batch = divmod(step, steps_per_epoch)
    return is_due(step, every) or (batch == steps_per_epoch - 1 and is_due(epoch))


@dataclass(frozen=True)
class Outcome:
    """Results of a step, and the state that it leaves."""

    ledger: Ledger
    gradients: Gradients  # of each leaf that has one
    written: tuple[Tensor, ...]  # tensors that it changes in place, as it leaves them
    noise: Mapping[str, Tensor]  # state of the random number generators after it

    def difference(self, other: Outcome) -> str:
        """Says where the graph's outcome is not this one, the program's; empty if nowhere.

        Numbers agree if they are equal to rounding: of their own size, or of the loss's.
        """
        if tuple(self.ledger) != tuple(other.ledger):
            return f"the ledger has {list(self.ledger)}, and {list(other.ledger)} by the graph"
        size = self.ledger["loss"].abs()
        for name in sorted(self.ledger, key="loss".__eq__):  # what makes the loss another first
            wanted = self.ledger[name]
            if not _agree(wanted, other.ledger[name], size):
                return (
                    f"{name} is {float(wanted):g}, and {float(other.ledger[name]):g} by the graph"
                )
        if self.gradients.keys() != other.gradients.keys():
            return "other parameters have a gradient than in the graph"
        norms = [gradient.detach().norm() for gradient in self.gradients.values()]
        size = torch.stack(norms).norm() if norms else size
        for parameter, wanted in self.gradients.items():
            if not _agree(wanted, other.gradients[parameter], size):
                return f"the gradient of a parameter of shape {tuple(wanted.shape)} is another"
        for wanted, found in zip(self.written, other.written, strict=True):
            if not _agree(wanted, found, wanted.abs().amax() if wanted.numel() else size):
                return f"a tensor of shape {tuple(wanted.shape)} that it changes is another"
        if not all(torch.equal(state, other.noise[kind]) for kind, state in self.noise.items()):
            return "it leaves the random number generator in another state"
        return ""


def compared(
    traced: TracedStep, data: Sequence[Tensor], take: Callable[[], tuple[Any, Ledger, Gradients]]
) -> tuple[Any, str]:
    """Takes the program's own step, and says where the graph's is another on the same noise.

    The program returns anything, its ledger, and its gradients.
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
    """Returns whether two tensors are equal to the rounding of numbers of their size."""
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
