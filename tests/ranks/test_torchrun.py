"""The command line under torchrun: one process prints, and ended processes start again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyro_mivae.training import read_checkpoint

from .processes import ROOT

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
TORCHRUN += ["--nproc-per-node", "2"]
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
    command = [*TORCHRUN]
    command += ["--max-restarts", "1", "-m", "--", "pyro_mivae", "train"]
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


@pytest.mark.slow
def test_the_script_of_the_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how_to" / "processes.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    (tmp_path / "script.py").write_text(script.replace("epochs=40", "epochs=1"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*TORCHRUN, "script.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(tmp_path / "runs" / "two")["epoch"] == 1
