"""Several trainings at the same time, each in its own process."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

import pyro
import torch

from pyro_mivae.errors import OptionError
from pyro_mivae.interrupts import PATIENCE, held_back, stoppable
from pyro_mivae.ranks import Ranks, alone

HINT = '; a script that trains by jobs needs `if __name__ == "__main__":`'
OnRow = Callable[[int, Mapping[str, float]], object]  # called with the index of a model
# Weights and history of a model, and the reason of its failure; empty if there is none.
Result = tuple[dict[str, torch.Tensor], list[dict[str, float]] | None, str]


def in_processes(
    train: Callable[[Sequence[Any], OnRow], list[Result]],
    models: Sequence[Any],
    jobs: int,
    on_row: OnRow,
) -> list[Result]:
    """Calls a function in each of several processes, with its share of the models.

    If this process is stopped, the others get SIGTERM. If another process dies, only its own
    models fail.
    """
    shares = [range(first, len(models), jobs) for first in range(min(jobs, len(models)))]
    state = (
        [_source(module) for module in list(sys.modules.values()) if _source(module)],
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        pyro.settings.get(),
        max(1, torch.get_num_threads() // jobs),
    )
    try:
        tasks = [pickle.dumps([models[number] for number in share]) for share in shares]
        shared = pickle.dumps(train)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise OptionError(
            f"jobs={jobs}: the models cannot be sent to other processes ({error}); define their "
            "classes and functions at the top level of a module, or leave jobs out"
        ) from error
    context = multiprocessing.get_context("spawn")
    workers: dict[Any, tuple[Any, range]] = {}
    results: dict[int, Result] = {}
    finished: list[Any] = []
    try:
        with stoppable():
            for share in shares:
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs,))
                with (
                    held_back()
                ):  # the other process inherits the handlers, but signals are for this one
                    process.start()
                theirs.close()
                workers[ours] = process, share
            for connection, task in zip(workers, tasks, strict=True):
                with suppress(ConnectionError):  # a dead process is reported below
                    for part in (pickle.dumps(state), shared, task):
                        connection.send_bytes(part)
            working: set[Any] = set(workers)
            while working:
                ready: list[Any] = wait(list(working))
                for connection in ready:
                    process, share = workers[connection]
                    try:
                        kind, content = pickle.loads(connection.recv_bytes())
                    except (EOFError, ConnectionError):
                        process.join()
                        told = f"its process ended with exit code {process.exitcode}"
                        kind, content = "results", [({}, None, told + HINT)] * len(share)
                    if kind == "row":
                        on_row(share[content[0]], content[1])
                    elif kind == "warning":
                        warnings.warn(content, stacklevel=3)
                    elif kind == "results":
                        results |= dict(zip(share, content, strict=True))
                        working.remove(connection)
                        finished.append(process)
                    else:
                        raise content
    finally:
        with held_back():
            for process, _ in workers.values():
                if process not in finished:  # a finished one frees its semaphores as it exits
                    process.terminate()
            for process, _ in workers.values():
                process.join(PATIENCE)
                process.kill()
                process.join()
    return [results[number] for number in range(len(models))]


def in_ranks(
    train: Callable[[Sequence[Any], OnRow], list[Result]],
    models: Sequence[Any],
    ranks: Ranks,
    on_row: OnRow,
) -> list[Result]:
    """Calls a function in each of the processes that were started together."""
    own = ranks.own(range(len(models)))
    with alone():
        trained = train(
            [models[number] for number in own], lambda number, row: on_row(own[number], row)
        )
    shares = ranks.from_each(dict(zip(own, trained, strict=True)))
    results = {number: result for share in shares for number, result in share.items()}
    return [results[number] for number in range(len(models))]


def _work(connection: Connection) -> None:
    """Runs the share of one process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which stops a training as Ctrl-C does

    def send(kind: str, content: Any) -> None:
        connection.send_bytes(pickle.dumps((kind, content)))

    try:
        sources, dtype, deterministic, settings, threads = pickle.loads(connection.recv_bytes())
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)
        pyro.settings.set(**settings)
        warnings.showwarning = lambda message, *_, **__: send("warning", message)
        for source in sources:
            run_source(*source)
        train, models = (pickle.loads(connection.recv_bytes()) for _ in range(2))
        send("results", train(models, lambda number, row: send("row", (number, dict(row)))))
    except (KeyboardInterrupt, ConnectionError):  # the process that started this one is gone
        sys.exit(1)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        send("error", error)


def run_source(name: str, path: str, digest: str, source: bytes) -> ModuleType:
    """Runs the source of a module that cannot be imported, and registers it for pickling."""
    module = ModuleType(name)
    module.__dict__.update(
        __file__=path, __pyro_mivae_digest__=digest, __pyro_mivae_source__=source
    )
    if str(Path(path).parent) not in sys.path:
        sys.path.append(str(Path(path).parent))  # for modules beside the file
    sys.modules[name] = module
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]  # other processes would run it again, and fail
        raise
    return module


def _source(module: ModuleType) -> tuple[str, ...] | None:
    held = getattr(module, "__dict__", {})
    if "__pyro_mivae_source__" not in held:
        return None
    names = ("__name__", "__file__", "__pyro_mivae_digest__", "__pyro_mivae_source__")
    return tuple(held[name] for name in names)
