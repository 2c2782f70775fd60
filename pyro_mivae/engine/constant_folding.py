"""Constants of a traced step: computed once, and kept on its device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from pyro_mivae.compat import version_of
from pyro_mivae.engine.fx_utils import all_changed, is_impure, origin

aten = torch.ops.aten
HELD = "_held_constant"  # prefix of the names of held constants


def hold_constants(module: GraphModule) -> None:
    """Stores the constants of a tape, instead of making them in every step.

    ``torch.tensor(0.0, device="cuda")`` copies a number from the CPU to the device: a step would
    wait for it, and a captured step must not. External tensors are read in every step.
    """
    graph, changed = module.graph, all_changed(module.graph)
    values: dict[Node, Tensor] = {}
    for node in graph.nodes:
        value, version = node.meta.pop("constant", (None, 0))
        stays = not is_impure(node) and origin(node) not in changed
        if value is not None and stays and version_of(value) == version:
            values[node] = value
    names: dict[Node, str] = {}

    def held(node: Node) -> Node:
        if node not in values:
            return node
        if node not in names:
            names[node] = register(module, _compact(values[node]))
        new = graph.get_attr(names[node])
        new.meta = dict(node.meta)
        return new

    for node in list(graph.nodes):
        if node.op == "call_function" and node not in values:
            with graph.inserting_before(node):
                node.args = map_arg(node.args, held)
    graph.eliminate_dead_code(is_impure)


def register(module: GraphModule, value: Tensor) -> str:
    """Adds a constant to a graph's module, and returns its name."""
    name = f"{HELD}{len(list(module.buffers()))}"
    module.register_buffer(name, value, persistent=False)
    return name


def constant_of(module: GraphModule, operand: Any) -> Any:
    """Returns the value of a held constant, or None."""
    if not isinstance(operand, Node) or not str(operand.target).startswith(HELD):
        return None
    value = getattr(module, str(operand.target))
    return None if value.is_meta else value


def number_of(module: GraphModule, operand: Any) -> float | None:
    """Returns the number in all elements of an operand, or None if it is not constant."""
    if isinstance(operand, int | float) and not isinstance(operand, bool):
        return float(operand)
    value = constant_of(module, operand)
    if value is None or not value.numel() or not value.is_floating_point():
        return None
    first = value.flatten()[0]
    return float(first) if bool((value == first).all()) else None


def spell_out(module: GraphModule) -> None:
    """Creates a held constant with one number inside the graph, visible to a compiler."""
    for node in list(module.graph.nodes):
        value = constant_of(module, node)
        if value is None or (value.numel() and any(value.stride())):
            continue
        kept = {"dtype": value.dtype, "device": value.device}
        with module.graph.inserting_before(node):
            number = value.flatten()[0].item()
            full = module.graph.call_function(aten.full.default, (value.shape, number), kept)
        full.meta = dict(node.meta)
        node.replace_all_uses_with(full)
        module.graph.erase_node(node)


def _compact(value: Tensor) -> Tensor:
    """Keeps one number for many equal ones, expanded to the shape."""
    value = value.detach()
    if value.is_meta or value.numel() < 2:
        return value.clone()
    first = value.flatten()[0].clone()
    return first.expand(value.shape) if bool((value == first).all()) else value.clone()
