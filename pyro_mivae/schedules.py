"""Weights that change while training: schedules, targets, and the tensor that holds a weight.

A schedule is any callable from the number of training steps done, an ``int``, to a ``float``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import (
    LARGEST_WEIGHT,
    Given,
    checked,
    checker,
    number,
    number_or_schedule,
    several,
    shown,
    whole,
)
from pyro_mivae.errors import OptionError

Schedule = Callable[[int], float]
OFF = 0.02  # relative gap above which a target is not held


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


@dataclass(frozen=True)
class Target:
    r"""A value to hold, in place of a weight: ``beta=mi.Target(20.0)`` for a rate of 20 nats.

    The weight becomes the multiplier of a constraint. A divergence is held at :math:`R` nats, and
    a term, such as information, at :math:`I` nats or more; a term that is a cost counts as a
    divergence. With the distortion :math:`D`, training seeks the saddle point

    .. math:: \min_\theta \max_{\beta, \lambda > 0}\;
        D(\theta) + \beta\,(KL(\theta) - R) + \lambda\,(I - I_q(\theta))

    by the usual steps on :math:`\theta`, each followed by a step of ascent on the logarithm of the
    weight, which keeps the weight positive:

    .. math:: g \leftarrow g + \tfrac{1}{n} (\mathrm{clip}(v, -1, 1) - g),\qquad
        \log\beta \leftarrow \log\beta + \eta\,g

    with :math:`v = (KL - R) / R` of the last batch for a divergence and :math:`(I - I_q) / |I|`
    for a term. So the weight of a divergence rises while the divergence is too large, and that of
    a term while the term is too small. At the end :math:`\beta` is the price of a nat of rate in
    nats of distortion. If the target is out of reach, the weight ends at one of its bounds, and
    `fit` warns.

    Args:
        value: The value to hold, in nats per datum, not 0; above 0 for a divergence.
        speed: :math:`\eta`, the relative change of the weight per step if the value is wrong by
            as much as the target itself.
        start: The first weight.
        window: :math:`n`, the number of steps that the average of the gap reaches back.
        bounds: The smallest and the largest weight.

    Raises:
        OptionError: If an option is out of range, or ``start`` lies outside the bounds.

    References:
        Rezende & Viola (2018), Taming VAEs, section 3. https://arxiv.org/abs/1810.00597
        Alemi et al. (2018), Fixing a Broken ELBO, section 2. https://arxiv.org/abs/1711.00464

    Example:
        >>> elbo = mi.MutualInformationELBO(kl_weights={"z": mi.Target(20.0)})
        >>> print(mi.explain(elbo))
        J =  E_q[log p(x|code)]
           - (held at 20 nats, from 1) * KL(q(z|x) || p(z))
           - 1 * KL of every other site
        maximised; nats per datum
    """

    value: float
    _: KW_ONLY
    speed: float = 0.02
    start: float = 1.0
    window: int = 10
    bounds: tuple[float, float] = (1e-3, 1e3)

    def __post_init__(self) -> None:
        for name, check in TARGET_CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        if self.value == 0:
            raise OptionError("value=0; a target is a number of nats other than 0")
        object.__setattr__(self, "bounds", tuple(self.bounds))
        if len(self.bounds) != 2 or not self.bounds[0] <= self.start <= self.bounds[1]:
            raise OptionError(
                f"start={shown(self.start)} and bounds={shown(self.bounds)}; allowed are two "
                "bounds, the smaller one first, with start between them"
            )


_POSITIVE = number(above=0, most=LARGEST_WEIGHT)
TARGET_CHECKS = {
    "value": number(),
    "speed": number(above=0, most=1),
    "start": _POSITIVE,
    "window": whole(least=1),
    "bounds": several(_POSITIVE, least=2),
}


@checker
def weight(given: Given, *, least: float | None = None) -> Any:
    """Weights: finite numbers, schedules of them, or targets; returned as they are."""
    if isinstance(given.value, Target):
        if least == 0 and given.value.value < 0:
            raise given.refused("targets above 0 nats here")
        return given.value
    return number_or_schedule(least=least)(given.name, given.value)


TARGET = "target:"  # the beginning of a target in text, such as `target:20` of 20 nats


@checker
def written_weight(given: Given, *, least: float | None = None) -> float | str:
    """A weight as files and commands hold it: a number, or ``target:N``, a target of N nats.

    A `Target` without other options is written so.

    Example:
        >>> written_weight()("beta", "target:20"), written_weight()("beta", 0.5)
        ('target:20', 0.5)
    """
    value = given.value
    if not isinstance(value, str | Target):
        return number(least=least, most=LARGEST_WEIGHT)(given.name, value)
    try:
        target = value if isinstance(value, Target) else _target_of(value)
    except (ValueError, OptionError):
        raise given.refused("finite numbers, and target:N for a target of N nats") from None
    weight(least=least)(given.name, target)
    if target != Target(target.value):
        raise given.refused(
            "targets without other options here; give those to a term of an objective of your own"
        )
    return f"{TARGET}{target.value:.12g}"


def _target_of(text: str) -> Target:
    return Target(float(text.removeprefix(TARGET)) if text.startswith(TARGET) else math.nan)


def read_target(value: Any) -> Any:
    """Returns the `Target` that a text ``target:N`` stands for; other values do not change.

    Example:
        >>> read_target("target:20").value, read_target(0.5)
        (20.0, 0.5)
    """
    is_target = isinstance(value, str) and value.startswith(TARGET)
    return _target_of(value) if is_target else value


class Weight(nn.Module):
    """A weight of an objective: a constant, or one that changes, whose value is a buffer.

    The buffer changes in place, so compiled or captured code sees the change. The weight of a
    target moves by the value that was ``seen`` last.

    Args:
        value: A number, a schedule or a target.
        rises_below: True if the weight of a target rises while the value is below it.

    Example:
        >>> Weight(mi.linear_warmup(10))()
        tensor(0.)
    """

    current: Tensor
    step: Tensor
    seen: Tensor  # the value to hold, per datum, of the last evaluation
    gap: Tensor  # relative, an average
    unguarded = ("_steps",)  # moves on in every step, and `forward` does not read it

    @checked(value=weight())
    def __init__(self, value: float | Schedule | Target, *, rises_below: bool = False) -> None:
        super().__init__()
        self._target = value if isinstance(value, Target) else None
        self.schedule: Schedule | None = value if callable(value) else None
        is_number = self._target is None and self.schedule is None
        self.constant = float(value) if is_number else math.nan  # type: ignore[arg-type]
        self._rises_below = rises_below
        if self.schedule is not None:
            self._steps = 0
            self.register_buffer("current", torch.tensor(self.at(0)))
            self.register_buffer("step", torch.tensor(0))
        elif self._target is not None:
            self.register_buffer("current", torch.tensor(float(self._target.start)))
            self.register_buffer("gap", torch.tensor(0.0))
            self.register_buffer("seen", torch.tensor(float(self._target.value)), persistent=False)

    @property
    def target(self) -> Target | None:
        """The target, if the weight has one."""
        return self._target

    @property
    def is_zero(self) -> bool:
        """True if the weight is the constant 0, which leaves the weighted term out."""
        return self.constant == 0.0

    @property
    def identity(self) -> object:
        """A key that two weights share if they are always equal."""
        changing = self.schedule or self.target
        return self.constant if changing is None else (id(changing),)

    def forward(self) -> float | Tensor:
        """Returns the current value: a ``float``, or a 0-dimensional tensor if it changes."""
        return self.current if math.isnan(self.constant) else self.constant

    @property
    def price(self) -> float:
        """The weight times the target, in nats; negative for a divergence."""
        if self.target is None:
            return 0.0
        return float(self.current) * self.target.value * (1 if self._rises_below else -1)

    def see(self, value: Tensor | None) -> None:
        """Takes the current value of what is held, per datum; None counts as the target itself."""
        if self.target is not None:
            if value is None:
                self.seen.fill_(self.target.value)
            else:
                self.seen.copy_(value)

    @torch.no_grad()
    def ascend(self) -> None:
        """Moves the weight of a target by the value seen; without waiting for the device."""
        if self.target is None:
            return
        aim, (least, most) = self.target.value, self.target.bounds
        gap = (aim - self.seen if self._rises_below else self.seen - aim) / abs(aim)
        self.gap.lerp_(gap.clamp(-1.0, 1.0), 1 / self.target.window)
        moved = self.current.log() + self.target.speed * self.gap
        self.current.copy_(moved.clamp(math.log(least), math.log(most)).exp())

    @property
    def limit(self) -> str:
        """A remark if the weight has reached a bound, and the value still asks for more."""
        if self.target is None:
            return ""
        bound = self.target.bounds[int(self.gap > 0)]
        if not math.isclose(float(self.current), bound, rel_tol=1e-5) or abs(self.gap) < OFF:
            return ""
        side = "above" if bool(self.gap > 0) != self._rises_below else "below"
        return (
            f"the value stays {side} the target of {self.target.value:g} nats, with the weight at "
            f"its bound, {bound:g}"
        )

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
        """Shows the constant, or the current value."""
        if self.target is not None:
            return f"{self.target}, {self.current:g}"
        return f"{self.constant:g}" if self.schedule is None else f"scheduled, {self.current:g}"

    def __str__(self) -> str:
        if self.target is not None:
            kept = "at or above" if self._rises_below else "at"
            now = float(self.current)
            since = "from" if math.isclose(now, self.target.start, rel_tol=1e-6) else "now"
            return f"(held {kept} {self.target.value:g} nats, {since} {now:g})"
        if self.schedule is None:
            return f"{self.constant:g}"
        told = getattr(self.schedule, "description", "scheduled")
        return f"({told}, now {float(self.current):g})" if int(self.step) else f"({told})"
