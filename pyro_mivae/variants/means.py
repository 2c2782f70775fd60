"""Posterior means of a code, over runs of the guide where its sites depend on drawn ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_mivae.traces import MEAN_DRAWS, MEAN_SEED, TracePair, is_deterministic


def posterior_means(run: Callable[[], TracePair], device: torch.device) -> dict[str, Tensor]:
    """Returns the mean of every site given the data; of an enumerated one the probabilities."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(MEAN_SEED)
        traces = run()
        means = _means(traces)
        fixed = [name for name in traces.latent if is_deterministic(traces.guide.nodes[name])]
        noisy = [name not in (*traces.enumerated, *fixed) for name in traces.latent]
        if not traces.auxiliary and not any(noisy[:-1]):  # none comes after a drawn one
            return means
        others = _means(run())
        if all(torch.allclose(means[name], others[name], equal_nan=True) for name in means):
            return means
        every = [means, others, *(_means(run()) for _ in range(MEAN_DRAWS - 2))]
    return {name: torch.stack([means[name] for means in every]).mean(0) for name in means}


def _means(traces: TracePair) -> dict[str, Tensor]:
    return {name: traces.marginal_mean(name) for name in traces.latent}
