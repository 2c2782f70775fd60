"""Classifiers trained on other data: the judge of generated images, and probes of codes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pyro_mivae.arguments import checked, flag, numbers
from pyro_mivae.compat import Adam
from pyro_mivae.errors import DataError
from pyro_mivae.metrics.checkers import COUNT, SEED, codes, counted
from pyro_mivae.posterior.preserved_state import preserved_state

HIDDEN, DROPOUT = 256, 0.2
BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 256, 1e-2, 1e-2
MOST_STEPS, LEAST_STEPS, MOST_EPOCHS = 1500, 200, 60
FEATURES = numbers("n", "d", "...")
PROBED = {
    "train_codes": codes("m", "d"),
    "train_labels": counted("m", least=0),
    "codes": codes("n", "d"),
    "labels": counted("n", least=0),
}


class Classifier(nn.Module):
    """A network with one hidden layer of 256 ReLU units on standardised features.

    Its arguments are those of `fit_classifier`.

    Example:
        >>> Classifier(torch.rand(20, 4), num_classes=3, per_feature=True)(torch.rand(5, 4)).shape
        torch.Size([5, 3])
    """

    loc: Tensor
    scale: Tensor

    @checked(features=FEATURES, num_classes=COUNT, per_feature=flag())
    def __init__(self, features: Tensor, num_classes: int, *, per_feature: bool) -> None:
        super().__init__()
        flat = features.flatten(1).to(torch.get_default_dtype())
        dims = (0,) if per_feature else (0, 1)
        scale, loc = torch.std_mean(flat, dims, correction=0)
        self.register_buffer("loc", loc)
        self.register_buffer("scale", torch.where(scale > 1e-6, scale, 1.0))
        self.layers = nn.Sequential(
            nn.Linear(flat.shape[1], HIDDEN),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN, num_classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Returns the classes' logits, shape ``(n, num_classes)``."""
        return self.layers((features.flatten(1) - self.loc) / self.scale)

    @torch.no_grad()
    def predict(self, features: Tensor) -> Tensor:
        """Returns the most probable class of each row, shape ``(n,)``; any device."""
        parts = features.split(4096)
        return torch.cat([self(part.to(self.loc)).argmax(-1) for part in parts])

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Returns the share of correctly classified data, between 0 and 1."""
        return float((self.predict(features) == labels).double().mean())


@checked(features=FEATURES, labels=counted("n"), num_classes=COUNT, per_feature=flag(), seed=SEED)
def fit_classifier(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    per_feature: bool = True,
    seed: int = 0,
) -> Classifier:
    """Trains a `Classifier` by cross-entropy: AdamW, one cycle of the learning rate up to 0.01.

    It trains for 60 epochs with batches of 256, but for at least 200 and at most 1,500 steps.

    Args:
        features: Shape ``(n, *shape)``.
        labels: Integers below ``num_classes``, shape ``(n,)``.
        num_classes: Number of classes.
        per_feature: True to standardise each feature separately; False to use the same mean and
            standard deviation for all (pixels).
        seed: Seed of the weights, the batches and the dropout. Torch's generators do not change.

    Returns:
        The classifier, in evaluation mode, on the device of the features.

    Raises:
        ShapeError: If there are no data, or not one label per datum.
        DataError: If a label is not below ``num_classes``, or features are not finite.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]]).repeat(20, 1)
        >>> fit_classifier(x, x[:, 0].long(), num_classes=2)(x[:2]).argmax(1)
        tensor([0, 1])
    """
    if int(labels.max()) >= num_classes:
        raise DataError(
            f"label {int(labels.max())} found, and num_classes={num_classes}; give labels from 0 "
            "and a larger num_classes"
        )
    features = features.to(torch.get_default_dtype())
    batch, steps = min(BATCH_SIZE, len(features)), training_steps(len(features))
    with preserved_state(seed, device=features.device), torch.enable_grad():
        classifier = Classifier(features, num_classes, per_feature=per_feature)
        classifier.to(features.device)
        how: dict[str, Any] = {"weight_decay": WEIGHT_DECAY, "decoupled_weight_decay": True}
        optimiser = Adam(classifier.parameters(), LEARNING_RATE, fused=True, **how)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
        for _ in range(steps):
            rows = torch.randint(len(features), (batch,)).to(features.device)
            loss = cross_entropy(classifier(features[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            cycle.step()
    return classifier.eval()


def training_steps(items: int) -> int:
    """Steps that `fit_classifier` takes."""
    return min(MOST_STEPS, max(LEAST_STEPS, MOST_EPOCHS * items // min(BATCH_SIZE, items)))


@checked(**PROBED)
def linear_probe(
    train_codes: Tensor, train_labels: Tensor, codes: Tensor, labels: Tensor
) -> float:
    """Accuracy of scikit-learn's logistic regression (L2 penalty, C = 1) on standardised codes.

    Args:
        train_codes: Codes to learn on, shape ``(m, d)``.
        train_labels: Their labels, integers from 0, shape ``(m,)``.
        codes: Codes to score, shape ``(n, d)``.
        labels: Their labels, shape ``(n,)``.

    Returns:
        Between 0 and 1; NaN if the codes to learn on have only one label, or are not finite.

    Raises:
        ShapeError: If the shapes do not fit.
        DataError: If labels are not integers from 0.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]]).repeat(20, 1)
        >>> linear_probe(x, x[:, 0].long(), x, x[:, 0].long())
        1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not _learnable(train_codes, train_labels, codes):
        return math.nan
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(train_codes.double().cpu().numpy(), train_labels.cpu().numpy())
    return float(probe.score(codes.double().cpu().numpy(), labels.cpu().numpy()))


@checked(**PROBED, seed=SEED)
def mlp_probe(
    train_codes: Tensor,
    train_labels: Tensor,
    codes: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
) -> float:
    """Accuracy of a `Classifier` of codes.

    Arguments, result and errors are those of `linear_probe`, and ``seed`` that of
    `fit_classifier`.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]]).repeat(20, 1)
        >>> mlp_probe(x, x[:, 0].long(), x, x[:, 0].long())
        1.0
    """
    if not _learnable(train_codes, train_labels, codes):
        return math.nan
    num_classes = int(train_labels.max()) + 1
    probe = fit_classifier(train_codes, train_labels, num_classes, seed=seed)
    return probe.accuracy(codes.to(torch.get_default_dtype()), labels)


def _learnable(train_codes: Tensor, train_labels: Tensor, codes: Tensor) -> bool:
    finite = bool(train_codes.isfinite().all() and codes.isfinite().all())
    return finite and len(codes) > 0 and len(torch.unique(train_labels)) > 1
