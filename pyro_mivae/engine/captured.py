"""Steps captured in CUDA graphs: the whole step is one launch, and no Python runs between them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.compat import end_capture_pool
from pyro_mivae.engine.reasons import first_cause, quiet
from pyro_mivae.engine.staging import Staged
from pyro_mivae.errors import CaptureError, OptionError

Body = Callable[[], None]

WARM_UPS = 3
"""Steps that are taken before a capture, in which libraries set themselves up."""

STEPS_PER_REPLAY = 8
"""Steps in one CUDA graph: a launch takes about 6 microseconds, whatever is in it."""

EQUAL = 1e-3
"""Relative difference up to which the replay of one step is the step."""

ROUGHLY_EQUAL = 0.3
"""The like for parameters, and for several steps: Adam makes whole steps of what is rounding."""


class Recording:
    """Tries a step out, records it, compares the recording with it, and puts all back.

    Recorded by this class itself a step is a loop over its body, which any device can run.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        device: torch.device,
        steps_per_replay: int = STEPS_PER_REPLAY,
    ) -> None:
        if steps_per_replay < 1:
            raise OptionError(f"steps_per_replay={steps_per_replay}: 1 or more is needed")
        self.optimiser, self.device = optimiser, device
        self.steps_per_replay = steps_per_replay

    def running(self) -> AbstractContextManager[None]:
        """Surrounds what is recorded and what is repeated."""
        return nullcontext()

    def record(self, body: Body, counts: Sequence[int], state: Sequence[Tensor]) -> list[Body]:
        """Records a step; see `Recorder`."""
        before = _Snapshot(state, self.optimiser, self.device)
        try:
            with self.running():
                self._warm_up(body, before.restore)
                recorded = [self._record(body, count) for count in counts]
                for repeat, count in zip(recorded, counts, strict=True):
                    self._compare(body, repeat, count, before)
        except CaptureError:
            raise
        except Exception as error:  # whatever torch, a compiler or the driver may raise
            raise CaptureError(first_cause(error)) from error
        finally:
            before.restore()
            for group in self.optimiser.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        return recorded

    def _warm_up(self, body: Body, restore: Body) -> None:
        for _ in range(WARM_UPS):
            body()
            restore()

    def _record(self, body: Body, count: int) -> Body:
        def repeat() -> None:
            for _ in range(count):
                body()

        return repeat

    def _compare(self, body: Body, repeat: Body, count: int, before: _Snapshot) -> None:
        """Checks that a recording does what so many steps do."""
        for _ in range(count):
            body()
        wanted = before.now()
        before.restore()
        repeat()
        found = before.now()
        before.restore()
        difference = before.difference(wanted, found, EQUAL if count == 1 else ROUGHLY_EQUAL)
        if difference:
            raise CaptureError(f"its replay does not do what {count} step(s) do: {difference}")


