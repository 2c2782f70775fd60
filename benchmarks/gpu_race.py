"""Contenders of the GPU benchmark, timed in rounds, every result written at once."""

from __future__ import annotations

import gc
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import pyro_mivae as mi
from benchmarks.gpu_contenders import Build
from benchmarks.gpu_results import Cell, Results
from benchmarks.speed import OPTIONS, repeated, time_turn
from pyro_mivae.errors import PyroMivaeWarning


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    device: str
    images: int
    batch_sizes: tuple[int, ...]
    least_steps: int
    rounds: int
    epochs: int
    replays: tuple[int, ...]
    widths: tuple[int, ...]
    models: tuple[int, ...]


@dataclass
class Bench:
    """What the parts share.

    Attributes:
        scale: How much is measured.
        images: Images, shape ``(n, *data_shape)``, on the device.
        results: The results file.
        ends: When no more contender and no more round is begun, by ``time.perf_counter``.
    """

    scale: Scale
    images: Tensor
    results: Results
    ends: float

    @property
    def is_over(self) -> bool:
        """True if the time of the part is over."""
        return time.perf_counter() >= self.ends

    def model(self, variant: str = "vae", **options: Any) -> Any:
        """Builds a variant for the images, the same each time."""
        torch.manual_seed(0)
        vae = mi.VARIANTS[variant].build(
            self.images.shape[1:], **(OPTIONS.get(variant, {}) | options)
        )
        return vae.to(self.scale.device)

    def mlp_vae(self, widths: tuple[int, ...] = (400,), guide: Any = None) -> Any:
        """Builds the VAE of the images' size, these widths, and 20, and back."""
        shape = self.images.shape[1:]
        torch.manual_seed(0)
        encoder = mi.networks.MLPEncoder(shape, widths) if guide is None else None
        decoder = mi.networks.MLPDecoder(20, shape, widths[::-1])
        return self.model(latent_dim=20, encoder=encoder, decoder=decoder, guide=guide)


def race(bench: Bench, cell: Cell, vae: Any, contenders: dict[str, Build], size: int) -> bool:
    """Builds contenders and times them in rounds; each result is written at once.

    A round is a turn of each contender, in random order. A turn is an epoch of whole batches.

    Args:
        bench: The benchmark.
        cell: Gets milliseconds per step of each contender, alone and in each round.
        vae: The variant.
        contenders: Who is timed.
        size: Of a batch.

    Returns:
        False if there was no time for all rounds.
    """
    steps = max(bench.scale.least_steps, len(bench.images) // size)
    x = repeated(bench.images, steps * size)
    cell |= {"batch_size": size, "steps": steps}
    measured, rounds = cell.setdefault("contenders", {}), cell.setdefault("rounds", [])
    turns: dict[str, Callable[[], object]] = {}
    for name, build in contenders.items():
        if bench.is_over:
            return False
        found: dict[str, Any] = {}
        with failures_noted(found):
            turns[name] = prepare(found, partial(build, vae, x, size))
            found["milliseconds"] = timed(turns[name], steps, bench.scale.device)
        measured[name] = found
        bench.results.save()
    while len(rounds) < bench.scale.rounds and not bench.is_over:
        names = [name for name in turns if "error" not in measured[name]]
        times = {}
        for name in random.Random(len(rounds)).sample(names, len(names)):
            with failures_noted(measured[name]):
                times[name] = timed(turns[name], steps, bench.scale.device)
        rounds.append(times)
        bench.results.save()
    return len(rounds) >= bench.scale.rounds


def prepare(found: dict[str, Any], build: Callable[[], Any]) -> Any:
    """Builds a contender and takes its first turn; notes the seconds and the memory it took.

    The memory is the most that torch allocated on the device beyond what was there before.
    """
    gc.collect()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    turn = build()
    turn()
    if on_gpu:
        torch.cuda.synchronize()
        found["mib"] = round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    found["ready"] = round(time.perf_counter() - started, 2)
    return turn


def timed(turn: Callable[[], object], steps: int, device: str) -> float:
    """Returns the milliseconds per step of a turn."""
    return round(1e3 * time_turn(turn, device)["wall"] / steps, 5)


@contextmanager
def failures_noted(found: dict[str, Any]) -> Iterator[None]:
    """Notes an exception, and what could not be captured, compiled or staged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PyroMivaeWarning)
        try:
            yield
        except Exception as error:
            found["error"] = f"{type(error).__name__}: {error}"[:500]
    notes = [str(w.message) for w in caught if issubclass(w.category, PyroMivaeWarning)]
    if notes:
        found["notes"] = [*found.get("notes", []), *notes]
