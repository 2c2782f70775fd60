"""Guides: PyroModules that sample the sites of the code from the data."""

from pyro_mivae.guides.corrupted import CorruptedGuide
from pyro_mivae.guides.mean_field import (
    MeanFieldGuide,
    NormalHead,
    normal_guide,
    uniform_guide,
)
from pyro_mivae.guides.mixture import MixtureGuide

GUIDES = {"mean-field": normal_guide, "uniform": uniform_guide, "mixture": MixtureGuide}

__all__ = [
    "GUIDES",
    "CorruptedGuide",
    "MeanFieldGuide",
    "MixtureGuide",
    "NormalHead",
    "normal_guide",
    "uniform_guide",
]
