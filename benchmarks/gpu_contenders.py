"""Ways to train on a GPU, each a callable that trains for one epoch of whole batches, a turn."""

from __future__ import annotations

import contextlib
import copy
import gc
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pyro
import torch
from torch import Tensor

from benchmarks.contenders import COMPILED, Turn, by_hand, our_svi, pyros_elbo, stock_svi
from benchmarks.handwritten import HANDWRITTEN, make_adam
from pyro_mivae.engine import comparison
from pyro_mivae.engine.cuda_graphs import CudaGraphs, Recording
from pyro_mivae.engine.precision import matmul_precision
from pyro_mivae.training import TrainingOptions, trainer

Build = Callable[[Any, Tensor, int], Turn]


@contextlib.contextmanager
def recording(steps: int | None = None, *, capture: bool = True) -> Iterator[None]:
    """Sets how trainers record their steps; on a CPU a loop takes the place of CUDA graphs.

    Args:
        steps: Steps per replay; on CUDA the package's default if omitted.
        capture: False takes the steps one by one.
    """
    default = trainer.recorder_for

    def record(optimiser: torch.optim.Optimizer, device: torch.device) -> Recording | None:
        if not capture:
            return None
        if device.type != "cuda":
            return Recording(optimiser, device, steps or 2)
        return CudaGraphs(optimiser, device, steps) if steps else default(optimiser, device)

    with patch.object(trainer, "recorder_for", record):
        yield


def ours(
    engine: str = "staged",
    precision: str = "float32",
    *,
    steps: int | None = None,
    capture: bool = True,
    compare: bool = True,
) -> Build:
    """Returns a contender that trains by the trainer of `mi.fit`, called epoch by epoch.

    Args:
        engine: ``"eager"``, ``"staged"`` or ``"compiled"``.
        precision: Of matrix products.
        steps: Steps per replay; the package's default if omitted.
        capture: False takes the steps one by one.
        compare: False never compares the graph with its program.
    """

    def build(vae: Any, x: Tensor, batch_size: int) -> Turn:
        settings = TrainingOptions(1, batch_size, engine=engine, precision=precision)
        due = comparison.is_due if compare else lambda step, every=0: False

        @contextlib.contextmanager
        def around() -> Iterator[None]:
            with (
                patch.object(comparison, "is_due", due),
                torch.random.fork_rng(devices=[x.device] if x.is_cuda else []),
                pyro.get_param_store().scope(),
                matmul_precision(precision),
            ):
                yield

        with recording(steps, capture=capture), around():
            ours = copy.deepcopy(vae).to(x.device)
            running = trainer.Trainer(ours, {"x": x}, None, settings, x.device)
            running.prepare()

        def turn() -> None:
            with around():
                running.run_epoch()

        return turn

    return build


def hand_made_graph(compiled: bool = False) -> Build:
    """Returns a contender that replays a CUDA graph of the hand-written step.

    It follows torch's documentation: each batch is copied into a static tensor; the step, with a
    fused and capturable Adam, is warmed up and captured on a side stream, and replayed.

    Args:
        compiled: Whether the loss is compiled first.
    """

    def build(vae: Any, x: Tensor, batch_size: int) -> Turn:
        vae = copy.deepcopy(vae).to(x.device).train()
        loss: Any = HANDWRITTEN[vae.name](vae)
        if compiled:
            loss = torch.compile(loss, **COMPILED)
        optimiser = make_adam(vae)
        for group in optimiser.param_groups:
            group["capturable"] = x.is_cuda
        batch, total = x[:batch_size].clone(), torch.zeros((), device=x.device)

        def step() -> None:
            value = loss(batch)
            value.backward()
            optimiser.step()
            total.add_(value.detach())

        def fresh_step() -> None:
            optimiser.zero_grad(set_to_none=True)
            step()

        replay = _captured(fresh_step, optimiser.zero_grad, step) if x.is_cuda else fresh_step

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
    """Captures a step; the graph makes its own gradients, and overwrites them at each replay."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            fresh_step()
    torch.cuda.current_stream().wait_stream(aside)
    clear()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=aside):
        step()
    return graph.replay


def _copied(train: Callable[..., Turn], **options: Any) -> Build:
    """Gives a contender of `contenders`, which trains what it gets, a copy."""
    return lambda vae, x, batch_size: train(copy.deepcopy(vae), x, batch_size, **options)


CONTENDERS: dict[str, tuple[Build, str]] = {
    "ours": (ours(), "the trainer of mi.fit, engine='staged', captured"),
    "hand-made graph": (hand_made_graph(), "hand-written loss, fused Adam, one CUDA graph"),
    "stock SVI, our ELBO": (
        _copied(stock_svi),
        "pyro.infer.SVI, pyro.optim.Adam, loss=vae.objective()",
    ),
    "stock SVI, Pyro's ELBO": (
        _copied(pyros_elbo),
        "pyro.infer.SVI, pyro.optim.Adam, loss=TraceMeanField_ELBO()",
    ),
    "ours, compiled": (ours("compiled"), "as ours, engine='compiled'"),
    "hand-made graph, compiled": (
        hand_made_graph(compiled=True),
        "as the hand-made graph, the loss compiled by torch.compile",
    ),
    "mi.SVI": (
        _copied(our_svi, engine="auto"),
        "mi.SVI(vae.model, vae.guide, pyro.optim.Adam(vae.optim_args), vae.objective())",
    ),
    "mi.SVI, compiled": (_copied(our_svi), "as mi.SVI, engine='compiled'"),
    "ours, never compared": (ours(compare=False), "as ours, never compared with its program"),
    "ours, not captured": (ours(capture=False), "as ours, step by step"),
    "ours, eager": (ours("eager", capture=False), "as ours, engine='eager'"),
    "by hand": (_copied(by_hand), "hand-written loss and loop, fused Adam"),
    "by hand, compiled": (_copied(by_hand, **COMPILED), "as by hand, compiled by torch.compile"),
}
"""Contenders by name, each with what it runs."""


def builds(*names: str) -> dict[str, Build]:
    """Returns contenders by name."""
    return {name: CONTENDERS[name][0] for name in names}


def free() -> None:
    """Frees what contenders left: parameters, compiled code, cycles, cached memory."""
    pyro.clear_param_store()
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
