"""One optimiser for all parameters, in place of Pyro's one for each."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from pyro.optim.optim import _load_state_dict, is_scheduler
from torch import Tensor

KERNEL = ("params", "fused", "foreach", "capturable", "differentiable", "initial_lr")


class GroupedOptimiser:
    """Steps what a Pyro optimiser would step parameter by parameter, all at once.

    Parameters of the same options share a group, and the update is fused where torch can. The
    Pyro optimiser stays in charge: its own objects hold each parameter's options, which its
    learning-rate schedulers change, and the same state, so that its ``get_state`` and ``save``
    give what they always give, and either may take the next step.

    Args:
        optim: The Pyro optimiser.
    """

    def __init__(self, optim: PyroOptim) -> None:
        self.optim = optim
        self._grouped: torch.optim.Optimizer | None = None
        self._known: set[Tensor] = set()

    @staticmethod
    def serves(optim: PyroOptim) -> bool:
        """Tells whether the optimiser is made by a class of torch's kind, so that it has groups.

        Args:
            optim: The Pyro optimiser.
        """
        made_by = optim.pt_optim_constructor
        return isinstance(made_by, type) and issubclass(made_by, torch.optim.Optimizer)

    def step(self, parameters: Iterable[Tensor]) -> None:
        """Updates parameters by their gradients.

        Args:
            parameters: Leaf tensors of Pyro's param store.
        """
        parameters = list(parameters)
        registered = self.optim.optim_objs
        if self._grouped is None or not all(p in registered for p in self._known):
            self._grouped = self._group(set(parameters))
        elif not self._known.issuperset(parameters):
            self._grouped = self._group(self._known.union(parameters))
        for parameter in parameters:
            clip = self.optim.grad_clip[parameter]
            if clip is not None:
                clip(parameter)
        for parameter in self._known.difference(parameters):
            parameter.grad = None  # it stays where it is, whatever its momentum
        if not self._update_options():
            self._grouped = self._group(self._known)
        self._grouped.step()
        for group in self._grouped.param_groups:
            options = _options(group)
            for parameter in group["params"]:
                own = self._own(parameter)
                own |= {name: options[name] for name in own if name in options}
                self._object(parameter).state[parameter] = self._grouped.state[parameter]

    def _update_options(self) -> bool:
        """Takes the options over that Pyro's objects hold; tells whether each group agrees."""
        for group in self._grouped.param_groups if self._grouped else ():
            options = _options(self._own(group["params"][0]))
            if any(_options(self._own(p)) != options for p in group["params"][1:]):
                return False
            group |= options
        return True

    def _group(self, parameters: set[Tensor]) -> torch.optim.Optimizer:
        """Makes Pyro's object for each parameter that is new, and one optimiser for all."""
        self._known = parameters
        groups: dict[str, dict[str, Any]] = {}
        for parameter in parameters:
            if parameter not in self.optim.optim_objs:
                self._register(parameter)
            options = _options(self._own(parameter))
            group = groups.setdefault(repr(options), {**options, "params": []})
            group["params"].append(parameter)
        make: Any = self.optim.pt_optim_constructor
        taken = inspect.signature(make).parameters
        defaults = {name: value for name, value in options.items() if name in taken}
        if "fused" in taken:
            defaults["fused"] = True
        grouped: torch.optim.Optimizer = make(list(groups.values()), **defaults)
        for parameter in parameters:
            state = self._object(parameter).state.get(parameter)
            if state:
                grouped.state[parameter] = state
        return grouped

    def _register(self, parameter: Tensor) -> None:
        """Does what a Pyro optimiser does when it first sees a parameter."""
        optim = self.optim
        optim.optim_objs[parameter] = optim._get_optim(parameter)
        optim.grad_clip[parameter] = optim._get_grad_clip(parameter)  # type: ignore[arg-type]
        name = pyro.get_param_store().param_name(parameter)
        state = optim._state_waiting_to_be_consumed.pop(name, None)
        if state is not None:
            _load_state_dict(optim.optim_objs[parameter], state)

    def _object(self, parameter: Tensor) -> torch.optim.Optimizer:
        """Pyro's optimiser of a parameter, without the scheduler about it."""
        made = self.optim.optim_objs[parameter]
        return made.optimizer if is_scheduler(made) else made

    def _own(self, parameter: Tensor) -> dict[str, Any]:
        (group,) = self._object(parameter).param_groups
        return group


def _options(group: dict[str, Any]) -> dict[str, Any]:
    """The options of a group that decide how it is updated, and not by which kernel."""
    return {name: value for name, value in group.items() if name not in KERNEL}
