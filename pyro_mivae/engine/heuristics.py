"""Choice between plain, traced and compiled steps, by the work ahead."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_mivae.engine.snapshot import preserved
from pyro_mivae.engine.tracing import TracedStep

WORTH_TRACING = 400  # number of steps above which tracing saves time
OVERHEAD = 0.3e9  # floating-point operations equivalent to a step's overhead
COMPILING = 1e12  # floating-point operations that take about as long as compiling a step
WORTH_COMPILING = 8  # multiple of that work above which a training of known length is compiled

WORTH_COMPILING_CAPTURED = 400_000
"""Steps on CUDA after which the 70 microseconds that each saves make up for 30 s of compiling.

Both are estimates for captured steps of a small network, not measured.
"""


def steps_worth_compiling(traced: TracedStep, *args: Tensor, known: bool = True) -> float:
    """Returns the number of steps that justify compiling, the same in every run.

    Convolutions on a CPU are not compiled, because that makes them no faster. A training of
    unknown length is compiled when its steps have taken as long as compiling does.
    """
    if args[0].is_cuda:
        return WORTH_COMPILING_CAPTURED
    work, convolves = work_of_step(traced, *args)
    return (
        math.inf if convolves else math.ceil((WORTH_COMPILING if known else 1) * COMPILING / work)
    )


def work_of_step(traced: TracedStep, *args: Tensor) -> tuple[float, bool]:
    """Counts the floating-point operations of a step with its overhead, and finds convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with preserved(traced.changed(*args), args[0].device), counter:
        traced(*args)
    kinds = counter.get_flop_counts().get("Global", {})
    convolves = any("convolution" in str(kind) for kind in kinds)
    return counter.get_total_flops() + OVERHEAD, convolves
