"""Facts about the nodes of a traced graph: effects, memory and layout."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, Node

from pyro_mivae.compat import is_collective, schema_of

aten = torch.ops.aten
SILENT = (aten.native_batch_norm.default, aten.cudnn_batch_norm.default)
"""Operations that change running statistics without a note in their schema."""


class Layout(NamedTuple):
    """Layout of a tensor in memory, without data; ``meta["val"]`` of a graph's nodes."""

    shape: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, value: Any) -> Layout | None:
        """Returns the layout of a tensor, or None for other values."""
        if not isinstance(value, Tensor):
            return None
        offset = int(value.storage_offset())
        return cls(value.shape, value.stride(), offset, value.dtype, value.device)

    @property
    def is_ordered(self) -> bool:
        """True if larger strides come first, as in a contiguous tensor."""
        strides = [s for s, n in zip(self.stride, self.shape, strict=True) if s and n > 1]
        return strides == sorted(strides, reverse=True)


def layout(node: Any) -> Any:
    """Returns the layout of a node's value."""
    return node.meta.get("val")


def numel(node: Any) -> int:
    """Returns the number of elements of a node's value."""
    return int(layout(node).shape.numel())


def are_alike(node: Any, *operands: Any) -> bool:
    """True if an elementwise operation on the operands gives the layout of a node."""
    wanted, values = layout(node), [layout(operand) for operand in operands]
    if wanted is None or None in values or not wanted.dtype.is_floating_point:
        return False
    same = all((v.dtype, v.device) == (wanted.dtype, wanted.device) for v in values)
    return same and wanted.is_ordered and all(v.is_ordered for v in values)


def is_single(node: Any) -> bool:
    """True if a node is an operation with a single use."""
    return isinstance(node, Node) and node.op == "call_function" and len(node.users) == 1


def is_impure(node: Node) -> bool:
    """True if a node has a side effect: it changes a tensor, draws numbers, or is a collective.

    Every process takes part in a collective, or the others wait.
    """
    target: Any = node.target
    schema = schema_of(target)
    if schema is None:
        return node.op in ("placeholder", "output")
    drawn = torch.Tag.nondeterministic_seeded in target.tags
    return schema.is_mutable or drawn or is_collective(target)


def is_view(node: Any) -> bool:
    """True if a node's value is a view of its first argument."""
    return schema_of(node.target) is not None and node.target.is_view


def is_in_place(node: Any) -> bool:
    """True if a node changes its first argument and returns it."""
    schema = schema_of(node.target)
    if schema is None or not schema.is_mutable:
        return False
    first = schema.arguments[0].alias_info
    given = schema.returns[0].alias_info if schema.returns else None
    if first is None or given is None or not first.is_write:
        return False
    return bool(first.before_set == given.before_set)


def views_of(node: Any) -> list[Any]:
    """Returns the views that lead to a node, the last first, and their base."""
    chain = [node]
    while is_view(chain[-1]) and layout(chain[-1]) is not None:
        chain.append(chain[-1].args[0])
    return chain


def origin(node: Any) -> Any:
    """Returns the base of a view or of an in-place change, or the node itself."""
    while (
        is_view(node)
        or is_in_place(node)
        or (node.target is operator.getitem and is_view(node.args[0]))
    ):
        node = node.args[0]
    return node


def all_changed(graph: Graph) -> set[Any]:
    """Returns every node whose memory changes in place, directly or through a view."""
    return {origin(value) for node in graph.nodes for value in _changed(node)}


def _changed(node: Node) -> Iterator[Any]:
    """Yields the arguments that an operation changes."""
    schema = schema_of(node.target)
    if schema is None:
        return
    for index, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            named = node.kwargs.get(argument.name)
            value = node.args[index] if index < len(node.args) else named
            yield from value if isinstance(value, list | tuple) else (value,)
    if node.target in SILENT and node.args[5]:  # it trains
        yield from filter(None, node.args[3:5])  # None: it keeps no statistics


def sources(node: Node) -> set[Node]:
    """Returns every node that a node depends on, and the node."""
    found: set[Node] = set()
    ahead = [node]
    while ahead:
        last = ahead.pop()
        if last not in found:
            found.add(last)
            ahead += last.all_input_nodes
    return found
