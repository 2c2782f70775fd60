"""Labels of some data: they observe the category, and teach the guide to classify."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import torch
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_mivae.arguments import checked, function, integers, text
from pyro_mivae.compat import with_logits
from pyro_mivae.errors import DataError, ShapeError, SiteError
from pyro_mivae.terms.base import InformationTerm, Particle, TermOptions
from pyro_mivae.terms.categories import (
    CATEGORIES,
    category_site,
    log_probs,
    running_statistics_kept,
)
from pyro_mivae.traces import Program, bind


def check_labels(labels: Tensor, num_categories: int) -> None:
    """Checks that labels are numbers of categories, or -1."""
    least, most = (int(end) for end in labels.aminmax()) if labels.numel() else (-1, -1)
    if least < -1 or most >= num_categories:
        raise DataError(
            f"the labels range over {least} to {most}; allowed are 0 to {num_categories - 1}, as "
            f"label k is category k, and -1 for no label: number them so, or give "
            f"num_categories={most + 1}"
        )


class LabelMessenger(Messenger):
    """Replaces a category's distribution by a point mass at each label, see `observe_category`."""

    def __init__(self, site: str, labels: Tensor) -> None:
        super().__init__()
        self.site, self.labels = site, labels

    def __enter__(self) -> Any:
        self._names: list[str] = []
        return super().__enter__()

    def __exit__(self, *raised: Any) -> Any:
        handled = super().__exit__(*raised)  # before an error, or the handler stays in force
        if raised[0] is None and self.site not in self._names:
            raise SiteError(
                f"labels are of the category {self.site!r}, but the guide has sampled "
                f"{self._names}; name one of its categories"
            )
        return handled

    def _pyro_sample(self, msg: Any) -> None:
        self._names.append(msg["name"])
        if msg["name"] == self.site and not msg["is_observed"]:
            msg["fn"] = self._observed(msg["fn"])

    def _observed(self, fn: Any) -> Any:
        labels, shape = self.labels, tuple(fn.batch_shape)
        if not isinstance(fn, CATEGORIES[:2]):
            raise SiteError(
                f"labels are of a category, but the site {self.site!r} of the guide is "
                f"{type(fn).__name__}; sample it from OneHotCategorical or Categorical"
            )
        if labels.shape != shape[-1:]:
            raise ShapeError(
                f"labels of shape {tuple(labels.shape)} for categories of shape {shape}; give one "
                "for each datum of the batch, -1 for none"
            )
        num_categories = fn.logits.shape[-1]
        if is_validation_enabled():
            check_labels(labels, num_categories)
        # The lowest number in place of minus infinity: 0 times it is 0, in every ELBO.
        lowest = fn.logits.new_full((), torch.finfo(fn.logits.dtype).min)
        categories = torch.arange(num_categories, device=labels.device)
        point = torch.where(labels.unsqueeze(-1) == categories, torch.zeros_like(lowest), lowest)
        return with_logits(fn, torch.where((labels < 0).unsqueeze(-1), fn.logits, point))


@checked(fn=function("guide(x)"), labels=integers("n"), site=text())
def observe_category(fn: Callable[..., Any], labels: Any, site: str = "c") -> Callable[..., Any]:
    r"""Replaces a guide's category by a point mass at the label, where a label is known.

    The ELBO that sums the category out is then, for a labelled datum, the bound of Kingma et al.
    (2014), eq. 6,

    .. math:: \log p(x, y) \ge
        E_{q(z \mid x, y)}[\log p(x \mid z)] - KL(q(z \mid x, y) \| p(z \mid y)) + \log p(c = y)

    and for any other datum the ELBO as before. It holds for every treatment of the category, and
    for the ELBOs of Pyro.

    Args:
        fn: The guide.
        labels: Integers of shape ``(n,)``, one for each datum of the batch: the number of its
            category, from 0, or -1 for no label.
        site: The category.

    Raises:
        DataError: When the program runs with Pyro's validation on, if a label is no category.
        ShapeError: When it runs, if there is not one label for each datum.
        SiteError: When it runs, if the guide has no such category.

    References:
        Kingma et al. (2014), Semi-supervised Learning with Deep Generative Models, eqs. 6 and 7.
        https://arxiv.org/abs/1406.5298

    Example:
        >>> import pyro
        >>> guide = mi.MixtureGuide((4,), num_categories=3, latent_dim=2)
        >>> labelled = observe_category(guide, torch.tensor([2, -1]))
        >>> site = pyro.poutine.trace(labelled).get_trace(torch.rand(2, 4)).nodes["c"]
        >>> site["fn"].probs[0]
        tensor([0., 0., 1.], grad_fn=<SelectBackward0>)
    """
    return LabelMessenger(site, labels)(fn)


