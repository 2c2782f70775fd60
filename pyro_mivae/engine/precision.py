"""Reduced precision of matrix products, and of nothing else."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.fx import Graph, GraphModule, Node

from pyro_mivae.engine.fx_utils import is_impure, is_single, is_view
from pyro_mivae.errors import OptionError, StagingError

Precision = Literal["float32", "tf32", "bf16"]

aten = torch.ops.aten
WITH_SUMMAND = {
    aten.addmm.default: aten.mm.default,
    aten.addmm_.default: aten.mm.default,
    aten.baddbmm.default: aten.bmm.default,
}
"""Products with an addition, and the plain products."""

VIEWS = (
    aten.t.default,
    aten.transpose.int,
    aten.permute.default,
    aten.view.default,
    aten._unsafe_view.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.expand.default,
)
"""Rearrangements: their input is rounded before, only once."""


def check_precision(
    precision: Precision, dtype: torch.dtype, device: torch.device, engine: str
) -> None:
    """Checks that a precision is available for a type, a device and an engine."""
    if precision == "float32":
        return
    if dtype != torch.float32:
        raise OptionError(
            f"precision={precision!r} for a model in {str(dtype).removeprefix('torch.')}: it "
            "needs float32; convert the model, or leave precision out"
        )
    if precision == "bf16" and engine == "eager":
        raise OptionError(
            "precision='bf16' needs a staged step, but engine='eager' stages none; choose "
            "another engine, or leave precision out"
        )
    if precision == "tf32" and device.type != "cuda":
        raise OptionError(
            f"precision='tf32' needs NVIDIA's tensor cores, but the device is {device}; train on "
            "cuda, or leave precision out"
        )


def no_rounding(error: StagingError) -> StagingError:
    """Returns the error for ``"bf16"`` of a program that cannot be staged."""
    return StagingError(
        f"precision='bf16' needs a staged step, but it cannot be staged: {error}; leave "
        "precision out"
    )


@contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Multiplies float32 matrices in TF32 (10 bits of mantissa) inside, if requested.

    Torch's settings are restored afterwards. Convolutions use TF32 by torch's default.
    """
    backends: Any = torch.backends
    switches = [backends.cuda.matmul, backends.mkldnn.matmul]
    before = [switch.fp32_precision for switch in switches]
    if precision != "tf32" or before[0] == "tf32":
        yield
        return
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:  # torch refuses it after one of the switches was used
        older = None
    try:
        if older is None:
            switches[0].fp32_precision = "tf32"
        else:
            torch.set_float32_matmul_precision("high")  # torch's compiler reads no switch
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older)
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


def round_products(graph: GraphModule) -> GraphModule:
    """Makes a staged step multiply its matrices in bfloat16, forwards and backwards.

    Factors are rounded to bfloat16, with 8 bits of mantissa and the range of float32. The product
    runs on tensor cores, which sum in float32. Its result is rounded too, and converted back to
    float32. Everything else stays float32: densities, divergences and other sums, biases,
    parameters, gradients and the optimiser.
    """
    rounding = _Rounding(graph.graph)
    for node in list(graph.graph.nodes):
        if is_impure(node) and not _is_product(node):
            rounding.rounded.clear()  # it may change what was rounded
        with graph.graph.inserting_before(node):
            rounding.visit(node)
    graph.graph.eliminate_dead_code(is_impure)
    graph.recompile()
    return graph


class _Rounding:
    """Replaces the products of a graph, node by node."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.rounded: dict[Node, Node] = {}  # what is read in bfloat16

    def visit(self, node: Any) -> None:
        """Replaces a node if it is a product in float32."""
        if _is_product(node):
            if _is_float32(node):
                self._replace(node, self._product(node))
        elif node.target == aten.convolution.default:
            if _is_float32(node):
                self._replace(node, self._convolution(node))
        elif node.target == aten.convolution_backward.default and _is_float32(node.args[0]):
            self._convolution_backward(node)

    def _product(self, node: Any) -> Node:
        *summands, a, b = node.args
        target = WITH_SUMMAND.get(node.target, node.target)
        product = self._wide(self._call(target, self._narrow(a), self._narrow(b)))
        for summand in summands:
            beta, alpha = node.kwargs.get("beta", 1), node.kwargs.get("alpha", 1)
            weighed = self._call(aten.mul.Tensor, summand, beta) if beta != 1 else summand
            product = self._call(aten.add.Tensor, weighed, product, alpha=alpha)
        return product

    def _convolution(self, node: Any) -> Node:
        x, weight, bias, *how = node.args
        result = self._call(node.target, self._narrow(x), self._narrow(weight), None, *how)
        result = self._wide(result)
        if bias is None:
            return result
        over_space = [1, -1, *(1 for _ in node.meta["val"].shape[2:])]
        return self._call(aten.add.Tensor, result, self._call(aten.view.default, bias, over_space))

    def _convolution_backward(self, node: Any) -> None:
        gradient, x, weight, bias_sizes, *how, mask = node.args
        narrow = [self._narrow(tensor) for tensor in (gradient, x, weight)]
        result = self._call(node.target, *narrow, bias_sizes, *how, [*mask[:2], False])
        for part in list(node.users):
            index = part.args[1]
            if index < 2:
                new = self._wide(self._call(operator.getitem, result, index))
            else:
                others = [dim for dim in range(len(gradient.meta["val"].shape)) if dim != 1]
                new = self._call(aten.sum.dim_IntList, gradient, others)
            self._replace(part, new)

    def _narrow(self, node: Any) -> Node:
        """The node's value in bfloat16."""
        if node not in self.rounded:
            if node.target in VIEWS:
                base, *how = node.args
                self.rounded[node] = self._call(node.target, self._narrow(base), *how)
            else:
                self.rounded[node] = self._call(aten._to_copy.default, node, dtype=torch.bfloat16)
        return self.rounded[node]

    def _wide(self, node: Node) -> Node:
        return self._call(aten._to_copy.default, node, dtype=torch.float32)

    def _call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        return self.graph.call_function(target, args, kwargs)

    def _replace(self, old: Node, new: Node) -> None:
        new.meta = dict(old.meta)
        old.replace_all_uses_with(new)
        self.graph.erase_node(old)


def _is_float32(node: Any) -> bool:
    return bool(node.meta["val"].dtype == torch.float32)


def _is_product(node: Any) -> bool:
    """Returns True for a product; an in-place one must add to a tensor without other users."""
    if node.target == aten.addmm_.default:
        into = node.args[0]
        fresh = is_single(into) and not is_view(into)
        return fresh and (_is_product(into) or not is_impure(into))
    return node.target in (aten.mm.default, aten.bmm.default, *WITH_SUMMAND)
