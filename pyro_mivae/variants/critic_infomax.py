"""InfoMax-VAE: a critic tells the information between data and code, and it is maximised.

Rezaabad & Vishwanath (2020), Learning Representations by Maximizing Mutual Information in
Variational Autoencoders, https://arxiv.org/abs/1912.13361
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

from torch import Tensor, nn

from pyro_mivae.arguments import (
    LARGEST_WEIGHT,
    checked,
    choice,
    either,
    function,
    instance,
    number,
    number_or_schedule,
    text,
    whole,
)
from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.guides import CorruptedGuide
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.networks import CRITICS, Critic, build_critic
from pyro_mivae.schedules import Schedule
from pyro_mivae.terms import CriticBound, InformationTerm, Particle, Penalty
from pyro_mivae.terms.critic import CriticBoundName, Pairs, Regularization
from pyro_mivae.variants.vae import VAE


class CriticInfomaxVAE(VAE):
    r"""Adds the information between data and code, as a critic bounds it.

    .. math:: J = E_q[\log p(x \mid z)] - \beta\,KL(q(z \mid x) \| p(z)) + \alpha\, I_q(x; z)

    Model and critic are trained by one loss and one step: both maximise the bound, the critic
    with a learning rate of its own, and neither's gradient reaches the other. See `CriticBound`.

    How much of the information the critic hears is told by `evaluate`, beside bounds that need no
    critic. NWJ's may hear little of much information, and scatter: of the 9 nats or more that a
    code of 10 dimensions has on MNIST it told 1.1, 4.2 and -5.9 on test images (20 epochs of
    10,000 images, three seeds). ``bound="infonce"`` with ``critic="separable"`` told 5.4 each
    time, just under its ceiling, the logarithm of the 256 in a batch.

    For denoising, ``corrupt`` alters what the guide sees of the data while training; the model
    scores the data themselves, and they are what the critic hears of. A reconstruction likelihood
    of one's own is a `Likelihood`; a divergence of one's own is ``beta=0`` with a
    ``regularization`` that computes it.

    Args:
        data_shape: Shape of one datum.
        mi_weight: :math:`\alpha`, at least 0; at 0 the critic listens to a plain VAE.
        beta: :math:`\beta`.
        bound: The critic's bound, see `CriticBound`.
        critic: ``"joint"``, ``"separable"``, ``"bilinear"``, ``"chain"``, or a critic of the data
            and all sites' values joined.
        critic_lr: The critic's learning rate, where the model's is 1e-3. The original code's
            default of 1e-5 leaves its critic deaf.
        pairs: ``"permutation"`` or ``"all"``, see `CriticBound`.
        num_particles: Draws of the code per datum and step.
        regularization: From a `Particle` to a scalar, summed over the batch, that model and guide
            are to keep small.
        regularization_strength: Its weight.
        critic_regularization: From the scores of joint and of other pairs to a scalar per datum
            that the critic is to keep small.
        critic_regularization_strength: Its weight.
        permutation_seed: Makes the permutations the same in every run.
        corrupt: What the guide sees of the data while training.
        latent_dim: Size of ``z``; a prior that is given has its own.
        likelihood: A likelihood or its name.
        prior: Takes the place of :math:`N(0, I)`.
        guide: Takes the place of the mean-field guide.
        encoder: From ``(batch, *data_shape)`` to features.
        decoder: From ``(..., latent_dim)`` to ``(..., *data_shape)``.

    Raises:
        OptionError: If an option is out of its range, or has no use beside another.
    """

    name = "critic-infomax"

    @checked(
        mi_weight=number_or_schedule(least=0),
        beta=number_or_schedule(least=0),
        bound=choice(*get_args(CriticBoundName)),
        critic=either(choice(*CRITICS), instance(Critic, example="mi.build_critic(...)")),
        critic_lr=number(above=0),
        pairs=choice(*get_args(Pairs)),
        num_particles=whole(least=1),
        regularization=function("regularization(particle)"),
        regularization_strength=number_or_schedule(),
        critic_regularization=function("regularization(joint, marginal)"),
        critic_regularization_strength=number(least=-LARGEST_WEIGHT, most=LARGEST_WEIGHT),
        permutation_seed=whole(least=0),
        corrupt=function("corrupt(x)"),
    )
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        mi_weight: float | Schedule = 1.0,
        beta: float | Schedule = 1.0,
        bound: CriticBoundName = "nwj",
        critic: str | Critic = "joint",
        critic_lr: float = 1e-3,
        pairs: Pairs | None = None,
        num_particles: int = 1,
        regularization: Callable[[Particle], Tensor] | None = None,
        regularization_strength: float | Schedule = 1.0,
        critic_regularization: Regularization | None = None,
        critic_regularization_strength: float = 1.0,
        permutation_seed: int | None = None,
        corrupt: Callable[[Tensor], Tensor] | None = None,
        latent_dim: int = 20,
        likelihood: str | Likelihood = "bernoulli",
        prior: Callable[[], Tensor] | None = None,
        guide: nn.Module | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__(
            data_shape,
            latent_dim=latent_dim,
            likelihood=likelihood,
            prior=prior,
            guide=guide,
            encoder=encoder,
            decoder=decoder,
        )
        self.critic = (
            build_critic(critic, self.data_shape, self.latent_dim)
            if isinstance(critic, str)
            else critic
        )
        if corrupt is not None:
            self.guide = CorruptedGuide(self.guide, corrupt)
        self.mi_weight, self.beta = mi_weight, beta
        self.bound, self.pairs, self.permutation_seed = bound, pairs, permutation_seed
        self.critic_lr = critic_lr
        self.num_particles = num_particles
        self.regularization = regularization
        self.regularization_strength = regularization_strength
        self.critic_regularization = critic_regularization
        self.critic_regularization_strength = critic_regularization_strength
        self.objective()

    @checked(param_name=text())
    def optim_args(self, param_name: str) -> dict[str, float]:
        """Returns the optimiser's options of a parameter; the critic has a rate of its own.

        Args:
            param_name: Name of the parameter in ``named_parameters``, with the variant's own Pyro
                name before it or without.

        Returns:
            The learning rate.
        """
        of_critic = param_name.startswith(("critic.", f"{self._critic_name}."))
        return {"lr": self.critic_lr} if of_critic else super().optim_args(param_name)

    @property
    def _critic_name(self) -> str:
        return f"{self._pyro_name}.critic"

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        terms: list[InformationTerm] = [
            CriticBound(
                *self.sites,
                critic=self.critic,
                bound=self.bound,
                weight=self.mi_weight,
                pairs=self.pairs,
                seed=self.permutation_seed,
                regularization=self.critic_regularization,
                regularization_strength=self.critic_regularization_strength,
                module_name=self._critic_name,
            )
        ]
        if self.regularization is not None:
            weight = self.regularization_strength
            terms.append(Penalty(*self.sites, function=self.regularization, weight=weight))
        return MutualInformationELBO(
            terms, dict.fromkeys(self.sites, self.beta), num_particles=self.num_particles
        )
