"""A tape: one real run of a program, with its tensor operations recorded as a graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode

from pyro_mivae.compat import (
    DispatchMode,
    is_collective,
    schema_of,
    storage_id,
    tree_leaves,
    version_of,
)
from pyro_mivae.engine.fallback import first_cause
from pyro_mivae.engine.fx_utils import Layout, all_changed
from pyro_mivae.errors import StagingError

aten = torch.ops.aten
LITERALS = (aten.lift_fresh.default, aten.lift_fresh_copy.default, aten.lift.default)
INDEXED = (aten.index.Tensor, aten._unsafe_index.Tensor)
SHAPED_BY_VALUES = ("aten::_pack_padded_sequence", "aten::_pad_packed_sequence")
REBOUND = ("aten::set_", "aten::resize_", "aten::resize_as_")
FILLED_LIKE = (
    aten.ones_like.default,
    aten.zeros_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)
"""Operations that read only the shape of their first argument."""

LEAVES_TORCH = (
    Tensor.tolist,
    Tensor.numpy,
    Tensor.__array__,
    Tensor.__deepcopy__,
    Tensor.untyped_storage,
)
READS_A_VALUE = "it reads the value of a tensor (.item(), .tolist(), .numpy(), bool(), int() ...)"


class Tape(DispatchMode):
    """Records every tensor operation of a run, without changing the run.

    An operation that a graph cannot hold ends the recording, not the run, and `reason` names it:
    Python reads values of tensors, shapes depend on values, random numbers come from a generator
    other than torch's own, or tensors are not plain.
    """

    def __init__(self, data: Sequence[Tensor]) -> None:
        super().__init__()
        self.data = tuple(tensor.detach() for tensor in data)  # aliases
        self.externals: list[Tensor] = []  # other tensors that the run read, in order
        self.reason = ""  # that the run cannot be a graph; empty if it can
        self._root = GraphModule(nn.Module(), Graph())
        self._graph = self._root.graph
        # By id; the tensors are kept alive, so that ids stay unique.
        self._known: dict[int, tuple[Tensor, Node]] = {}
        self._varying: set[int] = set()  # storages that change from step to step
        self._made: set[int] = set()  # storages that the run has made
        self._quiet = False
        self._placeholders: list[Node] = []  # the data's, and then the externals'
        for tensor in self.data:
            self._add_placeholder(tensor)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Records the operations inside."""
        with _Functions(self), self:
            yield

    def refuse(self, reason: str) -> None:
        """Ends the recording; keeps the first reason."""
        self.reason = self.reason or reason

    def graph(self, outputs: Sequence[Tensor]) -> GraphModule:
        """Returns the recorded graph, which is compiled by ``recompile`` once it is rewritten."""
        if self.reason:
            raise StagingError(self.reason)
        self._graph.output([self._node(tensor) for tensor in outputs])
        self._graph.output_node().meta["val"] = None
        self._known.clear()
        return self._root

    def written(self) -> list[Tensor]:
        """Returns the data and externals that the run changes in place."""
        changed, tensors = all_changed(self._graph), (*self.data, *self.externals)
        pairs = zip(tensors, self._placeholders, strict=True)
        return [tensor for tensor, node in pairs if node in changed]

    def varies(self, tensor: Tensor) -> bool:
        """Returns True if a tensor's values can differ in the next step."""
        return id(tensor) not in self._known or storage_id(tensor) in self._varying

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs an operation, and records it."""
        kwargs = kwargs or {}
        if func is aten.multinomial.default:
            with self:
                drawn = multinomial(*args, **kwargs)
            if drawn is not NotImplemented:
                return drawn
        result = func(*args, **kwargs)
        if not self.reason:
            self._quiet = True
            try:
                self._write(func, args, kwargs, result)
            except StagingError as error:
                self.refuse(str(error))
            except Exception as error:  # the run continues, even if it cannot be recorded
                self.refuse(first_cause(error))
            finally:
                self._quiet = False
        return result

    def note_function(self, func: Any, args: tuple[Any, ...]) -> None:
        """Refuses calls that give a tensor's memory to Python without an operation."""
        if func in LEAVES_TORCH and not self._quiet and self.varies(args[0]):
            self.refuse(READS_A_VALUE)

    def _write(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        if func in LITERALS and id(args[0]) not in self._known:
            self._write_literal(args[0], result)
            return
        inputs: list[Tensor] = []

        def operand(leaf: Any) -> Any:
            if isinstance(leaf, torch.Generator):
                raise StagingError("it draws from a random number generator of its own")
            if not isinstance(leaf, Tensor):
                return leaf
            inputs.append(leaf)
            return self._node(leaf)

        nodes = map_aggregate((args, kwargs), operand)
        tags = getattr(func, "tags", ())
        varies = torch.Tag.nondeterministic_seeded in tags or is_collective(func)
        varies = varies or (func not in FILLED_LIKE and any(map(self.varies, inputs)))
        if varies:
            self._check(func, args, tree_leaves(result))
        node = self._graph.call_function(func, *nodes)
        node.meta["val"] = Layout.of(result)
        if isinstance(result, Tensor):
            self._hold(result, node, varies)
        elif isinstance(result, tuple | list):
            for index, part in enumerate(result):
                if isinstance(part, Tensor):
                    item = self._graph.call_function(operator.getitem, (node, index))
                    item.meta["val"] = Layout.of(part)
                    self._hold(part, item, varies)
        if varies and schema_of(func).is_mutable:
            self._varying.update(map(storage_id, inputs))

    def _check(self, func: Any, args: Any, outputs: list[Any]) -> None:
        """Refuses an operation that the graph cannot repeat on other values."""
        if any(not isinstance(value, Tensor) and value is not None for value in outputs):
            raise StagingError(READS_A_VALUE)
        if any(isinstance(value, Tensor) and value.layout != torch.strided for value in outputs):
            raise StagingError("it makes a sparse tensor")
        name = schema_of(func).name
        if name in REBOUND:
            raise StagingError(f"it changes the memory of a tensor ({name})")
        if func in INDEXED:
            shaped = any(
                isinstance(index, Tensor)
                and index.dtype in (torch.bool, torch.uint8)
                and self.varies(index)
                for index in args[1]
            )
        else:
            shaped = torch.Tag.dynamic_output_shape in func.tags or name in SHAPED_BY_VALUES
        if shaped:
            raise StagingError(f"the shape of a tensor depends on values ({name})")

    def _write_literal(self, value: Tensor, result: Tensor) -> None:
        name = f"_literal{len(list(self._root.buffers()))}"
        self._root.register_buffer(name, value.detach().clone(), persistent=False)
        constant = self._graph.get_attr(name)
        constant.meta["val"] = Layout.of(value)
        node = self._graph.call_function(aten.lift_fresh_copy.default, (constant,))
        node.meta["val"] = Layout.of(result)
        self._hold(result, node, varies=False)

    def _node(self, tensor: Tensor) -> Node:
        if id(tensor) in self._known:
            return self._known[id(tensor)][1]
        if type(tensor) not in (Tensor, nn.Parameter):
            raise StagingError(f"it uses a {type(tensor).__name__}")
        if tensor.layout != torch.strided:
            raise StagingError("it uses a sparse tensor")
        if storage_id(tensor) in self._made:
            raise StagingError("it makes a tensor without an operation of torch")
        if tensor.requires_grad and not tensor.is_leaf:
            raise StagingError("it differentiates through a tensor of an earlier step")
        self.externals.append(tensor)
        return self._add_placeholder(tensor)

    def _add_placeholder(self, tensor: Tensor) -> Node:
        before = self._placeholders
        with self._graph.inserting_after(before[-1]) if before else nullcontext():
            node = self._graph.placeholder(f"input{len(before)}")
        self._placeholders.append(node)
        node.meta["val"] = Layout.of(tensor)
        self._known[id(tensor)] = tensor, node
        self._varying.add(storage_id(tensor))
        return node

    def _hold(self, tensor: Tensor, node: Node, varies: bool) -> None:
        storage = storage_id(tensor)
        if storage not in self._varying:
            self._made.add(storage)
        if varies:
            self._varying.add(storage)
        elif not tensor.is_inference():
            node.meta["constant"] = tensor, version_of(tensor)
        self._known[id(tensor)] = tensor, node


class _Functions(TorchFunctionMode):
    """Handles functions that never reach the dispatcher, or that read values."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.one_hot:
            return one_hot(func, *args, **(kwargs or {}))
        self._tape.note_function(func, args)
        return func(*args, **(kwargs or {}))


def one_hot(func: Callable[..., Tensor], index: Tensor, num_classes: int = -1) -> Tensor:
    """Returns torch's one-hot code, without its check of the largest index."""
    if num_classes < 0:
        return func(index, num_classes)
    return (index.unsqueeze(-1) == torch.arange(num_classes, device=index.device)).long()


def multinomial(
    probs: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None
) -> Tensor:
    """Draws the same values as torch from the same random numbers, without checks."""
    if num_samples != 1 or generator is not None:
        return NotImplemented
    # A draw without use then needs no probabilities.
    like: dict[str, Any] = {"dtype": probs.dtype, "device": probs.device}
    race = torch.empty(probs.shape, **like) if probs.is_contiguous() else torch.empty_like(probs)
    return (probs / race.exponential_(1.0)).argmax(-1, keepdim=True)
