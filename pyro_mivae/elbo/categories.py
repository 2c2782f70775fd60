"""ELBOs that decode a few values of the categories instead of all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pyro_mivae.arguments import checked, choice, floats, number_or_schedule, whole
from pyro_mivae.elbo.mutual_information import MutualInformationELBO
from pyro_mivae.errors import ShapeError, SiteError
from pyro_mivae.handlers import relax_categories
from pyro_mivae.ranks import summed, whole_size
from pyro_mivae.schedules import Schedule, Weight
from pyro_mivae.sites import Site, sum_of
from pyro_mivae.traces import Program, TracePair, replay_model

Relaxation = Literal["soft", "gumbel", "straight-through"]
RELAXED = {
    "soft": "{0} = q({0}|x{1})",
    "gumbel": "{0} ~ Gumbel-softmax of q({0}|x{1})",
    "straight-through": "{0} ~ q({0}|x{1}) with the gradient of a Gumbel-softmax",
}


class RelaxedCategoricalELBO(MutualInformationELBO):
    r"""Reconstructs from a relaxed category, with exact KL divergences; not a bound.

    .. math::
        E_{q(z \mid x, a)}[\log p(x \mid z)]
        - \sum_c q(c \mid x) KL(q(z \mid x, c) \| p(z \mid c)) - KL(q(c \mid x) \| p(c))

    with :math:`a = q(c \mid x)` in place of the one-hot (``"soft"``, as the original InfoCatVAE
    trains), or a Gumbel-softmax sample of it (``"gumbel"``). The decoder runs once, on codes that
    the model never draws. So neither the loss nor the ELBO in the ledger bounds :math:`\log p(x)`;
    evaluate with `MutualInformationELBO`.

    With ``"straight-through"`` :math:`a` is a one-hot draw, so value and ELBO are unbiased. Its
    gradient is that of the Gumbel-softmax from which the draw was rounded, which is biased.

    Args:
        *parts: Terms and weights, as in `MutualInformationELBO`.
        relaxation: ``"soft"``, ``"gumbel"`` or ``"straight-through"``; every category is relaxed.
        temperature: Temperature of the Gumbel-softmax, a positive number or a schedule.
        **options: Options of `MutualInformationELBO`.

    References:
        Pineau & Lelarge (2018), InfoCatVAE. https://arxiv.org/abs/1806.08240
        Jang, Gu & Poole (2017), Categorical Reparameterization, eq. 2 and section 2.2.
        https://arxiv.org/abs/1611.01144

    Example:
        >>> print(mi.explain(RelaxedCategoricalELBO(relaxation="soft")))
        J =  E_q[log p(x|code)], c = q(c|x)
           - 1 * KL of every site
        maximised; nats per datum; not a bound on log p(x)
    """

    @checked(relaxation=choice(*get_args(Relaxation)), temperature=number_or_schedule(above=0))
    def __init__(
        self,
        *parts: Any,
        relaxation: Relaxation = "soft",
        temperature: float | Schedule = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(*parts, **options)
        self.relaxation = relaxation
        biased = relaxation == "straight-through"
        self.remark = "; biased gradient" if biased else "; not a bound on log p(x)"
        self.temperature = Weight(temperature)
        self.state["temperature"] = self.temperature

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[TracePair, TracePair]:
        coded = self._code_traces(model, guide, args, kwargs)
        relax = partial(relax_categories, relax=self._relax)
        decoded = self._run(model, guide, args, kwargs, relax)
        return decoded, coded

    @property
    def _reconstruction(self) -> str:
        told = RELAXED[self.relaxation]
        relaxed = [told.format(name, self._given) for name in self.categories or "c"]
        return ", ".join([super()._reconstruction, *relaxed])

    def _relax(self, fn: Any) -> Tensor:
        if not isinstance(fn, torch.distributions.OneHotCategorical):
            raise SiteError(
                f"a category is relaxed on the simplex, but its site is {type(fn).__name__}; "
                "sample it from OneHotCategorical"
            )
        if self.relaxation == "soft":
            return fn.probs
        temperature = torch.as_tensor(self.temperature(), dtype=fn.logits.dtype)
        soft: Tensor = dist.RelaxedOneHotCategorical(temperature, logits=fn.logits).rsample()
        if self.relaxation == "gumbel":
            return soft
        hard = one_hot(soft.argmax(-1), soft.shape[-1]).to(soft)
        return hard + (soft - soft.detach())


class SampledCategoricalELBO(MutualInformationELBO):
    r"""Decodes a few categories of each datum, with unbiased value and gradient.

    The divergences are exact, as they need no decoder. For the reconstruction

    .. math:: R = \sum_c q_c L_c,\qquad L_c = \log p(x \mid z_c),\ z_c \sim q(z \mid x, c),

    only a set :math:`A` of ``exact + draws`` categories is decoded: the ``exact`` most probable
    ones, and ``draws`` of the others, drawn without replacement by `choose_categories`, each with
    probability :math:`\pi_c`. Then

    .. math::
        \hat R = \sum_{c \in A} \frac{q_c}{\pi_c} L_c,\qquad
        \nabla R \approx \sum_{c \in A} \frac{1}{\pi_c}
        \{q_c \nabla L_c + (L_c - b) \nabla q_c\}

    are unbiased for every parameter and every number :math:`b` that does not depend on the draw:
    :math:`1 / \pi_c` corrects for the draws without c, and :math:`E[\sum_{c \in A} b \nabla q_c /
    \pi_c] = b \nabla \sum_c q_c = 0`. Here :math:`b` is the mean of :math:`L_c` over the
    categories that are certain to be decoded.

    The draw adds less variance if fewer categories share :math:`q(c \mid x)` (``python -m
    benchmarks variance``), and none if q is certain or ``exact + draws`` covers all categories, as
    in `MutualInformationELBO`. The decoder must treat each code independently: with batch norm it
    sees another batch here than in the exact sum.

    With several categories, :math:`c` is a configuration of all of them; the number of
    configurations is the product of the sizes.

    With ``exact=0`` this is the score-function estimator. If no category is certain, :math:`b` is
    a learned number: the mean of :math:`L_c` over earlier steps.

    Args:
        *parts: Terms and weights, as in `MutualInformationELBO`.
        exact: Number of categories of each datum that are always decoded, 0 or more.
        draws: Number of the other categories to decode, 1 or more.
        **options: Options of `MutualInformationELBO`.

    References:
        Liu et al. (2019), Rao-Blackwellized Stochastic Gradients for Discrete Distributions,
        section 3. https://arxiv.org/abs/1810.04777
        Mnih & Gregor (2014), Neural Variational Inference and Learning in Belief Networks, section
        2.3, for the learned number. https://arxiv.org/abs/1402.0030

    Example:
        >>> print(mi.explain(SampledCategoricalELBO(exact=1, draws=1)))
        J =  E_q[log p(x|code)], c = the most probable one and 1 draw of the others
           - 1 * KL of every site
        maximised; nats per datum; unbiased
    """

    @checked(exact=whole(least=0), draws=whole(least=1))
    def __init__(self, *parts: Any, exact: int = 1, draws: int = 1, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.exact, self.draws = exact, draws
        self.baseline = _Baseline()
        if not exact:
            self.state["baseline"] = self.baseline

    remark = "; unbiased"

    @property
    def _reconstruction(self) -> str:
        most = {0: "", 1: "the most probable one and "}
        summed = most.get(self.exact, f"the {self.exact} most probable and ")
        drawn = f"{self.draws} draw{'s' * (self.draws > 1)}{' of the others' * bool(summed)}"
        names = ", ".join(self.categories) or "c"
        chosen = f"({names})" if len(self.categories) > 1 else names
        return f"{super()._reconstruction}, {chosen} = {summed}{drawn}"

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[TracePair, TracePair]:
        coded = self._code_traces(model, guide, args, kwargs)
        names = coded.enumerated
        if not names:
            raise SiteError(
                "the guide enumerates no site, and categories are sampled; annotate a category "
                'with infer={"enumerate": "parallel"}, or use MutualInformationELBO'
            )
        log_q = sum_of(map(coded.log_density, names))  # (K_m, ..., K_1, ..., batch)
        log_q = log_q.flatten(0, len(names) - 1)  # (K, ..., batch)
        detached = log_q.detach().to(torch.promote_types(log_q.dtype, torch.float32))
        uniforms = torch.rand_like(detached[0])
        chosen, log_inclusion = choose_categories(
            detached, uniforms, exact=self.exact, draws=self.draws
        )
        guide_trace = _select(coded.guide, names, chosen)
        program = self._vectorized_num_particles(model) if self._vectorized else model
        nesting = int(self.max_plate_nesting)
        model_trace = replay_model(program, guide_trace, args, kwargs, nesting)
        log_q = log_q.take_along_dim(chosen, 0)  # (m, ..., batch)
        traces = _ChosenTraces(guide_trace, model_trace, names, log_q, log_inclusion)
        traces.baseline = None if self.exact else self.baseline
        return traces, coded


class _Baseline(nn.Module):
    """The mean of a cost over steps, of which the last hundred or so count."""

    mean: Tensor
    weight: Tensor

    def __init__(self, rate: float = 0.01) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, cost: Tensor) -> Tensor:
        """Returns the mean over earlier steps, and adds this step's."""
        mean = (self.mean / self.weight.clamp(min=self.rate)).to(cost)
        if torch.is_grad_enabled():
            with torch.no_grad():
                centre = summed(cost.detach().sum()) / whole_size(cost.numel())
                self.mean.lerp_(centre.to(self.mean), self.rate)
                self.weight.lerp_(torch.ones_like(self.weight), self.rate)
        return mean


