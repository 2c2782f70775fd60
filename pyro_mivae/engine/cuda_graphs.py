"""Steps captured in CUDA graphs: a whole step is one launch, without Python in between."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.compat import end_capture_pool
from pyro_mivae.engine.fallback import first_cause, quiet
from pyro_mivae.engine.snapshot import Snapshot
from pyro_mivae.engine.tracing import TracedStep
from pyro_mivae.errors import CaptureError

Body = Callable[[], None]

WARM_UPS = 3  # steps before a capture, in which libraries initialise
STEPS_PER_REPLAY = 8  # in one CUDA graph: a launch takes about 6 microseconds, whatever is in it
EQUAL = 1e-3  # relative difference allowed between a replay of one step and the step
ROUGHLY_EQUAL = 0.3  # for parameters, several steps: Adam can turn rounding into whole steps


class Recording:
    """Tries a step, records it, compares the recording with it, and restores all state.

    In this base class a recorded step is a loop over its body, which any device can run.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        device: torch.device,
        steps_per_replay: int = STEPS_PER_REPLAY,
    ) -> None:
        self.optimiser, self.device = optimiser, device
        self.steps_per_replay = steps_per_replay

    def running(self) -> AbstractContextManager[None]:
        """Context of recording and of replay."""
        return nullcontext()

    def record(self, body: Body, counts: Sequence[int], state: Sequence[Tensor]) -> list[Body]:
        """Records one body for each count of steps, and restores all state."""
        begun = Snapshot([*state, *self._moments().values()], self.device)
        known = set(map(id, begun.tensors))

        def restore() -> None:
            begun.restore()
            for moment in self._moments().values():
                if id(moment) not in known:
                    moment.zero_()  # as Adam begins

        try:
            with self.running():
                self._warm_up(body, restore)
                before = Snapshot([*state, *self._moments().values()], self.device)
                recorded = [self._record(body, count) for count in counts]
                for repeat, count in zip(recorded, counts, strict=True):
                    self._compare(body, repeat, count, before)
        except CaptureError:
            raise
        except Exception as error:  # torch, a compiler or the driver may raise anything
            raise CaptureError(first_cause(error)) from error
        finally:
            restore()
            for group in self.optimiser.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        return recorded

    def _moments(self) -> dict[tuple[str, int], Tensor]:
        """Tensors of the optimiser's state, by name and index."""
        states = enumerate(self.optimiser.state.values())
        return {(name, index): value for index, kept in states for name, value in kept.items()}

    def _warm_up(self, body: Body, restore: Body) -> None:
        for _ in range(WARM_UPS):
            body()
            restore()

    def _record(self, body: Body, count: int) -> Body:
        def repeat() -> None:
            for _ in range(count):
                body()

        return repeat

    def _compare(self, body: Body, repeat: Body, count: int, before: Snapshot) -> None:
        """Checks that a replay has the results of the steps that it replaces."""
        for _ in range(count):
            body()
        wanted = before.now()
        before.restore()
        repeat()
        found = before.now()
        before.restore()
        allowed = EQUAL if count == 1 else ROUGHLY_EQUAL
        trained = {id(p): "" for group in self.optimiser.param_groups for p in group["params"]}
        names = {id(moment): name for (name, _), moment in self._moments().items()} | trained
        updates: dict[str, list[tuple[Tensor, ...]]] = {}
        values = zip(before.values, wanted.values, found.values, strict=True)
        told = f"its replay differs from {count} step(s): "
        for tensor, change in zip(before.tensors, values, strict=True):
            if id(tensor) in names:
                updates.setdefault(names[id(tensor)], []).append(change)
            elif not _agree([change], allowed):
                raise CaptureError(f"{told}a tensor of shape {tuple(tensor.shape)} differs")
        for name, changes in updates.items():
            if not _agree(changes, allowed if name else ROUGHLY_EQUAL):
                raise CaptureError(f"{told}the update of the parameters differs")


class CudaGraphs(Recording):
    """Captures steps as CUDA graphs, which share one pool of memory; see `Recording`.

    Everything runs on one stream of the device, also captures and replays. In the last step before
    a capture torch reports waits for the device: this finds most causes of a failed capture before
    it begins.
    """

    def running(self) -> AbstractContextManager[None]:
        """Runs on the device's stream for captures; see `Recording`."""
        return _aside(self.device)

    def _warm_up(self, body: Body, restore: Body) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        super()._warm_up(body, restore)
        with _no_waiting():
            body()
        restore()

    def _record(self, body: Body, count: int) -> Body:
        graph = torch.cuda.CUDAGraph()
        noise = torch.cuda.get_rng_state(self.device)
        stream = _stream(_index(self.device))
        collecting = gc.isenabled()
        gc.disable()  # garbage collection might free memory of the device
        try:
            with torch.cuda.graph(
                graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
            ):
                for _ in range(count):
                    body()
        except BaseException:
            end_capture_pool(_index(self.device), self._pool)
            _mend_generator(self.device, noise)
            raise
        finally:
            if collecting:
                gc.enable()
        replay: Callable[[], None] = graph.replay
        return replay


def recorder_for(optimiser: torch.optim.Optimizer, device: torch.device) -> Recording | None:
    """Returns the recorder of a device: CUDA graphs, or None."""
    return CudaGraphs(optimiser, device) if device.type == "cuda" else None


def check_capturable(traced: TracedStep, device: torch.device) -> None:
    """Checks that a graph does not change its data, and that all tensors are on the device.

    A number read from a tensor on the CPU would keep its captured value in every replay.
    """
    if traced.changes_data:
        raise CaptureError("it changes its data in place")
    for node in traced.graph.graph.nodes:
        value = node.meta.get("val")
        if node.op != "get_attr" and getattr(value, "device", device) != device:
            raise CaptureError(
                f"a tensor of shape {tuple(value.shape)} that it uses is on {value.device}; move "
                f"data, model and objective to {device}"
            )


def _agree(changes: Sequence[tuple[Tensor, ...]], allowed: float) -> bool:
    """Compares two outcomes of tensors, relative to the size of the whole change."""
    whole, apart = 0.0, 0.0
    for before, a, b in changes:
        defined = a.isfinite()
        if not torch.equal(defined, b.isfinite()):
            return False
        before, a, b = (t.double().masked_fill(~defined, 0.0) for t in (before, a, b))
        whole += float((a - before).square().sum())
        apart += float((a - b).square().sum())
    return apart <= allowed**2 * whole


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Makes it an error to wait for the device."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        _watch_waiting("error")
        yield
    finally:
        _watch_waiting(before)


def _watch_waiting(mode: Any) -> None:
    with quiet():  # torch warns that its check is not complete
        torch.cuda.set_sync_debug_mode(mode)


@cache
def _stream(index: int) -> torch.cuda.Stream:
    """The only stream for captures of a device: each stream holds memory of cuBLAS."""
    return torch.cuda.Stream(torch.device("cuda", index))


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """Runs on the device's stream for captures; each stream waits for the other's work."""
    current, aside = torch.cuda.current_stream(device), _stream(_index(device))
    aside.wait_stream(current)
    try:
        with torch.cuda.stream(aside):
            yield
    finally:
        current.wait_stream(aside)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _mend_generator(device: torch.device, state: Tensor) -> None:
    """Gives a device's generator a new state if a failed capture still holds the old one.

    Drawing with the old state would fail from then on.
    """
    try:
        torch.rand(1, device=device)
    except RuntimeError:
        new = torch.Generator(device)
        new.set_state(state)
        torch.cuda.default_generators[_index(device)].graphsafe_set_state(
            new.graphsafe_get_state()
        )
