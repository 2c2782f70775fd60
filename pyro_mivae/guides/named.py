"""Families by name."""

from __future__ import annotations

from pyro_mivae.guides.families import (
    Family,
    FullCovariance,
    GaussianMixture,
    LowRank,
    MeanField,
)
from pyro_mivae.guides.flows import CouplingFlow, InverseAutoregressiveFlow, SplineFlow

FAMILIES: dict[str, type[Family]] = {
    "mean-field": MeanField,
    "full-covariance": FullCovariance,
    "low-rank": LowRank,
    "iaf": InverseAutoregressiveFlow,
    "spline": SplineFlow,
    "affine-coupling": CouplingFlow,
    "gaussian-mixture": GaussianMixture,
}