@checked(
    log_probs=floats(finite=False),
    uniforms=floats(finite=False),
    exact=whole(least=0),
    draws=whole(least=1),
)
def choose_categories(
    log_probs: Tensor, uniforms: Tensor, *, exact: int, draws: int
) -> tuple[Tensor, Tensor]:
    r"""Chooses distinct categories: the most probable ones, and draws of the others.

    A category outside the ``exact`` most probable ones is drawn with the probability :math:`\pi_c
    = \min(1, q_c / t)`, with :math:`t` such that these sum to ``draws``. So every category with
    :math:`\pi_c < 1` has the same weight :math:`q_c / \pi_c = t`, and the weights of the chosen
    ones sum to 1. The draw is systematic: on a line of segments, one of length :math:`\pi_c` for
    each category, a uniform number places ``draws`` marks at unit distance.

    Args:
        log_probs: Log-probabilities of the categories, shape ``(K, *batch)``.
        uniforms: Numbers in [0, 1), shape ``(*batch)``.
        exact: As in `SampledCategoricalELBO`.
        draws: Likewise.

    Returns:
        The categories, shape ``(m, *batch)``, the most probable ones first, and
        :math:`\log \pi_c` of each, 0 where it is certain; m is ``exact + draws``, at most K.

    References:
        Fearnhead & Clifford (2003), On-line inference for hidden Markov models via particle
        filters: the unbiased choice whose weights have the least expected squared error.

    Example:
        >>> probs = torch.tensor([0.05, 0.05, 0.2, 0.7])
        >>> chosen, log_pi = choose_categories(probs.log(), torch.tensor(0.9), exact=1, draws=1)
        >>> chosen.tolist(), log_pi.exp()
        ([3, 1], tensor([1.0000, 0.1667]))
    """
    if uniforms.shape != log_probs.shape[1:]:
        raise ShapeError(
            f"uniforms has shape {tuple(uniforms.shape)}, log_probs {tuple(log_probs.shape)}; "
            "give one number for each of the batch"
        )
    ordered, order = log_probs.sort(0, descending=True)
    if len(order) <= exact + draws:
        return order, torch.zeros_like(ordered)
    tiny, lowest = torch.finfo(ordered.dtype).tiny, torch.finfo(ordered.dtype).min
    rest = ordered[exact:].clamp(min=lowest).softmax(0)  # (K - exact, *batch)
    tails = rest.flip(0).cumsum(0).flip(0)
    marks = torch.arange(draws, dtype=rest.dtype, device=rest.device)
    marks = marks.reshape(-1, *[1] * uniforms.dim())  # (draws, 1...)
    certain = rest[:draws] * (draws - marks) >= tails[:draws]
    certain = torch.cat([certain, torch.zeros_like(rest[draws:], dtype=torch.bool)])
    mass = rest.masked_fill(certain, 0).sum(0).clamp(min=tiny)
    inclusion = (rest * (draws - certain.sum(0)) / mass).masked_fill(certain, 1)
    ends = inclusion.cumsum(0) - marks.unsqueeze(1)  # (draws, K - exact, *batch)
    drawn = (ends <= uniforms).sum(1)  # (draws, *batch)
    drawn = drawn.clamp(max=len(rest) - 1)
    log_inclusion = inclusion.gather(0, drawn).clamp(min=tiny).log()
    chosen = torch.cat([order[:exact], order[exact:].gather(0, drawn)])
    return chosen, torch.cat([torch.zeros_like(ordered[:exact]), log_inclusion])


