"""Densities of codes, fitted on some data, to judge the codes of other data by."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

COMPONENTS = (1, 4, 16)  # sizes of the mixtures, in each configuration
FLOOR = 1e-3  # least variance of a component, in variances of the codes
ENOUGH = 4  # codes per component and dimension from which a mixture is fitted

Density = Callable[[Tensor], Tensor]


class MixtureDensities:
    r"""Mixtures of Gaussians over the drawn part of a code, one in each configuration.

    :math:`r(k, z) = \pi_k\, r(z \mid k)` with :math:`\pi_k` the share of the configuration, and
    :math:`r(z \mid k)` a mixture with full covariances, fitted by expectation maximisation in
    several sizes. A configuration with too few codes for a size gets the next smaller one, and
    at the least the single Gaussian of all codes.
    """

    def __init__(
        self, values: Tensor, configuration: Tensor, num_configurations: int, seed: int
    ) -> None:
        self._center = values.mean(0)
        self._spread = values.std(0).clamp_min(torch.finfo(values.dtype).tiny ** 0.5)
        scaled = self._scale(values)
        counts = configuration.bincount(minlength=num_configurations).double()
        self._log_shares = ((counts + 1) / (counts.sum() + num_configurations)).log()
        self._densities: list[list[Density]] = []  # by size and configuration
        smaller = [_fit(scaled, 1, seed)] * num_configurations
        for size in COMPONENTS:
            densities = list(smaller)
            for k in range(num_configurations):
                some = scaled[configuration == k]
                if len(some) >= ENOUGH * size * (values.shape[1] + 1):
                    densities[k] = _fit(some, size, seed)
            if densities != smaller or not self._densities:
                self._densities.append(densities)
            smaller = densities

    def __call__(self, values: Tensor, configuration: Tensor) -> Tensor:
        """Scores codes under every size."""
        scaled = self._scale(values)
        table = torch.empty(len(values), len(self._densities), dtype=values.dtype)
        table = table.to(values.device)
        for k in configuration.unique().tolist():
            rows = (configuration == k).nonzero()[:, 0]
            for column, densities in enumerate(self._densities):
                table[rows, column] = densities[k](scaled[rows])
        table += self._log_shares[configuration, None] - self._spread.log().sum()
        return table

    def _scale(self, values: Tensor) -> Tensor:
        return (values - self._center) / self._spread


def stack_densities(log_densities: Tensor) -> Tensor:
    r"""Weighs densities so that their mixture is most likely.

    References:
        Smyth & Wolpert (1999), Linearly Combining Density Estimators via Stacking.
        https://doi.org/10.1023/A:1007511322260

    Example:
        >>> stack_densities(torch.tensor([[0.0, -50.0], [0.0, -50.0]])).round()
        tensor([1., 0.])
    """
    weights = torch.full_like(log_densities[0], 1 / log_densities.shape[1])
    log_densities = log_densities[(log_densities != -torch.inf).any(1)]
    for _ in range(50 if len(log_densities) else 0):
        weights = (log_densities + weights.log()).softmax(1).mean(0)
    return weights


def _fit(values: Tensor, components: int, seed: int) -> Density:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    tied = len(values) >= 2 * (values.shape[1] + 1)
    mixture = GaussianMixture(
        components,
        covariance_type="full" if tied else "diag",
        reg_covar=FLOOR,
        init_params="k-means++",
        max_iter=30,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # any density will do
        mixture.fit(values.cpu().numpy())

    def density(values: Tensor) -> Tensor:
        return torch.from_numpy(mixture.score_samples(values.cpu().numpy())).to(values)

    return density
