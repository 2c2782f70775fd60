"""A differentiable loss with everything that it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pyro_mivae.engine.guards import Guards
from pyro_mivae.engine.tracing import Loss


@dataclass
class TrainStep:
    """A loss and what it depends on.

    Attributes:
        loss: From data to the scalar whose gradient is taken, and the entries of the ledger:
            0-dimensional tensors without a gradient.
        parameters: Leaf tensors that the gradient is taken by. The loss reads these very objects.
        buffers: Tensors that the loss reads, and may change in place.
        modules: Modules that the loss calls; whether they train is part of what it does.
        name: Its name in warnings, with the unit of its numbers.
        guards: Plain values that it reads from Python.
        entries: Names of the ledger's entries at the last step.
    """

    loss: Loss
    parameters: Sequence[Tensor]
    buffers: Sequence[Tensor]
    modules: Sequence[nn.Module]
    name: tuple[str, str] = ("training step", "step")
    guards: Guards = field(init=False)
    entries: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        self.guards = Guards(*self.modules)

    @classmethod
    def of_modules(cls, loss: Loss, *modules: nn.Module) -> TrainStep:
        """Makes a step that trains every parameter of some modules that is not frozen."""
        parameters = unique(p for module in modules for p in module.parameters())
        buffers = unique(b for module in modules for b in module.buffers())
        return cls(
            loss,
            [p for p in parameters if p.requires_grad],
            [p for p in parameters if not p.requires_grad] + buffers,
            [part for module in modules for part in module.modules()],
        )

    @property
    def state(self) -> list[Tensor]:
        """All parameters, then all buffers."""
        return [*self.parameters, *self.buffers]

    def state_of_python(self) -> tuple[Any, ...]:
        """Returns what a graph is fixed to: which parameters train, and what Python holds."""
        trained = tuple(parameter.requires_grad for parameter in self.parameters)
        return trained, self.guards.read()

    def __call__(self, *args: Tensor) -> Tensor:
        """Runs the program, leaves its gradient in the parameters, and returns the ledger."""
        for parameter in self.parameters:
            parameter.grad = None
        loss, ledger = self.loss(*args)
        if self.parameters:
            loss.backward()
        self.entries = tuple(ledger)
        return torch.stack(list(ledger.values()))


def unique(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Returns each tensor once, in order."""
    return list({id(tensor): tensor for tensor in tensors}.values())
