"""Information of held-out data, as a variant's critics estimate it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_mivae.arguments import checked
from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.figures import with_errors
from pyro_mivae.metrics.checkers import SEED
from pyro_mivae.posterior.preserved_state import preserved_state
from pyro_mivae.terms import ENOUGH_DATA, CriticBound
from pyro_mivae.training.arguments import batch_sizes
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
    terms = objective.terms if isinstance(objective, MutualInformationELBO) else ()
    names = [term.name for term in terms if isinstance(term, CriticBound)]
    if not names:
        return {}
    if len(x) < ENOUGH_DATA:
        return with_errors(dict.fromkeys(names, (math.nan, math.nan)))
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
    return with_errors(dict(zip(names, zip(means.tolist(), errors.tolist()))))
