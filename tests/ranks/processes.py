"""Runs source in several processes of one group."""

import multiprocessing
import uuid
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pyro_mivae.cli.commands", "torch._dynamo"])
BEGIN = """
import gc, sys, warnings
sys.path.insert(0, {root!r})
import torch
from torch import distributed
from pyro_mivae.networks import presets

torch.set_num_threads(1)
gc.freeze()  # every staging would visit the objects of the packages
presets._mlp_widths = lambda data_shape: (7, 7)
distributed.init_process_group(
    "gloo", init_method="file://{store}", rank={rank}, world_size={size}
)
rank, folder = {rank}, {folder!r}
"""
END = """
torch.save(result, "{place}")
distributed.barrier()
distributed.destroy_process_group()
"""


def start(source: str, folder: Path, size: int = 2) -> list[Any]:
    """Starts the processes, which know their ``rank`` and the ``folder``."""
    store = folder / f"store-{uuid.uuid4().hex}"
    processes = []
    for rank in range(size):
        how = {"root": str(ROOT), "folder": str(folder), "store": store, "rank": rank}
        begin, end = BEGIN.format(**how, size=size), END.format(place=folder / f"{rank}.pt")
        process = CONTEXT.Process(target=exec, args=(begin + source + end, {"__name__": "ranks"}))
        process.start()
        processes.append(process)
    return processes


def in_ranks(source: str, folder: Path, size: int = 2) -> list[Any]:
    """Returns the ``result`` of each process."""
    for process in (processes := start(source, folder, size)):
        process.join()
    assert [process.exitcode for process in processes] == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]
