"""Probes: how well labels can be read from a code by a classifier that learns on other data."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_mivae.arguments import checked
from pyro_mivae.metrics import checkers
from pyro_mivae.metrics.checkers import SEED, counted
from pyro_mivae.metrics.classifier import fit_classifier

GIVEN = {
    "train_codes": checkers.codes("m", "d"),
    "train_labels": counted("m", least=0),
    "codes": checkers.codes("n", "d"),
    "labels": counted("n", least=0),
}


@checked(**GIVEN)
def linear_probe(
    train_codes: Tensor, train_labels: Tensor, codes: Tensor, labels: Tensor
) -> float:
    """Accuracy of a logistic regression on standardised codes.

    Scikit-learn's, with its default L2 penalty (C = 1).

    Args:
        train_codes: Codes to learn on, shape ``(m, d)``.
        train_labels: Their labels, integers from 0, shape ``(m,)``.
        codes: Codes to be scored on, shape ``(n, d)``.
        labels: Their labels, shape ``(n,)``.

    Returns:
        Between 0 and 1; NaN where the codes to learn on have a single label, or are not finite.

    Raises:
        ShapeError: If the shapes do not fit.
        DataError: If labels are no integers from 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not _learnable(train_codes, train_labels, codes):
        return float("nan")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(train_codes.double().cpu().numpy(), train_labels.cpu().numpy())
    return float(probe.score(codes.double().cpu().numpy(), labels.cpu().numpy()))


@checked(**GIVEN, seed=SEED)
def mlp_probe(
    train_codes: Tensor,
    train_labels: Tensor,
    codes: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
) -> float:
    """Accuracy of a network with one hidden layer of 256 units on standardised codes.

    Args:
        train_codes: Codes to learn on, shape ``(m, d)``.
        train_labels: Their labels, integers from 0, shape ``(m,)``.
        codes: Codes to be scored on, shape ``(n, d)``.
        labels: Their labels, shape ``(n,)``.
        seed: Of its training, see `fit_classifier`.

    Returns:
        Between 0 and 1; NaN where the codes to learn on have a single label, or are not finite.

    Raises:
        ShapeError: If the shapes do not fit.
        DataError: If labels are no integers from 0.
    """
    if not _learnable(train_codes, train_labels, codes):
        return float("nan")
    num_classes = int(train_labels.max()) + 1
    probe = fit_classifier(train_codes, train_labels, num_classes, seed=seed)
    return probe.accuracy(codes.to(torch.get_default_dtype()), labels)


def _learnable(train_codes: Tensor, train_labels: Tensor, codes: Tensor) -> bool:
    finite = bool(train_codes.isfinite().all() and codes.isfinite().all())
    return finite and len(codes) > 0 and len(torch.unique(train_labels)) > 1
