r"""The information between data and their code, told by a critic that is trained beside the model.

Rezaabad & Vishwanath (2020), Learning Representations by Maximizing Mutual Information in
Variational Autoencoders, https://arxiv.org/abs/1912.13361
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import pyro
import torch
from torch import Tensor, nn

from pyro_mivae import bounds
from pyro_mivae.arguments import (
    checked,
    choice,
    function,
    instance,
    number,
    number_or_schedule,
    text,
    whole,
)
from pyro_mivae.errors import OptionError
from pyro_mivae.networks.pairs import Critic
from pyro_mivae.schedules import Schedule
from pyro_mivae.terms.base import Particle
from pyro_mivae.terms.paired import PairedTerm

CriticBoundName = Literal[
    "nwj", "tuba", "donsker-varadhan", "mine", "infonce", "interpolated", "jensen-shannon", "smile"
]
Pairs = Literal["permutation", "all"]
Regularization = Callable[[Tensor, Tensor], Tensor]
MATRIX = ("infonce", "interpolated")


class Permutations(nn.Module):
    """Cyclic permutations of a batch, in which nobody is their own partner."""

    step: Tensor

    def __init__(self, seed: int | None) -> None:
        super().__init__()
        self.seed = seed
        if seed is not None:
            self.register_buffer("step", torch.tensor(0))

    def forward(self, n: int, device: torch.device, *, training: bool) -> Tensor:
        """Draws the partner of each datum."""
        if self.seed is None:
            order = torch.randperm(n, device=device)
        else:
            key = _scramble(_scramble(self.step) + self.seed)
            order = _scramble(_scramble(torch.arange(n, device=device)) ^ key).argsort()
            if training:
                self.step += 1
        return torch.empty_like(order).scatter(0, order, order.roll(1))


def _scramble(number: Tensor) -> Tensor:
    """Maps 32-bit integers one to one upon numbers that look random: a multiplicative hash."""
    number = number & 0xFFFFFFFF
    for _ in range(2):
        number = ((number ^ (number >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return number ^ (number >> 16)


class CriticBound(PairedTerm):
    r"""Information between the data and sites of their code, bounded by a critic's scores.

    .. math:: I_q(x; z) \ge E_{q(x) q(z \mid x)}[g(x, z)] - E_{q(x) q(z)}[e^{g(x, z) - 1}]

    for the bound of Nguyen, Wainwright & Jordan; any other that takes a critic's scores can take
    its place. Data drawn apart from their codes are had by permuting the codes of the batch, with
    no datum left beside its own, or as all pairs of the batch that do not belong together.

    Model and critic both *maximise* the bound, so one loss and one step serve both. The critic's
    gradient is that of the bound itself, whatever the weight; the model's is that times the
    weight. At the weight 0 the critic listens and changes nothing. The critic is registered with
    ``pyro.module`` under the name ``critic_<sites>``, so that ``pyro.infer.SVI`` trains it; give
    it a learning rate of its own there. It sees the first argument of model and guide as the data.

    Entries of the ledger: ``mi_<sites>_critic``, the estimate, and ``loss_critic_<sites>``, the
    critic's loss with its regularisation. Two estimates, ``jensen-shannon`` and ``smile``, bound
    nothing.

    Args:
        sites: The part of the code that is meant: continuous, and drawn once per datum.
        critic: Scores a datum and the named sites' values, flattened and joined in this order.
        bound: ``"nwj"``, ``"tuba"``, ``"donsker-varadhan"``, ``"mine"``, ``"infonce"``,
            ``"interpolated"``, ``"jensen-shannon"`` or ``"smile"``; see `pyro_mivae.bounds`.
        weight: :math:`\alpha` of the source, per datum, of at least 0.
        pairs: ``"permutation"``, as many pairs drawn apart as there are data; or ``"all"``, which
            costs the critic the square of the batch and is what ``"infonce"`` and
            ``"interpolated"`` need.
        baseline: For ``"tuba"`` and ``"interpolated"``: a network from codes, shape ``(n, d)``,
            to :math:`\log a(z)`, shape ``(n,)`` or ``(n, 1)``. It is trained as the critic is;
            the constant 1 if omitted, with which ``"tuba"`` is ``"nwj"``.
        alpha: Of ``"interpolated"``: from 0, which is TUBA, to 1, InfoNCE.
        clip: Of ``"smile"``.
        seed: Of the permutations, which are then the same in every run, see `Permutations`;
            Torch's own generator if omitted.
        regularization: From the scores of joint pairs and of others to a scalar per datum that
            the critic is to keep small; the model is not touched by it.
        regularization_strength: Its weight.
        module_name: What the critic is registered by; ``critic_<sites>`` if omitted.

    Raises:
        OptionError: If the bound or the pairs are unknown or do not go together, the weight is
            negative, or an option is given that the bound has no use for.

    References:
        Poole et al. (2019), On Variational Bounds of Mutual Information.
        https://arxiv.org/abs/1905.06922
    """

    @checked(
        critic=instance(Critic, example="build_critic('joint', (1, 28, 28), 10)"),
        bound=choice(*get_args(CriticBoundName)),
        weight=number_or_schedule(least=0),
        pairs=choice(*get_args(Pairs)),
        baseline=instance(nn.Module, example="torch.nn.Linear(10, 1)"),
        alpha=number(least=0, most=1),
        clip=number(above=0, finite=False),
        seed=whole(least=0),
        regularization=function("regularization(joint_scores, marginal_scores)"),
        regularization_strength=number(least=0),
        module_name=text(),
    )
    def __init__(
        self,
        *sites: str,
        critic: Critic,
        bound: CriticBoundName = "nwj",
        weight: float | Schedule = 1.0,
        pairs: Pairs | None = None,
        baseline: nn.Module | None = None,
        alpha: float | None = None,
        clip: float | None = None,
        seed: int | None = None,
        regularization: Regularization | None = None,
        regularization_strength: float = 1.0,
        module_name: str | None = None,
    ) -> None:
        super().__init__(*sites, weight=weight)
        matrix = bound in MATRIX
        self.pairs: Pairs = ("all" if matrix else "permutation") if pairs is None else pairs
        if matrix and pairs == "permutation":
            raise OptionError(f"pairs='permutation' beside bound={bound!r}; allowed are all")
        for option, value, user in (
            ("baseline", baseline, ("tuba", "interpolated")),
            ("alpha", alpha, ("interpolated",)),
            ("clip", clip, ("smile",)),
        ):
            if value is not None and bound not in user:
                raise OptionError(f"{option} is given beside bound={bound!r}, which has none")
        self.critic, self.baseline = critic, baseline
        self.bound = bound
        self.alpha = 0.5 if alpha is None else alpha
        self.clip = 5.0 if clip is None else clip
        self.regularization = regularization
        self.regularization_strength = regularization_strength
        self.module_name = module_name or f"critic_{'_'.join(sites)}"
        self.average = bounds.MovingAverage()
        self.permutations = Permutations(seed)
        self._state = nn.ModuleDict({"weight": self.weight, "permutations": self.permutations})
        if bound == "mine":
            self._state["average"] = self.average

    @property
    def is_idle(self) -> bool:
        """Never: at the weight 0 the critic still learns, and tells what it hears."""
        return False

    @property
    def state(self) -> nn.Module:
        """The weight, how many permutations were drawn, and MINE's moving average."""
        return self._state

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The critic, and the baseline if there is one."""
        baseline = {} if self.baseline is None else {"baseline": self.baseline}
        return {"critic": self.critic, **baseline}

    @property
    def name(self) -> str:
        """``mi_<sites>_critic``."""
        return f"mi_{'_'.join(self.sites)}_critic"

    @property
    def formula(self) -> str:
        """The bound and its critic, as `explain` writes them."""
        code = ",".join(self.sites)
        return f"I_q(x;{code}) by {self.bound}, critic {type(self.critic).__name__}"

    def __call__(self, particle: Particle) -> Tensor:
        """Estimates the information, with the gradient for code and critic alike."""
        x, codes, count = self._drawn(particle)
        return count * torch.stack([self._estimate(x, code) for code in codes]).mean()

    def contribute(self, particle: Particle) -> tuple[Tensor, dict[str, Tensor]]:
        """Gives what the objective adds, each player's gradient at its own weight.

        Args:
            particle: One run of the model/guide pair.

        Returns:
            The weighted estimate less the critic's regularisation, and the entries of the ledger.
        """
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
        ledger = {self.name: value, f"loss_critic_{'_'.join(self.sites)}": critic_loss}
        return share * gain, {key: share * entry for key, entry in ledger.items()}

    def _estimate(self, x: Tensor, code: Tensor) -> Tensor:
        """The bound per datum, from one draw of the codes, shape ``(n, d)``."""
        if self.bound in MATRIX:
            scores = self.critic.all_pairs(x, code)
            if self.bound == "infonce":
                return bounds.infonce_bound(scores)
            return bounds.interpolated_bound(scores, self._log_baseline(code), alpha=self.alpha)
        joint, marginal, of_marginal = self._scores(x, code)
        if self.bound == "tuba":
            log_baseline = self._log_baseline(code)
            return bounds.tuba_bound(joint, marginal, log_baseline, log_baseline[of_marginal])
        if self.bound == "mine" and self.critic.training:
            return bounds.mine_bound(joint, marginal, self.average)
        if self.bound == "smile":
            return bounds.smile_estimate(joint, marginal, clip=self.clip)
        plain = {
            "nwj": bounds.nwj_bound,
            "donsker-varadhan": bounds.donsker_varadhan_bound,
            "mine": bounds.donsker_varadhan_bound,  # its value, where no step is made
            "jensen-shannon": bounds.jensen_shannon_estimate,
        }
        return plain[self.bound](joint, marginal)

    def _scores(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of joint pairs, of pairs drawn apart, and whose codes the latter have."""
        n = len(x)
        if self.pairs == "all":
            scores = self.critic.all_pairs(x, code)
            of_marginal = torch.arange(n, device=x.device).repeat_interleave(n - 1)
            return scores.diagonal(), bounds.off_diagonal(scores), of_marginal
        partner = self._partners(n, x.device)
        return *self.critic.both_pairs(x, code, partner), partner

    def _partners(self, n: int, device: torch.device) -> Tensor:
        training = self.critic.training and torch.is_grad_enabled()
        drawn: Tensor = self.permutations(n, device, training=training)
        return drawn

    def _log_baseline(self, code: Tensor) -> Tensor:
        """The logarithm of the baseline of each code, shape ``(n,)``."""
        if self.baseline is None:
            return code.new_ones(len(code))
        return self.baseline(code).reshape(len(code))

    def _drawn(self, particle: Particle) -> tuple[Tensor, Tensor, Tensor | float]:
        """The data, the codes of each particle, and for how many data they stand."""
        pyro.module(self.module_name, self.critic)
        if self.baseline is not None:
            pyro.module(f"{self.module_name}_baseline", self.baseline)
        codes = self.codes(particle.traces.guide, particle)
        return particle.args[0], codes, self.count(particle)
