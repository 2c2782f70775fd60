"""Losses of a model/guide pair for `fit` and Pyro's SVI: gradient, ledger, and schedules."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence, Sized
from typing import Any, ClassVar

import torch
from pyro.infer import ELBO
from pyro.infer.elbo import ELBOModule
from pyro.infer.util import torch_item
from pyro.util import warn_if_nan
from torch import Tensor, nn

from pyro_mivae.arguments import checked, instance
from pyro_mivae.errors import SiteError
from pyro_mivae.priors.base import given_shape_of
from pyro_mivae.ranks import current_shares, summed, whole_size
from pyro_mivae.schedules import Weight
from pyro_mivae.sites import sum_of
from pyro_mivae.traces import Program

SETTLED = 0.01  # relative change of a target's weight from which losses are not comparable


class Objective(ELBO):
    """A loss of a model/guide pair that records each of its summands.

    Use it as ``pyro.infer.SVI(loss=...)``, or as ``objective(model, guide)`` with a torch
    optimiser. SVI advances the schedules; any other training loop calls `advance` after each step.

    Args:
        state: Modules that change with training and belong in a checkpoint, by name: averages and
            weights. `advance` moves every weight in them.
        **options: Options of ``pyro.infer.ELBO``.

    Attributes:
        ledger: Every number of the last evaluation, summed over the batch (that of all processes,
            if they train together), detached and still on the device; ``loss`` is one of them. A
            weight with a target is there as ``weight_<entry>``, named after the entry that it
            holds, times the number of data.
        latent: The latent sites, known after the first evaluation.
        held: The weights with a `Target`, by the entry of the ledger that is held; sites that
            share a target are held together. Known after the first evaluation.
        categories: Number of categories of each categorical site, where it is known.
        reads_condition: True if model and guide are known to be given a condition of each datum.
        prior_reads_condition: True if the prior is known to read it.

    Example:
        >>> isinstance(mi.VAE((1, 8, 8)).objective(), Objective)
        True
    """

    unguarded: ClassVar[tuple[str, ...]] = ("latent", "ledger", "held")
    """Attributes that the loss writes and never reads, see ``Guards``."""

    measures_fit: ClassVar[bool] = True
    """True if a smaller loss is a better model, so training may stop by it."""

    def __init__(self, state: Mapping[str, nn.Module], **options: Any) -> None:
        super().__init__(**options)
        self.state = nn.ModuleDict({module_name(name): part for name, part in state.items()})
        self.ledger: dict[str, Tensor] = {}
        self.latent: tuple[str, ...] | None = None
        self.held: dict[str, Weight] = {}
        self.categories: Mapping[str, int] = {}
        self.reads_condition = self.prior_reads_condition = False

    @property
    @abstractmethod
    def needs_batch(self) -> bool:
        """True if the loss compares data within a batch (needs two or more)."""

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Networks that are trained together with model and guide, by name."""
        return {}

    def __call__(self, model: nn.Module, guide: nn.Module) -> ELBOModule:
        """Makes a module of the loss, model, guide and networks, for a torch optimiser."""
        module: ELBOModule = super().__call__(model, guide)
        for name, network in self.networks.items():
            module.add_module(module_name(name), network)
        return module

    @abstractmethod
    def explanation(self) -> str:
        """The objective, written out with its weights and sites."""

    @abstractmethod
    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Estimates the loss in nats, summed over the data, and fills the ledger.

        Model and guide take the same arguments; the first one is the data.

        Raises:
            SiteError: If the sites of model, guide and objective do not match.
        """

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Estimates the loss without a gradient; schedules stay where they are."""
        with torch.no_grad():
            loss = torch_item(self.differentiable_loss(model, guide, *args, **kwargs))
        warn_if_nan(loss, "loss")
        return float(loss)

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Estimates the loss, adds its gradient to the parameters', and advances the schedules."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        self.advance()
        warn_if_nan(loss, "loss")
        return float(torch_item(loss))

    def record(self, entries: Mapping[str, Tensor | float], args: Sequence[Any]) -> None:
        """Sets the ledger of an evaluation, and shows held weights their value per datum."""
        self.ledger = {name: torch.as_tensor(value).detach() for name, value in entries.items()}
        if current_shares() is not None:
            values = torch.stack([value.to(self.ledger["loss"]) for value in self.ledger.values()])
            self.ledger = dict(zip(self.ledger, summed(values).unbind(), strict=True))
        if not self._aimed:
            return
        if not args or not isinstance(args[0], Sized):
            raise SiteError(
                "a target is a number per datum, but the first argument of model and guide has no "
                "length; let it be the data"
            )
        count = whole_size(len(args[0]))
        for weight in self._aimed:
            names = [name for name, held in self.held.items() if held is weight]
            if not names:  # nothing of it in this evaluation
                weight.see(None)
                continue
            weight.see(sum_of(self.ledger[name] for name in names) / count)
            self.ledger[f"weight_{names[0]}"] = weight.current * count

    @property
    def _weights(self) -> list[Weight]:
        return [module for module in self.state.modules() if isinstance(module, Weight)]

    @property
    def scheduled(self) -> list[Weight]:
        """The weights that are functions of the step."""
        return [weight for weight in self._weights if weight.schedule is not None]

    @property
    def _aimed(self) -> list[Weight]:
        return [weight for weight in self._weights if weight.target is not None]

    def advance(self, steps: int = 1) -> None:
        """Advances every schedule by training steps, and moves the weights of targets."""
        for weight in self.scheduled:
            weight.advance(steps)
        self.ascend()

    def ascend(self) -> None:
        """Moves the weights of targets by the last evaluation, without waiting for the device."""
        for weight in self._aimed:
            weight.ascend()

    def current_weights(self) -> dict[str, Tensor]:
        """Returns copies of the weights that change."""
        state = self.state.state_dict()
        return {name: value.clone() for name, value in state.items() if name.endswith("current")}

    def has_changed(self, before: Mapping[str, Tensor]) -> bool:
        """True if a weight differs from its earlier value; a target's, by more than 1 %."""
        for name, weight in self.state.named_modules(remove_duplicate=False):
            if isinstance(weight, Weight) and math.isnan(weight.constant):
                then = before[f"{name}.current"].to(weight.current)
                share = 0.0 if weight.target is None else SETTLED
                if not torch.isclose(weight.current, then, rtol=share, atol=0.0):
                    return True
        return False

    @property
    def price(self) -> float:
        r"""Nats per datum to add to the loss for the Lagrangian of the targets.

        .. math:: -\sum_s \beta_s R_s + \sum_j \lambda_j I_j

        Near the saddle point the Lagrangian hardly changes with the weights, unlike the loss.
        """
        return sum(weight.price for weight in self._aimed)

    @property
    def limits(self) -> list[str]:
        """Remarks on targets that are out of reach."""
        told = {name: weight.limit for name, weight in self.held.items()}
        return [f"{name}: {limit}" for name, limit in told.items() if limit]

    def to(self, device: torch.device | str) -> Objective:
        """Moves its tensors to a device, and returns the objective itself."""
        self.state.to(device)
        return self

    def prepare(self, vae: Any) -> Objective:
        """Sets sites and condition of a variant, which has one plate; returns the objective."""
        self.latent, self.categories = tuple(vae.sites), vae.categories
        self.reads_condition = vae.given_shape is not None
        self.prior_reads_condition = given_shape_of(vae.prior) is not None
        in_a_plate = self.vectorize_particles and self.num_particles > 1
        self.max_plate_nesting = 1 + in_a_plate
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of the state of schedules and averages."""
        return {name: value.clone() for name, value in self.state.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores a state of schedules and averages that `state_dict` returned."""
        self.state.load_state_dict(dict(state))


def module_name(name: str) -> str:
    """Returns a name for a module of torch, which may hold no dot, unlike a site's."""
    return name.replace(".", "%2e")


@checked(objective=instance(Objective, example="vae.objective()"))
def explain(objective: Objective) -> str:
    """Writes an objective out with its weights and sites, one line per summand.

    Example:
        >>> from pyro_mivae import MutualInformationELBO
        >>> print(explain(MutualInformationELBO(kl_weights={"z": 4.0, "c": 0.0})))
        J =  E_q[log p(x|code)]
           - 4 * KL(q(z|x) || p(z))
           - 0 * KL(q(c|x) || p(c))   [left out]
           - 1 * KL of every other site
        maximised; nats per datum
    """
    return objective.explanation()
