"""InfoMax-VAE: a critic bounds the information between data and code.

Rezaabad & Vishwanath (2020), Learning Representations by Maximizing Mutual Information in
Variational Autoencoders, https://arxiv.org/abs/1912.13361
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from pyro_mivae.arguments import checked, instance, text, whole
from pyro_mivae.compat import name_of
from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.errors import OptionError
from pyro_mivae.networks import build_critic
from pyro_mivae.terms import CriticBound, Penalty
from pyro_mivae.variants import options
from pyro_mivae.variants.checks import CONTINUOUS, need, restarted
from pyro_mivae.variants.vae import VAE


class CriticInfomaxVAE(VAE):
    r"""Adds a critic's bound on the information between data and code.

    .. math:: J = E_q[\log p(x \mid z)] - \beta\,KL(q(z \mid x) \| p(z)) + \alpha\, I_q(x; z)

    One loss and one step train model and critic. Both maximise the bound, the critic with its own
    learning rate, and neither gets the other's gradient. See `CriticBound`.

    The source has the NWJ bound with a joint critic (``bound="nwj", critic="joint"``). For much
    information its estimate is low and noisy. A code of 10 dimensions has 9 nats or more on MNIST.
    NWJ gave 1.1, 4.2 and -5.9 on test images (20 epochs of 10,000 images, three seeds), InfoNCE
    with a separable critic 5.4 each time, just under its ceiling, log 256.

    For denoising, give a `CorruptedGuide`. The other arguments are those of `VAE`.

    Args:
        mi_weight: :math:`\alpha`; with 0 the critic only measures a plain VAE.
        beta: :math:`\beta`, see `BetaVAE`.
        bound: The critic's bound, see `CriticBound`.
        critic: ``"joint"``, ``"separable"``, ``"bilinear"``, ``"chain"``; a critic of the data and
            the concatenated sites; or a `CriticBound`, with its own weight and bound.
        critic_lr: The critic's learning rate if the model's is 1e-3. With the original code's
            default of 1e-5 the critic finds almost nothing.
        num_particles: Draws of the code per datum and step.
        regularization: A further term to minimise; with ``beta=0`` it may be your own divergence.

    Example:
        >>> type(CriticInfomaxVAE((1, 8, 8)).critic).__name__
        'SeparableCritic'
    """

    name = "critic-infomax"
    unconditional = "its critic compares codes of data of different conditions"

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
        bound: options.Bound = "infonce",
        critic: options.CriticLike = "separable",
        critic_lr: options.CriticLR = 1e-3,
        num_particles: int = 1,
        regularization: Penalty | None = None,
        **parts: Unpack[options.SizedParts],
    ) -> None:
        super().__init__(data_shape, **parts)
        need(self, not self.categories, CONTINUOUS)
        if isinstance(critic, str):
            critic = build_critic(critic, self.data_shape, self.latent_dim)
        if not isinstance(critic, CriticBound):
            critic = CriticBound(*self.sites, critic=critic, bound=bound, weight=mi_weight)
        elif (mi_weight, bound) != (1.0, "infonce"):
            told = f"mi_weight={mi_weight}, bound={bound!r} with a CriticBound"
            raise OptionError(f"{told}; set both in the CriticBound")
        self.term, self.regularization = critic, regularization
        self.critic, self.baseline = critic.critic, critic.bound.baseline
        self.beta, self.critic_lr, self.num_particles = beta, critic_lr, num_particles

    @checked(param_name=text())
    def optim_args(self, param_name: str) -> dict[str, Any]:
        """Returns the learning rate of a parameter; the critic has its own."""
        own = param_name.removeprefix(f"{name_of(self)}.").startswith(("critic", "baseline"))
        return {"lr": self.critic_lr} if own else super().optim_args(param_name)

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        bound = restarted(self.term)
        bound.module_name = f"{name_of(self)}.critic"
        further = [] if self.regularization is None else [restarted(self.regularization)]
        kl_weights = dict.fromkeys(self.sites, self.beta)
        return MutualInformationELBO(
            [bound, *further], kl_weights, num_particles=self.num_particles
        )
