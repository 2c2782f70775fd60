"""Weights that change while training: functions of the step, and the tensor that holds them.

A schedule is any callable from the number of training steps done, an ``int``, to a ``float``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import checked, number, number_or_schedule, shown, whole
from pyro_mivae.errors import OptionError

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class _Ramp:
    """A linear change from one value to another, constant before and after."""

    start: float
    end: float
    length: float
    delay: int = 0
    period: int | None = None

    def __call__(self, step: int) -> float:
        since = step - self.delay if self.period is None else step % self.period
        return self.start + (self.end - self.start) * min(max(since / self.length, 0.0), 1.0)

    @property
    def description(self) -> str:
        """The schedule, as `explain` writes it."""
        values = f"{self.start:g} to {self.end:g}"
        if self.period is not None:
            return f"{values} in every {self.period} steps"
        return f"{values} over steps {self.delay} to {self.delay + self.length}"


@checked(steps=whole(least=1), start=number(), end=number(), delay=whole(least=0))
def linear_warmup(steps: int, start: float = 0.0, end: float = 1.0, delay: int = 0) -> Schedule:
    r"""Rises linearly from ``start`` to ``end`` over ``steps`` training steps.

    Args:
        steps: Length of the rise, at least 1.
        start: Value until step ``delay``.
        end: Value from step ``delay + steps`` on.
        delay: Steps before the rise begins.

    References:
        Bowman et al. (2016), Generating Sentences from a Continuous Space, section 3.1.
        https://arxiv.org/abs/1511.06349

    Example:
        >>> warmup = linear_warmup(10)
        >>> warmup(0), warmup(5), warmup(100)
        (0.0, 0.5, 1.0)
    """
    return _Ramp(start, end, steps, delay)


@checked(period=whole(least=1), fraction=number(above=0, most=1), start=number(), end=number())
def cyclic_warmup(
    period: int, fraction: float = 0.5, start: float = 0.0, end: float = 1.0
) -> Schedule:
    r"""Repeats a linear warm-up every ``period`` training steps.

    Args:
        period: Length of a cycle, at least 1.
        fraction: Share of the cycle with the rise, in (0, 1]; the rest is constant at ``end``.
        start: Value at the beginning of a cycle.
        end: Value at its end.

    References:
        Fu et al. (2019), Cyclical Annealing Schedule, eq. 6. https://arxiv.org/abs/1903.10145

    Example:
        >>> cycle = cyclic_warmup(10)
        >>> cycle(0), cycle(5), cycle(9), cycle(10)
        (0.0, 1.0, 1.0, 0.0)
    """
    return _Ramp(start, end, period * fraction, period=period)


class Weight(nn.Module):
    """A weight of an objective: a constant, or a schedule whose current value is a buffer.

    The buffer changes in place, so compiled or captured code sees the change.
    """

    current: Tensor
    step: Tensor
    unguarded = ("_steps",)  # moves on in every step, and `forward` does not read it

    @checked(value=number_or_schedule())
    def __init__(self, value: float | Schedule) -> None:
        super().__init__()
        self.schedule: Schedule | None = value if callable(value) else None
        self.constant = math.nan if callable(value) else float(value)
        if self.schedule is not None:
            self._steps = 0
            self.register_buffer("current", torch.tensor(self.at(0)))
            self.register_buffer("step", torch.tensor(0))

    @property
    def is_zero(self) -> bool:
        """True if the weight is the constant 0: the weighted term is then left out."""
        return self.constant == 0.0

    @property
    def identity(self) -> object:
        """A key that two weights share if they are always equal."""
        return self.constant if self.schedule is None else (id(self.schedule),)

    def forward(self) -> float | Tensor:
        """Returns the current value: a ``float``, or a 0-dimensional tensor of a schedule."""
        return self.constant if self.schedule is None else self.current

    def advance(self, steps: int = 1) -> None:
        """Advances a schedule by training steps."""
        if self.schedule is not None:
            self._steps += steps
            self.step.fill_(self._steps)
            self.current.fill_(self.at(self._steps))

    def at(self, step: int) -> float:
        """Returns the value after a number of training steps."""
        try:
            value = self.constant if self.schedule is None else self.schedule(step)
            number = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise OptionError(
                f"weight at step {step}: {error}; a schedule takes a step and gives a number"
            ) from error
        if not math.isfinite(number):
            raise OptionError(
                f"weight {shown(value)} at step {step}: a schedule must give finite numbers"
            )
        return number

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.schedule is not None:
            self._steps = int(self.step)

    def extra_repr(self) -> str:
        """Shows the constant, or the schedule's current value."""
        return f"{self.constant:g}" if self.schedule is None else f"scheduled, {self.current:g}"

    def __str__(self) -> str:
        if self.schedule is None:
            return f"{self.constant:g}"
        told = getattr(self.schedule, "description", "scheduled")
        return f"({told}, now {float(self.current):g})" if int(self.step) else f"({told})"