class LabelledCategory(InformationTerm):
    r"""Lets labels observe a category in the ELBO, and teaches the guide to classify.

    .. math::
        J = \frac1N \sum_{i} J_i
            + \alpha \frac1M \sum_{j\ labelled} \log q(c = y_j \mid x_j)

    :math:`J_i` is the objective of a datum without a label; the ELBO in it is that of
    `observe_category` for one with a label. The second mean, over the :math:`M` labelled data, is
    minus the cross-entropy of the guide as a classifier; with :math:`H(y)` added, it bounds the
    information between label and datum from below. Every other term reads the guide without
    labels.

    In a loss with this term, a step takes up to two further arguments:

    * ``labels``: integers of shape ``(n,)``, see `observe_category`;
    * ``labelled``: a tuple of labelled data, their labels, and further arguments of the guide for
      these data, such as their condition; any number of them, from which the second mean is
      estimated. If they are drawn at random from the labelled data, the loss is unbiased, however
      few of the batch have a label. If omitted, the labelled data of the batch serve; the term's
      expectation is then multiplied by the probability that a batch holds any.

    Args:
        site: The category.
        **term: The weight :math:`\alpha` per datum, of at least 0, see `InformationTerm`.

    References:
        Kingma et al. (2014), Semi-supervised Learning with Deep Generative Models, eq. 9, whose
        weight is 0.1. https://arxiv.org/abs/1406.5298

    Example:
        >>> vae, x = mi.CatVAE((1, 8, 8), num_categories=3), torch.rand(16, 1, 8, 8)
        >>> elbo = mi.MutualInformationELBO([LabelledCategory("c", weight=0.5)])
        >>> loss = elbo.loss(vae.model, vae.guide, x, labels=torch.arange(16) % 4 - 1)
        >>> sorted(elbo.ledger)[:2]
        ['cross_entropy_c', 'distortion']
    """

    is_cost = True
    least_weight = 0

    @checked(site=text())
    def __init__(self, site: str = "c", **term: Unpack[TermOptions]) -> None:
        super().__init__(site, **term)
        self.name = f"cross_entropy_{site}"
        self.formula = f"E[log q({site}=y|x)] of labelled data, which observe {site}"

    def __call__(self, particle: Particle) -> Tensor:
        """Returns minus the cross-entropy, times the number of data."""
        self.check_latent(particle.traces)
        assert particle.labelled is not None
        x, labels, *others = particle.labelled
        guide = bind(particle.guide, others, particle.kwargs)
        site = particle.traces.guide.nodes[self.sites[0]]
        count = site["scale"] * len(particle.args[0])
        return count * self.per_datum(guide, x, labels)

    def contribute(self, particle: Particle) -> tuple[Tensor, dict[str, Tensor]]:
        """Estimates the weighted term; nothing is added where no labels are given."""
        if particle.labelled is None:
            return torch.zeros((), device=particle.args[0].device), {}
        return super().contribute(particle)

    def per_datum(self, guide: Program, x: Tensor, labels: Tensor) -> Tensor:
        r"""Returns the mean of :math:`\log q(c = y \mid x)` over labelled data, in nats.

        Args:
            guide: The guide.
            x: Data, shape ``(n, *data_shape)``.
            labels: Integers, shape ``(n,)``, with -1 for no label. Without any the mean is 0.
        """
        with running_statistics_kept():
            log_q = log_probs(category_site(self, guide, x))
        if labels.shape != log_q.shape[:1]:
            raise ShapeError(
                f"labels of shape {tuple(labels.shape)} for {len(log_q)} data; give one for each"
            )
        if is_validation_enabled():
            check_labels(labels, log_q.shape[-1])
        known = labels >= 0
        scores = log_q.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return torch.where(known, scores, scores.new_zeros(())).sum() / known.sum().clamp(min=1)
