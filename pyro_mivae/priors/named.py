"""Priors by name, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro_mivae.priors.conditional import ConditionalNormalPrior
from pyro_mivae.priors.flows import FlowPrior
from pyro_mivae.priors.hierarchical import HierarchicalPrior
from pyro_mivae.priors.independent import (
    LaplacePrior,
    StandardNormalPrior,
    StudentTPrior,
    UniformPrior,
)
from pyro_mivae.priors.infogan import InfoGANPrior
from pyro_mivae.priors.mixture import Means, MixturePrior, Part, StickBreakingPrior
from pyro_mivae.priors.spherical import SphericalPrior
from pyro_mivae.priors.vamp import VampPrior


def marginal_mixture(num_categories: int = 10, latent_dim: int = 20) -> MixturePrior:
    """Learned Gaussians without a category, for clustered codes: `MixturePrior`."""
    learned: tuple[Part, ...] = ("means", "weights", "scales")
    return MixturePrior(num_categories, latent_dim, 6.0, learned, means="random", category=None)


def stick_breaking(num_categories: int = 20, latent_dim: int = 20) -> StickBreakingPrior:
    """Categories of any size, for an open number of clusters: `StickBreakingPrior`."""
    means: Means = "random" if latent_dim % num_categories else "orthogonal"
    return StickBreakingPrior(num_categories, latent_dim, means=means)


def coupling_flow(latent_dim: int = 20) -> FlowPrior:
    """Affine couplings, for a learned shape without zuko: `FlowPrior` with ``flow="coupling"``."""
    return FlowPrior(latent_dim, "coupling")


def autoregressive_flow(latent_dim: int = 20) -> FlowPrior:
    """A masked autoregressive flow, for a learned shape and fast densities: `FlowPrior`."""
    return FlowPrior(latent_dim, "autoregressive")


def spline_flow(latent_dim: int = 20) -> FlowPrior:
    """A neural spline flow, for a learned shape with several modes: `FlowPrior`."""
    return FlowPrior(latent_dim, "spline")


PRIORS: dict[str, Callable[..., Any]] = {
    "normal": StandardNormalPrior,
    "laplace": LaplacePrior,
    "student-t": StudentTPrior,
    "uniform": UniformPrior,
    "spherical": SphericalPrior,
    "mixture": MixturePrior,
    "marginal-mixture": marginal_mixture,
    "stick-breaking": stick_breaking,
    "vamp": VampPrior,
    "coupling-flow": coupling_flow,
    "autoregressive-flow": autoregressive_flow,
    "spline-flow": spline_flow,
    "hierarchical": HierarchicalPrior,
    "conditional-normal": ConditionalNormalPrior,
    "codes": InfoGANPrior,
}
