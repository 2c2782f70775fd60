"""InfoMax-VAE: a critic bounds the information between data and code, which is maximised.

Rezaabad & Vishwanath (2020), Learning Representations by Maximizing Mutual Information in
Variational Autoencoders, https://arxiv.org/abs/1912.13361
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar, Unpack

from pyro_mivae.arguments import checked, instance, text, whole
from pyro_mivae.compat import name_of
from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.errors import OptionError
from pyro_mivae.networks import build_critic
from pyro_mivae.terms import CriticBound, InformationTerm, Penalty
from pyro_mivae.variants import options
from pyro_mivae.variants.vae import VAE

Term = TypeVar("Term", bound=InformationTerm)


class CriticInfomaxVAE(VAE):
    r"""Adds the information between data and code, as a critic bounds it.

    .. math:: J = E_q[\log p(x \mid z)] - \beta\,KL(q(z \mid x) \| p(z)) + \alpha\, I_q(x; z)

    One loss and one step train model and critic: both maximise the bound, the critic with a
    learning rate of its own, and neither's gradient reaches the other. See `CriticBound`.

    `evaluate` compares the information that the critic hears with bounds that need no critic.
    NWJ's may hear little of much information, and scatter: of the 9 nats or more that a
    code of 10 dimensions has on MNIST it told 1.1, 4.2 and -5.9 on test images (20 epochs of
    10,000 images, three seeds). ``bound="infonce"`` with ``critic="separable"`` told 5.4 each
    time, just under its ceiling, the logarithm of the 256 in a batch.

    For denoising, a `CorruptedGuide` alters what the guide sees of the data while training; the
    model scores the data themselves, and the critic hears of them.

    Args:
        data_shape: Shape of one datum.
        mi_weight: :math:`\alpha`, at least 0; at 0 the critic listens to a plain VAE.
        beta: :math:`\beta`.
        bound: The critic's bound, see `CriticBound`.
        critic: ``"joint"``, ``"separable"``, ``"bilinear"``, ``"chain"``; a critic of the data and
            all sites' values joined; or a `CriticBound`, with weight, bound, pairs, seed and
            regularisation of its own.
        critic_lr: The critic's learning rate, where the model's is 1e-3. The original code's
            default of 1e-5 leaves its critic deaf.
        num_particles: Draws of the code per datum and step.
        regularization: A further term that model and guide are to keep small. With ``beta=0`` it
            may be a divergence of one's own.
        **parts: Further arguments of `VAE`.

    Raises:
        OptionError: If an option is out of its range, or has no use beside another.
    """

    name = "critic-infomax"

    @options.checked_options(
        num_particles=whole(least=1),
        regularization=instance(Penalty, example='mi.Penalty("z", function=...)'),
    )
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        mi_weight: options.MIWeight = 1.0,
        beta: options.Beta = 1.0,
        bound: options.Bound = "nwj",
        critic: options.CriticLike = "joint",
        critic_lr: options.CriticLR = 1e-3,
        num_particles: int = 1,
        regularization: Penalty | None = None,
        **parts: Unpack[options.SizedParts],
    ) -> None:
        super().__init__(data_shape, **parts)
        if isinstance(critic, str):
            critic = build_critic(critic, self.data_shape, self.latent_dim)
        if not isinstance(critic, CriticBound):
            critic = CriticBound(*self.sites, critic=critic, bound=bound, weight=mi_weight)
        elif (mi_weight, bound) != (1.0, "nwj"):
            raise OptionError(
                f"mi_weight={mi_weight}, bound={bound!r} beside a CriticBound; give weight and "
                "bound to that"
            )
        self.term, self.regularization = critic, regularization
        self.critic, self.baseline = critic.critic, critic.bound.baseline
        self.mi_weight, self.beta = mi_weight, beta
        self.critic_lr = critic_lr
        self.num_particles = num_particles

    @checked(param_name=text())
    def optim_args(self, param_name: str) -> dict[str, Any]:
        """Returns the optimiser's options of a parameter; the critic has a rate of its own.

        Args:
            param_name: Name of the parameter in ``named_parameters``, with the variant's own Pyro
                name before it or without.

        Returns:
            The learning rate.
        """
        own = param_name.removeprefix(f"{name_of(self)}.")
        of_critic = own.startswith(("critic", "baseline"))
        return {"lr": self.critic_lr} if of_critic else super().optim_args(param_name)

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        bound = _anew(self.term)
        bound.module_name = f"{name_of(self)}.critic"
        terms: list[InformationTerm] = [bound]
        if self.regularization is not None:
            terms.append(_anew(self.regularization))
        return MutualInformationELBO(
            terms, dict.fromkeys(self.sites, self.beta), num_particles=self.num_particles
        )


def _anew(term: Term) -> Term:
    """Copies a term, with its schedule at the start; networks and functions are the term's own."""
    kept = (*term.networks.values(), term.weight.schedule, getattr(term, "function", None))
    return copy.deepcopy(term, {id(part): part for part in kept})
