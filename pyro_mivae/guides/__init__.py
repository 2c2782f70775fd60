"""Guides: PyroModules that sample the sites of the code from the data."""

from pyro_mivae.guides.amortized import AmortizedGuide, MeanFieldGuide, MixtureGuide
from pyro_mivae.guides.corrupted import CorruptedGuide
from pyro_mivae.guides.families import (
    FAMILIES,
    Family,
    FullCovariance,
    GaussianMixture,
    LowRank,
    MeanField,
    OnSphere,
    PointMass,
    ProbitMeanField,
)
from pyro_mivae.guides.heads import NormalHead
from pyro_mivae.guides.recognition import RecognitionGuide

__all__ = [
    "FAMILIES",
    "AmortizedGuide",
    "CorruptedGuide",
    "Family",
    "FullCovariance",
    "GaussianMixture",
    "LowRank",
    "MeanField",
    "MeanFieldGuide",
    "MixtureGuide",
    "NormalHead",
    "OnSphere",
    "PointMass",
    "ProbitMeanField",
    "RecognitionGuide",
]
