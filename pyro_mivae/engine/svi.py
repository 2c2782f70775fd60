"""Pyro's SVI, with the training step traced and compiled."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import pyro
from pyro import poutine
from pyro.infer.util import torch_item, zero_grads
from pyro.optim import PyroOptim
from pyro.poutine.runtime import am_i_wrapped
from pyro.util import warn_if_nan
from torch import Tensor

from pyro_mivae.arguments import checked, choice, function, instance, shown
from pyro_mivae.compat import version_of, zero_all
from pyro_mivae.engine.comparison import Gradients, Ledger, compared, is_due, most_unchecked
from pyro_mivae.engine.fallback import first_cause, give_up, tell_difference
from pyro_mivae.engine.guards import Guards
from pyro_mivae.engine.optimiser import GroupedOptimiser
from pyro_mivae.engine.stages import (
    Call,
    Stage,
    calls_noted,
    is_stageable,
    modules_of,
    parameters_of,
)
from pyro_mivae.engine.steps import (
    MOST_GRAPHS,
    TOO_MANY,
    Mode,
    compile_graph,
    steps_worth_compiling,
)
from pyro_mivae.engine.tracing import trace_run
from pyro_mivae.errors import DataError, PyroMivaeWarning, StagingError
from pyro_mivae.models import GenerativeModel
from pyro_mivae.ranks import Ranks

logger = logging.getLogger(__name__)

TRIES = 3  # largest number of recorded steps that are discarded because they made new parameters


class SVI(pyro.infer.SVI):
    """Stochastic variational inference, as ``pyro.infer.SVI``, at the speed of plain PyTorch.

    It takes the same arguments and gives the same losses. Models and guides are plain Pyro
    programs, and parameters stay in Pyro's param store. The first step on arguments of a new kind
    is Pyro's own, with its checks. The second is Pyro's too, and is recorded: loss and gradient
    become one graph of tensor operations, which takes the later steps on the same noise, and is
    compiled after enough steps to pay off. All parameters are updated at once. On CUDA the whole
    step, with the update of an optimiser that torch can capture (Adam and most others), is one
    CUDA graph for each shape of the data.

    Each state of Python has its own graph, as far as ``Guards`` sees it: arguments that are not
    tensors, modes, and numbers that model and guide read. The program itself takes the first steps
    of a graph, then those whose number has doubled, and at least every 200th (on CUDA every
    2,000th); there the graph must agree. If it does not, one warning names the steps that may be
    wrong, and every later step is Pyro's own.

    A step inside a Pyro handler, or without a tensor argument, is Pyro's own. Programs that cannot
    be a graph, such as those that read a tensor's value, run in Pyro with one warning.

    Args:
        model: The model.
        guide: The guide.
        optim: A Pyro optimiser, or scheduler of one.
        loss: An objective, such as `MutualInformationELBO`.
        engine: ``"auto"``, or ``"eager"``, ``"staged"`` or ``"compiled"`` from the third step on.

    Attributes:
        ledger: Every number of the last staged step by name, 0-dimensional tensors.

    Raises:
        OptionError: If an argument is not of the allowed kind.

    Example:
        >>> import pyro.optim
        >>> import pyro_mivae as mi
        >>> vae = mi.VAE((1, 8, 8), latent_dim=2)
        >>> svi = mi.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), vae.objective())
        >>> losses = [svi.step(torch.rand(16, 1, 8, 8)) for _ in range(3)]
        >>> type(losses[0]).__name__
        'float'
    """

    @checked(
        model=function("model(x)"),
        guide=function("guide(x)"),
        optim=instance(PyroOptim, example='pyro.optim.Adam({"lr": 1e-3})'),
        loss=function("loss(model, guide, x), such as mi.MutualInformationELBO()"),
        engine=choice("auto", *get_args(Mode)),
    )
    def __init__(
        self,
        model: Any,
        guide: Any,
        optim: PyroOptim,
        loss: Any,
        *,
        engine: Mode | Literal["auto"] = "auto",
    ) -> None:
        super().__init__(model, guide, optim, loss)
        if (size := Ranks.of_group().size) > 1:
            warnings.warn(
                f"SVI in {size} processes: each trains a model of its own; use mi.fit to train "
                "one model together",
                PyroMivaeWarning,
                stacklevel=2,
            )
        self.engine: Mode | Literal["auto"] = engine
        self.objective = loss
        self.ledger: Mapping[str, Tensor] = {}
        self._optimiser = GroupedOptimiser(optim)
        self._parts = [part for root in modules_of(model, guide, loss) for part in root.modules()]
        terms = getattr(loss, "terms", ())
        self._guards = Guards(model, guide, loss, *terms, *self._parts)
        self._stages: dict[Any, Stage | int] = {}  # or how often a kind was recorded in vain
        self._zeros: dict[int, tuple[Tensor, int]] = {}  # gradients known to be 0
        self._unchecked = isinstance(model, GenerativeModel)  # data of a first step
        self._number = 0  # of the step that is taken, from 0
        if engine != "eager" and not is_stageable(loss):
            self._give_up(
                f"the loss {type(loss).__name__} is not from this library; allowed are losses "
                "such as pyro_mivae.MutualInformationELBO()"
            )

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Takes a gradient step.

        Args:
            *args: Arguments of model and guide.
            **kwargs: Keyword arguments of both.

        Returns:
            The loss, as ``pyro.infer.SVI`` gives it: a float, summed over the data. Reading it
            waits for the device.

        Raises:
            DataError: At the first step, if a variant's model cannot score the data.
        """
        if args and self._unchecked:
            self._unchecked = False
            wanted = self.model.check_data(args[0])
            if getattr(args[0], "dtype", None) != wanted.dtype:
                raise DataError(
                    f"{shown(args[0])} is given, but the parameters are {wanted.dtype}; give "
                    "vae.check_data(x)"
                )
        if self.engine == "eager":
            return super().step(*args, **kwargs)
        call = Call(args, kwargs)
        plain = call.is_plain and self.loss_and_grads == self.objective.loss_and_grads
        if not plain or am_i_wrapped():
            return super().step(*args, **kwargs)
        try:
            return self._step(call)
        finally:
            self._number += 1

    def _by_pyro(self, call: Call) -> Any:
        return super().step(*call.args, **call.kwargs)

    def _step(self, call: Call) -> Any:
        try:
            key = self._key(call)
            stage = self._stages.get(key)
        except Exception as error:  # an argument without a hash, or a user's own comparison
            self._give_up(first_cause(error))
            return self._by_pyro(call)
        if isinstance(stage, int):
            return self._recorded_step(key, stage, call)
        if stage is None or not stage.is_current():
            return self._first_step(key, call)
        stage.steps += 1
        due = is_due(stage.steps, most_unchecked(call.tensors[0].device))
        return self._compared_step(stage, call) if due else self._graph_step(stage, call)

    def _key(self, call: Call) -> Any:
        """The current state that a graph depends on, of arguments and modules."""
        owners = map(id, (self.model, self.guide, self.optim))
        return call.kind, *owners, self.loss_and_grads, self._guards.read()

    def _first_step(self, key: Any, call: Call) -> Any:
        """Lets Pyro take a step, which creates parameters, and records its modules and kind."""
        if len(self._stages) >= MOST_GRAPHS and key not in self._stages:
            self._give_up(TOO_MANY.format(MOST_GRAPHS))
            return self._by_pyro(call)
        self._stages.pop(key, None)
        with calls_noted(self._parts):
            loss = self._by_pyro(call)
        for part in self._parts:
            self._guards.watch(part)
        self._stages[self._key(call)] = 0
        return loss

    def _recorded_step(self, key: Any, tries: int, call: Call) -> Any:
        """Takes Pyro's own step, and records it."""

        def evaluate(*data: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
            args, kwargs = call.with_tensors(data)
            loss = self.objective.differentiable_loss(self.model, self.guide, *args, **kwargs)
            return loss, self.objective.ledger | {"loss": loss.detach()}

        # A graph holds the first value of a parameter that is made as the graph is recorded.
        known = set(map(id, self.optim.optim_objs))
        buffers = [buffer for part in self._parts for buffer in part.buffers(recurse=False)]
        try:
            with poutine.trace(param_only=True) as capture:
                run = trace_run(evaluate, call.tensors, self._guards, None, buffers)
        except StagingError as error:
            loss = self._by_pyro(call)
            self._give_up(str(error))
            return loss
        self.objective.advance()
        parameters = parameters_of(capture)
        self._accumulate(run.gradients)
        self._update(parameters)
        makes = [name for name, p in parameters.items() if id(p) not in known]
        if run.traced is None:
            self._give_up(run.reason)
        elif makes and tries >= TRIES:
            self._give_up(f"it makes new parameters in every step ({', '.join(makes)})")
        elif makes:
            self._stages[key] = tries + 1
        else:
            self._keep(key, Stage(run.traced, parameters), call)
        warn_if_nan(run.ledger["loss"], "loss")
        return torch_item(run.ledger["loss"])

    def _keep(self, key: Any, stage: Stage, call: Call) -> None:
        self._stages[key] = stage
        try:
            if self.engine == "auto":
                stage.compiles_at = steps_worth_compiling(stage.traced, *call.tensors, known=False)
            elif self.engine == "compiled":
                stage.compiles_at = 0
        except Exception as error:  # an operation may raise anything
            self._give_up(first_cause(error))

    def _compared_step(self, stage: Stage, call: Call) -> Any:
        """Takes Pyro's own step, and compares the graph with it on the same noise."""
        leaves = set(stage.traced.leaves)
        known = leaves.union(stage.updated)
        # The program adds to gradients, of which a user may have left some.
        before = {p: None if p.grad is None else p.grad.clone() for p in known}

        def take() -> tuple[Any, Ledger, Gradients]:
            with poutine.trace(param_only=True) as capture:
                loss = self.loss_and_grads(self.model, self.guide, *call.args, **call.kwargs)
            gradients = {}
            for p, held in before.items():
                added = p.grad if p.grad is None or held is None else p.grad - held
                if added is not None and (p in leaves or added.any()):
                    gradients[p] = added
            return (loss, parameters_of(capture)), self.objective.ledger, gradients

        (loss, parameters), difference = compared(stage.traced, call.tensors, take)
        if not difference and parameters.keys() != stage.parameters.keys():
            difference = f"its parameters are {sorted(parameters)}"
        self._update(parameters)
        if difference:
            self._part(difference, stage)
        stage.unchecked = None
        return loss

    def _graph_step(self, stage: Stage, call: Call) -> Any:
        traced, parameters, tensors = stage.traced, stage.updated, call.tensors
        if stage.steps > stage.compiles_at:
            logger.info("compiling the training step")
            stage.compiles_at = math.inf
            stage.run = compile_graph(traced, *tensors)
        if self._optimiser.optim is not self.optim:
            self._optimiser = GroupedOptimiser(self.optim)
        replay = None
        # A recorded step makes gradients of its own, and would drop those of a user.
        if all(p.grad is None or self._is_zero(p.grad) for p in parameters):
            replay = stage.replayed(tensors, self._optimiser)
        try:
            if replay is not None:
                values = replay(tensors)
            else:
                values, gradients = traced(*tensors, run=stage.run)
        except Exception as error:  # the program itself may have no trouble
            self._part(f"the graph fails with {first_cause(error)}", stage)
            return self._by_pyro(call)
        if stage.unchecked is None:
            stage.unchecked = self._number
        self.ledger = dict(zip(traced.entries, values.unbind(), strict=True))
        self.objective.ledger = dict(self.ledger)
        self.objective.advance()
        if replay is None:
            self._accumulate(dict(zip(traced.leaves, gradients, strict=True)))
            self._optimiser.step(parameters)
            if held := [p.grad for p in parameters if p.grad is not None]:
                zero_all(held)
            self._note_zeros(parameters)
        loss = float(self.ledger["loss"])
        if math.isnan(loss):
            warn_if_nan(self.ledger["loss"], "loss")
        return loss

    def _update(self, parameters: Mapping[str, Tensor]) -> None:
        each = set(parameters.values())
        self.optim(each)
        zero_grads(each)
        self._note_zeros(each)

    def _note_zeros(self, parameters: Iterable[Tensor]) -> None:
        """Records that the gradients are zero, until they change."""
        held = [p.grad for p in parameters if p.grad is not None]
        self._zeros = {id(gradient): (gradient, version_of(gradient)) for gradient in held}

    def _accumulate(self, gradients: Mapping[Tensor, Tensor]) -> None:
        """Adds gradients to those of the leaf tensors, as ``backward`` does."""
        for leaf, gradient in gradients.items():
            held = leaf.grad
            if held is not None and not self._is_zero(held):
                gradient = held + gradient
            leaf.grad = gradient

    def _is_zero(self, gradient: Tensor) -> bool:
        known, version = self._zeros.get(id(gradient), (None, 0))
        return known is gradient and version_of(gradient) == version

    def _part(self, difference: str, stage: Stage) -> None:
        """Ends staging, because the graph differs from the program."""
        self.engine = "eager"
        self._stages.clear()
        tell_difference(difference, self._number, stage.unchecked, "Pyro runs it")

    def _give_up(self, reason: str) -> None:
        self.engine = "eager"
        self._stages.clear()
        give_up("staged", "as Pyro runs it", reason)
