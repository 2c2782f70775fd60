r"""An unsupervised start for categories: the information that they carry about the data.

Krause, Perona & Gomes (2010), Regularized Information Maximization;
Hu et al. (2017), Information Maximizing Self-Augmented Training, https://arxiv.org/abs/1702.08720;
Miyato et al. (2018), Virtual Adversarial Training, https://arxiv.org/abs/1704.03976.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from pyro_mivae.traces import Program

INFORMATION_WEIGHT = 0.3
MARGINAL_WEIGHT = 4.0
RADIUS = 0.5
NEIGHBOUR = 10
PROBE = 0.1


@torch.enable_grad()
def warm_start_categories(
    guide: nn.Module,
    x: Tensor,
    site: str = "c",
    *,
    steps: int,
    batch_size: int = 256,
    lr: float = 1e-3,
) -> None:
    r"""Trains :math:`q(c \mid x)` alone to tell the data apart, before any decoder is there.

    Maximises :math:`\alpha \{\mu H(E_x q(c \mid x)) - E_x H(q(c \mid x))\}
    - E_x KL(q(c \mid x) \| q(c \mid x + r))`: with :math:`\mu = 1` the braces are the plug-in
    :math:`I_q(c; x)` of the batch, a larger :math:`\mu` keeps all categories in use, and
    :math:`r` is the direction, as long as half the mean distance to the tenth neighbour, in
    which :math:`q` changes most. No label and no decoder takes part.

    Args:
        guide: A guide whose site is a category given the data.
        x: Data, shape ``(n, *data_shape)``.
        site: The category.
        steps: Number of training steps.
        batch_size: Data per step, drawn with replacement.
        lr: Learning rate of Adam.
    """
    radius = RADIUS * neighbour_distance(x)
    optimiser = torch.optim.Adam(guide.parameters(), lr)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (min(batch_size, len(x)),), device=x.device)]
        log_q = category_log_probs(guide, batch, site)
        shifted = batch + radius * _adversarial_direction(guide, batch, site, log_q.detach())
        smoothness = -(log_q.detach().exp() * category_log_probs(guide, shifted, site)).sum(-1)
        marginal = log_q.exp().mean(0)
        marginal_entropy = -torch.special.xlogy(marginal, marginal).sum()
        entropy = -(log_q.exp() * log_q).sum(-1).mean()
        information = MARGINAL_WEIGHT * marginal_entropy - entropy
        optimiser.zero_grad()
        (smoothness.mean() - INFORMATION_WEIGHT * information).backward()
        optimiser.step()


def category_log_probs(guide: Program, x: Tensor, site: str) -> Tensor:
    r"""Returns :math:`\log q(c \mid x)` of every category, shape ``(batch, num_categories)``.

    Args:
        guide: A guide whose site is a category given the data.
        x: Data, shape ``(batch, *data_shape)``.
        site: The category.
    """
    sites: Any = poutine.trace(guide).get_trace(x).nodes
    return log_softmax(sites[site]["fn"].logits, -1)


def neighbour_distance(x: Tensor, queries: int = 1000) -> Tensor:
    """Returns the mean distance of data from their tenth neighbour (or the last there is).

    Args:
        x: Data, shape ``(n, *data_shape)``.
        queries: How many data the mean is over, drawn at random.

    Returns:
        Scalar.
    """
    flat = x.flatten(1)
    chosen = flat[torch.randperm(len(flat), device=x.device)[:queries]]
    rank = min(NEIGHBOUR + 1, len(flat))  # each datum is its own nearest
    nearest = torch.cdist(chosen, flat).topk(rank, largest=False).values
    return nearest[:, -1].mean()


def _adversarial_direction(guide: Program, x: Tensor, site: str, log_q: Tensor) -> Tensor:
    """Unit vectors along which q changes most, by one power iteration."""

    def unit(direction: Tensor) -> Tensor:
        return normalize(direction.flatten(1)).view_as(x)

    probe = unit(torch.randn_like(x)).requires_grad_()
    shifted = category_log_probs(guide, x + PROBE * probe, site)
    (gradient,) = torch.autograd.grad(-(log_q.exp() * shifted).sum(), probe)
    return unit(gradient)