class CudaGraphs(Recording):
    """Captures steps as CUDA graphs, which share one pool of memory; see `Recording`.

    All of it runs on one stream of the device, captures and replays too. The last step before a
    capture is taken under torch's watch for what waits for the device, so that most of what would
    break a capture is told before one is begun.
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
        random = torch.cuda.get_rng_state(self.device)
        stream = _stream(_index(self.device))
        collecting = gc.isenabled()
        gc.disable()  # what is collected meanwhile might be the device's
        try:
            with torch.cuda.graph(
                graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
            ):
                for _ in range(count):
                    body()
        except BaseException:
            end_capture_pool(_index(self.device), self._pool)
            if not _draws(self.device):
                _renew_generator(self.device, random)
            raise
        finally:
            if collecting:
                gc.enable()
        replay: Callable[[], None] = graph.replay
        return replay


def recorder_for(optimiser: torch.optim.Optimizer, device: torch.device) -> Recording | None:
    """Gives what records steps on a device: CUDA graphs, or nothing."""
    return CudaGraphs(optimiser, device) if device.type == "cuda" else None


def check_capturable(staged: Staged, device: torch.device) -> None:
    """Checks that a graph leaves its data alone, and that all of it is on the device.

    A number that is read from a tensor on the CPU would be that of the capture in every replay.
    """
    if staged.changes_data:
        raise CaptureError("it changes its data in place")
    for node in staged.graph.graph.nodes:
        value = node.meta.get("val")
        if node.op != "get_attr" and getattr(value, "device", device) != device:
            raise CaptureError(
                f"a tensor of shape {tuple(value.shape)} that it uses is on {value.device}; move "
                f"data, model and objective to {device}"
            )


class _Snapshot:
    """Tensors, the optimiser's state and random numbers as they are now."""

    def __init__(
        self, state: Sequence[Tensor], optimiser: torch.optim.Optimizer, device: torch.device
    ) -> None:
        self.optimiser = optimiser
        self.device = device
        self.state = list(state)
        self.tensors = [tensor.detach().clone() for tensor in state]
        self.moments = {
            parameter: {name: value.clone() for name, value in moments.items()}
            for parameter, moments in optimiser.state.items()
        }
        self.random = torch.get_rng_state()
        self.device_random = _device_random(device)

    @torch.no_grad()
    def restore(self) -> None:
        """Puts all of it back in place; moments that were not there before become Adam's zeros."""
        for tensor, value in zip(self.state, self.tensors, strict=True):
            tensor.copy_(value)
        for parameter, moments in self.optimiser.state.items():
            before = self.moments.get(parameter)
            for name, value in moments.items():
                if before is None:
                    value.zero_()
                else:
                    value.copy_(before[name])
        torch.set_rng_state(self.random)
        if self.device_random is not None:
            torch.cuda.set_rng_state(self.device_random, self.device)

    def now(self) -> _Snapshot:
        """Returns the same tensors as they are by now."""
        return _Snapshot(self.state, self.optimiser, self.device)

    def difference(self, wanted: _Snapshot, found: _Snapshot, allowed: float) -> str:
        """Says where two outcomes of steps that began here differ; empty if nowhere."""
        trained = {id(p) for group in self.optimiser.param_groups for p in group["params"]}
        places = zip(self.state, self.tensors, wanted.tensors, found.tensors, strict=True)
        updates: list[tuple[Tensor, Tensor, Tensor]] = []
        moments: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
        for tensor, before, a, b in places:
            if id(tensor) in trained:
                updates.append((before, a, b))
            elif not _agree([(before, a, b)], allowed):
                return f"a tensor of shape {tuple(tensor.shape)} becomes another"
        for parameter, made in wanted.moments.items():
            zeros = {name: torch.zeros_like(value) for name, value in made.items()}
            old, again = self.moments.get(parameter, zeros), found.moments[parameter]
            for name, value in made.items():
                moments.setdefault(name, []).append((old[name], value, again[name]))
        alike = all(_agree(changes, allowed) for changes in moments.values())
        if not (alike and _agree(updates, ROUGHLY_EQUAL)):
            return "the update of the parameters is another"
        return ""


def _agree(changes: Sequence[tuple[Tensor, Tensor, Tensor]], allowed: float) -> bool:
    """Compares two outcomes of tensors, given before them, by the size of the whole change."""
    whole, apart = 0.0, 0.0
    for before, a, b in changes:
        defined = a.isfinite()
        if not torch.equal(defined, b.isfinite()):
            return False
        before, a, b = (t.double().masked_fill(~defined, 0.0) for t in (before, a, b))
        whole += float((a - before).square().sum())
        apart += float((a - b).square().sum())
    return apart <= allowed**2 * whole


def _device_random(device: torch.device) -> Tensor | None:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Makes it an error to wait for the device."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        _set_sync_debug_mode("error")
        yield
    finally:
        _set_sync_debug_mode(before)


def _set_sync_debug_mode(mode: Any) -> None:
    with quiet():  # torch tells that the watch is not complete
        torch.cuda.set_sync_debug_mode(mode)


@cache
def _stream(index: int) -> torch.cuda.Stream:
    """The one stream for captures of a device: each stream keeps memory of cuBLAS's."""
    return torch.cuda.Stream(torch.device("cuda", index))


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """Runs on the device's stream for captures, each stream waiting for what the other has."""
    current, aside = torch.cuda.current_stream(device), _stream(_index(device))
    aside.wait_stream(current)
    try:
        with torch.cuda.stream(aside):
            yield
    finally:
        current.wait_stream(aside)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _draws(device: torch.device) -> bool:
    """Returns whether random numbers can be drawn on a device."""
    try:
        torch.rand(1, device=device)
    except RuntimeError:
        return False
    return True


def _renew_generator(device: torch.device, state: Tensor) -> None:
    """Gives a device's generator a new state, since a capture that failed may still hold its own.

    Random numbers drawn with that one would fail from then on.
    """
    fresh = torch.Generator(device)
    fresh.set_state(state)
    torch.cuda.default_generators[_index(device)].graphsafe_set_state(fresh.graphsafe_get_state())
