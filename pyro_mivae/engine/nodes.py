"""What the nodes of a traced graph do, beside giving a value."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, Node

from pyro_mivae.compat import schema_of

aten = torch.ops.aten
SILENT = (aten.native_batch_norm.default, aten.cudnn_batch_norm.default)
"""Operations that change running statistics without saying so."""


def is_impure(node: Node) -> bool:
    """Tells whether a node does more than give its value: changes a tensor, or draws numbers."""
    if node.op in ("placeholder", "output"):
        return True
    target: Any = node.target
    schema = schema_of(target)
    if schema is None:
        return False
    return schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags


def is_view(node: Any) -> bool:
    """Tells whether a node gives the memory of its first argument, seen in another way."""
    return schema_of(node.target) is not None and node.target.is_view


def origin(node: Any) -> Any:
    """Gives what a node is a view of, or has changed in place, or the node."""
    while (
        is_view(node)
        or is_in_place(node)
        or (node.target is operator.getitem and is_view(node.args[0]))
    ):
        node = node.args[0]
    return node


def is_in_place(node: Any) -> bool:
    """Tells whether a node changes its first argument and gives that."""
    schema = schema_of(node.target)
    if schema is None or not schema.is_mutable:
        return False
    first = schema.arguments[0].alias_info
    given = schema.returns[0].alias_info if schema.returns else None
    if first is None or given is None or not first.is_write:
        return False
    return bool(first.before_set == given.before_set)


def changed(node: Node) -> Iterator[Any]:
    """Gives the arguments that an operation changes."""
    schema = schema_of(node.target)
    if schema is None:
        return
    for index, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            named = node.kwargs.get(argument.name)
            value = node.args[index] if index < len(node.args) else named
            yield from value if isinstance(value, list | tuple) else (value,)
    if node.target in SILENT and node.args[5]:  # if it trains
        yield from node.args[3:5]


def all_changed(graph: Graph) -> set[Any]:
    """Gives every node whose memory is changed in place, by itself or through a view of it."""
    return {origin(value) for node in graph.nodes for value in changed(node)}
