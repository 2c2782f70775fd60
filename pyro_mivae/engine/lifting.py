"""Takes random numbers, and numbers that differ, out of staged graphs: they become inputs."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pyro_mivae.errors import StagingError

aten = torch.ops.aten
Node = Any
"""An ``fx.Node``, whose arguments may be anything."""

SHAPE_ONLY = frozenset(
    {
        f"aten::{name}"
        for name in (
            "empty_like zeros_like ones_like full_like rand_like randn_like randint_like "
            "new_empty new_zeros new_ones new_full new_empty_strided"
        ).split()
    }
)
"""Operations that take nothing but shape, type and device from their first argument."""

OVERWRITING = frozenset(
    f"aten::{name}_"
    for name in "normal uniform exponential bernoulli random cauchy log_normal geometric".split()
)
"""Operations that fill their first argument with random numbers, whatever it held."""

BERNOULLIS = (aten.bernoulli.default, aten.bernoulli_.Tensor)
NORMALS = (aten.normal.Tensor_Tensor, aten.normal.Tensor_float, aten.normal.float_Tensor)
WITH_TENSOR: dict[Any, Any] = {aten.pow.Tensor_Scalar: aten.pow.Tensor_Tensor}
"""What takes a number, and the same operation on a tensor."""


@dataclass(frozen=True)
class Lifted:
    """A staged graph without random numbers of its own.

    Attributes:
        graph: Called with what the staged graph is called with, then the noise, one by one.
        noise: Called with nothing; draws the noise from the default generators by the very calls
            of the staged graph, in their order.
    """

    graph: fx.GraphModule
    noise: fx.GraphModule


def lift_noise(graph: fx.GraphModule) -> Lifted:
    """Takes the random numbers out of a graph.

    Args:
        graph: A staged graph; it is left as it is.

    Returns:
        A graph that is given its noise, and one that draws it.

    Raises:
        StagingError: If random numbers are drawn in a way that depends on data.
    """
    graph = fx.GraphModule(graph, _copy(graph.graph))
    for node in list(graph.graph.nodes):
        if _is_random(node):
            _separate(graph.graph, node)
    free = _free_nodes(graph.graph)
    drawn = [node for node in graph.graph.nodes if _is_random(node)]
    for node in drawn:
        if node not in free:
            raise StagingError(
                f"{node.target} draws random numbers in a way that depends on data, which is not "
                "to be had for several models at once"
            )
    values = [leaf for node in drawn for leaf in _leaves(node)]
    values = [leaf for leaf in values if any(user not in drawn for user in leaf.users)]
    noise = _extract(graph, [n for n in graph.graph.nodes if n in free], drawn, values)
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    for value in values:
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(f"noise_{value.name}")
        last.meta = dict(value.meta)
        value.replace_all_uses_with(last, lambda user: user not in drawn)
    for node in reversed(drawn):
        for user in list(node.users):  # draws into the same tensor, and parts that none uses
            graph.graph.erase_node(user)
        graph.graph.erase_node(node)
    return Lifted(_finished(graph), noise)


@dataclass(frozen=True)
class Place:
    """Where a graph holds a number, or a constant tensor, that differs between models.

    Attributes:
        node: Position of the node in the graph.
        leaf: Position among the node's flattened arguments; -1 for a constant tensor.
    """

    node: int
    leaf: int


def find_differences(first: fx.GraphModule, other: fx.GraphModule) -> set[Place] | None:
    """Walks two graphs side by side.

    Args:
        first: A graph.
        other: Another.

    Returns:
        Where they hold other numbers; None if they differ by more, or where no tensor can take
        a number's place.
    """
    nodes, others = list(first.graph.nodes), list(other.graph.nodes)
    if len(nodes) != len(others):
        return None
    known = dict(zip(others, nodes, strict=True))
    places = set()
    for position, (node, twin) in enumerate(zip(nodes, others, strict=True)):
        if node.op != twin.op or (node.op == "call_function" and node.target != twin.target):
            return None
        if node.op == "get_attr":
            constants = [getattr(graph, n.target) for graph, n in ((first, node), (other, twin))]
            if not _same_kind(*constants):
                return None
            if not torch.equal(*constants):
                places.add(Place(position, -1))
            continue
        leaves, form = pytree.tree_flatten((node.args, node.kwargs))
        twins, twin_form = pytree.tree_flatten((twin.args, twin.kwargs))
        if form != twin_form:
            return None
        for index, (leaf, value) in enumerate(zip(leaves, twins, strict=True)):
            if isinstance(value, fx.Node):
                if known[value] is not leaf:
                    return None
            elif type(leaf) is not type(value):
                return None
            elif leaf != value and not (leaf != leaf and value != value):
                if not _takes_tensor(node, index):
                    return None
                places.add(Place(position, index))
    return places


def lift_numbers(graph: fx.GraphModule, places: Sequence[Place]) -> fx.GraphModule:
    """Makes numbers of a graph its last inputs.

    Args:
        graph: The graph; it is left as it is.
        places: Where they stand.

    Returns:
        A graph that is called with the values of `numbers_at` after everything else.
    """
    graph = fx.GraphModule(graph, _copy(graph.graph))
    nodes = list(graph.graph.nodes)
    last = [node for node in nodes if node.op == "placeholder"][-1]
    for place in places:
        node = nodes[place.node]
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(f"number_{place.node}_{max(place.leaf, 0)}")
        if place.leaf < 0:
            node.replace_all_uses_with(last)
            continue
        leaves, form = pytree.tree_flatten((node.args, node.kwargs))
        leaves[place.leaf] = last
        node.args, node.kwargs = pytree.tree_unflatten(leaves, form)
        node.target = WITH_TENSOR.get(node.target, node.target)
    return _finished(graph)


def numbers_at(graph: fx.GraphModule, places: Sequence[Place], device: Any) -> list[Tensor]:
    """Gives the numbers that a graph holds, each as the tensor that takes its place.

    Args:
        graph: A graph, as `find_differences` compared it.
        places: Where they stand.
        device: Device of the data.
    """
    nodes, values = list(graph.graph.nodes), []
    for place in places:
        node = nodes[place.node]
        if place.leaf < 0:
            values.append(getattr(graph, node.target))
        else:
            number = pytree.tree_leaves((node.args, node.kwargs))[place.leaf]
            values.append(torch.tensor(number, dtype=node.meta["val"].dtype, device=device))
    return values


def _separate(graph: fx.Graph, node: Node) -> None:
    """Puts draws that depend on data as a function of draws that do not, to the same values."""
    target, val = node.target, node.meta.get("val")
    args, out = node.args, node
    with graph.inserting_before(node):
        if target in BERNOULLIS:
            if val.device.type != "cpu":
                return  # the device draws in another order there
            probs = args[0] if target is aten.bernoulli.default else args[1]
            uniform = _draw(graph, aten.uniform_.default, val, probs.meta["val"].dtype)
            less = graph.call_function(aten.lt.Tensor, (uniform, probs))
            out = graph.call_function(aten._to_copy.default, (less,), {"dtype": val.dtype})
            if target is aten.bernoulli_.Tensor:
                out = graph.call_function(aten.copy_.default, (args[0], out))
        elif target in NORMALS:
            normal = _draw(graph, aten.normal_.default, val, val.dtype)
            scaled = graph.call_function(aten.mul.Tensor, (normal, args[1]))
            out = graph.call_function(aten.add.Tensor, (scaled, args[0]))
        elif target is aten.native_dropout.default and args[2] is not False:
            _separate_dropout(graph, node)
            return
        elif target._schema.name in OVERWRITING and args[0] not in _free_nodes(graph):
            drawn = _draw(graph, target, args[0].meta["val"], None, *args[1:])
            out = graph.call_function(aten.copy_.default, (args[0], drawn))
        else:
            return
    out.meta = dict(node.meta)
    node.replace_all_uses_with(out)
    graph.erase_node(node)


def _separate_dropout(graph: fx.Graph, node: Node) -> None:
    """Draws the mask on ones, and applies it."""
    x, p, _ = node.args
    ones = graph.call_function(aten.ones_like.default, (x,))
    ones.meta = dict(x.meta)
    pair = graph.call_function(aten.native_dropout.default, (ones, p, True))
    mask = graph.call_function(operator.getitem, (pair, 1))
    kept = graph.call_function(aten.mul.Tensor, (x, mask))
    scaled = graph.call_function(aten.mul.Tensor, (kept, 1.0 / (1.0 - p) if p < 1 else 0.0))
    for user in list(node.users):
        user.replace_all_uses_with((scaled, mask)[user.args[1]])
        graph.erase_node(user)
    graph.erase_node(node)


def _draw(graph: fx.Graph, target: Any, like: Any, dtype: Any, *args: Any) -> Node:
    """A draw into a fresh tensor."""
    options = {"dtype": dtype or like.dtype, "device": like.device}
    empty = graph.call_function(aten.empty_strided.default, (like.shape, like.stride()), options)
    return graph.call_function(target, (empty, *args))


def _is_random(node: Node) -> bool:
    target = node.target
    return (
        isinstance(target, torch._ops.OpOverload)
        and torch.Tag.nondeterministic_seeded in target.tags
    )


def _inputs(node: Node) -> list[Node]:
    """The nodes whose values a node takes."""
    found: list[Node] = node.all_input_nodes
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and (
        target._schema.name in SHAPE_ONLY or target is aten.bernoulli.p
    ):
        return [n for n in found if n is not node.args[0]]
    return found


def _free_nodes(graph: fx.Graph) -> set[Node]:
    """The nodes whose values depend on no input."""
    free: set[Node] = set()
    for node in graph.nodes:
        if node.op == "get_attr" or (
            node.op == "call_function" and all(n in free for n in _inputs(node))
        ):
            free.add(node)
    return free


def _leaves(node: Node) -> list[Node]:
    """The tensors that a node gives."""
    parts = [user for user in node.users if user.target is operator.getitem]
    return parts or [node]


def _extract(
    graph: fx.GraphModule,
    free: Sequence[Node],
    drawn: Sequence[Node],
    values: Sequence[Node],
) -> fx.GraphModule:
    """A graph of the draws and what they need."""
    needed = set(drawn) | set(values)
    for node in reversed(free):
        if node in needed:
            needed.update(_inputs(node))
    noise, copies = fx.Graph(), {}
    for node in free:
        if node not in needed:
            continue
        for shape in set(node.all_input_nodes) - set(_inputs(node)):
            like = shape.meta["val"]
            copies[shape] = noise.call_function(
                aten.empty_strided.default,
                (like.shape, like.stride()),
                {"dtype": like.dtype, "device": like.device},
            )
        copies[node] = noise.node_copy(node, copies.__getitem__)
    noise.output(tuple(copies[value] for value in values))
    return fx.GraphModule(graph, noise)


def _copy(graph: fx.Graph) -> fx.Graph:
    copied = fx.Graph()
    copied.output(copied.graph_copy(graph, {}))
    return copied


def _finished(graph: fx.GraphModule) -> fx.GraphModule:
    graph.graph.lint()
    graph.recompile()
    return graph


def _same_kind(a: Any, b: Any) -> bool:
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
    )


def _takes_tensor(node: Node, leaf: int) -> bool:
    """Whether a tensor can stand for a number among a node's arguments."""
    val, target = node.meta.get("val"), node.target
    if not isinstance(target, torch._ops.OpOverload) or leaf >= len(node.args):
        return False
    if any(isinstance(arg, list | tuple) for arg in node.args):
        return False  # leaves are not arguments then
    number = node.args[leaf]
    if not isinstance(number, float | int) or isinstance(number, bool):
        return False
    if not isinstance(val, Tensor) or not val.is_floating_point() or not math.isfinite(number):
        return False
    return target in WITH_TENSOR or str(target._schema.arguments[leaf].type) == "Tensor"
