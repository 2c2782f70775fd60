"""Reports of the figures that are tested here, and no others, which take their time."""

import pytest

from pyro_mivae.diagnostics import report
from pyro_mivae.diagnostics.elbo_parts import costs
from pyro_mivae.diagnostics.mi_bounds import dimensions, information_in_code


@pytest.fixture
def encoder_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Information reports of the costs and of the bounds in code and dimensions."""
    monkeypatch.setattr(report, "FAMILIES", (costs, information_in_code, dimensions))
