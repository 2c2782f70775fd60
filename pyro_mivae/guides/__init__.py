"""Guides: PyroModules that sample the sites of the code from the data."""

from pyro_mivae.guides.mean_field import (
    CorruptedGuide,
    MeanFieldGuide,
    NormalHead,
    mean_field_guide,
    normal_guide,
    uniform_guide,
)
from pyro_mivae.guides.mixture import MixtureGuide, mixture_guide
from pyro_mivae.guides.recognition import RecognitionGuide
from pyro_mivae.guides.truncated_normal import TruncatedNormal

GUIDES = {"mean-field": normal_guide, "uniform": uniform_guide, "mixture": MixtureGuide}

__all__ = [
    "GUIDES",
    "CorruptedGuide",
    "MeanFieldGuide",
    "MixtureGuide",
    "NormalHead",
    "RecognitionGuide",
    "TruncatedNormal",
    "mean_field_guide",
    "mixture_guide",
    "normal_guide",
    "uniform_guide",
]
