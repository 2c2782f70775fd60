"""A staged step with fewer operations, each of which does what several did.

Each operation that is saved is a launch on a device.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch.fx import GraphModule, Node

from pyro_mivae.engine.nodes import is_impure, is_view
from pyro_mivae.engine.rewriting import (
    Rewriter,
    are_alike,
    is_single,
    layout,
    numel,
    sources,
    views_of,
)
from pyro_mivae.engine.simplify import simplify

aten = torch.ops.aten
SUMS = (aten.sum.default, aten.sum.dim_IntList)
SCALINGS = (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.neg.default)
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


def fuse(module: GraphModule) -> None:
    """Joins operations where one does what several did; results stay equal to the bit."""
    draw_noise(module)
    rewriter = Rewriter(module)
    rewriter.apply([identity_product, cast_of_cast])
    rewriter.apply([late_negation, early_scaling, zero_weight, difference])
    simplify(module)


def fuse_rounding(module: GraphModule) -> None:
    """Joins operations where one rounds once what several rounded; results stay equal to rounding.

    What the ledger depends on stays equal to the bit, but for sums of all elements: a threshold,
    as a ReLU's, makes of one rounding a large difference in the gradient. So do gradients by the
    result of a softmax, of which a difference is taken that is small beside them.
    """
    rewriter = Rewriter(module)
    of_softmax = [_softmax_gradient(node) for node in module.graph.nodes]
    results: Any = module.graph.output_node().args[0]
    exact = set().union(*map(sources, filter(None, (results[0], *of_softmax))))
    rewriter.apply([sum_of_sum, softmax_backward])
    rewriter.apply([late_negation, difference, zero_weight])
    rewriter.apply([scaling_of_scaling, zero_weight, sum_with_product], exact)
    simplify(module)
    rewriter.apply([product_onto_product, sum_onto_sum], sources(results[0]))


def draw_noise(module: GraphModule) -> None:
    """Draws standard normal numbers in one operation, the same numbers."""
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


def softmax_backward(rewriter: Rewriter, node: Any) -> Node | None:
    """The gradient of a log-softmax by one class is one operation."""
    gradient = _softmax_gradient(node)
    if gradient is None or gradient.target != aten.scatter_add.default:
        return None
    y = node.args[1].args[1].args[0]
    if not _is_multiplied(node) or layout(y) != layout(node):
        return None
    args = gradient, y, len(layout(node).shape) - 1, layout(node).dtype
    return rewriter.call(aten._log_softmax_backward_data.default, *args, like=node)


def difference(rewriter: Rewriter, node: Any) -> Node | None:
    """The sum with a negative is a difference."""
    if node.target != aten.add.Tensor or node.kwargs:
        return None
    for a, b in (node.args, node.args[::-1]):
        if is_single(b) and b.target == aten.neg.default and are_alike(node, a, b.args[0]):
            return rewriter.call(aten.sub.Tensor, a, b.args[0], like=node)
    return None


def identity_product(rewriter: Rewriter, node: Any) -> Node | None:
    """The product with an identity matrix is the other factor."""
    if node.target not in (aten.mm.default, aten.bmm.default):
        return None
    matrix, other = rewriter.constant(node.args[0]), node.args[1]
    if matrix is None or layout(other) != layout(node)._replace(offset=layout(other).offset):
        return None
    return other if bool((matrix == torch.eye(matrix.shape[-1]).to(matrix)).all()) else None


def cast_of_cast(rewriter: Rewriter, node: Any) -> Node | None:
    """A truth value cast to a whole number, and that to another type, is cast once."""
    if node.target != aten._to_copy.default or set(node.kwargs) - {"dtype", "device"}:
        return None
    (inner,) = node.args
    if inner.target != aten._to_copy.default or layout(inner).dtype != torch.long:
        return None
    (truth,) = inner.args
    if layout(truth).dtype != torch.bool or layout(truth).device != layout(node).device:
        return None
    return rewriter.call(aten._to_copy.default, truth, dtype=layout(node).dtype, like=node)


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


def late_negation(rewriter: Rewriter, node: Any) -> Node | None:
    """The negative of a sum, or of a view of no more elements, is taken after it."""
    if node.target == aten.neg.default and node.args[0].target == aten.neg.default:
        return node.args[0].args[0]
    if node.target not in SUMS and not is_view(node):
        return None
    negative = node.args[0]
    if not is_single(negative) or negative.target != aten.neg.default:
        return None
    x = negative.args[0]
    if layout(node) is None or numel(node) > numel(x) or not _same_memory(x, negative):
        return None
    after = rewriter.call(node.target, x, *node.args[1:], like=node, **node.kwargs)
    return rewriter.call(aten.neg.default, after, like=node)


def early_scaling(rewriter: Rewriter, node: Any) -> Node | None:
    """What is done to each element alone is done before the elements are repeated."""
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


def scaling_of_scaling(rewriter: Rewriter, node: Any) -> Node | None:
    """Factors that are numbers are multiplied beforehand."""
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


def zero_weight(rewriter: Rewriter, node: Any) -> Node | None:
    """``where(p == 0, 0, c p)`` is ``c p`` for a finite constant c."""
    if node.target != aten.where.self:
        return None
    condition, zero, product = node.args
    if condition.target != aten.eq.Scalar or condition.args[1] != 0 or rewriter.number(zero) != 0:
        return None
    if not isinstance(product, Node) or product.target not in (aten.mul.Tensor, aten.mul.Scalar):
        return None
    if layout(product) != layout(node):
        return None
    for probs, factor in (product.args, product.args[::-1]):
        if probs is condition.args[0] and _is_finite(rewriter, factor):
            return product
    return None


def _is_finite(rewriter: Rewriter, factor: Any) -> bool:
    value = rewriter.constant(factor)
    if value is not None:
        return bool(value.isfinite().all())
    return not isinstance(factor, Node) and math.isfinite(factor)


class _Term(NamedTuple):
    """A number times one tensor, the product of two, or the quotient of two."""

    coefficient: float
    factors: tuple[Any, ...]
    absorbed: int = 0
    """How many operations it takes as it is."""
    is_quotient: bool = False


def sum_with_product(rewriter: Rewriter, node: Any) -> Node | None:
    """A product and the sum that it is added in are one operation."""
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
    """The sum of two matrix products is one that is added to the other."""
    if node.target != aten.add.Tensor or node.kwargs:
        return None
    for first, second in (node.args, node.args[::-1]):
        if not is_single(first) or not is_single(second) or second.target != aten.mm.default:
            continue
        if first.target in (aten.mm.default, aten.addmm_.default) and are_alike(node, first):
            return rewriter.call(aten.addmm_.default, first, *second.args, like=node)
    return None


def sum_onto_sum(rewriter: Rewriter, node: Any) -> Node | None:
    """The sum of two sums over rows is one that is added to the other, as a product with ones."""
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
    return rewriter.call(aten.addmv_.default, first, transposed, rewriter.hold(ones), like=node)


def _is_sum_over_rows(node: Any) -> bool:
    """Returns whether a node is a sum over the rows of a matrix that nothing else uses."""
    chain = views_of(node) if isinstance(node, Node) else [node]
    last = chain[-1]
    return (
        all(map(is_single, chain))
        and last.target == aten.sum.dim_IntList
        and last.args[1] == [0]
        and len(layout(last.args[0]).shape) == 2
    )


def _softmax_gradient(node: Any) -> Any:
    """Returns g if a node is ``g + exp(y) sum(-g)``, where y is a log-softmax."""
    if node.target != aten.add.Tensor or node.kwargs or not isinstance(node.args[1], Node):
        return None
    gradient, product = node.args
    if not is_single(product) or product.target != aten.mul.Tensor:
        return None
    total, probs = product.args
    if not isinstance(probs, Node) or probs.target != aten.exp.default or not is_single(total):
        return None
    inner = total.args[0]
    targets = {total.target, inner.target}
    if targets != {aten.neg.default, aten.sum.dim_IntList} or inner.args[0] is not gradient:
        return None
    summed = total if total.target == aten.sum.dim_IntList else inner
    dims = [-1], [len(layout(node).shape) - 1]
    if summed.args[1:] not in [(d, True) for d in dims] or not _is_log_softmax(probs.args[0]):
        return None
    return gradient


def _is_log_softmax(node: Any) -> bool:
    """Returns whether a node is ``x - logsumexp(x)`` over the last dimension."""
    if node.target != aten.sub.Tensor or node.kwargs or not isinstance(node.args[1], Node):
        return False
    x, total = node.args
    last = len(layout(node).shape) - 1
    return (
        total.target == aten.logsumexp.default
        and total.args[0] is x
        and total.args[1:] in (([-1], True), ([last], True))
        and layout(x) == layout(node)
    )


def _is_multiplied(node: Any) -> bool:
    """Returns whether a node is used by products and sums alone, which take any strides."""
    of_strides = (aten.mm.default, aten.addmm.default, *SUMS)
    return all(
        user.target in of_strides or (user.target == aten.t.default and _is_multiplied(user))
        for user in node.users
    )


def _term(rewriter: Rewriter, node: Any) -> _Term:
    """Takes a product apart, and its factors as far as nothing else uses them."""
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
    """Takes a product of a tensor and a number apart."""
    if node.target == aten.neg.default:
        return _Term(-1.0, node.args, 1)
    if node.kwargs or node.target not in (*SCALINGS, aten.add.Tensor):
        return None
    a, b = node.args
    if node.target == aten.add.Tensor:
        return _Term(2.0, (a,), 1) if a is b else None
    pairs = [(a, b)] if node.target == aten.div.Tensor else [(a, b), (b, a)]
    for x, factor in pairs:
        number = rewriter.number(factor)
        if number is None or not isinstance(x, Node) or layout(x).shape != layout(node).shape:
            continue
        if node.target == aten.div.Tensor:
            number = 1 / number if number else math.nan
        if math.isfinite(number) and layout(x).dtype == layout(node).dtype:
            return _Term(number, (x,), 1)
    return None


def _same_memory(a: Any, b: Any) -> bool:
    return bool(layout(a)._replace(offset=0) == layout(b)._replace(offset=0))
