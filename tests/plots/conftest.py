"""Axes to draw on."""

import pytest

from pyro_mivae import plots


@pytest.fixture
def ax():
    return plots.new_figure()[1]