class _ChosenTraces(TracePair):
    """Traces with some configurations of the categories, each with its inclusion probability."""

    # The guide's other sites are cut to these values; their distributions are not.
    baseline: _Baseline | None = None

    def __init__(
        self, guide: Any, model: Any, names: Sequence[str], log_q: Tensor, log_inclusion: Tensor
    ) -> None:
        super().__init__(guide, model)
        self._name, self._dim = names[0], _enumerate_dim(guide, names)
        self._certain = log_q.detach().exp() * (log_inclusion == 0)
        self._log_weights[self._name] = log_q - log_inclusion

    def expectations(self, costs: Sequence[tuple[Tensor, Site]]) -> list[Tensor]:
        """Estimates the sums over all values, with the control variate."""
        return [self._estimate(cost, site) for cost, site in costs]

    def _estimate(self, cost: Tensor, site: Site) -> Tensor:
        if cost.dim() < -self._dim:
            return super().expectations([(cost, site)])[0]
        total = self._certain.sum(self._dim, keepdim=True)
        baseline = (self._certain * cost.detach()).sum(self._dim, keepdim=True)
        baseline = baseline / total.clamp(min=torch.finfo(total.dtype).tiny)
        if self.baseline is not None:
            baseline = torch.where(total > 0, baseline, self.baseline(cost))
        centred, offset = super().expectations(
            [(cost - baseline, site), (baseline.expand_as(cost), site)]
        )
        return centred + offset.detach()

    def _parents(self, cost: Tensor, site: Site) -> tuple[str, ...]:
        """Includes the site even with one chosen value: that stands for all, weighted by q."""
        return (self._name,) if cost.dim() >= -self._dim else ()


