"""Pyro's SVI, with the training step staged and compiled."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import pyro
import torch
from pyro.infer import ELBO
from pyro.infer.util import zero_grads
from pyro.optim import PyroOptim
from pyro.poutine.runtime import am_i_wrapped
from pyro.util import warn_if_nan
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from pyro_mivae.elbo import Objective
from pyro_mivae.engine.choose import steps_until_compiling
from pyro_mivae.engine.optimiser import GroupedOptimiser
from pyro_mivae.engine.program import Program, unique
from pyro_mivae.engine.reasons import give_up
from pyro_mivae.engine.settings import Settings
from pyro_mivae.engine.staging import stage
from pyro_mivae.engine.steps import GraphStep, Means, compile_step
from pyro_mivae.errors import OptionError, StagingError

logger = logging.getLogger(__name__)

MOST_GRAPHS = 32
"""Kinds of arguments that are staged at most."""

OTHER_LOSS = "pyro_mivae.MutualInformationELBO() is a loss that can be"


class SVI(pyro.infer.SVI):
    """Stochastic variational inference, as ``pyro.infer.SVI``, at the speed of plain PyTorch.

    It takes the same arguments and gives the same losses; models and guides are plain Pyro
    programs, and parameters live in Pyro's param store as ever. The first step on arguments of a
    new kind is Pyro's own, with its checks. Then loss and gradient are staged: they become one
    graph of tensor operations, which is compiled once so many steps were made that it pays.
    Both draw the noise that Pyro draws. All parameters are updated at once.

    What Python decides upon is fixed in a graph, so each state of it has a graph of its own, up
    to `MOST_GRAPHS`: arguments that are no tensors; which modules train, which parameters are
    frozen, which tensors are buffers; and the numbers that model and guide read from attributes
    and variables, as `Settings` says. A number that changes often is better a tensor: an
    argument, or a module's buffer. What lies further away, in a dictionary say, is that of the
    first steps. A step within one of Pyro's handlers, or without a tensor among its arguments,
    is Pyro's own. What cannot be staged runs as Pyro runs it, which one warning says: losses that
    look at their value in the middle, as Pyro's own do, and models whose structure depends on
    values, or that count their own steps.

    Args:
        model: The model.
        guide: The guide.
        optim: A Pyro optimiser, or scheduler of one.
        loss: The objective: `MutualInformationELBO` and its like.
        engine: ``"auto"``, or ``"eager"``, ``"staged"`` or ``"compiled"`` from the second step on.

    Attributes:
        ledger: Every number of the last step that was staged by name, 0-dimensional tensors.

    Raises:
        OptionError: If the engine is none of these.

    Example:
        >>> import pyro.optim
        >>> import pyro_mivae as mi
        >>> vae = mi.VAE((1, 8, 8), latent_dim=2)
        >>> svi = mi.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), vae.objective())
        >>> losses = [svi.step(torch.rand(16, 1, 8, 8)) for _ in range(3)]
        >>> type(losses[0]).__name__
        'float'
    """

    def __init__(
        self,
        model: Any,
        guide: Any,
        optim: PyroOptim,
        loss: Any,
        *,
        engine: Means | Literal["auto"] = "auto",
    ) -> None:
        super().__init__(model, guide, optim, loss)
        if engine not in ("auto", *get_args(Means)):
            raise OptionError(f"engine={engine!r}; allowed are auto, {', '.join(get_args(Means))}")
        self.engine: Means | Literal["auto"] = engine
        self.objective = loss
        self.ledger: Mapping[str, Tensor] = {}
        self._optimiser = GroupedOptimiser(optim)
        self._parts = [part for root in _modules(model, guide, loss) for part in root.modules()]
        self._settings = Settings(model, guide, *self._parts)
        self._stages: dict[Any, _Stage | None] = {}
        self._parameters: list[Tensor] = []
        if engine != "eager" and not isinstance(loss, ELBO):
            self._give_up(f"the loss {loss!r} is no pyro.infer.ELBO ({OTHER_LOSS})")
        elif engine != "eager" and not GroupedOptimiser.serves(optim):
            self._give_up(f"{optim.pt_optim_constructor!r} is no class of torch optimisers")

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Takes a gradient step.

        Args:
            *args: Arguments of model and guide.
            **kwargs: Keyword arguments of both.

        Returns:
            The loss, as ``pyro.infer.SVI`` gives it: a float, summed over the data. Reading it
            waits for the device.
        """
        if self.engine == "eager":
            return super().step(*args, **kwargs)
        leaves, spec = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not tensors or am_i_wrapped():
            return super().step(*args, **kwargs)
        key = self._key(spec, leaves)
        if self._is_new(key):
            with _calls_noted(self._parts):
                loss = super().step(*args, **kwargs)
            self._remember(spec, leaves)
            return loss
        staged = self._stages[key]
        if staged is None:
            try:
                staged = self._stages[key] = self._stage(leaves, spec, tensors)
            except StagingError as error:
                other = "" if isinstance(self.objective, Objective) else f" ({OTHER_LOSS})"
                self._give_up(f"{error}{other}")
                return super().step(*args, **kwargs)
        self.ledger = staged(*tensors)
        self._optimiser.step(staged.program.parameters)
        zero_grads(staged.program.parameters)
        if isinstance(self.objective, Objective):
            self.objective.ledger = dict(self.ledger)
            self.objective.advance()
        loss = float(self.ledger["loss"])
        warn_if_nan(self.ledger["loss"], "loss")
        return loss

    def _key(self, spec: TreeSpec, leaves: list[Any]) -> Any:
        """What a graph is fixed to: arguments and modules of this kind, in this state."""
        state = tuple(map(_state, self._parts)), self._settings.read()
        return spec, tuple(map(_kind, leaves)), state

    def _remember(self, spec: TreeSpec, leaves: list[Any]) -> None:
        """Lets the next step like the one that Pyro took, and showed all modules of, be staged."""
        for part in self._parts:
            self._settings.watch(part)
        if self.engine != "eager":
            self._stages.setdefault(self._key(spec, leaves), None)

    def _is_new(self, key: Any) -> bool:
        """Whether Pyro has to take a step first: on arguments not seen, or with new parameters."""
        store = pyro.get_param_store()
        if any(store.param_name(parameter) is None for parameter in self._parameters):
            self._stages.clear()
            self._parameters = []
        try:
            is_new = key not in self._stages
        except TypeError:
            self._give_up("one of the arguments of model and guide has no hash")
            return True
        if is_new and len(self._stages) >= MOST_GRAPHS:
            self._stages.clear()
            self._give_up(
                f"its arguments and modules were of {MOST_GRAPHS} kinds already, each with a "
                "graph of its own; pass a number that changes as a tensor, or as a schedule"
            )
            return True
        self._stages.setdefault(key, None)
        return is_new

    def _stage(self, leaves: list[Any], spec: TreeSpec, tensors: list[Tensor]) -> _Stage:
        constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

        def evaluate(*data: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
            given = list(constants)
            for index, tensor in zip(places, data, strict=True):
                given[index] = tensor
            args, kwargs = tree_unflatten(given, spec)
            loss = self.objective.differentiable_loss(self.model, self.guide, *args, **kwargs)
            return loss, getattr(self.objective, "ledger", {}) | {"loss": loss.detach()}

        store = pyro.get_param_store()
        known = [p for p in self.optim.optim_objs if store.param_name(p) is not None]
        parameters = [p for p in known if p.requires_grad]
        self._parameters = parameters
        owned = {id(parameter) for parameter in parameters}
        others = [p for part in self._parts for p in part.parameters() if id(p) not in owned]
        buffers = [b for part in self._parts for b in part.buffers()]
        program = Program(
            evaluate, parameters, unique([*others, *buffers]), self._parts, self._settings
        )
        return _Stage(program, tensors, self.engine)

    def _give_up(self, reason: str) -> None:
        self.engine = "eager"
        give_up("staged", "as Pyro runs it", reason)


class _Stage:
    """The graph for arguments of one kind, and when it is to be compiled."""

    def __init__(
        self, program: Program, data: list[Tensor], engine: Means | Literal["auto"]
    ) -> None:
        self.program = program
        self._staged = stage(program, *data, decompose=True)
        self._steps_left: float = 0
        if engine == "auto":
            with pyro.validation_enabled(False):
                self._steps_left = steps_until_compiling(program, *data)
        self._compiles = engine != "staged"
        self._step = GraphStep(program, self._staged)

    def __call__(self, *data: Tensor) -> dict[str, Tensor]:
        """Leaves the gradient in the parameters, and gives the ledger."""
        if self._compiles and not self._steps_left:
            logger.info("compiling the training step")
            self._compiles = False
            self._step = compile_step(self.program, self._staged, *data)
        self._steps_left -= 1
        values = self._step(*data)
        return dict(zip(self._step.entries, values.unbind(), strict=True))


def _modules(model: Any, guide: Any, loss: Any) -> list[nn.Module]:
    """The modules that a step may train or change."""
    found = [getattr(program, "__self__", program) for program in (model, guide)]
    if isinstance(loss, Objective):
        found += [loss.state, *loss.networks.values()]
    return [part for part in found if isinstance(part, nn.Module)]


@contextmanager
def _calls_noted(parts: list[nn.Module]) -> Iterator[None]:
    """Adds the modules that are called meanwhile: a plain function does not show its own."""
    known = set(parts)

    def note(module: nn.Module, args: Any) -> None:
        if module not in known:
            known.add(module)
            parts.append(module)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield
    finally:
        hook.remove()


def _state(part: nn.Module) -> Any:
    """Whether a module trains, which of its parameters do, and which tensors its buffers are."""
    trained = tuple((id(p), p.requires_grad) for p in part._parameters.values() if p is not None)
    return part.training, trained, tuple(map(id, part._buffers.values()))


def _kind(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    return type(leaf), leaf
