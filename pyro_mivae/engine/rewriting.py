"""Replacement of a graph's nodes, and rules with bit-exact results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyro_mivae.compat import is_erased
from pyro_mivae.engine.constant_folding import constant_of, number_of
from pyro_mivae.engine.fx_utils import (
    all_changed,
    are_alike,
    is_impure,
    is_single,
    is_view,
    layout,
    numel,
    origin,
    views_of,
)

aten = torch.ops.aten
NEUTRAL = {
    aten.add.Tensor: 0,
    aten.sub.Tensor: 0,
    aten.mul.Tensor: 1,
    aten.mul.Scalar: 1,
    aten.div.Tensor: 1,
    aten.pow.Tensor_Scalar: 1,
}
"""The neutral second operand of an operation."""

SUMS = (aten.sum.default, aten.sum.dim_IntList)
UNARY = (aten.neg.default, aten.exp.default, aten.log.default, aten.mul.Scalar)
ELEMENTWISE = (
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.where.self,
    aten.addcmul.default,
    aten.softplus_backward.default,
    aten.sigmoid_backward.default,
    aten.threshold_backward.default,
)

Rule = Callable[["Rewriter", Any], Node | None]


class Rewriter:
    """Applies rules to the nodes of a graph in order.

    A rule returns the replacement of a node, or None. No rule applies to memory that changes in
    place, and results of the graph keep separate memory.
    """

    def __init__(self, module: GraphModule) -> None:
        self.module, self.graph = module, module.graph
        self._unsafe = all_changed(module.graph)
        outputs = self.graph.output_node().all_input_nodes
        self._results = {*outputs, *map(origin, outputs)}
        self._added: list[Node] = []

    def apply(self, rules: Iterable[Rule], skipped: Collection[Node] = ()) -> None:
        """Applies the rules to every node, and removes unused nodes."""
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
        """Replaces every node that repeats the computation of an earlier one."""
        known: dict[str, Node] = {}
        for node in list(self.graph.nodes):
            if node in self._results or not self._may_replace(node):
                continue
            same = known.setdefault(f"{node.target}({node.args}, {node.kwargs})", node)
            if same is not node:
                node.replace_all_uses_with(same)
                self.graph.erase_node(node)

    def call(self, target: Any, *args: Any, like: Node, **kwargs: Any) -> Node:
        """Adds an operation before the current node."""
        new = self.graph.call_function(target, args, kwargs)
        new.meta = dict(like.meta)
        self._added.append(new)
        return new

    def is_safe(self, node: Any) -> bool:
        """True if nothing changes the memory of a node, so it may be read elsewhere."""
        return origin(node) not in self._unsafe

    def _may_replace(self, node: Node) -> bool:
        return not is_impure(node) and all(map(self.is_safe, (node, *node.all_input_nodes)))

    def _step(self, node: Any, rules: tuple[Rule, ...]) -> Node | None:
        """Replaces a node by the first rule that can, and returns the node to look at next."""
        if not self._may_replace(node):
            return None
        new = self._replacement(node, rules)
        if new is None:
            return None
        if node in self._results:
            self._results |= {new, origin(new)}
        node.replace_all_uses_with(new)
        self._erase(node)
        return new if new.op == "call_function" else None

    def _replacement(self, node: Any, rules: tuple[Rule, ...]) -> Node | None:
        with self.graph.inserting_before(node):
            for rule in rules:
                self._added = []
                new = rule(self, node)
                if new is None:
                    continue
                memory = origin(new)
                taken = memory in self._results or memory.op != "call_function"
                if taken and node in self._results:
                    continue
                read = [new, *(used for added in self._added for used in added.all_input_nodes)]
                if all(map(self.is_safe, read)):
                    return new
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


def simplify(module: GraphModule) -> None:
    """Removes operations without effect and repeated ones; results stay the same.

    Distributions divide by a scale of one, negate twice, and expand a tensor to its own shape.
    Each costs a launch on a device, and microseconds on a CPU.
    """
    draw_noise(module)
    rewriter = Rewriter(module)
    for rules in (SHORTER, (*SHORTER, late_negation, early_scaling, difference)):
        rewriter.apply(rules)
        rewriter.merge_equal()


def draw_noise(module: GraphModule) -> None:
    """Draws standard normal numbers by ``randn``, the same as by filling an empty tensor."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.target != aten.normal_.default or node.kwargs:
            continue
        chain = views_of(node.args[0])
        empty = chain[-1]
        if empty.target != aten.empty.memory_format or node.args[1:] not in ((), (0.0, 1.0)):
            continue
        if not all(map(is_single, chain)) or layout(node) != layout(empty):
            continue
        kept = {name: empty.kwargs[name] for name in ("dtype", "device") if name in empty.kwargs}
        with graph.inserting_before(node):
            noise = graph.call_function(aten.randn.default, (empty.args[0],), kept)
        noise.meta = dict(node.meta)
        node.replace_all_uses_with(noise)
        for old in (node, *chain):
            graph.erase_node(old)


