"""Kinds of steps that `SVI` traces: the graph of each, and its replay on a device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pyro_mivae.compat import copy_all, stored_parameters, tree_flatten, tree_unflatten
from pyro_mivae.elbo import Objective
from pyro_mivae.engine.cuda_graphs import Recording, check_capturable, recorder_for
from pyro_mivae.engine.fallback import give_up
from pyro_mivae.engine.optimiser import CapturableOptimiser, GroupedOptimiser
from pyro_mivae.engine.steps import GraphStep
from pyro_mivae.engine.tracing import TracedStep, unique
from pyro_mivae.errors import CaptureError

MOST_CAPTURES = 8  # of one kind of step: options may change in every step


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
        """True if there are tensors, all plain and without gradient."""
        plain = all(type(one) is Tensor and not one.requires_grad for one in self.tensors)
        return bool(self.tensors) and plain

    @property
    def kind(self) -> Any:
        """Arguments and torch settings that a graph depends on."""
        autocast = [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")]
        around = torch.get_default_dtype(), *autocast, torch.is_grad_enabled()
        return self._form, tuple(map(_kind_of, self._leaves)), around

    def with_tensors(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments with other tensors."""
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


class ReplayedStep:
    """A recording of the graph's step and the optimiser's update."""

    def __init__(
        self,
        stage: Stage,
        data: Sequence[Tensor],
        update: CapturableOptimiser,
        recorder: Recording,
    ) -> None:
        self._stage, self._run, self._update, self._recorder = stage, stage.run, update, recorder
        self._data = [tensor.clone() for tensor in data]
        traced, parameters = stage.traced, stage.updated
        results: Any = traced.graph.graph.output_node().args[0]
        like = results[0].meta["val"]
        self._values = torch.zeros(like.shape, dtype=like.dtype, device=data[0].device)
        self._zeros = [None if p.grad is None else torch.zeros_like(p) for p in stage.unused]
        self._inputs = unique([*traced.inputs, *parameters])
        held = [(parameter, parameter.grad) for parameter in parameters]
        try:
            (self._replay,) = recorder.record(self._take, [1], [*self._inputs, self._values])
        finally:
            for parameter, gradient in held:
                parameter.grad = gradient
        self._places = [tensor.data_ptr() for tensor in self._inputs]

    def is_current(self) -> bool:
        """True if tensors, options and optimiser are the recorded ones."""
        places = [tensor.data_ptr() for tensor in self._inputs]
        zeros = zip(self._stage.unused, self._zeros, strict=True)
        return (
            self._run is self._stage.run
            and places == self._places
            and all((p.grad is None) == (zero is None) for p, zero in zeros)
            and self._update.refresh()
        )

    def __call__(self, data: Sequence[Tensor]) -> Tensor:
        """Takes the step."""
        with self._recorder.running():
            copy_all(self._data, data, non_blocking=True)
            self._replay()
            return self._values.clone()

    def _take(self) -> None:
        stage = self._stage
        held = [(parameter, parameter.grad) for parameter in stage.updated]
        self._values.copy_(stage(*self._data))
        for parameter, zero in zip(stage.unused, self._zeros, strict=True):
            parameter.grad = zero
        self._update.step(stage.updated)
        for parameter, before in held:  # as Pyro leaves them
            parameter.grad = before


class Stage(GraphStep):
    """The graph for arguments of one kind."""

    def __init__(self, traced: TracedStep, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = parameters  # by name in the param store
        self.updated = unique(parameters.values())
        super().__init__(traced, self.updated)
        self.steps = 0  # since it was recorded
        self.compiles_at = math.inf
        self.replay: ReplayedStep | None = None
        self._trained = {name: p.requires_grad for name, p in parameters.items()}
        self._captures = MOST_CAPTURES  # that may yet be made

    def is_current(self) -> bool:
        """Returns True if the param store holds the parameters of the graph."""
        held = stored_parameters()
        return all(
            held.get(name) is parameter and parameter.requires_grad == self._trained[name]
            for name, parameter in self.parameters.items()
        )

    def replayed(self, data: Sequence[Tensor], optimiser: GroupedOptimiser) -> ReplayedStep | None:
        """Returns the replayed step, captured again if tensors have moved.

        None if the device, the program or the optimiser does not support it.
        """
        if self.replay is not None and self.replay.is_current():
            return self.replay
        self.replay, left, self._captures = None, self._captures, 0
        update = optimiser.capturable(self.updated) if left else None
        recorder = None if update is None else recorder_for(update.optimiser, data[0].device)
        if update is None or recorder is None:
            return None
        try:
            if left == 1:
                raise CaptureError("its tensors or the optimiser's options change too often")
            check_capturable(self.traced, data[0].device)
            self.replay = ReplayedStep(self, data, update, recorder)
            self._captures = left - 1
        except CaptureError as error:
            give_up("captured", "without", error)
        return self.replay


def is_stageable(loss: Any) -> bool:
    """Returns True for an `Objective` that takes gradients as the base class does."""
    own = isinstance(loss, Objective) and "loss_and_grads" not in vars(loss)
    return own and type(loss).loss_and_grads is Objective.loss_and_grads


def parameters_of(capture: Any) -> dict[str, Tensor]:
    """Parameters of a traced step by name, unconstrained, as Pyro steps them."""
    sites = capture.trace.nodes.items()
    return {name: site["value"].unconstrained() for name, site in sites}


def modules_of(model: Any, guide: Any, loss: Any) -> list[nn.Module]:
    """The modules that a step may train or change."""
    found = [getattr(program, "__self__", program) for program in (model, guide)]
    if isinstance(loss, Objective):
        found += [loss.state, *loss.networks.values()]
    return [part for part in found if isinstance(part, nn.Module)]


def calls_noted(parts: list[nn.Module]) -> AbstractContextManager[object]:
    """Adds the modules that are called inside: a plain function does not list its own."""
    known = set(parts)

    def note(module: nn.Module, args: Any) -> None:
        if module not in known:
            known.add(module)
            parts.append(module)

    return register_module_forward_pre_hook(note)
