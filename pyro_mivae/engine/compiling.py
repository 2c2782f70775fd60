"""Traced steps compiled by torch, and compared with their graphs."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.engine.fallback import first_cause, give_up, quiet
from pyro_mivae.engine.precision import Precision, round_products
from pyro_mivae.engine.snapshot import preserved
from pyro_mivae.engine.tracing import TracedStep

MISCOMPILED = {torch.float64: 1e-6}
"""Relative difference to the graph by which a compiled step is wrong; 1e-2 in other types, whose
rounding a kink (a ReLU at 0) makes large."""


def compile_graph(traced: TracedStep, *args: Tensor, precision: Precision = "float32") -> Any:
    """Compiles a traced step, and compares it with the graph; None if that fails.

    Random numbers stay those of the program, so all kinds of steps agree on the same noise.
    """
    try:
        with quiet():  # inductor advises on TensorFloat32
            return _compiled(traced, args, precision)
    except Exception as error:  # whatever a compiler may raise
        give_up("compiled", "as a graph that is not compiled", first_cause(error))
        return None


def _compiled(traced: TracedStep, args: tuple[Tensor, ...], precision: Precision) -> Any:
    plain, graph = traced.graph, traced.decomposed(*args)
    if precision == "bf16":
        plain, graph = round_products(deepcopy(plain)), round_products(graph)
    options: dict[str, Any] = {"fallback_random": True}
    compiled: Any = torch.compile(graph, fullgraph=True, dynamic=False, options=options)
    runs = []
    for run in (plain, compiled):
        with preserved(traced.changed(*args), args[0].device), torch.no_grad():
            values, *gradients = run(*args, *traced.inputs)
            runs.append([tensor.clone() for tensor in (values, *gradients)])
    for wanted, found in zip(*runs, strict=True):
        allowed = MISCOMPILED.get(wanted.dtype, 1e-2)
        torch.testing.assert_close(
            found.norm(), wanted.norm(), rtol=allowed, atol=allowed, equal_nan=True
        )
    apart = len({g.data_ptr() for g in gradients}) == len(gradients)
    return compiled if apart else partial(_apart, compiled)


def _apart(run: Any, *tensors: Tensor) -> list[Tensor]:
    """Runs a compiled step of which several gradients are one tensor, and copies them."""
    values, *gradients = run(*tensors)
    return [values, *(gradient.clone() for gradient in gradients)]
