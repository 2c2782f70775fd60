"""Programs as users write them, run with Pyro's SVI and with `mi.SVI`, and compared.

A program is a function that builds a `Case`. It stands in `PROGRAMS` with what is expected of it:

- ``staged``: equal to Pyro's to rounding, and the program is run far less often;
- ``equal``: equal to rounding;
- ``warned``: one warning, no later than the next check after the first step that differs;
- ``either``: equal or warned;
- ``error``: the same error at the same step.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import random
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path

import pyro_mivae as mi
from pyro_mivae.errors import PyroMivaeWarning

OUTCOMES = {
    "staged": {"equal"},
    "equal": {"equal"},
    "warned": {"warned"},
    "either": {"equal", "warned"},
    "error": {"error"},
}
FAR_LESS = 0.7
"""Share of Pyro's runs of a program that a staged one needs at most."""

INSTANCE = re.compile(rf"({'|'.join(mi.VARIANTS)})_\d+")
"""Name of a variant with its number, which is another for each that is made."""

KERNELS = ("fused", "foreach", "capturable", "differentiable")


@dataclass
class Case:
    """A model/guide pair, how it is trained, and what is compared at the end.

    Args:
        model: The model.
        guide: The guide.
        optim: Adam by default.
        loss: `MutualInformationELBO` by default.
        batch: From the step to the arguments; the same tensor in each step by default.
        keywords: From the step to the keyword arguments.
        before: Done before each step, given its number.
        after: Done after each step, given its loss.
        step: Takes a step; ``svi.step`` on the arguments by default.
        modules: Their parameters, gradients, buffers and modes are compared.
        leaves: Tensors outside the store whose gradients are compared.
        state: Whatever else is to be equal in the end.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    optim: Any = None
    loss: Any = None
    batch: Callable[[int], tuple[Any, ...]] | None = None
    keywords: Callable[[int], dict[str, Any]] = field(default=lambda step: {})
    before: Callable[[int], None] = field(default=lambda step: None)
    after: Callable[[float], None] = field(default=lambda loss: None)
    step: Callable[[Any, int], float] | None = None
    modules: Sequence[nn.Module] = ()
    leaves: Iterable[Tensor] = ()
    state: Callable[[], Any] = field(default=lambda: None)

    def __post_init__(self) -> None:
        x = data()
        self.optim = self.optim or pyro.optim.Adam({"lr": 0.01})
        self.loss = self.loss or mi.MutualInformationELBO()
        self.batch = self.batch or (lambda step: (x,))


@dataclass(frozen=True)
class Program:
    """A builder of cases, and what is expected of it.

    Args:
        build: Builds a `Case`; may take the function that makes an SVI.
        expected: One of `OUTCOMES`.
        slow: Whether it is left out of the default run.
        kinds: Kinds of arguments that alternate, each with checks of its own.
        dtype: The default dtype.
        engine: The engine.
        steps: The number of steps.
        rtol: Relative tolerance; that of the dtype if omitted.
    """

    build: Callable[..., Case]
    expected: str
    slow: bool = True
    kinds: int = 1
    dtype: torch.dtype = torch.float64
    engine: str = "auto"
    steps: int = 20
    rtol: float | None = None

    def next_check(self, step: int) -> int:
        """Latest step by which a difference at a step is found."""
        check = 1
        while self.kinds * (2 + check) - 1 < step:
            check *= 2
        return self.kinds * (2 + check) - 1


PROGRAMS: dict[str, Program] = {}


def program(expected: str, **options: Any) -> Callable[[Callable[..., Case]], Callable[..., Case]]:
    """Puts a builder in `PROGRAMS`."""

    def add(build: Callable[..., Case]) -> Callable[..., Case]:
        assert build.__name__ not in PROGRAMS
        PROGRAMS[build.__name__] = Program(build, expected, **options)
        return build

    return add


@dataclass
class Record:
    """What was seen of a program."""

    losses: list[float] = field(default_factory=list)
    warned: list[tuple[int, str]] = field(default_factory=list)
    error: BaseException | None = None
    calls: int = 0
    svis: list[Any] = field(default_factory=list)
    end: Any = None


@dataclass(frozen=True)
class Verdict:
    """How two runs of a program compare."""

    outcome: str
    why: str = ""
    staged: bool = False

    def meets(self, expected: str) -> bool:
        return self.outcome in OUTCOMES[expected] and (self.staged or expected != "staged")


def run(program: Program, svi_class: Callable[..., Any]) -> Record:
    """Runs a program from fresh seeds and an empty store."""
    record = Record()
    original = pyro.sample

    @functools.wraps(original)
    def sample(*args: Any, **kwargs: Any) -> Any:
        record.calls += 1
        return original(*args, **kwargs)

    def make(*args: Any) -> Any:
        record.svis.append(svi_class(*args))
        return record.svis[-1]

    settings = pyro.settings.get()
    pyro.clear_param_store()
    torch.set_default_dtype(program.dtype)
    pyro.set_rng_seed(0)
    with (
        patch.dict(os.environ),
        patch.object(pyro, "sample", sample),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        try:
            takes_make = bool(inspect.signature(program.build).parameters)
            case = program.build(make) if takes_make else program.build()
            svi = make(case.model, case.guide, case.optim, case.loss)
            record.warned += _ours(caught, 0)
            _train(program, case, svi, record)
            record.end = _end(case)
        except Exception as error:
            record.error = error
        finally:
            pyro.settings.set(**settings)
    return record


def _train(program: Program, case: Case, svi: Any, record: Record) -> None:
    for step in range(program.steps):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                case.before(step)
                if case.step:
                    loss = case.step(svi, step)
                else:
                    loss = svi.step(*case.batch(step), **case.keywords(step))
            finally:
                record.warned += _ours(caught, step)
        case.after(loss)
        record.losses.append(loss)


def _ours(caught: list[warnings.WarningMessage], step: int) -> list[tuple[int, str]]:
    return [(step, str(w.message)) for w in caught if issubclass(w.category, PyroMivaeWarning)]


def _end(case: Case) -> dict[str, Any]:
    """Everything that a training leaves."""
    store = pyro.get_param_store()
    held = {id(value) for _, value in store.named_parameters()}
    outside = [p for m in case.modules for p in m.parameters() if id(p) not in held]
    optimiser = case.optim.get_state()
    optimiser.pop(None, None)  # of parameters that the store holds no more
    return {
        "store": {name: value.detach().clone() for name, value in store.named_parameters()},
        "optimiser": optimiser,
        "parameters": [p.detach().clone() for m in case.modules for p in m.parameters()],
        "buffers": [b.clone() for m in case.modules for b in m.buffers()],
        "modes": [part.training for m in case.modules for part in m.modules()],
        "gradients": [leaf.grad for leaf in [*case.leaves, *outside]],
        "state": case.state(),
        "random numbers": (torch.get_rng_state(), random.getstate(), np.random.get_state()),
    }


def compare(program: Program, svi_class: Callable[..., Any] | None = None) -> Verdict:
    """Compares ``mi.SVI``, or another SVI, with Pyro's on a program."""
    stock = run(program, pyro.infer.SVI)
    ours = run(program, svi_class or functools.partial(mi.SVI, engine=program.engine))
    if stock.error or ours.error:
        return _errors(stock, ours)
    assert all(map(math.isfinite, stock.losses)), f"a useless program: {stock.losses}"
    known = {message for _, message in stock.warned}
    warned = [(step, message) for step, message in ours.warned if message not in known]
    rtol = program.rtol or (1e-9 if program.dtype == torch.float64 else 2e-5)
    differing = _first_difference(stock.losses, ours.losses, rtol)
    text = f"\nmi.SVI warned: {warned}" if warned else ""
    if differing is not None:
        pair = f"{stock.losses[differing]!r}, mi.SVI {ours.losses[differing]!r}"
        text = f"first differing step {differing}: Pyro {pair}{text}"
    if ours.calls > stock.calls:
        return Verdict("failed", f"{ours.calls} samples, Pyro {stock.calls}; {text}")
    if not warned:
        text = text or _state_difference(stock.end, ours.end, rtol)
        staged = ours.calls < FAR_LESS * stock.calls
        return Verdict("failed" if text else "equal", text and f"silent: {text}", staged)
    return _warned(program, stock, ours, warned, differing, rtol, text)


