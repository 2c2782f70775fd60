"""Steps of one model per second, in one process and in several that divide its batches.

Every process has one thread. They take turns: the first one trains alone while the others wait;
then each trains a model of its own; then all train one together. A turn is an epoch of a training
that is staged or compiled as `mi.fit` chooses. Start and evaluation do not count. The speed-up is
that of all together over one alone, on the same batch. Its limit is what the machine gives to
processes that exchange nothing: the number of processes, times alone over apart.

    python -m benchmarks ranks
    python -m benchmarks ranks --processes 4 --variants infocat --batches 512
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import Any

from benchmarks.common import RESULTS, machine, parser, write

STEPS = 20
"""Steps of a turn."""
SHAPE = (1, 28, 28)
OPTIONS: dict[str, dict[str, Any]] = {"infocat": {"warm_start": 0}}


def measure(variant: str, batch_size: int, processes: int, turns: int) -> dict[str, Any]:
    """Times the epochs of one model.

    Args:
        variant: Name of the variant, or ``conv``, a VAE of convolutions.
        batch_size: Number of images in a whole batch.
        processes: Number of processes that train together.
        turns: Number of epochs of each contender.

    Returns:
        Seconds per step of each contender in each turn.
    """
    from torch.multiprocessing import spawn

    folder = Path(mkdtemp())
    spawn(_take_turns, (variant, batch_size, processes, turns, folder), processes)
    seconds = json.loads((folder / "seconds.json").read_text())
    return {
        "variant": variant,
        "batch_size": batch_size,
        "processes": processes,
        "seconds": seconds,
    }


def _take_turns(
    rank: int, variant: str, batch_size: int, processes: int, turns: int, folder: Path
) -> None:
    """Trains in one of the processes; the first one writes the times."""
    import torch
    from torch import distributed

    import pyro_mivae as mi
    from pyro_mivae.networks import build_networks
    from pyro_mivae.ranks import ALONE, Ranks
    from pyro_mivae.training import TrainingOptions
    from pyro_mivae.training.trainer import Trainer

    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=processes
    )
    x = torch.rand(STEPS * batch_size, *SHAPE, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {"alone": [], "apart": [], "together": []}
    trainers = {}
    for name, ranks in (("alone", ALONE), ("together", Ranks.of_group())):
        torch.manual_seed(0)
        if variant == "conv":
            encoder, decoder = build_networks("conv", SHAPE, 20)
            vae: Any = mi.VAE(SHAPE, latent_dim=20, encoder=encoder, decoder=decoder)
        else:
            vae = mi.VARIANTS[variant].build(SHAPE, **OPTIONS.get(variant, {}))
        options = TrainingOptions(epochs=100, batch_size=batch_size)  # long enough to stage
        device = torch.device("cpu")
        trainers[name] = Trainer(vae, {"x": x}, [], options, device, None, ranks)
    trainers["apart"] = trainers["alone"]
    for turn in range(turns + 2):  # the first two are staged and compiled
        for name in seconds:
            distributed.barrier()
            began = time.perf_counter()
            if name != "alone" or rank == 0:
                trainers[name].run_epoch()
            if turn > 1:
                seconds[name].append((time.perf_counter() - began) / STEPS)
    if rank == 0:
        (folder / "seconds.json").write_text(json.dumps(seconds))
    distributed.destroy_process_group()


def speed_ups(row: Mapping[str, Any]) -> list[float]:
    """Returns the speed-up of each turn.

    Args:
        row: What `measure` returned.
    """
    pairs = zip(row["seconds"]["alone"], row["seconds"]["together"], strict=True)
    return [alone / together for alone, together in pairs]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lays out the median over the turns, with the range of the speed-up.

    Args:
        rows: What `measure` returned.
    """
    lines = [
        "| variant | batch | processes | ms alone | apart | together | speed-up | limit |",
        "|" + " --- |" * 8,
    ]
    for row in rows:
        alone, apart, together = (1000 * median(turns) for turns in row["seconds"].values())
        found = speed_ups(row)
        cells = [row["variant"], row["batch_size"], row["processes"], f"{alone:.1f}"]
        cells += [f"{apart:.1f}", f"{together:.1f}"]
        cells += [f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})"]
        cells += [f"{row['processes'] * alone / apart:.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, writes the results, and prints the table.

    Args:
        argv: The command line.
    """
    command = parser("ranks", __doc__)
    command.add_argument("--variants", nargs="+", default=["vae", "infocat", "conv"])
    command.add_argument("--batches", nargs="+", type=int, default=[128, 1024])
    command.add_argument("--processes", type=int, default=2)
    command.add_argument("--turns", type=int, default=7)
    command.add_argument("--out", type=Path, default=RESULTS / f"ranks-cpu-{date.today()}.json")
    args = command.parse_args(argv)
    rows = []
    for variant in args.variants:
        for batch_size in args.batches:
            rows.append(measure(variant, batch_size, args.processes, args.turns))
            content = {"command": "python -m benchmarks ranks", "machine": machine()}
            write(args.out, content | {"rows": rows})
    print(table(rows))
