"""Whether two models are the same but for the values of their parameters."""

from __future__ import annotations

import types
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

PLAIN = (bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device, range)
PASSING = ("_pyro_context",)
"""Attributes that hold nothing of a model."""


def alike(a: nn.Module, b: nn.Module) -> bool:
    """Tells whether two models compute the same from the same parameters and buffers.

    Everything that they hold is compared: modules by type, parameters and buffers by shape, all
    else by value, functions by their code and what that refers to. What cannot be compared counts
    as different. Pyro's own names of the two may differ.

    Args:
        a: A model.
        b: Another.
    """
    names = [str(getattr(model, "_pyro_name", "")) for model in (a, b)]
    return _Comparison(*names).same(a, b)


class _Comparison:
    """Walks two models side by side; what appears twice in one must do so in the other."""

    def __init__(self, name: str, other_name: str) -> None:
        self.names = (name, other_name)
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []  # lest an identity be given to another object meanwhile

    def same(self, a: Any, b: Any) -> bool:
        if type(a) is not type(b):
            return False
        if isinstance(a, str):
            return self._named(a, 0) == self._named(b, 1)
        if isinstance(a, PLAIN):
            return bool(a == b or (a != a and b != b))
        if id(a) in self.seen:
            return self.seen[id(a)] == id(b)
        self.seen[id(a)] = id(b)
        self.kept += (a, b)
        return self._same_content(a, b)

    def _same_content(self, a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor):
            return _same_form(a, b) and torch.equal(a, b)
        if isinstance(a, nn.Module):
            return self._same_module(a, b)
        if isinstance(a, Mapping):
            return self._each(list(a), list(b)) and self._each(a.values(), b.values())
        if isinstance(a, list | tuple):
            return self._each(a, b)
        if isinstance(a, set | frozenset):
            return a == b
        if isinstance(a, types.FunctionType):
            return a is b or self._same_function(a, b)
        if isinstance(a, types.MethodType):
            return self.same(a.__func__, b.__func__) and self.same(a.__self__, b.__self__)
        if isinstance(a, partial):
            return self._each((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
        if hasattr(a, "__dict__") and not hasattr(a, "__slots__"):
            return self.same(vars(a), vars(b))
        return a is b

    def _same_module(self, a: nn.Module, b: nn.Module) -> bool:
        for kind in ("_parameters", "_buffers"):
            ours, theirs = vars(a)[kind], vars(b)[kind]
            if list(ours) != list(theirs):
                return False
            for tensor, twin in zip(ours.values(), theirs.values(), strict=True):
                if (tensor is None) != (twin is None):
                    return False
                if tensor is not None and not self._same_variable(tensor, twin):
                    return False
        skipped = ("_parameters", "_buffers", *PASSING)
        rest = [{k: v for k, v in vars(m).items() if k not in skipped} for m in (a, b)]
        return self.same(*rest)

    def _same_variable(self, a: torch.Tensor, b: torch.Tensor) -> bool:
        if id(a) in self.seen:
            return self.seen[id(a)] == id(b)
        self.seen[id(a)] = id(b)
        return _same_form(a, b) and type(a) is type(b) and a.requires_grad == b.requires_grad

    def _same_function(self, a: types.FunctionType, b: types.FunctionType) -> bool:
        ours, theirs = (
            (f.__code__, f.__globals__ is a.__globals__, f.__defaults__, f.__kwdefaults__)
            for f in (a, b)
        )
        cells = [[c.cell_contents for c in f.__closure__ or ()] for f in (a, b)]
        return ours[:2] == theirs[:2] and self._each(ours[2:], theirs[2:]) and self._each(*cells)

    def _each(self, a: Any, b: Any) -> bool:
        return len(a) == len(b) and all(map(self.same, a, b))

    def _named(self, text: str, which: int) -> str:
        name = self.names[which]
        return text.replace(name, "?") if name else text


def _same_form(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