def same_view(rewriter: Rewriter, node: Any) -> Node | None:
    """A view equal to the tensor, or to an earlier view of it, is replaced by that."""
    earlier = node
    while is_view(earlier):
        earlier = earlier.args[0]
        if layout(earlier) == layout(node) is not None:
            return earlier
    return None


def neutral_operand(rewriter: Rewriter, node: Any) -> Node | None:
    """An operation with its neutral element, and ``cat`` of one tensor, is the first operand."""
    first: Any = node.args[0] if node.args else None
    if node.target == aten.cat.default and len(node.args[0]) == 1:
        (first,) = node.args[0]
    elif node.target not in NEUTRAL or node.kwargs:
        return None
    elif number_of(rewriter.module, node.args[1]) != NEUTRAL[node.target]:
        return None
    if not isinstance(first, Node):
        return None
    before, after = layout(first), layout(node)
    return first if (before.shape, before.dtype) == (after.shape, after.dtype) else None


def negative_of_negative(rewriter: Rewriter, node: Any) -> Node | None:
    """The negative of a negative is the number."""
    if node.target != aten.neg.default or node.args[0].target != aten.neg.default:
        return None
    return node.args[0].args[0]


def identity_product(rewriter: Rewriter, node: Any) -> Node | None:
    """The product with an identity matrix is the other factor."""
    if node.target not in (aten.mm.default, aten.bmm.default):
        return None
    matrix, other = constant_of(rewriter.module, node.args[0]), node.args[1]
    if matrix is None or layout(other) != layout(node)._replace(offset=layout(other).offset):
        return None
    return other if bool((matrix == torch.eye(matrix.shape[-1]).to(matrix)).all()) else None


def cast_of_cast(rewriter: Rewriter, node: Any) -> Node | None:
    """Two casts of a boolean, first to an integer, become one cast."""
    if node.target != aten._to_copy.default or set(node.kwargs) - {"dtype", "device"}:
        return None
    (inner,) = node.args
    if inner.target != aten._to_copy.default or layout(inner).dtype != torch.long:
        return None
    (truth,) = inner.args
    if layout(truth).dtype != torch.bool or layout(truth).device != layout(node).device:
        return None
    return rewriter.call(aten._to_copy.default, truth, dtype=layout(node).dtype, like=node)


def late_negation(rewriter: Rewriter, node: Any) -> Node | None:
    """A negation moves after a sum, or after a view that adds no elements."""
    if node.target not in SUMS and not is_view(node):
        return None
    negative = node.args[0]
    if not is_single(negative) or negative.target != aten.neg.default:
        return None
    x = negative.args[0]
    if layout(node) is None or numel(node) > numel(x):
        return None
    if layout(x)._replace(offset=0) != layout(negative)._replace(offset=0):
        return None
    after = rewriter.call(node.target, x, *node.args[1:], like=node, **node.kwargs)
    return rewriter.call(aten.neg.default, after, like=node)


def early_scaling(rewriter: Rewriter, node: Any) -> Node | None:
    """An elementwise operation moves before an expansion."""
    by_number = node.target == aten.mul.Tensor and not isinstance(node.args[1], Node)
    if node.target not in UNARY and not by_number:
        return None
    if not all(user.target in (*ELEMENTWISE, *UNARY) for user in node.users):
        return None
    chain = views_of(node.args[0])
    if numel(chain[-1]) >= numel(node) or 0 in layout(chain[-1]).stride:
        return None
    new = rewriter.call(node.target, chain[-1], *node.args[1:], like=chain[-1], **node.kwargs)
    for view in reversed(chain[:-1]):
        new = rewriter.call(view.target, new, *view.args[1:], like=view, **view.kwargs)
    return new


def difference(rewriter: Rewriter, node: Any) -> Node | None:
    """Adding a negative becomes a difference."""
    if node.target != aten.add.Tensor or node.kwargs:
        return None
    for a, b in (node.args, node.args[::-1]):
        if is_single(b) and b.target == aten.neg.default and are_alike(node, a, b.args[0]):
            return rewriter.call(aten.sub.Tensor, a, b.args[0], like=node)
    return None


SHORTER = (same_view, neutral_operand, negative_of_negative, identity_product, cast_of_cast)
