"""Several processes take the steps of one process on the joined batches, to rounding."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from pyro_mivae.networks import presets
from pyro_mivae.ranks import ALONE

from .cases import RUNS, steps_of
from .processes import in_ranks

SOURCE = """
from tests.ranks.cases import RUNS, steps_of
from pyro_mivae.ranks import Ranks
import pyro

result = {}
with warnings.catch_warnings(action="ignore"):
    for name, engine in RUNS:
        pyro.clear_param_store()
        result[name, engine] = steps_of(name, Ranks.of_group(), engine)
"""


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The steps of all cases in each of two processes, once for all workers of pytest."""
    own: Path = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "ranks"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "1.pt").exists():
            return in_ranks(SOURCE, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.filterwarnings("ignore::pyro_mivae.errors.PyroMivaeWarning")
@pytest.mark.parametrize(("name", "engine"), RUNS)
def test_steps_of_two_processes_are_those_of_one(
    name: str, engine: str, found: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presets, "_mlp_widths", lambda data_shape: (7, 7))
    wanted = steps_of(name, ALONE, engine)
    for own in found:
        steps = own[name, engine]
        assert steps.keys() == wanted.keys()
        for key, value in wanted.items():
            # Gradients that are 0 round as the step's largest ones do.
            step = key.split()[0]
            size = max(float(v.abs().max()) for k, v in wanted.items() if k.split()[0] == step)
            torch.testing.assert_close(
                steps[key], value, rtol=1e-12, atol=1e-12 * max(size, 1.0), msg=key
            )
