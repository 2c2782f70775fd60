"""A staged step with less to do: no operation that gives its argument, none that is done twice."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyro_mivae.engine.constants import HELD
from pyro_mivae.engine.nodes import all_changed, is_impure, is_view, origin

aten = torch.ops.aten
NEUTRAL = {
    aten.add.Tensor: 0,
    aten.sub.Tensor: 0,
    aten.mul.Tensor: 1,
    aten.mul.Scalar: 1,
    aten.div.Tensor: 1,
    aten.pow.Tensor_Scalar: 1,
}
"""The second operand with which an operation gives its first."""


def simplify(graph: GraphModule) -> None:
    """Leaves out what changes nothing, and what was computed before; results stay the same.

    Distributions divide by a scale of one, take the negative of a negative, and see a tensor in
    the shape that it has. Each costs a launch on a device, and microseconds on a CPU.
    """
    unsafe = all_changed(graph.graph)
    outputs = graph.graph.output_node().all_input_nodes
    results = {*outputs, *map(origin, outputs)}  # they keep memory of their own
    known: dict[str, Node] = {}
    for node in list(graph.graph.nodes):
        if node in results or is_impure(node):
            continue
        if any(origin(used) in unsafe for used in (node, *node.all_input_nodes)):
            continue
        given_back = _given_back(graph, node) if node.op == "call_function" else None
        same = given_back or known.setdefault(_signature(node), node)
        if same is not node:
            node.replace_all_uses_with(same)
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code(is_impure)


def _given_back(graph: GraphModule, node: Any) -> Node | None:
    """What a node gives that was there before."""
    if is_view(node):
        return _same_view(node)
    first: Any = node.args[0] if node.args else None
    if node.target == aten.cat.default and len(node.args[0]) == 1:
        (first,) = node.args[0]
    elif node.target == aten.neg.default and first.target == aten.neg.default:
        (first,) = first.args
    elif node.target not in NEUTRAL or node.kwargs:
        return None
    elif not _is_number(graph, node.args[1], NEUTRAL[node.target]):
        return None
    if not isinstance(first, Node):
        return None
    before, after = first.meta["val"], node.meta["val"]
    return first if (before.shape, before.dtype) == (after.shape, after.dtype) else None


def _same_view(node: Any) -> Node | None:
    """The tensor, or the view of it, that looks as a view does."""
    earlier = node
    while is_view(earlier):
        earlier = earlier.args[0]
        if earlier.meta["val"] == node.meta["val"] is not None:
            return earlier
    return None


def _is_number(graph: GraphModule, operand: Any, number: int) -> bool:
    if not isinstance(operand, Node):
        return bool(operand == number)
    if operand.op != "get_attr" or not str(operand.target).startswith(HELD):
        return False
    value = getattr(graph, str(operand.target))
    return not value.is_meta and bool((value == number).all())


def _signature(node: Node) -> str:
    return f"{node.target}({node.args}, {node.kwargs})"
