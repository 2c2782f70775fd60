"""Parameters that an objective does not train, and programs that are left as they were."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pyro_mivae.elbo import Objective
from pyro_mivae.engine.stages import calls_noted, modules_of, parameters_of
from pyro_mivae.engine.tracing import leaves_of
from pyro_mivae.pairs.findings import Finding
from pyro_mivae.traces import Program

SHOWN = 4  # parameters in a message
UNSEEN = (
    "register their module in the program, pyro.module('name', network), or make it an attribute "
    "of a PyroModule; each module needs a name of its own"
)


def of_parameters(
    objective: Objective,
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Iterator[Finding]:
    """Parameters without a gradient, and those with one that Pyro does not know."""
    modules = modules_of(model, guide, objective)
    with poutine.trace(param_only=True) as capture, calls_noted(modules):
        loss = objective.differentiable_loss(model, guide, *args, **kwargs)
    known = {p: name.replace("$$$", ".") for name, p in parameters_of(capture).items()}
    names = {p: n for module in reversed(modules) for n, p in _named(module)} | known
    whole = [program for program in (model, guide) if isinstance(program, nn.Module)]
    wanted = {*known, *(p for module in whole for p in module.parameters())}
    used = set(leaves_of(loss))
    unused = [names[p] for p in wanted if p.requires_grad and p not in used]
    if unused:
        yield Finding(
            "parameters",
            "",
            f"the objective gives no gradient on these arguments to {_list(unused)}",
            "let the model or the guide use them, without detach() on the way, or freeze them by "
            "requires_grad_(False)",
        )
    stray = used - wanted - {arg for arg in args if isinstance(arg, Tensor)}
    if stray:  # those that the program does not make itself in each run
        stray &= set(leaves_of(objective.differentiable_loss(model, guide, *args, **kwargs)))
    if stray:
        told = [names.get(p, f"a tensor of shape {tuple(p.shape)}") for p in stray]
        yield Finding(
            "parameters",
            "",
            f"the loss depends on parameters that no Pyro statement names: {_list(told)}; SVI "
            "does not train them",
            UNSEEN,
        )


def _named(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in module.named_parameters():
        yield f"{type(module).__name__}.{name}", parameter


def _list(names: Sequence[str]) -> str:
    ordered = sorted(dict.fromkeys(names))
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + more


@contextmanager
def unchanged(objective: Objective, model: Program, guide: Program) -> Iterator[None]:
    """Restores an objective, and attributes and buffers of all modules that are called inside."""
    kept: dict[int, tuple[Any, dict[str, Any], list[tuple[Tensor, Tensor]]]] = {}

    def keep(part: Any) -> None:
        if id(part) not in kept:
            held = {k: copy.copy(v) if _is_plain(v) else v for k, v in vars(part).items()}
            buffers = part.buffers(recurse=False) if isinstance(part, nn.Module) else ()
            kept[id(part)] = part, held, [(b, b.clone()) for b in buffers]

    def keep_all(module: nn.Module, *_: Any) -> None:
        for part in module.modules():
            keep(part)

    for part in (objective, *getattr(objective, "terms", ())):
        keep(part)
    for module in modules_of(model, guide, objective):
        keep_all(module)
    try:
        with register_module_forward_pre_hook(keep_all):
            yield
    finally:
        for part, held, buffers in kept.values():
            vars(part).clear()
            vars(part).update(held)
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.detach().copy_(value)


def _is_plain(value: Any) -> bool:
    return isinstance(value, dict | list | set)
