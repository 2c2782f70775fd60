"""The command line under torchrun: one process prints, and ended processes start again."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyro_mivae.training import read_checkpoint

from .processes import ROOT

PRIOR = """
import os, signal
from pathlib import Path
import pyro_mivae as mi

DRAWS = []

class Deadly(mi.StandardNormalPrior):
    "Kills the second process at its fortieth draw, once."
    def forward(self):
        DRAWS.append(0)
        mark = Path("mark")
        if os.environ["RANK"] == "1" and len(DRAWS) == 40 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward()
"""


@pytest.mark.slow
def test_a_process_that_ends_is_started_again(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((120, 4, 4), dtype="f4")
    np.savez(tmp_path / "few.npz", images=images)
    (tmp_path / "own.py").write_text(PRIOR)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "--master-port", "29531", "-m", "--", "pyro_mivae", "train"]
    command += ["vae", "--data", "few.npz", "--prior", "own.py:Deadly", "--latent-dim", "2"]
    command += ["--epochs", "12", "--batch-size", "32", "--engine", "eager", "--resume"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for run in ("killed", "whole"):
        done = subprocess.run(
            [*command, "--run", run],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("nats per test datum") == 1
        assert done.stdout.count("written to") == 1
    assert (tmp_path / "mark").exists()
    killed, whole = (read_checkpoint(tmp_path / run)["weights"] for run in ("killed", "whole"))
    assert all(killed[name].equal(value) for name, value in whole.items())
