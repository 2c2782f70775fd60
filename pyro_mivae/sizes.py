"""Sizes of models: checks of them, and the memory they need, told before it is taken."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from pyro_mivae.arguments import LARGEST, Checker, Sizes, several, shown, whole
from pyro_mivae.errors import OptionError, ShapeError

LARGEST_SIZE = 10**7
"""Of a code or a layer. A prior is run to see its sites, which takes memory for a few codes."""

ADAM = 16  # bytes of a number in float32 that Adam trains: itself, its gradient, two moments

Built = TypeVar("Built", bound=tuple[nn.Module, ...])


def size(*, least: int = 1) -> Checker:
    """A check: sizes of codes and layers, whole numbers; returned as ``int``."""
    return whole(least=least, most=LARGEST_SIZE)


def shape() -> Checker:
    """A check: the shape of one datum; returned as a tuple of ``int``."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> tuple[int, ...]:
        try:
            found = tuple(several(whole(least=1))(name, value))
        except OptionError:
            hint = f", ({value},) for a vector" if isinstance(value, int) else ""
            raise ShapeError(
                f"{name}={shown(value)}: give the shape of one datum as whole numbers from 1 up"
                f"{hint}, such as (1, 28, 28) for an image"
            ) from None
        if math.prod(found) > LARGEST:
            raise ShapeError(f"{name}={shown(value)}: a datum may hold up to {LARGEST} values")
        return found

    return check


def build_fitting(build: Callable[[], Built], remedy: str) -> Built:
    """Builds modules, once it is known that they can be trained in the memory there is.

    They are counted on torch's meta device, where a tensor has a shape and takes no memory.
    """
    with suppress(NotImplementedError, RuntimeError), torch.device("meta"):  # needs their values
        numbers = nn.ModuleList(build()).parameters()
        check_fitting(sum(number.numel() for number in numbers), remedy)
    return build()


def check_fitting(count: int, remedy: str, each: int = ADAM) -> None:
    """Refuses numbers that do not fit into memory."""
    need, free = count * each, free_memory()
    if need > free:  # asking an accelerator wakes it up
        memories = map(torch.cuda.mem_get_info, range(torch.cuda.device_count()))
        free = max(free, *(memory[0] for memory in memories), 0)
    if need > free:
        purpose = " to train them with Adam" if each == ADAM else ""
        raise OptionError(
            f"{count:,} parameters are asked for, which need {need / 1e9:,.1f} GB{purpose}, and "
            f"{free / 1e9:,.1f} GB are free: {remedy}"
        )


def free_memory() -> float:
    """Bytes that are free on the machine; infinite if the system does not tell."""
    try:
        told = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
        free = 1024.0 * int(told)
    except (OSError, IndexError):
        known = hasattr(os, "sysconf")
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else math.inf
    with suppress(OSError, ValueError):  # a container's limit
        free = min(free, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    return free
