"""What `fit` and Pyro's SVI ask of a loss: a gradient, a ledger, and schedules that move on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pyro.infer import ELBO
from pyro.infer.elbo import ELBOModule
from pyro.infer.util import torch_item
from pyro.util import warn_if_nan
from torch import Tensor, nn

from pyro_mivae.schedules import Weight
from pyro_mivae.traces import Program


class Objective(ELBO):
    """A loss of a model/guide pair that keeps every number it adds up.

    It serves ``pyro.infer.SVI(loss=...)``, and as ``objective(model, guide)`` a torch optimiser;
    there, schedules are moved on by calling `advance` after each step, which SVI does by itself.

    Args:
        state: What moves with training and belongs in a checkpoint, by name: the weights, which
            `advance` moves on wherever they stand in it, and averages.
        **options: Options of ``pyro.infer.ELBO``.

    Attributes:
        ledger: Every number of the last evaluation, detached and not synchronised, summed over
            the batch; ``loss`` is among them.
        latent: The latent sites, once they are known.
        state: What was given as ``state``.
    """

    def __init__(self, state: Mapping[str, nn.Module], **options: Any) -> None:
        super().__init__(**options)
        self.state = nn.ModuleDict(dict(state))
        self.ledger: dict[str, Tensor] = {}
        self.latent: tuple[str, ...] | None = None

    unguarded: ClassVar[tuple[str, ...]] = ("latent", "ledger")
    """Attributes that the loss sets and does not read, see `Guards`."""

    measures_fit: ClassVar[bool] = True
    """Whether a smaller loss is a better model, so that training may stop by it."""

    @property
    @abstractmethod
    def needs_batch(self) -> bool:
        """Whether data of a batch count beside each other, so that one alone will not do.

        They may serve as counterexamples, or be normalised by the batch in what is trained on it.
        """

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Networks that are trained beside model and guide, by name."""
        return {}

    def __call__(self, model: nn.Module, guide: nn.Module) -> ELBOModule:
        """Makes a module of the loss that owns its networks too, for a torch optimiser."""
        module: ELBOModule = super().__call__(model, guide)
        for name, network in self.networks.items():
            module.add_module(name, network)
        return module

    @abstractmethod
    def explanation(self) -> str:
        """The objective, written out with its weights and sites."""

    @abstractmethod
    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Estimates the loss, and fills the ledger.

        Args:
            model: The model.
            guide: The guide.
            *args: Arguments of both.
            **kwargs: Keyword arguments of both.

        Returns:
            Scalar, summed over the data, differentiable.
        """

    def loss(
        self,
        model: Program,
        guide: Program,
        *args: Any,
        **kwargs: Any,
    ) -> float:
        """Estimates the loss without a gradient; schedules stay where they are.

        Args:
            model: The model.
            guide: The guide.
            *args: Arguments of both.
            **kwargs: Keyword arguments of both.

        Returns:
            The loss in nats, summed over the data.
        """
        with torch.no_grad():
            loss = torch_item(self.differentiable_loss(model, guide, *args, **kwargs))
        warn_if_nan(loss, "loss")
        return float(loss)

    def loss_and_grads(
        self,
        model: Program,
        guide: Program,
        *args: Any,
        **kwargs: Any,
    ) -> float:
        """Estimates the loss, adds its gradient to the parameters', and moves schedules on.

        Args:
            model: The model.
            guide: The guide.
            *args: Arguments of both.
            **kwargs: Keyword arguments of both.

        Returns:
            The loss in nats, summed over the data.
        """
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        self.advance()
        warn_if_nan(loss, "loss")
        return float(torch_item(loss))

    @property
    def scheduled(self) -> list[Weight]:
        """The weights that change while training."""
        weights = (module for module in self.state.modules() if isinstance(module, Weight))
        return [weight for weight in weights if weight.schedule is not None]

    def advance(self, steps: int = 1) -> None:
        """Moves every schedule on by training steps.

        Args:
            steps: How many.
        """
        for weight in self.scheduled:
            weight.advance(steps)

    def to(self, device: torch.device | str) -> Objective:
        """Moves its tensors to a device.

        Args:
            device: The device of the data.

        Returns:
            The objective itself.
        """
        self.state.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Returns where schedules and averages stand."""
        return {name: value.clone() for name, value in self.state.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Puts schedules and averages where they stood.

        Args:
            state: What `state_dict` returned.
        """
        self.state.load_state_dict(dict(state))
