"""What can be told of labels without any model: by k-means, and by probes of the pixels."""

from __future__ import annotations

from typing import Any

from benchmarks.finished import Run
from benchmarks.one_run import rounded


def baseline(images: Any) -> Run:
    """Measures what the pixels themselves tell of the labels, by the protocol for codes.

    Args:
        images: The data set.

    Returns:
        Figures of the test images: ``cluster_accuracy`` and ``nmi`` of k-means with as many
        clusters as labels, ``linear_probe`` and ``mlp_probe`` of 10,000 training images at most.
    """
    import torch
    from sklearn.cluster import KMeans

    from pyro_mivae.metrics import (
        cluster_accuracy,
        linear_probe,
        mlp_probe,
        normalised_mutual_information,
    )

    learn, score = images.x_train.flatten(1), images.x_test.flatten(1)
    means = KMeans(len(images.class_names), n_init=5, random_state=0).fit(learn.numpy())
    found = torch.tensor(means.predict(score.numpy()), dtype=torch.int64)
    chosen = torch.randperm(len(learn), generator=torch.Generator().manual_seed(0))[:10_000]
    lesson = (learn[chosen], images.y_train[chosen], score, images.y_test)
    return {
        "cluster_accuracy": rounded(cluster_accuracy(found, images.y_test)),
        "nmi": rounded(normalised_mutual_information(found, images.y_test)),
        "linear_probe": rounded(linear_probe(*lesson)),
        "mlp_probe": rounded(mlp_probe(*lesson)),
    }
