"""Choice between staging and compiling a step, by the work ahead."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_mivae.engine.staging import Staged, preserved

WORTH_STAGING = 400
"""Steps from which on staging saves more time than it takes."""

OVERHEAD = 0.3e9
"""Floating-point operations of a step that stand for all that is none of its arithmetic."""

COMPILING = 1e12
"""Operations that take about as long as compiling a step does."""

WORTH_COMPILING = 8 * COMPILING
"""Operations of a training from which on it saves more time than it takes."""

WORTH_COMPILING_CAPTURED = 400_000
"""Steps on CUDA after which the 70 microseconds that each saves make up for 30 s of compiling.

Both are estimates of captured steps of a small network, not measured.
"""


def is_worth_compiling(staged: Staged, *args: Tensor, num_steps: int) -> bool:
    """Chooses by the work that is ahead, and by nothing that varies between two runs.

    Convolutions on a CPU are not compiled, which makes them no faster.
    """
    if args[0].is_cuda:
        return num_steps >= WORTH_COMPILING_CAPTURED
    work, convolves = work_of_step(staged, *args)
    return num_steps * work >= WORTH_COMPILING and not convolves


def steps_until_compiling(staged: Staged, *args: Tensor) -> float:
    """Says after how many steps a training whose length is not known is worth compiling."""
    if args[0].is_cuda:
        return WORTH_COMPILING_CAPTURED
    work, convolves = work_of_step(staged, *args)
    return math.inf if convolves else math.ceil(COMPILING / work)


def work_of_step(staged: Staged, *args: Tensor) -> tuple[float, bool]:
    """Counts the floating-point operations of a step, its overhead among them."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with preserved(staged.changed(*args), args[0].device), counter:
        staged(*args)
    kinds = counter.get_flop_counts().get("Global", {})
    convolves = any("convolution" in str(kind) for kind in kinds)
    return counter.get_total_flops() + OVERHEAD, convolves
