"""What a step makes of constants alone: made once, and on its device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from pyro_mivae.engine.nodes import all_changed, is_impure, origin

aten = torch.ops.aten
LITERAL = aten.lift_fresh_copy.default
FILLED_LIKE = (
    aten.ones_like.default,
    aten.zeros_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)
"""They take no more than a shape from their first argument."""

MADE_UP = (
    aten.ones.default,
    aten.zeros.default,
    aten.full.default,
    aten.scalar_tensor.default,
    aten.eye.default,
    aten.eye.m,
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
)
HELD = "_held_constant"
"""How the names of what is held begin."""


def hold_constants(graph: GraphModule) -> None:
    """Keeps what a graph makes of constants, in place of making it at every step.

    ``torch.tensor(0.0, device="cuda")`` copies a number from the CPU to the device, for which a
    step would wait, and which a step that is captured may not do at all. Tensors that the program
    finds elsewhere are read anew at every step.
    """
    constants = _Constants(graph)
    for node in graph.graph.nodes:
        if node.op == "call_function":
            constants.visit(node)
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node not in constants.values:
            with graph.graph.inserting_before(node):
                node.args = map_arg(node.args, constants.held)
    graph.graph.eliminate_dead_code(is_impure)


def spell_out(graph: GraphModule) -> None:
    """Makes a held constant of one number anew, so that a compiler sees the number."""
    for node in list(graph.graph.nodes):
        if node.op != "get_attr" or not str(node.target).startswith(HELD):
            continue
        value = getattr(graph, str(node.target))
        if value.numel() and any(value.stride()):
            continue
        number = value.flatten()[0].item()
        with graph.graph.inserting_before(node):
            kept = {"dtype": value.dtype, "device": value.device}
            full = graph.graph.call_function(aten.full.default, (value.shape, number), kept)
        full.meta = dict(node.meta)
        node.replace_all_uses_with(full)
        graph.graph.erase_node(node)


class _Constants:
    """The values of nodes that depend on nothing."""

    def __init__(self, graph: GraphModule) -> None:
        self.graph = graph
        self.values: dict[Node, Any] = {}
        self._changed = all_changed(graph.graph)
        self._names: dict[Node, str] = {}

    def visit(self, node: Node) -> None:
        """Computes a node's value if it is a constant."""
        target: Any = node.target
        if is_impure(node) or origin(node) in self._changed:
            return
        inputs = node.all_input_nodes
        if target == LITERAL and inputs[0].op == "get_attr":
            self.values[node] = target(getattr(self.graph, str(inputs[0].target)))
        elif target in MADE_UP:
            self.values[node] = target(*node.args, **node.kwargs)
        elif target in FILLED_LIKE:
            like, device = inputs[0].meta["val"], node.meta["val"].device
            shape = torch.empty_strided(like.shape, like.stride, dtype=like.dtype, device=device)
            self.values[node] = target(shape, *node.args[1:], **node.kwargs)
        elif inputs and all(argument in self.values for argument in inputs):
            args, kwargs = map_arg((node.args, node.kwargs), self.values.__getitem__)
            value = target(*args, **kwargs)
            if isinstance(value, Tensor | tuple):
                self.values[node] = value

    def held(self, node: Node) -> Node:
        """Gives what stands for a node: an attribute of the graph if it is constant."""
        if node not in self.values:
            return node
        if node not in self._names:
            name = self._names[node] = f"{HELD}{len(self._names)}"
            self.graph.register_buffer(name, _compact(self.values[node]), persistent=False)
        new = self.graph.graph.get_attr(self._names[node])
        new.meta = dict(node.meta)
        return new


def _compact(value: Tensor) -> Tensor:
    """Keeps one number for many that are the same, spread over the shape."""
    if value.is_meta or value.numel() < 2:
        return value.clone()
    first = value.flatten()[0].clone()
    return first.expand(value.shape) if bool((value == first).all()) else value.clone()
