"""One decode instead of K: the original InfoCatVAE's soft category, and Gumbel-softmax."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal, get_args

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_mivae.arguments import checked, choice, number_or_schedule
from pyro_mivae.elbo.mutual_information import MutualInformationELBO
from pyro_mivae.errors import SiteError
from pyro_mivae.handlers import relax_categories
from pyro_mivae.models import GenerativeModel, code_program
from pyro_mivae.schedules import Schedule, Weight
from pyro_mivae.terms import InformationTerm
from pyro_mivae.traces import Program, TracePair

Relaxation = Literal["soft", "gumbel"]


class RelaxedCategoricalELBO(MutualInformationELBO):
    r"""Reconstructs from a relaxed category; the KL divergences stay exact; not a bound.

    .. math::
        E_{q(z \mid x, a)}[\log p(x \mid z)]
        - \sum_c q(c \mid x) KL(q(z \mid x, c) \| p(z \mid c)) - KL(q(c \mid x) \| p(c))

    with :math:`a = q(c \mid x)` in place of the one-hot (``"soft"``, as the original InfoCatVAE
    trains), or a Gumbel-softmax sample of it (``"gumbel"``). The decoder runs once and not once
    per category. Since the decoder sees codes that the model never draws, neither the loss nor
    the ELBO in the ledger bounds :math:`\log p(x)`; evaluate with `MutualInformationELBO`.

    Args:
        terms: Information terms.
        kl_weights: Weights of the sites' KL divergences.
        relaxation: ``"soft"`` or ``"gumbel"``.
        temperature: Of the Gumbel-softmax, a positive number or a schedule.
        **options: Options of `MutualInformationELBO`.

    Raises:
        OptionError: If the relaxation is neither, or the temperature is not positive.

    References:
        Pineau & Lelarge (2018), InfoCatVAE. https://arxiv.org/abs/1806.08240
        Jang, Gu & Poole (2017), Categorical Reparameterization, eq. 2.
        https://arxiv.org/abs/1611.01144
    """

    @checked(relaxation=choice(*get_args(Relaxation)), temperature=number_or_schedule(above=0))
    def __init__(
        self,
        terms: Iterable[InformationTerm] = (),
        kl_weights: Mapping[str, float | Schedule] | None = None,
        *,
        relaxation: Relaxation = "soft",
        temperature: float | Schedule = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(terms, kl_weights, **options)
        self.relaxation = relaxation
        self.temperature = Weight(temperature)
        self.state["temperature"] = self.temperature

    @property
    def reconstruction(self) -> str:
        """The reconstruction, from the relaxed category."""
        relaxed = "= q(c|x)" if self.relaxation == "soft" else "~ Gumbel-softmax of q(c|x)"
        return f"E_q[log p(x|z)], z ~ q(z|x,a), a {relaxed}"

    @property
    def remark(self) -> str:
        """That it is no bound."""
        return "; not a bound on log p(x)"

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[TracePair, TracePair]:
        if not isinstance(model, GenerativeModel):
            raise SiteError(
                "a relaxed category needs a GenerativeModel, whose code can be drawn without "
                "decoding it; use MutualInformationELBO for any other model"
            )
        coded = self._run(code_program(model), guide, args, kwargs)
        relax = partial(relax_categories, relax=self._relax)
        decoded = self._run(model, guide, args, kwargs, relax)
        return decoded, coded

    def _relax(self, fn: Any) -> Tensor:
        if not isinstance(fn, torch.distributions.OneHotCategorical):
            raise SiteError(
                f"a category is relaxed on the simplex, but its site is {type(fn).__name__}; "
                "sample it from OneHotCategorical"
            )
        if self.relaxation == "soft":
            return fn.probs
        temperature = torch.as_tensor(self.temperature(), dtype=fn.logits.dtype)
        concrete = dist.RelaxedOneHotCategorical(temperature, logits=fn.logits)
        return concrete.rsample()
