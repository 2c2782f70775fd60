"""Kinds of steps that `SVI` traces, and the graph of each."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pyro_mivae.compat import stored_parameters, tree_flatten, tree_unflatten
from pyro_mivae.elbo import Objective
from pyro_mivae.engine.replayed import Replays
from pyro_mivae.engine.tracing import TracedStep


class Call:
    """Arguments of a step, and the tensors among them."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs
        self._leaves: Sequence[Any] = args
        self._form: Any = len(args)
        if kwargs or not all(type(arg) is Tensor for arg in args):
            self._leaves, self._form = tree_flatten((args, kwargs))
        self.tensors = [leaf for leaf in self._leaves if isinstance(leaf, Tensor)]

    @property
    def is_plain(self) -> bool:
        """True if there are tensors, and none is of a kind of its own or needs a gradient."""
        plain = all(type(one) is Tensor and not one.requires_grad for one in self.tensors)
        return bool(self.tensors) and plain

    @property
    def kind(self) -> Any:
        """What a graph is fixed to in arguments, and in settings of torch's."""
        autocast = [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")]
        around = torch.get_default_dtype(), *autocast, torch.is_grad_enabled()
        return self._form, tuple(map(_kind_of, self._leaves)), around

    def with_tensors(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments with other tensors in place of theirs."""
        others = iter(tensors)
        leaves = [next(others) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        if isinstance(self._form, int):
            return tuple(leaves), {}
        args, kwargs = tree_unflatten(leaves, self._form)
        return args, kwargs


def _kind_of(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    return type(leaf), leaf


@dataclass
class Stage:
    """The graph for arguments of one kind, once there is one.

    Attributes:
        traced: The graph; None as long as no step of the kind was recorded.
        parameters: Parameters that take part in the step, by name in the param store.
        trained: Names of those that are not frozen.
        updated: The parameters, each once.
        run: What takes the step: the graph, or the compiled one.
        steps: Steps since it was recorded.
        unchecked: The first step by the graph since the last comparison; None if none was.
        compiles_at: Number of steps after which it is compiled.
        tries: Steps that were recorded in vain.
        replays: The step as the device replays it.
    """

    traced: TracedStep | None = None
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    trained: Collection[str] = ()
    updated: Collection[Tensor] = ()
    run: Any = None
    steps: int = 0
    unchecked: int | None = None
    compiles_at: float = math.inf
    tries: int = 0
    replays: Replays = field(default_factory=Replays)

    def is_current(self) -> bool:
        """Returns whether the param store holds the parameters that the graph reads."""
        held = stored_parameters()
        return all(
            held.get(name) is parameter and parameter.requires_grad == (name in self.trained)
            for name, parameter in self.parameters.items()
        )


def is_stageable(loss: Any) -> bool:
    """Returns whether a loss is one of ours, whose gradient is that of its differentiable loss."""
    own = isinstance(loss, Objective) and "loss_and_grads" not in vars(loss)
    return own and type(loss).loss_and_grads is Objective.loss_and_grads


def parameters_of(capture: Any) -> dict[str, Tensor]:
    """Parameters of a traced step by name, unconstrained, as Pyro steps them."""
    sites = capture.trace.nodes.items()
    return {name: site["value"].unconstrained() for name, site in sites}


def added(leaf: Tensor, before: Tensor | None) -> Tensor:
    """What a step has added to a leaf's gradient."""
    assert leaf.grad is not None
    return leaf.grad if before is None else leaf.grad - before


def modules_of(model: Any, guide: Any, loss: Any) -> list[nn.Module]:
    """The modules that a step may train or change."""
    found = [getattr(program, "__self__", program) for program in (model, guide)]
    if isinstance(loss, Objective):
        found += [loss.state, *loss.networks.values()]
    return [part for part in found if isinstance(part, nn.Module)]


@contextmanager
def calls_noted(parts: list[nn.Module]) -> Iterator[None]:
    """Adds the modules that are called meanwhile: a plain function does not show its own."""
    known = set(parts)

    def note(module: nn.Module, args: Any) -> None:
        if module not in known:
            known.add(module)
            parts.append(module)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield
    finally:
        hook.remove()
