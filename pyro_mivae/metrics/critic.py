"""What a critic hears of held-out data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_mivae.arguments import checked
from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.metrics.checkers import SEED
from pyro_mivae.posterior.preserved_state import preserved_state
from pyro_mivae.terms import ENOUGH_DATA, CriticBound
from pyro_mivae.training.batches import batch_sizes
from pyro_mivae.variants import VARIANT, Variant

CRITIC_BATCH = 256
ENOUGH_BATCHES = 5
"""Batches whose spread is worth a standard error."""


@checked(vae=VARIANT, seed=SEED)
def critic_estimates(vae: Variant, x: Tensor, seed: int = 0) -> dict[str, float]:
    """Asks a variant's critics for the information of held-out data, batch by batch.

    Batches hold `CRITIC_BATCH` data in random order, a small last one joining the one before.

    Args:
        vae: The variant.
        x: Held-out data, shape ``(n, *data_shape)``.
        seed: Of the order and the draws. Torch's generators, Pyro's parameter store and the
            modules' mode are left as they were.

    Returns:
        ``mi_<sites>_critic``, the mean over the batches in nats, and its standard error
        ``mi_<sites>_critic_se``; NaN where there are too few data or batches. Nothing where the
        variant has no critic.

    Raises:
        DataError: If the data do not fit the variant.
    """
    x = vae.check_data(x)
    objective = vae.objective()
    names = [term.name for term in _critic_terms(objective)]
    if not names:
        return {}
    if len(x) < ENOUGH_DATA:
        return dict.fromkeys([key for name in names for key in (name, f"{name}_se")], math.nan)
    sizes = batch_sizes(len(x), CRITIC_BATCH, needs_batch=True)
    rows: list[list[float]] = []
    with preserved_state(seed, vae, device=vae.device):
        order = torch.randperm(len(x)).to(x.device)
        for index in order.split(sizes):
            objective.differentiable_loss(vae.model, vae.guide, x[index].to(vae.device))
            rows.append([float(objective.ledger[name]) / len(index) for name in names])
    values, weights = torch.tensor(rows).double(), torch.tensor(sizes).double() / len(x)
    means = weights @ values
    enough = len(rows) >= ENOUGH_BATCHES
    errors = values.std(0) / math.sqrt(len(rows)) if enough else values[0] * math.nan
    found: dict[str, float] = {}
    for name, mean, error in zip(names, means.tolist(), errors.tolist(), strict=True):
        found |= {name: mean, f"{name}_se": error}
    return found


def _critic_terms(objective: object) -> list[CriticBound]:
    if not isinstance(objective, MutualInformationELBO):
        return []
    return [term for term in objective.terms if isinstance(term, CriticBound)]
