"""Ways to train on a GPU, each as a callable that trains for one epoch of whole steps."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pyro
import torch
from torch import Tensor

from benchmarks.contenders import COMPILED, Turn, by_hand, stock_svi
from benchmarks.handwritten import HANDWRITTEN, make_adam
from pyro_mivae.engine import CudaGraphs, Recording
from pyro_mivae.training import recorded
from pyro_mivae.training.loop import Settings, Trainer, own_world

Build = Callable[[Any, Tensor, int], Turn]


@contextlib.contextmanager
def recording(steps_per_replay: int | None = 1) -> Iterator[None]:
    """Lets trainers record steps, so many at once, or none; on a CPU by a loop over them."""

    def record(optimiser: torch.optim.Optimizer, device: torch.device) -> Recording | None:
        if steps_per_replay is None:
            return None
        of_device = CudaGraphs if device.type == "cuda" else Recording
        return of_device(optimiser, device, steps_per_replay)

    with patch.object(recorded, "recorder_for", record):
        yield


def ours(
    engine: str = "staged", steps_per_replay: int | None = 1, precision: str = "float32"
) -> Build:
    """Gives what trains as `mi.fit` does, its trainer being called by the epoch.

    Args:
        engine: ``"eager"``, ``"staged"`` or ``"compiled"``.
        steps_per_replay: How many steps are captured as one graph; None captures none.
        precision: Of matrix products.
    """
    from pyro_mivae.engine import matmul_precision

    def build(vae: Any, x: Tensor, batch_size: int) -> Turn:
        vae = copy.deepcopy(vae).to(x.device)
        settings = Settings(1, batch_size, 1e-3, "constant", None, 0, None, engine, precision)
        device = x.device
        with recording(steps_per_replay), own_world(device), matmul_precision(precision):
            trainer = Trainer(vae, x, None, settings, device)
            trainer.prepare()

        def turn() -> None:
            with own_world(device), matmul_precision(precision):
                trainer.run_epoch()

        turn.trainer = trainer  # type: ignore[attr-defined]
        return turn

    return build


def svi(vae: Any, x: Tensor, batch_size: int) -> Turn:
    """Trains by Pyro's own SVI."""
    return stock_svi(copy.deepcopy(vae), x, batch_size)


def by_hand_eager(vae: Any, x: Tensor, batch_size: int) -> Turn:
    """Trains by the hand-written loss and loop."""
    return by_hand(copy.deepcopy(vae), x, batch_size)


def by_hand_compiled(vae: Any, x: Tensor, batch_size: int) -> Turn:
    """Trains by the hand-written loss, compiled."""
    return by_hand(copy.deepcopy(vae), x, batch_size, **COMPILED)


def by_hand_graphed(compiled: bool = False) -> Build:
    """Gives what trains by the hand-written loss in a CUDA graph of the whole step.

    It is what torch's documentation shows: batches are copied into a static tensor, the step is
    warmed up on a side stream and captured with a fused, capturable Adam, and replayed.

    Args:
        compiled: Whether the loss is compiled besides.
    """

    def build(vae: Any, x: Tensor, batch_size: int) -> Turn:
        vae = copy.deepcopy(vae).to(x.device).train()
        loss: Any = HANDWRITTEN[vae.name](vae)
        if compiled:
            loss = torch.compile(loss, **COMPILED)
        optimiser = make_adam(vae)
        for group in optimiser.param_groups:
            group["capturable"] = True
        batch, total = x[:batch_size].clone(), torch.zeros((), device=x.device)

        def step() -> None:
            value = loss(batch)
            value.backward()
            optimiser.step()
            total.add_(value.detach())

        def fresh_step() -> None:
            optimiser.zero_grad(set_to_none=True)
            step()

        replay = fresh_step
        if x.is_cuda:
            replay = _captured(fresh_step, lambda: optimiser.zero_grad(set_to_none=True), step)

        def turn() -> float:
            total.zero_()
            batches = torch.randperm(len(x), device=x.device).split(batch_size)
            for index in batches:
                torch.index_select(x, 0, index, out=batch)
                replay()
            return float(total) / len(batches)

        return turn

    return build


def _captured(
    fresh_step: Callable[[], None], clear: Callable[[], None], step: Callable[[], None]
) -> Callable[[], None]:
    """Captures a step; the gradients that the graph makes for itself are overwritten by it."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            fresh_step()
    clear()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


STEPS: dict[str, Build] = {
    "ours": ours(),
    "ours, compiled": ours("compiled"),
    "ours, not captured": ours(steps_per_replay=None),
    "ours, eager": ours("eager", None),
    "stock SVI": svi,
    "hand-written": by_hand_eager,
    "hand-written, compiled": by_hand_compiled,
    "hand-written, captured": by_hand_graphed(),
    "hand-written, compiled, captured": by_hand_graphed(compiled=True),
}
"""Who is timed at batch 128. Ours is captured unless it says otherwise."""


def close(turns_of: dict[str, Turn]) -> None:
    """Lets go of what contenders hold on the device."""
    turns_of.clear()
    pyro.clear_param_store()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
