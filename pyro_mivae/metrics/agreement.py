"""Agreement of two models' categories of the same data, up to renaming."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_mivae.arguments import checked, several
from pyro_mivae.errors import OptionError
from pyro_mivae.figures import key
from pyro_mivae.metrics.checkers import SEED, counted
from pyro_mivae.metrics.clustering import (
    adjusted_rand_index,
    cluster_accuracy,
    normalised_mutual_information,
)
from pyro_mivae.metrics.encoded import EncodedData
from pyro_mivae.posterior.preserved_state import preserved_state
from pyro_mivae.variants import VARIANT, Variant


class CategoryAgreement(NamedTuple):
    """Result of `category_agreement`; 1 if the categories differ only by name.

    The fields are `cluster_accuracy`, `normalised_mutual_information` and `adjusted_rand_index` of
    the two models' categories; NaN if both put all data into one category.
    """

    accuracy: float
    nmi: float
    ari: float


@checked(first=counted("n"), second=counted("n"))
def category_agreement(first: Tensor, second: Tensor) -> CategoryAgreement:
    """Compares two models' categories of the same data; symmetric in both.

    Args:
        first: Category of each datum in one model, as in `contingency`.
        second: The same of the other model.

    Example:
        >>> category_agreement(torch.tensor([0, 0, 1, 1]), torch.tensor([5, 5, 2, 2]))
        CategoryAgreement(accuracy=1.0, nmi=1.0, ari=1.0)
    """
    nmi = normalised_mutual_information(first, second)
    accuracy = math.nan if math.isnan(nmi) else cluster_accuracy(first, second)
    return CategoryAgreement(accuracy, nmi, adjusted_rand_index(first, second))


@checked(vaes=several(VARIANT, least=2), seed=SEED)
def agreement_of_models(
    vaes: Sequence[Variant], x: Tensor, *, seed: int = 0, given: Any = None
) -> dict[str, tuple[float, float]]:
    """Compares the categories of several models, pair by pair.

    Args:
        vaes: Models with categories; the numbers of categories may differ.
        x: Data, shape ``(n, *data_shape)``.
        seed: Seed of a guide's draws, the same for every model.
        given: The condition of the data, see `Variant.arguments`.

    Returns:
        Mean and standard deviation over the pairs of ``category_agreement_accuracy``, ``_nmi`` and
        ``_ari``, of the most probable category of each datum. The deviation of one pair is NaN,
        and so is the result if two models put all data into one category.

    Raises:
        OptionError: If there are fewer than two models, or one has no categories.

    Example:
        >>> vaes = [mi.CatVAE((1, 8, 8), num_categories=3) for _ in range(2)]
        >>> list(agreement_of_models(vaes, torch.rand(20, 1, 8, 8)))
        ['category_agreement_accuracy', 'category_agreement_nmi', 'category_agreement_ari']
    """
    found = [most_probable(vae, x, seed=seed, given=given) for vae in vaes]
    rows = torch.tensor([category_agreement(*pair) for pair in combinations(found, 2)]).double()
    spread = rows.std(0).tolist() if len(rows) > 1 else [math.nan] * 3
    names = [key("category_agreement", name) for name in CategoryAgreement._fields]
    return dict(zip(names, zip(rows.mean(0).tolist(), spread)))


@checked(vae=VARIANT, seed=SEED)
def most_probable(vae: Variant, x: Tensor, *, seed: int = 0, given: Any = None) -> Tensor:
    """Returns the most probable category of each datum.

    Data, seed and condition are those of `agreement_of_models`.

    Returns:
        Integers from 0, on the CPU, shape ``(n,)``.

    Raises:
        OptionError: If the model has no categories.

    Example:
        >>> most_probable(mi.CatVAE((1, 8, 8)), torch.rand(20, 1, 8, 8)).shape
        torch.Size([20])
    """
    if vae.category is None:
        raise OptionError(
            f"{type(vae).__name__} has no categories to compare; those that have: CatVAE, "
            "InfoCatVAE, InfoGAN"
        )
    with preserved_state(seed, vae, device=vae.device):
        return EncodedData(vae, vae.arguments(x, given), seed).found.cpu()
