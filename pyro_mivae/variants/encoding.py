"""Posterior means of the sites of a pair."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_mivae.traces import MEAN_DRAWS, MEAN_SEED, TracePair, is_deterministic


def posterior_means(run: Callable[[], TracePair], device: torch.device) -> dict[str, Tensor]:
    """Returns the mean of every site over several runs of the guide."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(MEAN_SEED)
        traces = run()
        runs = [_means(traces)]
        fixed = [name for name in traces.latent if is_deterministic(traces.guide.nodes[name])]
        noisy = [name not in (*traces.enumerated, *fixed) for name in traces.latent]
        if traces.auxiliary or any(noisy[:-1]):  # a site comes after a drawn one
            runs.append(_means(run()))
            if any(not torch.allclose(runs[0][n], runs[1][n], equal_nan=True) for n in runs[0]):
                runs += [_means(run()) for _ in range(MEAN_DRAWS - 2)]
                return {name: torch.stack([m[name] for m in runs]).mean(0) for name in runs[0]}
    return runs[0]


def _means(traces: TracePair) -> dict[str, Tensor]:
    return {name: traces.marginal_mean(name) for name in traces.latent}
