"""The memory that a training needs, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STEPS = 4


def peak_memory(
    contender: str,
    variant: str,
    batch_size: int,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Measures the peak of a few steps; of a CPU on Linux alone.

    Args:
        contender: Who trains.
        variant: Name of the variant.
        batch_size: Images per step, 28 x 28 noise.
        device: ``"cpu"`` or ``"cuda"``.
        options: Options of the variant.

    Returns:
        MiB of ``"steps"``, and of their ``"preparation"``, compiling included. Of CUDA, what torch
        allocated; of a CPU, how far the process grew beyond torch with its compiler, the variant
        and the images.

    Raises:
        RuntimeError: If the process fails.
    """
    arguments = [contender, variant, str(batch_size), device, json.dumps(dict(options or {}))]
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    # What is freed goes back to the system at once, and so does not count as needed.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ran.stderr}")
    preparation, steps = map(float, ran.stdout.split()[-2:])
    return {"steps": steps, "preparation": preparation}


def main(argv: list[str]) -> None:
    """Trains for two turns, and prints the peak of each."""
    import torch
    import torch._inductor.compile_fx  # everybody has it, so that it is nobody's

    import pyro_mivae as mi
    from benchmarks.contenders import build
    from benchmarks.handwritten import HANDWRITTEN

    contender, variant, batch_size, device, options = argv
    torch.set_num_threads(1)
    vae = mi.VARIANTS[variant].build((1, 28, 28), **json.loads(options)).to(device)
    x = torch.rand(STEPS * int(batch_size), 1, 28, 28, device=device)
    turn: Any = build(contender, vae, HANDWRITTEN[variant], x, int(batch_size))
    read, reset = (
        (_allocated, _reset_allocated) if device == "cuda" else (resident, reset_resident)
    )
    before = 0.0 if device == "cuda" else read()
    for _ in range(2):
        reset()
        turn()
        print(read() - before)
    getattr(turn, "close", lambda: None)()


def resident() -> float:
    """The process's peak in MiB; rusage's would begin with that of the process it came from."""
    (line,) = (n for n in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in n)
    return int(line.split()[1]) / 1024


def reset_resident() -> None:
    """Lets the peak begin at what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def _allocated() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / 2**20


def _reset_allocated() -> None:
    import torch

    torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main(sys.argv[1:])
