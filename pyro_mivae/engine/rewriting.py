"""Replacement of a graph's nodes by others with the same value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_mivae.compat import is_erased
from pyro_mivae.engine.constant_folding import constant_of, number_of, register
from pyro_mivae.engine.fx_utils import Layout, all_changed, is_impure, origin

Rule = Callable[["Rewriter", Any], Node | None]


class Rewriter:
    """Applies rules to the nodes of a graph in order.

    A rule returns the node that takes another's place, or None. No rule applies where memory
    changes in place, and a result of the graph keeps memory of its own.
    """

    def __init__(self, module: GraphModule) -> None:
        self.module, self.graph = module, module.graph
        self._unsafe = all_changed(module.graph)
        outputs = self.graph.output_node().all_input_nodes
        self._results = {*outputs, *map(origin, outputs)}
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

    def merge_equal(self) -> None:
        """Replaces every node that computes what an earlier one has computed."""
        known: dict[str, Node] = {}
        for node in list(self.graph.nodes):
            if node in self._results or not self._may_replace(node):
                continue
            same = known.setdefault(f"{node.target}({node.args}, {node.kwargs})", node)
            if same is not node:
                node.replace_all_uses_with(same)
                self.graph.erase_node(node)

    def call(self, target: Any, *args: Any, like: Node, **kwargs: Any) -> Node:
        """Adds an operation before the node that is being replaced."""
        new = self.graph.call_function(target, args, kwargs)
        new.meta = dict(like.meta)
        self._added.append(new)
        return new

    def hold(self, value: Tensor) -> Node:
        """Adds a constant before the node that is being replaced."""
        new = self.graph.get_attr(register(self.module, value))
        new.meta["val"] = Layout.of(value)
        return new

    def constant(self, operand: Any) -> Any:
        """Returns the value of a held constant; see `constant_of`."""
        return constant_of(self.module, operand)

    def number(self, operand: Any) -> float | None:
        """Returns the number that an operand is in every element; see `number_of`."""
        return number_of(self.module, operand)

    def is_safe(self, node: Any) -> bool:
        """True if nothing changes the memory of a node, which may so be read elsewhere."""
        return origin(node) not in self._unsafe

    def _may_replace(self, node: Node) -> bool:
        return not is_impure(node) and all(map(self.is_safe, (node, *node.all_input_nodes)))

    def _step(self, node: Any, rules: tuple[Rule, ...]) -> Node | None:
        """Replaces a node by the first rule that can, and returns the node to look at next."""
        if not self._may_replace(node):
            return None
        for rule in rules:
            self._added = []
            with self.graph.inserting_before(node):
                new = rule(self, node)
            if new is None or (node in self._results and self._is_taken(new)):
                continue
            read = [new, *(used for added in self._added for used in added.all_input_nodes)]
            if all(map(self.is_safe, read)):
                if node in self._results:
                    self._results |= {new, origin(new)}
                node.replace_all_uses_with(new)
                self._erase(node)
                return new if new.op == "call_function" else None
            for added in reversed(self._added):
                self.graph.erase_node(added)
        return None

    def _is_taken(self, node: Any) -> bool:
        """True if the memory of a node belongs to an input, a constant or a result."""
        memory = origin(node)
        return memory in self._results or memory.op != "call_function"

    def _erase(self, node: Any) -> None:
        """Erases a node without users, and its arguments that have no others."""
        ahead = [node]
        while ahead:
            last = ahead.pop()
            if not last.users and not is_erased(last) and not is_impure(last):
                ahead += last.all_input_nodes
                self.graph.erase_node(last)
