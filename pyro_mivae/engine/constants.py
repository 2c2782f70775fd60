"""Numbers that a program writes in its text: made once, and on its device."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten
COPIES = (aten.lift_fresh_copy.default, aten._to_copy.default)


def hold_constants(graph: GraphModule) -> None:
    """Keeps what a graph makes of constants alone, in place of making it at every step.

    ``torch.tensor(0.0, device="cuda")`` copies a number from the CPU to the device, for which a
    step would wait, and which a step that is captured may not do at all.

    Args:
        graph: A graph that was traced. It is changed.
    """
    written = {_origin(node) for writer in graph.graph.nodes for node in _written(writer)}
    held: dict[Node, torch.Tensor] = {}
    for node in list(graph.graph.nodes):
        if node.target not in COPIES or node in written:
            continue
        (source,) = node.args
        if source in held:
            value = held[source]
        elif source.op == "get_attr" and node.target == aten.lift_fresh_copy.default:
            value = getattr(graph, source.target)
        else:
            continue
        name = f"_held_constant{len(held)}"
        graph.register_buffer(name, node.target(value, **node.kwargs), persistent=False)
        with graph.graph.inserting_before(node):
            new = graph.graph.get_attr(name)
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        graph.graph.erase_node(node)
        held[new] = getattr(graph, name)
    graph.recompile()


def _written(node: Node) -> list[Any]:
    """The arguments that an operation changes."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    declared = node.target._schema.arguments
    return [
        value
        for value, argument in zip(node.args, declared, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def _origin(node: Any) -> Any:
    """What a node is a view of, or is itself."""
    while isinstance(node.target, torch._ops.OpOverload) and node.target.is_view:
        node = node.args[0]
    return node
