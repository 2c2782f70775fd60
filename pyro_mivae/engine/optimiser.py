"""One optimiser for all parameters, in place of Pyro's optimiser per parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from operator import is_, itemgetter
from typing import Any

import torch
from pyro.optim import PyroLRScheduler, PyroOptim
from pyro.optim.adagrad_rmsprop import AdagradRMSProp
from pyro.optim.clipped_adam import ClippedAdam
from pyro.optim.optim import is_scheduler
from torch import Tensor

from pyro_mivae.compat import has_step_hooks

ELEMENT_BY_ELEMENT = (
    AdagradRMSProp,
    ClippedAdam,
    torch.optim.ASGD,
    torch.optim.Adadelta,
    torch.optim.Adagrad,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Rprop,
    torch.optim.SGD,
)
"""Optimisers whose update of a parameter depends on no other parameter."""

FUSED = (torch.float32, torch.float64)
INEXACT = (torch.optim.RAdam,)  # its capturable update is less accurate than the other
FUSED_ON_CUDA = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)  # by torch 2.11
# Options of a group that do not change its update.
KERNEL = ("params", "fused", "foreach", "capturable", "differentiable", "initial_lr")


class GroupedOptimiser:
    """Updates all parameters of a Pyro optimiser at once.

    The update is fused if torch can. Options, which learning-rate schedulers change, and state
    stay in the Pyro optimiser. So its ``get_state`` and ``save`` work as always, and it can take
    the next step itself. An optimiser class of your own takes its own steps.
    """

    def __init__(self, optim: PyroOptim) -> None:
        self.optim = optim
        self._groups: dict[frozenset[Tensor], torch.optim.Optimizer] = {}
        self._serves = (
            type(optim) in (PyroOptim, PyroLRScheduler)
            and optim.pt_optim_constructor in ELEMENT_BY_ELEMENT
        )

    def step(self, parameters: Collection[Tensor]) -> None:
        """Updates parameters by their gradients."""
        if not self._serves or not all(map(self._is_plain, parameters)):
            self.optim(parameters)  # type: ignore[arg-type]
            return
        self.clip(parameters)
        key = frozenset(parameters)
        grouped = self._groups.get(key)
        if grouped is None or not self._take_over(grouped):
            grouped = self._groups[key] = self._group(parameters)
            self._take_over(grouped)
        grouped.step()
        self._give_back(grouped)

    def clip(self, parameters: Collection[Tensor]) -> None:
        """Clips gradients as the Pyro optimiser does."""
        for parameter in parameters:
            clip = self.optim.grad_clip[parameter]
            if clip is not None:
                clip(parameter)

    def capturable(self, parameters: Collection[Tensor]) -> CapturableOptimiser | None:
        """Returns an optimiser that a CUDA graph can hold, on the Pyro optimiser's own state."""
        make: Any = self.optim.pt_optim_constructor
        if not self._serves or "capturable" not in inspect.signature(make).parameters:
            return None
        if make in INEXACT or not all(map(self._is_plain, parameters)):
            return None
        if any(isinstance(self._own(parameter)["lr"], Tensor) for parameter in parameters):
            return None
        grouped = self._group(parameters)
        for group in grouped.param_groups:
            group["capturable"] = True
        self._take_over(grouped)
        owners = {p: self._object(p) for p in parameters}
        return CapturableOptimiser(grouped, owners, self.clip)

    def _take_over(self, grouped: torch.optim.Optimizer) -> bool:
        """Takes options and state from Pyro's objects; returns True if each group agrees."""
        for group in grouped.param_groups:
            options = _options(self._own(group["params"][0]))
            if any(_options(self._own(p)) != options for p in group["params"][1:]):
                return False
            group |= options
            for parameter in group["params"]:
                state = self._object(parameter).state.get(parameter)
                grouped.state.pop(parameter, None)
                if state:
                    if group.get("fused") or group.get("capturable"):
                        _move(state, parameter.device)
                    grouped.state[parameter] = state
        return True

    def _give_back(self, grouped: torch.optim.Optimizer) -> None:
        for group in grouped.param_groups:
            options = _options(group)
            for parameter in group["params"]:
                own = self._own(parameter)
                own |= {name: options[name] for name in own if name in options}
                if parameter in grouped.state:
                    self._object(parameter).state[parameter] = grouped.state[parameter]

    def _group(self, parameters: Collection[Tensor]) -> torch.optim.Optimizer:
        """Makes one optimiser, with a group of parameters for each set of options."""
        groups: dict[str, dict[str, Any]] = {}
        for parameter in parameters:
            options = _options(self._own(parameter))
            group = groups.setdefault(repr(options), {**options, "params": []})
            group["params"].append(parameter)
        make: Any = self.optim.pt_optim_constructor
        taken = inspect.signature(make).parameters
        defaults = {name: value for name, value in options.items() if name in taken}
        on_cpu = all(p.device.type == "cpu" for p in parameters)
        if "fused" in taken and all(p.dtype in FUSED for p in parameters):
            defaults["fused"] = on_cpu or make in FUSED_ON_CUDA
        grouped: torch.optim.Optimizer = make(list(groups.values()), **defaults)
        return grouped

    def _is_plain(self, parameter: Tensor) -> bool:
        """Returns True if Pyro has an optimiser for the parameter, without hooks."""
        return parameter in self.optim.optim_objs and not has_step_hooks(self._object(parameter))

    def _object(self, parameter: Tensor) -> torch.optim.Optimizer:
        """Pyro's optimiser of a parameter, without its scheduler."""
        made = self.optim.optim_objs[parameter]
        return made.optimizer if is_scheduler(made) else made

    def _own(self, parameter: Tensor) -> dict[str, Any]:
        (group,) = self._object(parameter).param_groups
        return group


