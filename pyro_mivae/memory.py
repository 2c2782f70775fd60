"""Memory that a model needs, checked before it is allocated."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from pyro_mivae.errors import OptionError

ADAM = 16  # bytes of a number in float32 that Adam trains: itself, its gradient, two moments

Built = TypeVar("Built", bound=tuple[nn.Module, ...])


def build_fitting(build: Callable[[], Built], remedy: str) -> Built:
    """Builds modules after a check that their parameters fit into memory.

    The check counts them on torch's meta device, where a tensor has a shape and no memory.
    """
    with suppress(NotImplementedError, RuntimeError), torch.device("meta"):  # needs their values
        numbers = nn.ModuleList(build()).parameters()
        check_fitting(sum(number.numel() for number in numbers), remedy)
    return build()


def check_fitting(count: int, remedy: str, each: int = ADAM) -> None:
    """Refuses numbers that do not fit into memory."""
    need = count * each
    free = most_free(need)
    if need > free:
        purpose = " to train them with Adam" if each == ADAM else ""
        raise OptionError(
            f"{count:,} parameters are requested, which need {need / 1e9:,.1f} GB{purpose}, and "
            f"{free / 1e9:,.1f} GB are free: {remedy}"
        )


def most_free(need: float) -> float:
    """Free bytes of the machine, or of an accelerator if a number of bytes does not fit here."""
    free = free_memory()
    if need > free:  # asking an accelerator wakes it up
        memories = map(torch.cuda.mem_get_info, range(torch.cuda.device_count()))
        free = max(free, *(memory[0] for memory in memories), 0)
    return free


def free_memory() -> float:
    """Free bytes of the machine; infinity if the system does not report them."""
    try:
        told = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
        free = 1024.0 * int(told)
    except (OSError, IndexError):
        known = hasattr(os, "sysconf")
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else math.inf
    with suppress(OSError, ValueError):  # a container's limit
        free = min(free, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    return free
