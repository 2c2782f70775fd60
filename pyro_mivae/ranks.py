"""Processes that train together: the rows of a batch are divided among their ranks.

Inside `dividing` a program sees its rank's rows. A computation that compares data within a batch
joins the rows of all ranks first (`joined`), and a mean over the batch divides a sum over the
ranks (`summed`) by `whole_size`. Elsewhere, as in a single process, these return their argument.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.distributed.rendezvous import rendezvous

from pyro_mivae.compat import all_reduce
from pyro_mivae.errors import PyroMivaeError, PyroMivaeWarning, RankError

T = TypeVar("T")


@dataclass(frozen=True)
class Shares:
    """The division of a batch: the number of rows of each rank, and the rank of this process."""

    sizes: tuple[int, ...]
    rank: int

    @property
    def count(self) -> int:
        """Number of rows of the whole batch."""
        return sum(self.sizes)

    @property
    def around(self) -> tuple[int, int]:
        """Number of rows before this rank's, and after them."""
        before = sum(self.sizes[: self.rank])
        return before, self.count - before - self.sizes[self.rank]


def own_rows(data: Tensor, shares: Shares | None) -> Tensor:
    """Returns the rank's rows of a whole batch."""
    return data if shares is None else data.split(shares.sizes)[shares.rank]


_shares: ContextVar[Shares | None] = ContextVar("shares", default=None)


@contextmanager
def holding(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Sets a context variable inside."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def dividing(shares: Shares | None) -> AbstractContextManager[None]:
    """Declares that the data of the computations inside are a rank's rows of a batch."""
    return holding(_shares, shares)


def current_shares() -> Shares | None:
    """Returns the division of the batch that is computed now, None if it is whole."""
    return _shares.get()


def joined(rows: Tensor) -> Tensor:
    """Joins the rows of all ranks, in the order of the ranks, with their gradient."""
    shares = _shares.get()
    if shares is None:
        return rows
    before, after = shares.around
    whole = torch.cat(
        [rows.new_zeros(before, *rows.shape[1:]), rows, rows.new_zeros(after, *rows.shape[1:])]
    )
    return summed(whole)


def summed(value: Tensor) -> Tensor:
    """Adds the values of all ranks, with their gradient."""
    if _shares.get() is None:
        return value
    sum_of_all: Tensor = _Sum.apply(value)
    return sum_of_all


def of_first(value: Tensor) -> Tensor:
    """Returns the first rank's value on every rank."""
    shares = _shares.get()
    if shares is None:
        return value
    return all_reduce(value if shares.rank == 0 else torch.zeros_like(value))


def whole_size(size: int) -> int:
    """Scales a number of items in the rank's rows to the whole batch."""
    shares = _shares.get()
    return size if shares is None else size * shares.count // shares.sizes[shares.rank]


def mean_size(rows: int) -> float:
    """Returns the mean number of rows per rank; this rank has ``rows``."""
    shares = _shares.get()
    return rows if shares is None else shares.count / len(shares.sizes)


def rows_before() -> int:
    """Returns the number of rows of the whole batch before this rank's."""
    shares = _shares.get()
    return 0 if shares is None else shares.around[0]


class _Sum(torch.autograd.Function):
    """The sum over the ranks; its gradients are summed over the ranks too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return all_reduce(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_reduce(gradient)


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, and the rank of this one."""

    rank: int = 0
    size: int = 1  # without a process group

    @classmethod
    def of_group(cls) -> Ranks:
        """Finds torch's process group; a process without one is alone."""
        if _is_alone.get():
            return ALONE
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        if (size := _launched()) > 1:
            warnings.warn(
                f"this is one of {size} processes, but there is no process group, so each trains "
                "a model of its own; to train one together, call "
                "torch.distributed.init_process_group() before",
                PyroMivaeWarning,
                stacklevel=3,
            )
        return ALONE

    @property
    def is_first(self) -> bool:
        """True in the one process that writes, prints and draws bars."""
        return self.rank == 0

    def seed(self, seed: int, epoch: int) -> None:
        """Gives every process except the first its own noise, which seed and epoch determine.

        So a resumed training repeats it, and the first process has the noise of a single one.
        """
        if not self.is_first:
            torch.manual_seed(random.Random(f"{seed} {epoch} {self.rank}").getrandbits(63))

    def shares(self, rows: int) -> Shares | None:
        """Divides a batch as evenly as possible, the first ranks get one row more."""
        if self.size == 1:
            return None
        least, rest = divmod(rows, self.size)
        return Shares(tuple(least + (rank < rest) for rank in range(self.size)), self.rank)

    @contextmanager
    def exchanging(self, when: str = "") -> Iterator[None]:
        """Turns torch's error of an exchange into one that says that a process has ended."""
        try:
            yield
        except RuntimeError as error:
            cause = " ".join(str(error).partition(". ")[0].split())
            raise RankError(
                f"rank {self.rank} of {self.size} processes stopped{when}, most likely because "
                f"another one ended ({cause}); runs in folders keep their last complete epoch"
            ) from error

    def from_first(self, make: Callable[[], T]) -> T:
        """Calls a function in the first process; all get its result, or raise its error."""
        if self.size == 1:
            return make()
        told: list[Any] = [None, None]
        cause: Exception | None = None
        if self.is_first:
            try:
                told[0] = make()
            except Exception as error:
                cause = error
                ours = isinstance(error, PyroMivaeError)
                told[1] = error if ours else RankError(f"the first process failed: {error!r}")
        with self.exchanging():
            distributed.broadcast_object_list(told)
        result, failure = told
        if failure is not None:
            raise cause or failure
        return result

    def first_does(self, action: Callable[[], object]) -> None:
        """Calls a function in the first process, for which all wait."""
        self.from_first(lambda: (action(), None)[1])

    def wait(self) -> None:
        """Waits for all processes."""
        self.from_each(None)

    def from_each(self, value: T) -> list[T]:
        """Returns the values of all processes, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self.exchanging():
            distributed.all_gather_object(values, value)
        return values

    def own(self, things: Sequence[T]) -> list[T]:
        """Returns the share of some things that this process works on: every ``size``-th."""
        return list(things[self.rank :: self.size])


ALONE = Ranks()  # a process that trains by itself


def _launched() -> int:
    """Number of processes that ``torchrun``, or another launcher, started with this one."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Joins the processes that ``torchrun`` started with this one, if it did."""
    if _launched() == 1:
        yield ALONE
        return
    store, rank, size = next(rendezvous("env://"))
    # Processes that torchrun starts again must not find the addresses of those that ended.
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = distributed.PrefixStore(start, store)  # type: ignore[attr-defined]
    how: dict[str, Any] = {"store": store, "rank": rank, "world_size": size}
    # Others wait while the first one evaluates; a process that ends is noticed at once.
    distributed.init_process_group(timeout=timedelta(days=1), **how)
    yield Ranks.of_group()
    distributed.destroy_process_group()


_is_alone: ContextVar[bool] = ContextVar("is_alone", default=False)


def alone() -> AbstractContextManager[None]:
    """Makes this process train alone inside, while others train other models."""
    return holding(_is_alone, True)


_workers: ContextVar[Ranks] = ContextVar("workers", default=ALONE)


def working(ranks: Ranks) -> AbstractContextManager[None]:
    """Divides the parts of an evaluation inside among processes, each of which calls it."""
    return holding(_workers, ranks)


def workers() -> Ranks:
    """Returns the processes that divide the parts of an evaluation."""
    return _workers.get()