def _enumerate_dim(trace: Any, names: Sequence[str]) -> int:
    """The rightmost dimension along which sites are enumerated; the others lie left of it."""
    return max(int(trace.nodes[name]["infer"]["_enumerate_dim"]) for name in names)


def _select(trace: Any, names: Sequence[str], chosen: Tensor) -> Any:
    """Copies a guide's trace with chosen configurations of its enumerated sites."""
    selected = trace.copy()
    dim, count = _enumerate_dim(trace, names), len(names)
    sizes = [1] * count  # K_m, ..., K_1
    for name in names:
        node = trace.nodes[name]
        index = count - 1 - (dim - node["infer"]["_enumerate_dim"])
        sizes[index] = len(node["fn"].enumerate_support(expand=False))
    for key, node in trace.nodes.items():
        if node["type"] != "sample":
            continue
        value, event_dim = node["value"], node["fn"].event_dim
        batch = value.shape[: value.dim() - event_dim]
        if len(batch) < -dim or math.prod(batch[: len(batch) + dim + 1]) == 1:
            continue
        rest = value.shape[len(batch) + dim + 1 :]  # of plates and event
        value = value.expand(*sizes, *rest).flatten(0, count - 1)
        index = chosen.reshape(chosen.shape + (1,) * event_dim)
        selected.nodes[key] = {**node, "value": value.take_along_dim(index, 0)}
    return selected
