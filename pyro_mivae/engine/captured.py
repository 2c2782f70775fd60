"""Steps captured in CUDA graphs: the whole step is one launch, and no Python runs between them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from pyro_mivae.engine.reasons import first_cause
from pyro_mivae.engine.static import Body
from pyro_mivae.errors import CaptureError, OptionError

WARM_UPS = 3
"""Steps that are taken before a capture, in which libraries set themselves up."""


class Recording:
    """Tries a step out, records it, and puts back what it changed.

    Recorded by this class itself a step is a loop over its body, which any device can run.

    Args:
        optimiser: The optimiser, whose state is made if it is not there.
        device: Where the step runs.
        steps_per_replay: How many steps are repeated at once.

    Raises:
        OptionError: If ``steps_per_replay`` is under 1.
    """

    def __init__(
        self, optimiser: torch.optim.Optimizer, device: torch.device, steps_per_replay: int = 1
    ) -> None:
        if steps_per_replay < 1:
            raise OptionError(f"steps_per_replay={steps_per_replay}: 1 or more is needed")
        self.optimiser, self.device = optimiser, device
        self.steps_per_replay = steps_per_replay

    def record(self, body: Body, counts: Sequence[int], state: Sequence[Tensor]) -> list[Body]:
        """Records a step; see `Recorder`."""
        before = _Snapshot(state, self.optimiser, self.device)
        try:
            self._warm_up(body, before.restore)
            recorded = [self._record(body, count) for count in counts]
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


class CudaGraphs(Recording):
    """Captures steps as CUDA graphs, which share one pool of memory; see `Recording`.

    The last step before a capture is taken under torch's watch for what waits for the device, so
    that most of what would break a capture is told before one is begun.
    """

    def _warm_up(self, body: Body, restore: Body) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        current = torch.cuda.current_stream(self.device)
        aside = torch.cuda.Stream(self.device)
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            super()._warm_up(body, restore)
            with _no_waiting():
                body()
            restore()
        current.wait_stream(aside)

    def _record(self, body: Body, count: int) -> Body:
        graph = torch.cuda.CUDAGraph()
        random = torch.cuda.get_rng_state(self.device)
        current = torch.cuda.current_stream(self.device)
        collecting = gc.isenabled()
        gc.disable()  # what is collected meanwhile might be the device's
        try:
            with (
                torch.cuda.device(self.device),
                torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
            ):
                for _ in range(count):
                    body()
        except Exception:
            torch.cuda.set_stream(current)  # torch 2.11 leaves that of the capture
            _end_pool(self.device, self._pool)
            _renew_generator(self.device, random)
            raise
        finally:
            if collecting:
                gc.enable()
        replay: Callable[[], None] = graph.replay
        return replay


class _Snapshot:
    """Tensors, the optimiser's state and random numbers as they are now."""

    def __init__(
        self, state: Sequence[Tensor], optimiser: torch.optim.Optimizer, device: torch.device
    ) -> None:
        self.optimiser = optimiser
        self.device = device
        self.tensors = [(tensor, tensor.detach().clone()) for tensor in state]
        self.moments = {
            parameter: {name: value.clone() for name, value in moments.items()}
            for parameter, moments in optimiser.state.items()
        }
        self.random = torch.get_rng_state()
        self.device_random = _device_random(device)

    @torch.no_grad()
    def restore(self) -> None:
        """Puts all of it back in place; moments that were not there before become Adam's zeros."""
        for tensor, value in self.tensors:
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


def _device_random(device: torch.device) -> Tensor | None:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Makes it an error to wait for the device."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _end_pool(device: torch.device, pool: tuple[int, int]) -> None:
    """Ends a capture's claim on new memory, which torch leaves standing where a capture failed.

    While it stands no memory can be given back to the device.
    """
    with suppress(RuntimeError):  # where there is none
        torch._C._cuda_endAllocateToPool(_index(device), pool)


def _renew_generator(device: torch.device, state: Tensor) -> None:
    """Gives a device's generator a new state, since a capture that failed may still hold its own.

    Random numbers drawn with that one would fail from then on.
    """
    fresh = torch.Generator(device)
    fresh.set_state(state)
    torch.cuda.default_generators[_index(device)].graphsafe_set_state(fresh.graphsafe_get_state())
