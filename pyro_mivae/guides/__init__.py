"""Guides: PyroModules that sample the sites of the code from the data."""

from pyro_mivae.guides.amortized import AmortizedGuide, MeanFieldGuide, MixtureGuide
from pyro_mivae.guides.corrupted import CorruptedGuide
from pyro_mivae.guides.families import (
    Family,
    FullCovariance,
    GaussianMixture,
    LowRank,
    MeanField,
    OnSphere,
    PointMass,
    ProbitMeanField,
)
from pyro_mivae.guides.flows import CouplingFlow, InverseAutoregressiveFlow, SplineFlow
from pyro_mivae.guides.heads import NormalHead
from pyro_mivae.guides.named import FAMILIES
from pyro_mivae.guides.recognition import RecognitionGuide

__all__ = [
    "FAMILIES",
    "AmortizedGuide",
    "CorruptedGuide",
    "CouplingFlow",
    "Family",
    "FullCovariance",
    "GaussianMixture",
    "InverseAutoregressiveFlow",
    "LowRank",
    "MeanField",
    "MeanFieldGuide",
    "MixtureGuide",
    "NormalHead",
    "OnSphere",
    "PointMass",
    "ProbitMeanField",
    "RecognitionGuide",
    "SplineFlow",
]
