"""Replacement of a graph's nodes by others that give the same."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_mivae.compat import is_erased
from pyro_mivae.engine.constants import HELD
from pyro_mivae.engine.nodes import all_changed, is_impure, is_view, origin
from pyro_mivae.engine.tape import Layout

Rule = Callable[["Rewriter", Any], Node | None]


class Rewriter:
    """Applies rules to the nodes of a graph in order."""

    def __init__(self, module: GraphModule) -> None:
        self.module, self.graph = module, module.graph
        self._unsafe = all_changed(module.graph)
        self._added: list[Node] = []

    def apply(self, rules: Iterable[Rule], skipped: Collection[Node] = ()) -> None:
        """Replaces every node that a rule has a replacement for, and what is not used after."""
        rules = tuple(rules)
        self.graph.eliminate_dead_code(is_impure)
        for node in list(self.graph.nodes):
            if node.op != "call_function" or is_erased(node) or node in skipped:
                continue
            current: Node | None = node
            while current is not None:
                current = self._step(current, rules)
        self.graph.eliminate_dead_code(is_impure)

    def call(self, target: Any, *args: Any, like: Node, **kwargs: Any) -> Node:
        """Adds an operation before the node that is being replaced."""
        new = self.graph.call_function(target, args, kwargs)
        new.meta = dict(like.meta)
        self._added.append(new)
        return new

    def hold(self, value: Tensor) -> Node:
        """Adds a constant before the node that is being replaced."""
        name = f"{HELD}_of_rule{len(list(self.module.buffers()))}"
        self.module.register_buffer(name, value, persistent=False)
        new = self.graph.get_attr(name)
        new.meta["val"] = Layout.of(value)
        return new

    def constant(self, operand: Any) -> Any:
        """Returns the value of a held constant, None of anything else."""
        if not isinstance(operand, Node) or operand.op != "get_attr":
            return None
        if not str(operand.target).startswith(HELD):
            return None
        value = getattr(self.module, str(operand.target))
        return None if value.is_meta else value

    def number(self, operand: Any) -> float | None:
        """Returns the number that an operand is in every element, None if it is no such."""
        if isinstance(operand, int | float) and not isinstance(operand, bool):
            return float(operand)
        value = self.constant(operand)
        if value is None or not value.numel() or not value.is_floating_point():
            return None
        first = value.flatten()[0]
        return float(first) if bool((value == first).all()) else None

    def is_safe(self, node: Any) -> bool:
        """Returns whether a node's value may be read elsewhere: nothing changes its memory."""
        return origin(node) not in self._unsafe

    def _step(self, node: Any, rules: tuple[Rule, ...]) -> Node | None:
        """Replaces a node by the first rule that can, and returns what to look at next."""
        if is_impure(node) or not all(map(self.is_safe, (node, *node.all_input_nodes))):
            return None
        for rule in rules:
            self._added = []
            with self.graph.inserting_before(node):
                new = rule(self, node)
            if new is None:
                continue
            read = [new, *(used for added in self._added for used in added.all_input_nodes)]
            if all(map(self.is_safe, read)):
                node.replace_all_uses_with(new)
                self._erase(node)
                return new if new.op == "call_function" else None
            for added in reversed(self._added):
                self.graph.erase_node(added)
        return None

    def _erase(self, node: Any) -> None:
        """Erases a node without users, and its arguments that have no others."""
        ahead = [node]
        while ahead:
            last = ahead.pop()
            if not last.users and not is_erased(last) and not is_impure(last):
                ahead += last.all_input_nodes
                self.graph.erase_node(last)


def layout(node: Any) -> Any:
    """Returns the layout of a node's value."""
    return node.meta.get("val")


def is_single(node: Any) -> bool:
    """Returns whether a node is an operation whose value is used once."""
    return isinstance(node, Node) and node.op == "call_function" and len(node.users) == 1


def numel(node: Any) -> int:
    """Returns the number of elements of a node's value."""
    return int(layout(node).shape.numel())


def views_of(node: Any) -> list[Any]:
    """Returns the views that lead to a node, the last first, and what they are views of."""
    chain = [node]
    while is_view(chain[-1]) and layout(chain[-1]) is not None:
        chain.append(chain[-1].args[0])
    return chain


def is_ordered(value: Any) -> bool:
    """Returns whether a layout has its larger strides first, as a contiguous tensor has."""
    strides = [s for s, n in zip(value.stride, value.shape, strict=True) if s and n > 1]
    return strides == sorted(strides, reverse=True)


def are_alike(node: Any, *operands: Any) -> bool:
    """Returns whether an elementwise operation on some operands has the layout of a node."""
    wanted = layout(node)
    values = [layout(operand) for operand in operands]
    if wanted is None or None in values or not is_ordered(wanted):
        return False
    if any((v.dtype, v.device) != (wanted.dtype, wanted.device) for v in values):
        return False
    return wanted.dtype.is_floating_point and all(map(is_ordered, values))


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
