"""Fewer operations in a traced step, with results equal to rounding.

Each operation is a launch, which costs more on a device than the operation itself.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch.fx import GraphModule, Node

from pyro_mivae.engine.constant_folding import number_of, register
from pyro_mivae.engine.fx_utils import (
    Layout,
    are_alike,
    is_impure,
    is_single,
    layout,
    sources,
    views_of,
)
from pyro_mivae.engine.rewriting import Rewriter, difference, late_negation, negative_of_negative

aten = torch.ops.aten
SCALINGS = (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.neg.default)


def fuse_rounding(module: GraphModule) -> None:
    """Joins operations, so that one rounding replaces several; results are equal to rounding.

    Inputs of the ledger stay equal to the bit, except sums of all elements. Otherwise a threshold
    such as a ReLU could turn rounding into a large difference of the gradient.
    """
    rewriter = Rewriter(module)
    results: Any = module.graph.output_node().args[0]
    exact = sources(results[0])
    rewriter.apply([sum_of_sum])
    rewriter.apply([negative_of_negative, late_negation, difference])
    rewriter.apply([scaling_of_scaling, sum_with_product], exact)
    rewriter.merge_equal()
    results = module.graph.output_node().args[0]
    rewriter.apply([product_onto_product, sum_onto_sum], sources(results[0]))


def sum_of_sum(rewriter: Rewriter, node: Any) -> Node | None:
    """A sum of partial sums is one sum."""
    if node.target != aten.sum.default or node.kwargs:
        return None
    (inner,) = node.args
    if not is_single(inner) or inner.target != aten.sum.dim_IntList or inner.kwargs:
        return None
    if layout(inner.args[0]).dtype != layout(node).dtype:
        return None
    return rewriter.call(aten.sum.default, inner.args[0], like=node)


def scaling_of_scaling(rewriter: Rewriter, node: Any) -> Node | None:
    """Constant factors are multiplied in advance."""
    term = _term(rewriter, node)
    if term.absorbed < 2 or not are_alike(node, *term.factors):
        return None
    if len(term.factors) == 2 and term.coefficient == 1:
        target = aten.div.Tensor if term.is_quotient else aten.mul.Tensor
        return rewriter.call(target, *term.factors, like=node)
    if len(term.factors) == 1 and term.coefficient == -1:
        return rewriter.call(aten.neg.default, *term.factors, like=node)
    if len(term.factors) == 1:
        return rewriter.call(aten.mul.Tensor, *term.factors, term.coefficient, like=node)
    return None


class _Term(NamedTuple):
    """A number times one tensor, the product of two, or the quotient of two."""

    coefficient: float
    factors: tuple[Any, ...]
    absorbed: int = 0  # number of operations that compute it so far
    is_quotient: bool = False


def sum_with_product(rewriter: Rewriter, node: Any) -> Node | None:
    """A product and its addition become one operation."""
    if node.target not in (aten.add.Tensor, aten.sub.Tensor) or node.kwargs:
        return None
    a, b = node.args
    if not isinstance(b, Node):
        return None
    sign = 1.0 if node.target == aten.add.Tensor else -1.0
    choices = [(a, b, sign)] + [(b, a, 1.0)] * (sign == 1.0)
    found = [
        (base, _term(rewriter, other), sign) for base, other, sign in choices if is_single(other)
    ]
    for base, term, sign in sorted(found, key=lambda one: -one[1].absorbed):
        if not term.absorbed or not are_alike(node, base, *term.factors):
            continue
        number = sign * term.coefficient
        if len(term.factors) == 1:
            return rewriter.call(aten.add.Tensor, base, *term.factors, like=node, alpha=number)
        target = aten.addcdiv.default if term.is_quotient else aten.addcmul.default
        return rewriter.call(target, base, *term.factors, like=node, value=number)
    return None


def product_onto_product(rewriter: Rewriter, node: Any) -> Node | None:
    """In a sum of two matrix products, one is accumulated onto the other."""
    if node.target != aten.add.Tensor or node.kwargs:
        return None
    for first, second in (node.args, node.args[::-1]):
        if not is_single(first) or not is_single(second) or second.target != aten.mm.default:
            continue
        if first.target in (aten.mm.default, aten.addmm_.default) and are_alike(node, first):
            return rewriter.call(aten.addmm_.default, first, *second.args, like=node)
    return None


def sum_onto_sum(rewriter: Rewriter, node: Any) -> Node | None:
    """In a sum of two sums over rows, one is accumulated onto the other by a product with ones."""
    if node.target != aten.add.Tensor or node.kwargs or len(layout(node).shape) != 1:
        return None
    first, second = node.args
    if not all(map(_is_sum_over_rows, node.args)) or not are_alike(node, first, second):
        return None
    rows = views_of(second)[-1].args[0]
    wanted = layout(rows)
    ones = torch.ones(wanted.shape[0], dtype=wanted.dtype, device=wanted.device)
    transposed = rewriter.call(aten.t.default, rows, like=rows)
    transposed.meta["val"] = wanted._replace(
        shape=torch.Size(reversed(wanted.shape)), stride=wanted.stride[::-1]
    )
    held = rewriter.module.graph.get_attr(register(rewriter.module, ones))
    held.meta["val"] = Layout.of(ones)
    return rewriter.call(aten.addmv_.default, first, transposed, held, like=node)


def _is_sum_over_rows(node: Any) -> bool:
    """Returns True for a sum over the rows of a matrix, without other users."""
    chain = views_of(node) if isinstance(node, Node) else [node]
    last = chain[-1]
    return (
        all(map(is_single, chain))
        and last.target == aten.sum.dim_IntList
        and last.args[1] == [0]
        and len(layout(last.args[0]).shape) == 2
    )


def _term(rewriter: Rewriter, node: Any) -> _Term:
    """Splits a product into factors, and these too if they have no other users."""
    scaled = _scaled(rewriter, node)
    if scaled is not None:
        inner = _inner_term(rewriter, scaled.factors[0])
        number = scaled.coefficient * inner.coefficient
        return inner._replace(coefficient=number, absorbed=inner.absorbed + 1)
    if node.target == aten.pow.Tensor_Scalar and node.args[1] == 2:
        return _Term(1.0, (node.args[0], node.args[0]), 1)
    is_quotient = node.target == aten.div.Tensor
    if node.target != aten.mul.Tensor and not is_quotient:
        return _Term(1.0, (node,))
    if not all(isinstance(arg, Node) for arg in node.args):
        return _Term(1.0, (node,))
    parts = [_inner_term(rewriter, arg) for arg in node.args]
    if any(len(part.factors) > 1 or not part.coefficient for part in parts):
        return _Term(1.0, node.args, 1, is_quotient)
    number, other = (part.coefficient for part in parts)
    number = number / other if is_quotient else number * other
    absorbed = 1 + sum(part.absorbed for part in parts)
    return _Term(number, tuple(part.factors[0] for part in parts), absorbed, is_quotient)


def _inner_term(rewriter: Rewriter, node: Any) -> _Term:
    if is_single(node) and not is_impure(node) and rewriter.is_safe(node):
        return _term(rewriter, node)
    return _Term(1.0, (node,))


def _scaled(rewriter: Rewriter, node: Any) -> _Term | None:
    """Splits a product of a tensor and a number."""
    if node.target == aten.neg.default:
        return _Term(-1.0, node.args, 1)
    if node.kwargs or node.target not in (*SCALINGS, aten.add.Tensor):
        return None
    a, b = node.args
    if node.target == aten.add.Tensor:
        return _Term(2.0, (a,), 1) if a is b else None
    pairs = [(a, b)] if node.target == aten.div.Tensor else [(a, b), (b, a)]
    for x, factor in pairs:
        number = number_of(rewriter.module, factor)
        if number is None or not isinstance(x, Node) or layout(x).shape != layout(node).shape:
            continue
        if node.target == aten.div.Tensor:
            number = 1 / number if number else math.nan
        if math.isfinite(number) and layout(x).dtype == layout(node).dtype:
            return _Term(number, (x,), 1)
    return None
