"""Functions of one tensor, recorded as graphs of tensor operations and compiled if that pays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.engine.constant_folding import hold_constants
from pyro_mivae.engine.rewriting import simplify
from pyro_mivae.engine.steps import compile_graph, steps_worth_compiling
from pyro_mivae.engine.tape import Tape
from pyro_mivae.engine.tracing import TracedStep

Function = Callable[[Tensor], tuple[Tensor, ...]]

WORTH_COMPILING = 2  # times the work of compiling: a compiled call takes 0.6 of the time


class Stager:
    """Records functions; those with the same operations share one compiled graph.

    Chunks of data differ in the tensors that the density reads, not in its operations. So each
    chunk is recorded anew, which takes one call, and the compiled graph takes its tensors.
    """

    def __init__(self) -> None:
        self._known: list[tuple[TracedStep, Any]] = []

    def stage(self, function: Function, place: Tensor, other: Tensor, calls: int) -> Function:
        """Returns the graph of a function without random numbers, or the function itself.

        It is recorded at ``place`` and must agree at ``other``; ``calls`` says how many will
        follow.
        """
        try:
            traced = _record(function, place)
        except Exception:  # the function itself may have no trouble
            return function
        pairs = zip(_call(traced, None, other), function(other), strict=True)
        if not all(torch.equal(ours, theirs) for ours, theirs in pairs):
            return function
        compiled = [graph for known, graph in self._known if _is_same(known, traced)]
        if not compiled:
            pays = calls > WORTH_COMPILING * steps_worth_compiling(traced, place, known=False)
            graph = compile_graph(traced, place) if pays else None
            # Past the hooks on modules: they are about those of the programs.
            compiled = [getattr(graph, "forward", graph)]
            self._known.append((traced, compiled[0]))
        return partial(_call, traced, compiled[0])


def _record(function: Function, place: Tensor) -> TracedStep:
    tape = Tape([place])
    with tape.running():
        results = function(*tape.data)
    if tape.written():
        tape.refuse("it changes tensors in place")
    graph = tape.graph(results)
    hold_constants(graph)
    simplify(graph)
    graph.recompile()
    return TracedStep(graph, tuple(tape.externals), (), (), (), changes_data=False)


def _call(traced: TracedStep, compiled: Any, place: Tensor) -> tuple[Tensor, ...]:
    first, rest = traced(place, run=compiled)
    return first, *rest


def _is_same(one: TracedStep, other: TracedStep) -> bool:
    """True if two graphs differ in nothing but the values of their inputs."""
    if one.graph.code != other.graph.code or len(one.inputs) != len(other.inputs):
        return False
    pairs = zip(one.graph.buffers(), other.graph.buffers(), strict=True)
    return _layouts(one) == _layouts(other) and all(torch.equal(a, b) for a, b in pairs)


def _layouts(traced: TracedStep) -> list[Any]:
    nodes = traced.graph.graph.nodes
    return [node.meta["val"] for node in nodes if node.op == "placeholder"]