def _warned(
    program: Program,
    stock: Record,
    ours: Record,
    warned: list[tuple[int, str]],
    differing: int | None,
    rtol: float,
    text: str,
) -> Verdict:
    step = warned[0][0]
    if differing is not None:
        recording = step < 2  # no step was staged yet
        late = not differing - 1 <= step <= program.next_check(differing)
        if recording or late:
            return Verdict("failed", f"warned at step {step}; {text}")
    if len(warned) > len(ours.svis):
        return Verdict("failed", f"more than one warning: {text}")
    if all(svi.engine != "eager" for svi in ours.svis) or not all(map(math.isfinite, ours.losses)):
        return Verdict("failed", f"training does not go on as Pyro's: {text}")
    if differing is None and step < 2 * program.kinds:
        difference = _state_difference(stock.end, ours.end, rtol)
        if difference:
            return Verdict("failed", f"warned at step {step}, and {difference}")
    return Verdict("warned", text)


def _errors(stock: Record, ours: Record) -> Verdict:
    same = type(stock.error) is type(ours.error) and len(stock.losses) == len(ours.losses)
    said = [f"step {len(r.losses)}: {type(r.error).__name__}: {r.error}" for r in (stock, ours)]
    return Verdict("error" if same else "failed", f"Pyro: {said[0]}\nmi.SVI: {said[1]}")


