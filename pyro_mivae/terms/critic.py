"""Information between data and code by a critic that is trained with the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Unpack, get_args

import pyro
import torch
from torch import Tensor, nn

from pyro_mivae import bounds
from pyro_mivae.arguments import checked, choice, either, function, instance, number, text, whole
from pyro_mivae.errors import OptionError
from pyro_mivae.figures import CRITIC, key
from pyro_mivae.networks import Critic
from pyro_mivae.ranks import joined, of_first
from pyro_mivae.terms.base import Particle, TermOptions
from pyro_mivae.terms.in_batch import PairedTerm

CriticBoundName = Literal[
    "nwj", "tuba", "donsker-varadhan", "mine", "infonce", "interpolated", "jensen-shannon", "smile"
]
Pairs = Literal["permutation", "all"]
Regularization = Callable[[Tensor, Tensor], Tensor]
MATRIX = ("infonce", "interpolated")


class Permutations(nn.Module):
    """Cyclic permutations of a batch, in which no datum is its own partner."""

    step: Tensor

    def __init__(self, seed: int | None) -> None:
        super().__init__()
        self.seed = seed
        if seed is not None:
            self.register_buffer("step", torch.tensor(0))

    def forward(self, n: int, device: torch.device, *, training: bool) -> Tensor:
        """Draws the partner of each datum."""
        if self.seed is None:
            order = of_first(torch.randperm(n, device=device))
        else:
            key = _scramble(_scramble(self.step) + self.seed)
            order = _scramble(_scramble(torch.arange(n, device=device)) ^ key).argsort()
            if training:
                self.step += 1
        return torch.empty_like(order).scatter(0, order, order.roll(1))


def _scramble(number: Tensor) -> Tensor:
    """Maps 32-bit integers one to one to random-looking ones, by a multiplicative hash."""
    number = number & 0xFFFFFFFF
    for _ in range(2):
        number = ((number ^ (number >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return number ^ (number >> 16)


class ScoreBound:
    r"""A bound of `pyro_mivae.bounds` by name, with its options.

    Args:
        name: ``"nwj"``, ``"tuba"``, ``"donsker-varadhan"``, ``"mine"``, ``"infonce"``,
            ``"interpolated"``, ``"jensen-shannon"`` or ``"smile"``; the last two are not bounds.
        baseline: For ``"tuba"`` and ``"interpolated"``: a network from codes, shape ``(n, d)``, to
            :math:`\log a(z)`, shape ``(n,)`` or ``(n, 1)``. It is trained like the critic. If
            omitted, :math:`\log a = 1`, with which ``"tuba"`` is ``"nwj"``.
        alpha: For ``"interpolated"``: from 0 to 1; 0.5 if omitted.
        clip: For ``"smile"``; 5 if omitted.

    Raises:
        OptionError: If an option is given that the bound does not have.

    Example:
        >>> critic = mi.build_critic("separable", (1, 8, 8), code_dim=2)
        >>> mi.CriticBound("z", critic=critic, bound=ScoreBound("smile", clip=2.0)).name
        'mi_z_critic'
    """

    @checked(
        name=choice(*get_args(CriticBoundName)),
        baseline=instance(nn.Module, example="torch.nn.Linear(10, 1)"),
        alpha=number(least=0, most=1),
        clip=number(above=0, finite=False),
    )
    def __init__(
        self,
        name: CriticBoundName,
        *,
        baseline: nn.Module | None = None,
        alpha: float | None = None,
        clip: float | None = None,
    ) -> None:
        for option, value, users in (
            ("baseline", baseline, ("tuba", "interpolated")),
            ("alpha", alpha, ("interpolated",)),
            ("clip", clip, ("smile",)),
        ):
            if value is not None and name not in users:
                raise OptionError(f"{option} is given, but bound={name!r} has no such option")
        self.name, self.baseline = name, baseline
        self.alpha = 0.5 if alpha is None else alpha
        self.clip = 5.0 if clip is None else clip

    def log_baseline(self, code: Tensor) -> Tensor:
        """Returns the logarithm of the baseline of each code, shape ``(n,)``."""
        if self.baseline is None:
            return code.new_ones(len(code))
        return self.baseline(code).reshape(len(code))


class CriticBound(PairedTerm):
    r"""Information between the data and sites of their code, bounded by a critic's scores.

    .. math:: I_q(x; z) \ge E_{q(x) q(z \mid x)}[g(x, z)] - E_{q(x) q(z)}[e^{g(x, z) - 1}]

    for the bound of Nguyen, Wainwright & Jordan, or any other. Independent pairs come from the
    batch: its codes permuted, with no datum beside its own, or all pairs except the joint ones.

    Model and critic both *maximise* the bound, so one loss and one step train both. The critic's
    gradient is that of the bound itself; the model's is multiplied by the weight. With weight 0
    the critic learns and the model does not change. ``pyro.module`` registers the critic, so
    ``pyro.infer.SVI`` trains it; give it its own learning rate there.

    Entries of the ledger: ``mi_<sites>_critic``, the estimate, and ``loss_critic_<sites>``, the
    critic's loss with its regularisation.

    Args:
        sites: The part of the code: continuous, and drawn once per datum.
        critic: Scores a datum, the first argument of model and guide, and the values of the sites,
            flattened and joined in this order.
        bound: The name of a bound, or a `ScoreBound`, which has options.
        pairs: ``"permutation"``: one independent pair per datum. ``"all"``: all pairs of the
            batch, at quadratic cost, as ``"infonce"`` and ``"interpolated"`` need.
        seed: Seed of the permutations, for the same ones in every run; torch's own generator if
            omitted.
        regularization: From the scores of joint and of independent pairs to a scalar per datum
            that the critic minimises. The model gets no gradient of it.
        regularization_strength: Its weight.
        module_name: Name of the critic in Pyro's parameter store; ``critic_<sites>`` if omitted.
        **term: The weight, of at least 0, see `InformationTerm`.

    References:
        Rezaabad & Vishwanath (2020), Learning Representations by Maximizing Mutual Information in
        Variational Autoencoders. https://arxiv.org/abs/1912.13361
        Poole et al. (2019), On Variational Bounds of Mutual Information.
        https://arxiv.org/abs/1905.06922

    Example:
        >>> critic = mi.build_critic("separable", (1, 8, 8), code_dim=2)
        >>> term = mi.CriticBound("z", critic=critic, bound="infonce")
        >>> vae, elbo = mi.VAE((1, 8, 8), latent_dim=2), mi.MutualInformationELBO([term])
        >>> loss = elbo.loss_and_grads(vae.model, vae.guide, torch.rand(64, 1, 8, 8))
        >>> all(p.grad is not None for p in critic.parameters())
        True
    """

    is_idle = False  # at the weight 0 the critic still learns
    least_weight = 0

    @checked(
        critic=instance(Critic, example="build_critic('joint', (1, 28, 28), 10)"),
        bound=either(
            choice(*get_args(CriticBoundName)),
            instance(ScoreBound, example="ScoreBound('smile', clip=1.0)"),
        ),
        pairs=choice(*get_args(Pairs)),
        seed=whole(least=0),
        regularization=function("regularization(joint_scores, marginal_scores)"),
        regularization_strength=number(least=0),
        module_name=text(),
    )
    def __init__(
        self,
        *sites: str,
        critic: Critic,
        bound: CriticBoundName | ScoreBound = "nwj",
        pairs: Pairs | None = None,
        seed: int | None = None,
        regularization: Regularization | None = None,
        regularization_strength: float = 1.0,
        module_name: str | None = None,
        **term: Unpack[TermOptions],
    ) -> None:
        super().__init__(*sites, **term)
        self.critic = critic
        self.bound = bound if isinstance(bound, ScoreBound) else ScoreBound(bound)
        matrix = self.bound.name in MATRIX
        if matrix and pairs == "permutation":
            raise OptionError(
                f"pairs='permutation' with bound={self.bound.name!r}; allowed is 'all'"
            )
        self.pairs: Pairs = pairs or ("all" if matrix else "permutation")
        self.regularization = regularization
        self.regularization_strength = regularization_strength
        self.module_name = module_name or f"critic_{self.key}"
        self.average = bounds.MovingAverage()
        self.permutations = Permutations(seed)
        self._state = nn.ModuleDict({"weight": self.weight, "permutations": self.permutations})
        if self.bound.name == "mine":
            self._state["average"] = self.average
        self.name, code = key("mi", self.key, CRITIC), ",".join(sites)
        self.formula = f"I_q(x;{code}) by {self.bound.name}, critic {type(critic).__name__}"

    @property
    def state(self) -> nn.Module:
        """The weight, the number of permutations drawn, and MINE's moving average."""
        return self._state

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The critic, and the baseline if there is one."""
        baseline = self.bound.baseline
        return {"critic": self.critic} | ({"baseline": baseline} if baseline else {})

    def __call__(self, particle: Particle) -> Tensor:
        """Estimates the information."""
        x, codes, count = self._drawn(particle)
        return count * torch.stack([self._estimate(x, code) for code in codes]).mean()

    def contribute(self, particle: Particle) -> tuple[Tensor, dict[str, Tensor]]:
        """Estimates the weighted term, less the critic's regularisation; see `InformationTerm`."""
        x, codes, count = self._drawn(particle)
        weight = self.weight()
        gain, value, critic_loss = (codes.new_zeros(()) for _ in range(3))
        for code in codes:
            entering = code.detach() + weight * (code - code.detach())
            estimate = self._estimate(x, entering)
            gain = gain + estimate + (weight - 1.0) * estimate.detach()
            value = value + estimate.detach()
            critic_loss = critic_loss - estimate.detach()
            if self.regularization is not None:
                joint, marginal, _ = self._scores(x, code.detach())
                extra = self.regularization_strength * self.regularization(joint, marginal)
                gain = gain - (extra - extra.detach())
                critic_loss = critic_loss + extra.detach()
        share = count / len(codes)
        ledger = {self.name: value, f"loss_critic_{self.key}": critic_loss}
        return share * gain, {key: share * entry for key, entry in ledger.items()}

    def _estimate(self, x: Tensor, code: Tensor) -> Tensor:
        """The bound per datum, from one draw of the codes, shape ``(n, d)``."""
        bound, name = self.bound, self.bound.name
        if name in MATRIX:
            scores = self.critic.all_pairs(x, code)
            if name == "infonce":
                return bounds.infonce_bound(scores)
            return bounds.interpolated_bound(scores, bound.log_baseline(code), alpha=bound.alpha)
        joint, marginal, of_marginal = self._scores(x, code)
        if name == "tuba":
            log_baseline = bound.log_baseline(code)
            return bounds.tuba_bound(joint, marginal, log_baseline, log_baseline[of_marginal])
        if name == "mine" and self.critic.training:
            return bounds.mine_bound(joint, marginal, self.average)
        if name == "smile":
            return bounds.smile_estimate(joint, marginal, clip=bound.clip)
        plain = {
            "nwj": bounds.nwj_bound,
            "donsker-varadhan": bounds.donsker_varadhan_bound,
            "mine": bounds.donsker_varadhan_bound,  # its value, without a step
            "jensen-shannon": bounds.jensen_shannon_estimate,
        }
        return plain[name](joint, marginal)

    def _scores(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of joint and of independent pairs, and the indices of the latter's codes."""
        n = len(x)
        if self.pairs == "all":
            scores = self.critic.all_pairs(x, code)
            of_marginal = torch.arange(n, device=x.device).repeat_interleave(n - 1)
            return scores.diagonal(), bounds.off_diagonal(scores), of_marginal
        training = self.critic.training and torch.is_grad_enabled()
        partner = self.permutations(n, x.device, training=training)
        return *self.critic.both_pairs(x, code, partner), partner

    def _drawn(self, particle: Particle) -> tuple[Tensor, Tensor, Tensor | float]:
        """Data, codes of each particle, and the number of data that the batch represents."""
        pyro.module(self.module_name, self.critic)
        if self.bound.baseline is not None:
            pyro.module(f"{self.module_name}_baseline", self.bound.baseline)
        codes = self.codes(particle.traces.guide, particle)
        return joined(particle.args[0]), codes, self.count(particle)