class CapturableOptimiser:
    """An optimiser with tensor learning rates, which shares the state of Pyro's optimisers."""

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        owners: Mapping[Tensor, torch.optim.Optimizer],
        clip: Callable[[Collection[Tensor]], None],
    ) -> None:
        self.optimiser, self._clip = optimiser, clip
        self._are_same = [_watched(own) for own in owners.values()]
        self._rates = []
        for group in optimiser.param_groups:
            rate = torch.tensor(float(group["lr"]), dtype=torch.float32)  # as the fused kernel's
            group["lr"] = rate.to(group["params"][0].device)
            own = [owners[parameter].param_groups[0] for parameter in group["params"]]
            self._rates.append((group["lr"], own))
        self._last = [own[0]["lr"] for _, own in self._rates]

    def step(self, parameters: Collection[Tensor]) -> None:
        """Clips the gradients, and updates the parameters."""
        self._clip(parameters)
        self.optimiser.step()

    def refresh(self) -> bool:
        """Copies changed learning rates, without waiting for the device."""
        if not all(is_same() for is_same in self._are_same):
            return False
        for index, (rate, groups) in enumerate(self._rates):
            now = groups[0]["lr"]
            if isinstance(now, Tensor) or any(group["lr"] != now for group in groups):
                return False
            if now != self._last[index]:
                rate.fill_(now)
                self._last[index] = now
        return True


def _watched(own: torch.optim.Optimizer) -> Callable[[], bool]:
    """Returns a key of an optimiser's options and state, except the learning rate.

    It is computed in every step.
    """
    options = itemgetter(*[name for name in _options(own.param_groups[0]) if name != "lr"])

    def now() -> tuple[Any, Any, list[Any]]:
        (group,), states = own.param_groups, own.state.values()
        return group, options(group), [value for kept in states for value in kept.values()]

    old, before, kept = now()

    def is_same() -> bool:
        group, present, held = now()
        same = group is old and bool(present == before) and len(held) == len(kept)
        return same and all(map(is_, held, kept))

    return is_same


def _move(state: dict[str, Any], device: torch.device) -> None:
    """Moves step counts to the device, for fused kernels and recordings."""
    for name, value in state.items():
        if isinstance(value, Tensor) and value.device != device:
            state[name] = value.to(device)


def _options(group: dict[str, Any]) -> dict[str, Any]:
    """The options of a group that define its update, without those of the kernel."""
    return {name: value for name, value in group.items() if name not in KERNEL}