def _first_difference(wanted: list[float], found: list[float], rtol: float) -> int | None:
    for step, (a, b) in enumerate(zip(wanted, found, strict=True)):
        if not math.isclose(a, b, rel_tol=rtol, abs_tol=rtol):
            return step
    return None


def _state_difference(wanted: Any, found: Any, rtol: float) -> str:
    """Names the first entry that differs, or gives an empty text."""
    wanted, found = (dict(_leaves(tree)) for tree in (wanted, found))
    if wanted.keys() != found.keys():
        return f"state differs in its entries: {sorted(wanted.keys() ^ found.keys())}"
    for path, value in wanted.items():
        if not _same(value, found[path], rtol):
            return f"state differs at {path}: Pyro {value}, mi.SVI {found[path]}"
    return ""


def _leaves(tree: Any) -> Iterable[tuple[str, Any]]:
    for path, leaf in tree_flatten_with_path(tree)[0]:
        key = INSTANCE.sub(r"\1", "".join(map(str, path)))
        if not any(f"'{kernel}'" in key for kernel in KERNELS):
            yield key, leaf


def _same(a: Any, b: Any, rtol: float) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor) and not a.is_floating_point():
        return torch.equal(a, b)
    if isinstance(a, Tensor | float) and isinstance(b, Tensor | float):
        a, b = (torch.as_tensor(value).detach().double() for value in (a, b))
        return a.shape == b.shape and torch.allclose(a, b, rtol=rtol, atol=rtol, equal_nan=True)
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    return bool(a == b)


def data(rows: int = 6, columns: int = 3, seed: int = 0) -> Tensor:
    """Gives normal data."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64).to(
        torch.get_default_dtype()
    )


def decode(x: Tensor, scale: Any = 1.0, factor: Any = 1.0, name: str = "x") -> Tensor:
    """Is the body of a model: factor analysis, with a scale of the noise and of the loadings."""
    weight = pyro.param("weight", lambda: torch.linspace(-1, 1, 6).reshape(2, 3))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample(name, dist.Normal(factor * (z @ weight), scale).to_event(1), obs=x)
    return z


def encode(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Is the body of a guide, whatever else the model takes."""
    slope = pyro.param("slope", lambda: torch.full((3, 2), 0.1))
    width = pyro.param("width", lambda: torch.ones(2), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        return pyro.sample("z", dist.Normal(x @ slope, width).to_event(1))


def late(step: int, at: int = 11, before: Any = 1.0, after: Any = 2.0) -> Any:
    """Gives what changes once."""
    return before if step < at else after


def rising(step: int) -> float:
    """Gives a number that is another in every step."""
    return 1.0 + 0.1 * step
